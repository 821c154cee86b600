/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * twos: two servers drawn by weight, of which the less loaded (kernel:
 * net/netfilter/ipvs/ip_vs_twos.c). The draws go from 0 to the sum of weights,
 * both included, as the kernel's do: the first server is drawn one unit too often.
 */
#ifndef SHUNT_SCHEDULERS_TWOS_H
#define SHUNT_SCHEDULERS_TWOS_H

#include "request.h"

struct sum {
	__u32 list;
	__u32 weights;
	__u32 last; /* eligible server */
};

static long sum_step(__u32 i, struct sum *sum)
{
	struct candidate c = candidate_at(sum->list, i);

	if (c.server) {
		sum->weights += c.weight;
		sum->last = c.server;
	}
	return 0;
}

/* One of the two draws. */
struct draw {
	__s32 left; /* of the number drawn, less the weights passed */
	__s32 weight; /* of the server; 0: not met yet */
	__s32 overhead;
	__u32 server;
};

struct draws {
	struct draw first, second;
	__u32 list;
};

static __always_inline void pass(struct draw *draw, const struct candidate *c)
{
	if (draw->weight)
		return;
	draw->left -= c->weight;
	if (draw->left > 0)
		return;
	draw->server = c->server;
	draw->weight = c->weight;
	draw->overhead = overhead_of(c->load);
}

static long draw_step(__u32 i, struct draws *draws)
{
	struct candidate c = candidate_at(draws->list, i);

	if (!c.server)
		return 0;
	pass(&draws->first, &c);
	pass(&draws->second, &c);
	return draws->first.weight && draws->second.weight;
}

__noinline __u32 pick_twos(struct pick_request *r)
{
	struct draws draws = {};
	struct sum sum = {};

	if (!r)
		return 0;
	sum.list = draws.list = r->schedule.list;
	draws.first.weight = draws.second.weight = nothing(r);
	bpf_loop(r->schedule.servers, sum_step, &sum, 0);
	if (!sum.last)
		return 0;
	draws.first.left = bpf_get_prandom_u32() % (sum.weights + 1);
	draws.second.left = bpf_get_prandom_u32() % (sum.weights + 1);
	bpf_loop(r->schedule.servers, draw_step, &draws, 0);
	/* Both are met unless a server became overloaded since the sum was made. */
	if (!draws.first.server)
		return sum.last;
	/* The kernel's products have 32 bits. */
	if (draws.second.server && (__s32)((__u32)draws.second.weight * (__u32)draws.first.overhead) >
					   (__s32)((__u32)draws.first.weight * (__u32)draws.second.overhead))
		return draws.second.server;
	return draws.first.server;
}

#endif
