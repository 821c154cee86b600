/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * lc, wlc, sed, nq: the least loaded server, the first of equals (kernel:
 * net/netfilter/ipvs/ip_vs_lc.c, _wlc.c, _sed.c, _nq.c). The load is of all
 * connections (lc, wlc) or the active ones and the one to come (sed, nq), by
 * weight but for lc; nq takes the first idle server instead. Loads by weight are
 * compared as load * the other's weight.
 */
#ifndef SHUNT_SCHEDULERS_LEAST_H
#define SHUNT_SCHEDULERS_LEAST_H

#include "request.h"

struct least {
	__s64 load; /* of the server */
	__u32 weight;
	__u32 server; /* out: 0 if none is eligible */
	__u32 list;
};

/* Takes the candidate if its load is less. */
static __always_inline void consider(struct least *least, const struct candidate *c, __s64 load, __u32 weight)
{
	if (least->server && least->load * weight <= load * least->weight)
		return;
	least->server = c->server;
	least->load = load;
	least->weight = weight;
}

/* None of the service's servers yet. */
static __always_inline struct least least_of(const struct pick_request *r)
{
	return (struct least){
		.load = nothing(r),
		.weight = nothing(r),
		.server = nothing(r),
		.list = r->schedule.list,
	};
}

static long lc_step(__u32 i, struct least *least)
{
	struct candidate c = candidate_at(least->list, i);

	if (c.server)
		consider(least, &c, overhead_of(c.load), 1);
	return 0;
}

static long wlc_step(__u32 i, struct least *least)
{
	struct candidate c = candidate_at(least->list, i);

	if (c.server)
		consider(least, &c, overhead_of(c.load), c.weight);
	return 0;
}

static long sed_step(__u32 i, struct least *least)
{
	struct candidate c = candidate_at(least->list, i);

	if (c.server)
		consider(least, &c, active_of(c.load) + 1, c.weight);
	return 0;
}

static long nq_step(__u32 i, struct least *least)
{
	struct candidate c = candidate_at(least->list, i);
	__s64 active;

	if (!c.server)
		return 0;
	active = active_of(c.load);
	if (!active) {
		least->server = c.server;
		return 1;
	}
	consider(least, &c, active + 1, c.weight);
	return 0;
}

/* The server that the step makes of the list. */
static __always_inline __u32 pick_least(struct pick_request *r, long (*step)(__u32, struct least *))
{
	struct least least;

	if (!r)
		return 0;
	least = least_of(r);
	bpf_loop(r->schedule.servers, step, &least, 0);
	return least.server;
}

__noinline __u32 pick_lc(struct pick_request *r)
{
	return pick_least(r, lc_step);
}

__noinline __u32 pick_wlc(struct pick_request *r)
{
	return pick_least(r, wlc_step);
}

__noinline __u32 pick_sed(struct pick_request *r)
{
	return pick_least(r, sed_step);
}

__noinline __u32 pick_nq(struct pick_request *r)
{
	return pick_least(r, nq_step);
}

#endif
