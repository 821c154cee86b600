/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The maps, and the constants user space sets before load. Sizes given as 1 are
 * set by user space from its limits.
 */
#ifndef SHUNT_MAPS_H
#define SHUNT_MAPS_H

#include <bpf/bpf_helpers.h>

#include "arguments.h"
#include "layouts.h"

#define MAP(name, map_type, key_type, value_type, entries) \
	struct {                                           \
		__uint(type, map_type);                    \
		__uint(max_entries, entries);              \
		__type(key, key_type);                     \
		__type(value, value_type);                 \
	} name SEC(".maps")

/* As MAP; user space reads it without a system call. */
#define SHARED_MAP(name, map_type, key_type, value_type, entries) \
	struct {                                                  \
		__uint(type, map_type);                           \
		__uint(max_entries, entries);                     \
		__uint(map_flags, BPF_F_MMAPABLE);                \
		__type(key, key_type);                            \
		__type(value, value_type);                        \
	} name SEC(".maps")

MAP(connections4, BPF_MAP_TYPE_ARRAY, __u32, struct group4, 1);
MAP(connections6, BPF_MAP_TYPE_ARRAY, __u32, struct group6, 1);
/* The tables before these, of another size or layout, while their connections come over (carry.h). */
MAP(carried4, BPF_MAP_TYPE_ARRAY, __u32, struct carried_group4, 1);
MAP(carried6, BPF_MAP_TYPE_ARRAY, __u32, struct carried_group6, 1);
SHARED_MAP(carried_traffic4, BPF_MAP_TYPE_ARRAY, __u32, struct carried_traffic, 1);
SHARED_MAP(carried_traffic6, BPF_MAP_TYPE_ARRAY, __u32, struct carried_traffic, 1);
/* By group, and one more; of one element where connections are not counted. */
SHARED_MAP(connection_traffic4, BPF_MAP_TYPE_ARRAY, __u32, struct group_traffic, 1);
SHARED_MAP(connection_traffic6, BPF_MAP_TYPE_ARRAY, __u32, struct group_traffic, 1);
SHARED_MAP(table_states, BPF_MAP_TYPE_ARRAY, __u32, struct table_state, 2);
MAP(service_index, BPF_MAP_TYPE_HASH, struct service_key, __u32, 1);
/* By hash of address and port: the index of the service last found there. Only a hint. */
#define SERVICE_HINTS 16384
MAP(service_hints, BPF_MAP_TYPE_ARRAY, __u32, __u32, SERVICE_HINTS);
SHARED_MAP(services, BPF_MAP_TYPE_ARRAY, __u32, struct service, 1);
SHARED_MAP(servers, BPF_MAP_TYPE_ARRAY, __u32, struct server, 1);
SHARED_MAP(timeouts, BPF_MAP_TYPE_ARRAY, __u32, struct timeout_set, 1); /* by service */
SHARED_MAP(limits, BPF_MAP_TYPE_ARRAY, __u32, struct service_limits, 1); /* by service, as the next */
SHARED_MAP(service_states, BPF_MAP_TYPE_ARRAY, __u32, struct service_state, 1);
MAP(sources, BPF_MAP_TYPE_LRU_HASH, struct source_key, struct source, 1);
/* Clients that have answered the guard, and the tick of that. */
MAP(validated, BPF_MAP_TYPE_LRU_HASH, struct client_key, __u32, 1);
/* By an address's bit of the filter: the last tick at which a client that has it did. */
MAP(validated_hints, BPF_MAP_TYPE_ARRAY, __u32, __u32, FILTER_BITS);
/* struct connection_news; only while somebody watches. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} news SEC(".maps");
MAP(destinations, BPF_MAP_TYPE_HASH, struct destination_key, struct destination, 1);
/* Where a new element of destinations is made: it does not fit the stack, nor a lock this map. */
typedef __u32 destination_words[sizeof(struct destination) / sizeof(__u32)];
MAP(new_destination, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, destination_words, 1);
SHARED_MAP(loads, BPF_MAP_TYPE_ARRAY, __u32, struct server_load, 1);
SHARED_MAP(evidence, BPF_MAP_TYPE_ARRAY, __u32, struct testimony, 1); /* by server */
SHARED_MAP(passive, BPF_MAP_TYPE_ARRAY, __u32, struct passive_limits, 1); /* by service */
SHARED_MAP(recounts, BPF_MAP_TYPE_ARRAY, __u32, struct recount, 1);
SHARED_MAP(hop_uses, BPF_MAP_TYPE_ARRAY, __u32, __u32, HOPS);
MAP(server_traffic, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct traffic, 1);
/* User space only: by service, what its removed servers had counted. */
SHARED_MAP(retired_traffic, BPF_MAP_TYPE_ARRAY, __u32, struct traffic, 1);
/* User space only: by server, what its counters were when they were set to zero. */
SHARED_MAP(zeroed_traffic, BPF_MAP_TYPE_ARRAY, __u32, struct traffic, 1);
SHARED_MAP(words, BPF_MAP_TYPE_ARRAY, __u32, __u32, 1);
SHARED_MAP(hops, BPF_MAP_TYPE_ARRAY, __u32, struct hop, HOPS);
MAP(options, BPF_MAP_TYPE_ARRAY, __u32, struct packet_options, 1);
SHARED_MAP(tunnels, BPF_MAP_TYPE_ARRAY, __u32, struct tunnel, 1);
MAP(tunnel_index, BPF_MAP_TYPE_HASH, struct tunnel_key, __u32, 1);
SHARED_MAP(locals, BPF_MAP_TYPE_ARRAY, __u32, struct local_address, LOCALS);
MAP(fragments, BPF_MAP_TYPE_LRU_HASH, struct fragment_key, struct fragment, 1);
/* Nanoseconds of the monotonic clock: bpf/capture is in the place of shunt_root, and shows packets until then; 0: it is
 * not. */
SHARED_MAP(watched_until, BPF_MAP_TYPE_ARRAY, __u32, __u64, 1);
SHARED_MAP(drops, BPF_MAP_TYPE_ARRAY, __u32, struct drop_row, DROP_ROWS); /* of each CPU */
/* What becomes of echo requests: enum echo. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct virtual_key);
	__type(value, __u32);
} virtual_addresses SEC(".maps");
/* Which services a prefix of virtual addresses has. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct match_key);
	__type(value, struct match);
} matches SEC(".maps");
/* Which clients a service lets in: enum access_verdict. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct access_key);
	__type(value, __u32);
} access SEC(".maps");
MAP(events, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, __u64, EVENTS);
MAP(ports, BPF_MAP_TYPE_DEVMAP_HASH, __u32, __u32, 256);
MAP(slots, BPF_MAP_TYPE_PROG_ARRAY, __u32, __u32, PROGRAM_SLOTS);
MAP(answer_budgets, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, __u64, 1);

struct settings current SEC(".data.settings");
struct filter ours SEC(".data.filter");

volatile const __u32 groups4; /* elements of connections4 */
volatile const __u32 groups6;
volatile const __u32 carried_groups4; /* elements of carried4; 0: nothing comes over */
volatile const __u32 carried_groups6;
volatile const __u32 carried_layout; /* their ABI version */
volatile const __u8 carried_counts; /* carried_traffic4 and 6 have an element for each group, as they had */
volatile const __u8 counts_connections; /* connection_traffic4 and 6 have an element for each group */
volatile const __u32 tick_shift; /* a tick is 2^tick_shift jiffies: about a quarter second */
volatile const __u32 refresh_ticks; /* about one second */
volatile const __u32 set_ticks; /* after so many without a change lblcr's set loses a member: a day */
/* Of the tables' hash, and of the guard's cookies: odd or even, secret, constant while the tables live. */
#define GUARD_SEED 11
volatile const __u64 seeds[GUARD_SEED + 1];
volatile const __u32 slot_set; /* the first of the slots this program goes on to */
/* Set on machines that reorder loads with loads and stores with stores (arm64). */
volatile const __u8 weakly_ordered;

#endif
