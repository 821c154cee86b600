/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * fo, ovf: the server of the greatest weight, the first of equals; ovf passes over
 * those with more active connections than their weight (kernel:
 * net/netfilter/ipvs/ip_vs_fo.c, _ovf.c).
 */
#ifndef SHUNT_SCHEDULERS_GREATEST_H
#define SHUNT_SCHEDULERS_GREATEST_H

#include "request.h"

struct greatest {
	__u32 list;
	__u32 weight;
	__u32 server; /* out: 0 if none is eligible */
};

/* None of the service's servers yet. */
static __always_inline struct greatest greatest_of(const struct pick_request *r)
{
	return (struct greatest){ .list = r->schedule.list, .weight = nothing(r), .server = nothing(r) };
}

static long fo_step(__u32 i, struct greatest *greatest)
{
	struct candidate c = candidate_at(greatest->list, i);

	if (c.server && c.weight > greatest->weight) {
		greatest->server = c.server;
		greatest->weight = c.weight;
	}
	return 0;
}

static long ovf_step(__u32 i, struct greatest *greatest)
{
	struct candidate c = candidate_at(greatest->list, i);

	if (c.server && c.weight > greatest->weight && active_of(c.load) <= c.weight) {
		greatest->server = c.server;
		greatest->weight = c.weight;
	}
	return 0;
}

__noinline __u32 pick_fo(struct pick_request *r)
{
	struct greatest greatest;

	if (!r)
		return 0;
	greatest = greatest_of(r);
	bpf_loop(r->schedule.servers, fo_step, &greatest, 0);
	return greatest.server;
}

__noinline __u32 pick_ovf(struct pick_request *r)
{
	struct greatest greatest;

	if (!r)
		return 0;
	greatest = greatest_of(r);
	bpf_loop(r->schedule.servers, ovf_step, &greatest, 0);
	return greatest.server;
}

#endif
