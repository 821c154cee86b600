/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * lblc, lblcr: the server, or the least loaded of the set of servers, that the
 * virtual address had before; wlc's where it has none, or the one it has is busy
 * while another is idle (kernel: net/netfilter/ipvs/ip_vs_lblc.c, _lblcr.c). What
 * an address had stands in destinations; user space removes what is not used.
 *
 * Unlike the kernel's, a set has DESTINATION_SERVERS members at most, and a server
 * that was removed and its index given to another service is no member any more.
 */
#ifndef SHUNT_SCHEDULERS_LOCALITY_H
#define SHUNT_SCHEDULERS_LOCALITY_H

#include "../clock.h"
#include "least.h"

struct idle {
	__u32 list;
	__u32 found;
};

static long idle_step(__u32 i, struct idle *idle)
{
	__u32 pair = pair_at(idle->list, i), server = load_word(pair), weight = load_word(pair + 1);
	const struct server_load *load = bpf_map_lookup_elem(&loads, &server);

	idle->found = load && active_of(load) * 2 < weight;
	return idle->found;
}

/* Whether the server has more active connections than its weight, and another is half idle. */
__noinline int is_busy(struct pick_request *r, __u32 index)
{
	const struct server_load *load = bpf_map_lookup_elem(&loads, &index);
	const struct server *server = bpf_map_lookup_elem(&servers, &index);
	struct idle idle = {};

	if (!r || !server || !load || active_of(load) <= LOAD(&server->offered_weight))
		return 0;
	idle.list = r->schedule.list;
	bpf_loop(r->schedule.servers, idle_step, &idle, 0);
	return idle.found;
}

static __always_inline struct destination_key destination_key_of(const struct pick_request *r)
{
	struct destination_key key = { .service = r->service };

	for (int i = 0; i < 4; i++)
		key.address[i] = r->destination[i];
	return key;
}

/* What the virtual address had; notes that it was asked for. */
static __always_inline struct destination *known_destination(const struct pick_request *r)
{
	struct destination_key key = destination_key_of(r);
	struct destination *known = bpf_map_lookup_elem(&destinations, &key);
	__u32 now = now_tick();

	if (known && !r->is_trial && LOAD(&known->used) != now)
		STORE(&known->used, now);
	return known;
}

/* 1 or 0 without a branch: the verifier would walk both for each member. */
static __always_inline __u32 is_equal(__u32 a, __u32 b)
{
	__u64 differs = a ^ b;

	asm volatile("" : "+r"(differs));
	return (differs - 1) >> 63;
}

/*
 * Puts the server in front of the set, unless it is a member; the oldest leaves a
 * full one. What is beyond the members is 0, which is no server.
 */
static __always_inline void insert_member(struct destination *set, __u32 server, __u32 now)
{
	__u32 is_member = 0;

	bpf_spin_lock(&set->lock);
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < DESTINATION_SERVERS; i++)
		is_member |= is_equal(LOAD(&set->servers[i]), server);
	if (!is_member) {
#pragma clang loop unroll(disable)
		for (__u32 i = DESTINATION_SERVERS - 1; i > 0; i--)
			STORE(&set->servers[i], LOAD(&set->servers[i - 1]));
		STORE(&set->servers[0], server);
		if (set->count < DESTINATION_SERVERS)
			set->count++;
		set->changed = now;
	}
	bpf_spin_unlock(&set->lock);
}

/* Takes the server out of the set. */
static __always_inline void erase_member(struct destination *set, __u32 server, __u32 now)
{
	__u32 gone = 0;

	bpf_spin_lock(&set->lock);
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < DESTINATION_SERVERS; i++) {
		__u32 member = LOAD(&set->servers[i]);
		__u32 next = i + 1 < DESTINATION_SERVERS ? LOAD(&set->servers[i + 1]) : 0;

		gone |= is_equal(member, server);
		STORE(&set->servers[i], member ^ ((member ^ next) & -gone));
	}
	if (gone) {
		set->count--;
		set->changed = now;
	}
	bpf_spin_unlock(&set->lock);
}

/*
 * Notes that the virtual address has the server: in front of others if it is_set,
 * else in place of another. Global: verified once.
 */
__noinline int remember(struct pick_request *r, __u32 server, __u32 is_set)
{
	struct destination *set, *fresh;
	struct destination_key key;
	__u32 zero = 0, now = now_tick();

	if (!r)
		return 0;
	key = destination_key_of(r);
	set = bpf_map_lookup_elem(&destinations, &key);
	if (!set) {
		fresh = bpf_map_lookup_elem(&new_destination, &zero);
		if (!fresh)
			return 0;
		fresh->used = now;
		fresh->changed = now;
		fresh->count = 1;
		fresh->servers[0] = server;
		if (!bpf_map_update_elem(&destinations, &key, fresh, BPF_NOEXIST))
			return 0;
		/* There is no room, or another CPU was first. */
		set = bpf_map_lookup_elem(&destinations, &key);
	}
	if (!set)
		count(EVENT_NOTE_DESTINATIONS_FULL);
	else if (is_set)
		insert_member(set, server, now);
	else
		STORE(&set->servers[0], server);
	return 0;
}

/*
 * The server that the virtual address had, if it can be used: overloaded or not, as the
 * kernel's, but not suspended. Global, as least_member is.
 */
__noinline __u32 last_server(struct pick_request *r)
{
	const struct server_load *load;
	const struct server *server;
	struct destination *known;
	__u32 index;

	if (!r)
		return 0;
	known = known_destination(r);
	if (!known)
		return 0;
	index = LOAD(&known->servers[0]);
	server = server_of(r, index);
	load = bpf_map_lookup_elem(&loads, &index);
	if (!server || !load || LOAD(&load->unfit) & UNFIT_SUSPENDED & ~r->schedule.list)
		return 0;
	return LOAD(&server->offered_weight) ? index : 0;
}

/* A walk over a set. */
struct members {
	const struct pick_request *request;
	const struct destination *set;
	struct least least; /* eligible member */
	struct least most; /* member of a weight, eligible or not */
};

static long member_step(__u32 i, struct members *m)
{
	const struct pick_request *r = m->request;
	const struct destination *set = m->set;
	const struct server_load *load;
	struct candidate c = {};
	const struct server *server;
	__s64 overhead;

	if (!r || !set || i >= DESTINATION_SERVERS)
		return 1;
	c.server = LOAD(&set->servers[i]);
	server = bpf_map_lookup_elem(&servers, &c.server);
	load = bpf_map_lookup_elem(&loads, &c.server);
	if (!server || !load || server->service != r->service || server->life == LIFE_FREE)
		return 0;
	c.weight = LOAD(&server->offered_weight);
	if (!c.weight)
		return 0;
	overhead = overhead_of(load);
	if (server->life == LIFE_LIVE && is_fit(load, r->schedule.list))
		consider(&m->least, &c, overhead, c.weight);
	/* With the signs turned the least is the most. */
	consider(&m->most, &c, -overhead, c.weight);
	return 0;
}

/*
 * The least loaded member of the virtual address's set, 0 if none is eligible. A set
 * that did not change for a day loses its most loaded member, if it has two. Global:
 * verified once, and its stack is given back before the next is needed.
 */
__noinline __u32 least_member(struct pick_request *r)
{
	struct members m = {};
	struct destination *known;
	__u32 now = now_tick();

	if (!r)
		return 0;
	known = known_destination(r);
	if (!known)
		return 0;
	m.request = r;
	m.set = known;
	m.least = m.most = least_of(r);
	bpf_loop(known->count, member_step, &m, 0);
	if (!r->is_trial && m.most.server && known->count > 1 && (__s32)(now - known->changed) > (__s32)set_ticks)
		erase_member(known, m.most.server, now);
	return m.least.server;
}

__noinline __u32 pick_lblc(struct pick_request *r)
{
	__u32 index = last_server(r);

	if (index && !is_busy(r, index))
		return index;
	index = pick_wlc(r);
	if (index && r && !r->is_trial)
		remember(r, index, 0);
	return index;
}

__noinline __u32 pick_lblcr(struct pick_request *r)
{
	__u32 index = least_member(r);

	if (index && !is_busy(r, index))
		return index;
	index = pick_wlc(r);
	if (index && r && !r->is_trial)
		remember(r, index, 1);
	return index;
}

#endif
