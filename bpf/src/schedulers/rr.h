/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * rr: the eligible server after the last one (kernel: net/netfilter/ipvs/ip_vs_rr.c).
 */
#ifndef SHUNT_SCHEDULERS_RR_H
#define SHUNT_SCHEDULERS_RR_H

#include "cursor.h"

struct round {
	__u32 list;
	__u32 servers;
	__u32 position; /* where to begin; out: where the server stands */
	__u32 server; /* out: 0 if none is eligible */
};

static long round_step(__u32 i, struct round *round)
{
	__u32 position = round->position + i;
	struct candidate c;

	if (position >= round->servers)
		position -= round->servers;
	c = candidate_at(round->list, position);
	if (!c.server)
		return 0;
	round->server = c.server;
	round->position = position;
	return 1;
}

/* The first eligible server from position on, once around. */
static __always_inline struct round go_round(const struct pick_request *r, __u32 position)
{
	struct round round = {
		.list = r->schedule.list,
		.servers = r->schedule.servers,
		.position = position < r->schedule.servers ? position : 0,
	};

	/* Most often it is the first: that costs no loop. */
	if (round.servers && !round_step(0, &round))
		bpf_loop(round.servers, round_step, &round, 0);
	return round;
}

/* One try. Leaves the cursor where it was if there is no server, as the kernel does. */
static __always_inline __u32 turn_rr(struct pick_request *r)
{
	struct round round = go_round(r, next_position(r));

	r->next = round.server ? cursor_at(r, round.position + 1, 0) : r->cursor;
	return round.server;
}

/* Part of pick, whose service it is: most connections come by here. */
static __always_inline __u32 pick_rr(struct pick_request *r, struct service *service)
{
	__u32 server = 0;

	for (int i = 0; i < CURSOR_TRIES; i++) {
		server = turn_rr(r);
		if (move_cursor(r, service))
			return server;
	}
	count(EVENT_NOTE_CURSOR_CONTENDED);
	return server;
}

/* A server other than the first choice, as good as any: that one's reply key is taken. */
__noinline __u32 pick_other(struct pick_request *r)
{
	if (!r || !r->schedule.servers)
		return 0;
	return go_round(r, (r->client + r->attempt) % r->schedule.servers).server;
}

#endif
