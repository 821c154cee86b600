/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the fast path leaves to the slow path, and the space that works in: it
 * does not fit a stack of 512 bytes, so each CPU has one in a map. XDP programs
 * do not interrupt one another on a CPU, but packets may interrupt a program that
 * user space runs: that has a space of its own.
 */
#ifndef SHUNT_SLOW_H
#define SHUNT_SLOW_H

#include "insert.h"
#include "hop.h"
#include "schedule.h"

/* What a packet is a piece of. */
enum piece {
	PIECE_WHOLE,
	PIECE_FIRST, /* of the datagram that fragment names */
	PIECE_LATER, /* a fragment but the first: there is nothing at l4 */
};

/* What allocate looks for; its space is here too. */
struct local_search {
	__u64 recipe; /* of the connection */
	__u32 space; /* ports of all addresses that are offered */
	__u32 first; /* place of the first address */
	__u32 own; /* the first candidate */
	__u32 start;
	__u32 stride;
	__u32 word; /* out */
	__u16 ports; /* of an address, */
	__u16 first_port; /* from this one on, host order */
	__u32 is_found;
};

struct slow {
	/* The packet, as struct packet has it, with offsets from the frame's start. */
	struct key key;
	__u32 hash; /* of the key */
	__u32 l3;
	__u32 l4;
	__u32 tick;
	__u16 length;
	__be16 outer_vlan;
	__be16 inner_vlan;
	__u8 protocol;
	__u8 tcp_flags;
	__u8 is_v6;
	__u8 is_virtual; /* the destination may be a service's */
	__u8 is_validated; /* admit's: its client has answered the guard */
	__u8 is_counted; /* admit's: its source network's count has it, or give_back_source takes it from there */

	/* What note_packet clears, in one go. */
	__u8 is_new; /* out: the connection was made for this packet */
	__u8 is_trial; /* what would become of the packet is asked: nothing may be changed */
	__u8 is_admitted; /* it begins a connection: for shunt_carry */
	__u8 piece; /* enum piece */

	__u32 mss; /* create's and settle's, of a first segment: its service's */
	__u32 hop; /* out: reference to the client's next hop */
	__u32 local; /* out: by full NAT, what stands in for the client (local_layout) */
	__u32 has_suspended; /* create's: servers of the service may be */
	__u64 recipe; /* out: to be followed */

	/* settle's */
	struct lookup hit;
	struct lookup other;
	/* create's */
	struct pick_request pick;
	struct insert_request forward;
	struct insert_request reply;
	struct insert_request made; /* a template's */
	struct lookup template; /* the client's; recipe 0: none has the connection */
	__u32 chosen; /* the server's index */
	__u32 method;
	__u32 decided_by; /* enum decider: who chose it */
	__u32 sequence; /* admit's and settle's: of a TCP segment, host order; a trial has none */
	__u32 acknowledged; /* likewise */
	__u32 is_stateless; /* no entry is made for it: it goes where the hash says */
	/* settle's, for create: connections that were there; recipe 0: none */
	__u64 old; /* one that ends as soon as there is another */
	__u32 old_group;
	__u32 old_slot;
	__u64 dead; /* one that had expired, and is there still because this is a trial */

	/* follow's: the server of a connection with RECIPE_WIDE, made to measure */
	struct server own;

	struct load_entry loading; /* load's */
	__u32 pad2;

	/* shunt_fragment's */
	struct fragment_key fragment;
	__u16 begin; /* where its octets are in the datagram, */
	__u16 header; /* and where the transport header ends there */

	struct local_search search; /* allocate's */
	struct link_view link;
	struct parsed parsed;
	struct drop_note drop; /* finish.h's, and bpf/capture's */
	__u64 fib[8]; /* struct bpf_fib_lookup: its unnamed unions have no Go type */
};

_Static_assert(sizeof(struct bpf_fib_lookup) == 64, "see struct slow");

enum scratch {
	SCRATCH_PACKETS,
	SCRATCH_CONTROL,
	SCRATCHES,
};

MAP(scratch, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct slow, SCRATCHES);

static __always_inline struct slow *slow_scratch(void)
{
	__u32 index = SCRATCH_PACKETS;

	return bpf_map_lookup_elem(&scratch, &index);
}

#endif
