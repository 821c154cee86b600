/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What a service lets begin: so many connections a second and at one time, of all
 * clients and of each source network. A connection that one limit refuses has used
 * up nothing of the others: what is the service's is only looked at first, then the
 * network's is taken, then the service's, and what was taken is given back.
 *
 * Rates are exact. So are a network's connections. A service's are compared with
 * what is counted when an entry is made: each CPU may have one packet between the
 * two, so that there may be one connection too many for each CPU but one.
 *
 * All is counted in the maps by the program alone: no daemon is needed.
 */
#ifndef SHUNT_LIMITS_H
#define SHUNT_LIMITS_H

#include "slow.h"

#define TIME_BITS 16 /* limits' times are in jiffies, with so many bits behind the point */

/* When a connection after this one would be on time, or 0 if this one comes too early. */
static __always_inline __u64 time_after(__u64 rate_time, __u64 now, __u64 cost, __u64 burst)
{
	__u64 ahead = rate_time - now;

	/* In the past. Or so far ahead as no burst leads, twice the shortest one being the longest: it is another's. */
	if (ahead > 2 * burst)
		ahead = 0;
	return ahead + cost > burst ? 0 : now + ahead + cost;
}

#define RATE_TRIES 4

/* Takes the time of one connection; false if it comes too early, or others took theirs with each try. */
static __always_inline int take_time(__u64 *rate_time, __u64 now, __u64 cost, __u64 burst)
{
	for (int i = 0; i < RATE_TRIES; i++) {
		__u64 old = LOAD(rate_time), new = time_after(old, now, cost, burst);

		if (!new)
			return 0;
		if (__sync_val_compare_and_swap(rate_time, old, new) == old)
			return 1;
	}
	return 0;
}

/* Whether the packet is scheduled by itself and makes no connection that could be counted. */
static __always_inline int is_one_packet(const struct slow *c)
{
	return c->pick.flags & SERVICE_ONE_PACKET && (__u8)(c->key.id >> ID_PROTOCOL) == IPPROTO_UDP;
}

/* How many of the connections counted end if the packet begins one: that whose place it takes. */
static __always_inline __u32 ending(const struct slow *c, __u64 bits)
{
	__u64 old = c->old;

	if (!old && c->is_trial)
		old = c->dead;
	return old && (old & bits) == bits;
}

/* What is remembered of the client's network; 0: nothing, and a trial, or no room, adds nothing. */
static __always_inline struct source *find_source(struct slow *c, const struct service_limits *limit)
{
	struct source_key network;
	struct source none = {}, *source;

	source_of(&network, c->key.source, limit, c->pick.service);
	source = bpf_map_lookup_elem(&sources, &network);
	if (source || c->is_trial)
		return source;
	bpf_map_update_elem(&sources, &network, &none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&sources, &network);
}

/* The limits of the client's network; what it takes of them is noted in c. Global: verified once. */
__noinline int limit_source(struct slow *c, __u64 now)
{
	struct service_limits *limit;
	struct source *source;
	__u32 index;
	__s64 most;

	if (!c)
		return EVENT_FAULT_MAP;
	index = c->pick.service;
	limit = bpf_map_lookup_elem(&limits, &index);
	if (!limit)
		return EVENT_FAULT_MAP;
	source = find_source(c, limit);
	if (!source)
		return EVENT_NONE;
	most = is_one_packet(c) ? 0 : limit->source_connections;
	if (most) {
		most += ending(c, BIT(RECIPE_COUNTED));
		if (LOAD(&source->connections) >= most)
			return EVENT_DROP_SOURCE_CONNECTIONS;
	}
	if (c->is_trial)
		return !limit->source_cost || time_after(LOAD(&source->rate_time), now, limit->source_cost,
							 limit->source_burst) ?
			       EVENT_NONE :
			       EVENT_DROP_SOURCE_RATE;
	if (most && __sync_fetch_and_add(&source->connections, 1) >= most) {
		__sync_fetch_and_add(&source->connections, -1);
		return EVENT_DROP_SOURCE_CONNECTIONS;
	}
	c->is_counted = !!most;
	if (!limit->source_cost || take_time(&source->rate_time, now, limit->source_cost, limit->source_burst))
		return EVENT_NONE;
	if (most)
		__sync_fetch_and_add(&source->connections, -1);
	c->is_counted = 0;
	return EVENT_DROP_SOURCE_RATE;
}

/* Gives the client's network back what it took for a connection that does not begin after all. */
static __always_inline void give_back_source(struct slow *c)
{
	if (!c->is_counted)
		return;
	c->is_counted = 0;
	uncount_source(c->pick.service, &c->key);
}

/* As give_back_source, of its rate too. */
static __always_inline void give_back_all(struct slow *c, const struct service_limits *limit)
{
	struct source *source = find_source(c, limit);

	give_back_source(c);
	if (source && limit->source_cost)
		__sync_fetch_and_add(&source->rate_time, -limit->source_cost);
}

/* Counts the refusal with the service, by the limit's name. */
static __always_inline enum event refused(const struct slow *c, struct service_state *state, enum event event)
{
	if (c->is_trial)
		return event;
	if (event == EVENT_DROP_SERVICE_RATE)
		__sync_fetch_and_add(&state->refused_rate, 1);
	else if (event == EVENT_DROP_SERVICE_CONNECTIONS)
		__sync_fetch_and_add(&state->refused_connections, 1);
	else if (event == EVENT_DROP_SOURCE_RATE)
		__sync_fetch_and_add(&state->refused_source_rate, 1);
	else if (event == EVENT_DROP_SOURCE_CONNECTIONS)
		__sync_fetch_and_add(&state->refused_source_connections, 1);
	return event;
}

/*
 * EVENT_NONE if the service's limits let the packet in c begin a connection, or which
 * one does not: the service's before the network's, so that a flood beyond them costs
 * no look for its source. Inlined: a call costs what the rate does.
 */
static __always_inline enum event limit(struct slow *c)
{
	__u64 now = bpf_jiffies64() << TIME_BITS;
	struct service_limits *limit;
	struct service_state *state;
	enum event event;
	__u32 index;

	if (!c)
		return EVENT_FAULT_MAP;
	index = c->pick.service;
	limit = bpf_map_lookup_elem(&limits, &index);
	state = bpf_map_lookup_elem(&service_states, &index);
	if (!limit || !state)
		return EVENT_FAULT_MAP;
	if (limit->connections && !is_one_packet(c) &&
	    LOAD(&state->connections) >= (__s64)limit->connections + ending(c, 0))
		return refused(c, state, EVENT_DROP_SERVICE_CONNECTIONS);
	if (limit->cost && !time_after(LOAD(&state->rate_time), now, limit->cost, limit->burst))
		return refused(c, state, EVENT_DROP_SERVICE_RATE);
	if (limit->source_cost || limit->source_connections) {
		event = limit_source(c, now);
		if (event != EVENT_NONE)
			return refused(c, state, event);
	}
	if (!limit->cost || c->is_trial || take_time(&state->rate_time, now, limit->cost, limit->burst))
		return EVENT_NONE;
	give_back_all(c, limit);
	return refused(c, state, EVENT_DROP_SERVICE_RATE);
}

#endif
