/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Schedulers: which server a new connection gets, exactly as the kernel's IPVS
 * chooses (kernel: net/netfilter/ipvs/ip_vs_rr.c, _wrr.c, _sh.c, _mh.c). One
 * more algorithm is one more function here and one more case in pick(); those
 * that compare servers' loads walk the list as rr does and read loads[].
 */
#ifndef SHUNT_SCHEDULE_H
#define SHUNT_SCHEDULE_H

#include "count.h"
#include "siphash.h"
#include "table.h"

#define CURSOR_TRIES 4
#define MAX_SERVICE_SERVERS 1024
#define HASH_32_MULTIPLIER 0x61C88647 /* GOLDEN_RATIO_32, kernel: include/linux/hash.h */
#define SH_BITS 8 /* IP_VS_SH_TAB_BITS */
#define MH_KEY 2654435761U /* kernel: ip_vs_mh.c, ip_vs_mh_state.hash1 */

struct pick_request {
	__u32 service; /* index */
	__u32 client; /* address in host order; IPv6: its words xor-ed first */
	__u32 attempt; /* 0, or how many servers could not be taken for this packet */
	__u32 client_port;
	__u32 destination[4]; /* the virtual address, as on the wire */
	__u32 is_trial; /* nothing may be changed: no cursor moves, no cache learns */
};

static __always_inline __u32 load_word(__u32 index)
{
	__u32 *word = bpf_map_lookup_elem(&words, &index);

	return word ? LOAD(word) : 0;
}

/* A walk over a server list. */
struct walk {
	__u32 list;
	__u32 servers;
	__u32 position; /* rr: where to begin; out: where the server stands */
	__u32 server; /* out: 0 if none is eligible */
	/* wrr's loop (kernel: ip_vs_wrr_schedule) */
	__s32 weight;
	__s32 max_weight;
	__s32 gcd;
	__s32 began; /* -1: at the head */
	__s32 stop; /* -1: no position to end at */
	__u32 last_pass;
	__u32 restarted;
};

static long rr_step(__u32 i, struct walk *walk)
{
	__u32 position = walk->position + i;

	if (position >= walk->servers)
		position -= walk->servers;
	if (!load_word(walk->list + 2 * position + 1))
		return 0;
	walk->server = load_word(walk->list + 2 * position);
	walk->position = position;
	return 1;
}

/* The first eligible server from position on, once around. */
static __always_inline void walk_rr(struct walk *walk)
{
	walk->server = 0;
	if (walk->position >= walk->servers)
		walk->position = 0;
	if (walk->servers && !rr_step(0, walk))
		bpf_loop(walk->servers, rr_step, walk, 0);
}

static long wrr_step(__u32 i, struct walk *walk)
{
	if (walk->position >= walk->servers) {
		walk->weight -= walk->gcd;
		if (walk->weight <= 0) {
			walk->weight = walk->max_weight;
			if (walk->last_pass || walk->began < 0)
				return 1;
			walk->restarted = 1;
		}
		walk->last_pass = walk->weight <= walk->gcd;
		if (walk->last_pass && walk->restarted && walk->began >= 0)
			walk->stop = walk->began;
		walk->position = 0;
		return 0;
	}
	if ((__s32)load_word(walk->list + 2 * walk->position + 1) >= walk->weight) {
		walk->server = load_word(walk->list + 2 * walk->position);
		return 1;
	}
	if ((__s32)walk->position == walk->stop)
		return 1;
	walk->position++;
	return 0;
}

/* The server whose turn it is by weight. */
static __always_inline void walk_wrr(struct walk *walk)
{
	walk->server = 0;
	if (walk->max_weight <= 0 || wrr_step(0, walk))
		return;
	/* The heaviest server ends the walk in its second pass at the latest. */
	bpf_loop(2 * MAX_SERVICE_SERVERS + 4, wrr_step, walk, 0);
}

/* One try: the server whose turn it is, and *next, the cursor that follows *cursor. Global: verified once. */
__noinline __u32 take_turn(__u32 index, __u64 *cursor, __u64 *next, __u32 weighted)
{
	struct service *service = bpf_map_lookup_elem(&services, &index);
	const struct schedule *schedule;
	struct walk walk = {};

	if (!service || !cursor || !next)
		return 0;
	*cursor = LOAD(&service->cursor);
	schedule = &service->schedule[*cursor >> CURSOR_HALF & 1];
	walk.list = schedule->list;
	walk.servers = schedule->servers;
	/* The cursor's position is one past the last server's, so it is the next one's. */
	walk.position = *cursor >> CURSOR_POSITION & 0xffff;
	*next = *cursor & BIT(CURSOR_HALF);
	if (weighted) {
		walk.weight = (__u32)*cursor;
		walk.max_weight = schedule->max_weight;
		walk.gcd = schedule->gcd;
		walk.began = (__s32)walk.position - 1;
		walk.stop = -1;
		walk_wrr(&walk);
		*next |= (__u32)walk.weight;
	} else {
		walk_rr(&walk);
	}
	*next |= (__u64)(walk.position + 1) << CURSOR_POSITION;
	return walk.server;
}

/* rr and wrr: walk on from the cursor and leave it where the server stands. */
static __always_inline __u32 pick_in_turn(__u32 index, struct service *service, const int weighted)
{
	__u32 server = 0;

	for (int i = 0; i < CURSOR_TRIES; i++) {
		__u64 cursor = 0, next = 0;

		server = take_turn(index, &cursor, &next, weighted);
		if (!server || __sync_val_compare_and_swap(&service->cursor, cursor, next) == cursor)
			return server;
	}
	count(EVENT_NOTE_CURSOR_CONTENDED);
	return server;
}

/* The server's index if it may be given connections, else 0. */
static __always_inline __u32 if_available(__u32 index)
{
	struct server *server = bpf_map_lookup_elem(&servers, &index);

	return index && server && server->offered_weight && server->life == LIFE_LIVE ? index : 0;
}

static __always_inline __u32 sh_slot(__u32 offset, __u32 value)
{
	return (offset + ((value * HASH_32_MULTIPLIER) >> (32 - SH_BITS))) & ((1 << SH_BITS) - 1);
}

struct fallback {
	__u32 table;
	__u32 slots;
	__u32 value; /* what is hashed */
	__u32 offset; /* where the first try, at offset 0, pointed */
	__u32 server; /* out */
	__u32 is_mh;
};

static __always_inline __u32 hash_slot(const struct fallback *f, __u32 offset)
{
	/* mh adds the offset before it hashes, sh after (kernel: ip_vs_mh_hashkey, ip_vs_sh_hashkey). */
	return f->is_mh ? hsiphash_1u32(f->value + offset, MH_KEY) % f->slots : sh_slot(offset, f->value);
}

static long fallback_step(__u32 i, struct fallback *f)
{
	__u32 server;

	if (!f->slots)
		return 1;
	server = load_word(f->table + hash_slot(f, (i + f->offset) % f->slots));
	if (!server)
		return 1;
	f->server = if_available(server);
	return f->server != 0;
}

/* sh and mh: the server the table names for the client. */
static __always_inline __u32 pick_by_hash(const struct pick_request *r, const struct service *service, const int is_mh)
{
	const struct schedule *schedule = &service->schedule[LOAD(&service->cursor) >> CURSOR_HALF & 1];
	struct fallback f = { .is_mh = is_mh };
	__u32 slot;

	f.table = schedule->table;
	f.slots = schedule->slots;
	f.value = r->client + (service->flags & SERVICE_HASH_PORT ? r->client_port : 0);
	if (!f.slots)
		return 0;
	slot = hash_slot(&f, 0);
	f.server = if_available(load_word(f.table + slot));
	if (f.server || !(service->flags & SERVICE_FALLBACK))
		return f.server;
	f.offset = slot;
	bpf_loop(f.slots, fallback_step, &f, 0);
	return f.server;
}

/* Another server of the service than the hash names, as good as any. */
static __always_inline __u32 pick_other(const struct pick_request *r, const struct service *service)
{
	const struct schedule *schedule = &service->schedule[LOAD(&service->cursor) >> CURSOR_HALF & 1];
	struct walk walk = { .list = schedule->list, .servers = schedule->servers };

	if (!walk.servers)
		return 0;
	walk.position = (r->client + r->attempt) % walk.servers;
	walk_rr(&walk);
	return walk.server;
}

/* Index of the server for a new connection; 0: none is available. */
__noinline __u32 pick(struct pick_request *r)
{
	struct service *service;
	__u32 index;

	if (!r)
		return 0;
	index = r->service;
	service = bpf_map_lookup_elem(&services, &index);
	if (!service)
		return 0;
	switch (service->scheduler) {
	case SCHEDULER_RR:
		return pick_in_turn(index, service, 0);
	case SCHEDULER_WRR:
		return pick_in_turn(index, service, 1);
	case SCHEDULER_SH:
		return r->attempt ? pick_other(r, service) : pick_by_hash(r, service, 0);
	case SCHEDULER_MH:
		return r->attempt ? pick_other(r, service) : pick_by_hash(r, service, 1);
	default:
		return 0;
	}
}

#endif
