/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What packets tell of servers, and what follows: a server of which enough is told
 * within a time, by its service's limits (struct passive_limits), is suspended in that
 * same packet. New connections pass it over as they do one that is overloaded, templates
 * are not followed to it, until its time is over; what is established goes on. No daemon
 * is needed for any of it.
 *
 * Where all that could be chosen are suspended, all suspensions end: a try is better than
 * none, and the first that answers has the connections from then on.
 *
 * What a client can make a server that is well do is no evidence. So a reset counts only
 * as the answer to a SYN (RFC 9293 §3.10.7.1: it acknowledges, where one to a segment
 * with ACK does not), and a SYN that is sent again only if its server has not answered the
 * one before. Replies of other methods than NAT are not seen: of those a SYN that is sent
 * again counts, answered or not, and no reset does.
 */
#ifndef SHUNT_WITNESS_H
#define SHUNT_WITNESS_H

#include "connection.h"

/* Whether anything is counted of the service's servers. */
static __always_inline int has_limits(const struct passive_limits *limit)
{
	return !!(limit->most[0] | limit->most[1] | limit->most[2]);
}

static __always_inline void forget_recent(struct testimony *e)
{
#pragma unroll
	for (int i = 0; i < EVIDENCES; i++)
		STORE(&e->recent[i], 0);
}

/* Suspends the server, unless it is; what it is suspended for does not count once more. */
static __always_inline void suspend(struct testimony *e, struct server_load *load, struct service_state *state,
				    const struct passive_limits *limit, __u32 now)
{
	if (LOAD(&load->unfit) & UNFIT_SUSPENDED)
		return;
	forget_recent(e);
	STORE(&e->until, now + limit->suspend);
	order();
	if (!(__sync_fetch_and_or(&load->unfit, UNFIT_SUSPENDED) & UNFIT_SUSPENDED)) {
		__sync_fetch_and_add(&e->suspensions, 1);
		count(EVENT_NOTE_SERVER_SUSPENDED);
	}
	/* After the bit: see pardon. */
	STORE(&state->suspended_tick, now + !now);
}

/*
 * Notes that a packet has told that of the server. Windows follow one another: the first
 * evidence after the end of one begins the next. Global: verified once.
 */
__noinline int witness(__u32 index, __u32 kind)
{
	struct server *server = bpf_map_lookup_elem(&servers, &index);
	struct server_load *load = bpf_map_lookup_elem(&loads, &index);
	struct testimony *e = bpf_map_lookup_elem(&evidence, &index);
	__u32 service, now = now_tick(), began, n;
	struct passive_limits *limit;
	struct service_state *state;

	if (!server || !load || !e || server->life != LIFE_LIVE)
		return 0;
	service = server->service;
	limit = bpf_map_lookup_elem(&passive, &service);
	state = state_of_service(service);
	if (!limit || !state || !has_limits(limit))
		return 0;
	kind &= EVIDENCE_MASK;
	__sync_fetch_and_add(&e->told[kind], 1);
	began = LOAD(&e->window);
	if (now - began >= limit->within && __sync_val_compare_and_swap(&e->window, began, now) == began)
		forget_recent(e);
	n = __sync_fetch_and_add(&e->recent[kind], 1) + 1;
	if (limit->most[kind] && n >= limit->most[kind])
		suspend(e, load, state, limit, now);
	return 0;
}

/* Whether the server is suspended. Global: verified once. */
__noinline int is_suspended(__u32 index)
{
	struct server_load *load = bpf_map_lookup_elem(&loads, &index);

	return load && LOAD(&load->unfit) & UNFIT_SUSPENDED;
}

/* A walk over the servers of a service, some of which are suspended. */
struct pardon {
	__u32 service;
	__u32 list;
	__u32 now;
	__u32 all; /* whatever is left of their time */
	__u32 left; /* out: not 0 if one is suspended still */
};

static long pardon_step(__u32 i, struct pardon *p)
{
	__u32 *word, position = p->list + 2 * i, index;
	struct server_load *load;
	struct server *server;
	struct testimony *e;

	word = bpf_map_lookup_elem(&words, &position);
	if (!word)
		return 1;
	index = LOAD(word);
	load = bpf_map_lookup_elem(&loads, &index);
	server = bpf_map_lookup_elem(&servers, &index);
	e = bpf_map_lookup_elem(&evidence, &index);
	if (!load || !server || !e || server->service != p->service || !(LOAD(&load->unfit) & UNFIT_SUSPENDED))
		return 0;
	if (!p->all && (__s32)(LOAD(&e->until) - p->now) > 0)
		p->left = 1;
	else
		__sync_fetch_and_and(&load->unfit, ~UNFIT_SUSPENDED);
	return 0;
}

/*
 * Ends the suspensions of the service's servers that are over, or all. Who suspends one
 * meanwhile sets the tick after the server's bit: what the walk has not seen is looked
 * for again. Global: verified once.
 */
__noinline int pardon(__u32 index, __u32 all)
{
	struct service *service = bpf_map_lookup_elem(&services, &index);
	struct service_state *state = state_of_service(index);
	struct pardon p = { .service = index, .now = now_tick(), .all = all };
	const struct schedule *schedule;
	__u32 tick, length;

	if (!service || !state)
		return 0;
	tick = LOAD(&state->suspended_tick);
	if (!tick || __sync_val_compare_and_swap(&state->suspended_tick, tick, 0) != tick)
		return 0; /* another CPU walks */
	order();
	schedule = in_force(service);
	p.list = schedule->list;
	length = schedule->servers;
	bpf_loop(length, pardon_step, &p, 0);
	if (p.left)
		STORE(&state->suspended_tick, p.now + !p.now);
	return 0;
}

/*
 * Whether servers of the service may be suspended: once a tick those whose time is over
 * are not any more. That changes nothing that a trial must not. Global: its caller is not
 * verified once for each outcome.
 */
__noinline int has_suspended(__u32 service)
{
	struct service_state *state = state_of_service(service);
	__u32 tick;

	if (!state)
		return 0;
	tick = LOAD(&state->suspended_tick);
	if (__builtin_expect(!tick, 1))
		return 0;
	if (tick != now_tick())
		pardon(service, 0);
	return 1;
}

#endif
