/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Which address and port of this host stand in for the client of a new connection by
 * full NAT. A port is taken by inserting the reply key that has it as its destination,
 * so that one serves as many connections as there are servers, and two connections
 * never share one towards a server. What is found here is what a look in the table
 * says is free; the insert decides.
 *
 * Addresses that are offered have places without gaps, whatever elements they are in
 * (struct local_address, skip). While user space moves them, a place may lead to one
 * that is not: that is a candidate in vain.
 *
 * The first candidate has the client's own port, at an address by the client's hash:
 * mostly, servers see the client's port. The others step through all ports of all
 * addresses, by a stride and from a start that the connection's hash gives, so that
 * none comes twice (the stride has no divisor in common with their number) and those
 * that meet go on different ways (double hashing, Knuth volume 3 §6.4).
 */
#ifndef SHUNT_ALLOCATE_H
#define SHUNT_ALLOCATE_H

#include "carried.h"
#include "slow.h"

#define LOCAL_TRIES 32

/* A prime greater than any pool: LOCALS6 addresses of 65535 ports are less than 2^27. Its powers are strides. */
#define LOCAL_PRIME 134217757ULL
#define LOCAL_POWERS 8

/* What a callback is given: before 6.4 nothing but a place on the stack. */
struct local_loop {
	struct slow *c;
};

/* Whether the entry in the way, in c->hit, is of a connection that has expired: make_reply removes it. */
static __always_inline int is_outlived(struct slow *c, const int v6)
{
	struct lookup *reply = &c->hit, *forward = &c->other;

	look_up_forward(forward, &reply->key, reply->recipe, reply->hop, v6);
	if (c->is_trial && (c->dead || c->old) && forward->recipe && same_key(&forward->key, &c->key))
		return 1;
	return forward->recipe && !(forward->recipe & BIT(RECIPE_BUSY)) &&
	       has_expired(forward->recipe, forward->seen, c->tick);
}

/* The i-th candidate; ends the search if it is free. */
static __always_inline long try_local(__u32 i, struct slow *c, const int v6)
{
	struct local_search *s = &c->search;
	__u32 at = i ? (s->start + (__u64)i * s->stride) % s->space : s->own, server_index = recipe_server(s->recipe);
	struct server *server = bpf_map_lookup_elem(&servers, &server_index);
	struct lookup *reply = &c->hit;
	__u32 place = s->first + at / s->ports;
	struct local_address *local = bpf_map_lookup_elem(&locals, &place);

	if (!local || !server)
		return 1;
	s->word = make_local(place + LOAD(&local->skip), bpf_htons(s->first_port + at % s->ports));
	local = local_of(s->word);
	if (!local || !LOAD(&local->offered))
		return 0;
	reply_key(&reply->key, &c->key, server, s->recipe, s->word);
	look_up_by(reply, v6);
	if (reply->recipe && !is_outlived(c, v6))
		return 0;
	if (carried_groups(v6) && (v6 ? is_reply_carried6(&reply->key) : is_reply_carried4(&reply->key)))
		return 0;
	s->is_found = 1;
	return 1;
}

static long try_local4(__u32 i, struct local_loop *loop)
{
	return try_local(i, loop->c, 0);
}

static long try_local6(__u32 i, struct local_loop *loop)
{
	return try_local(i, loop->c, 1);
}

/* Writes the hop word of the forward entry that the caller has claimed. */
static __always_inline void set_local(const struct slow *c, __u32 word, const int v6)
{
	void *group = group_at(c->forward.group, v6);
	__u64 *entry;

	if (!group)
		return;
	entry = entry_at(group, c->forward.slot, v6);
	if (entry)
		STORE((__u32 *)(entry + WORDS(v6) + 2) + 1, word);
}

/* Another server was chosen, whose method may be another one: the forward entry has what that begins with. */
static __always_inline int begin_anew(struct slow *c, __u64 recipe, const int v6)
{
	if (!c->is_trial)
		set_local(c, first_word(recipe, c->hop), v6);
	return 0;
}

__noinline int begin_anew4(struct slow *c, __u64 recipe)
{
	return c ? begin_anew(c, recipe, 0) : 0;
}

__noinline int begin_anew6(struct slow *c, __u64 recipe)
{
	return c ? begin_anew(c, recipe, 1) : 0;
}

/*
 * Finds what may stand in for the client of the connection in c to the server of this
 * recipe, and leaves it in c and in the forward entry: so whoever meets the reply
 * key finds its connection. EVENT_NONE, or that there is nothing.
 */
static __always_inline enum event allocate(struct slow *c, __u64 recipe, const int v6)
{
	struct local_search *s = &c->search;
	struct local_loop loop = { c };
	struct packet_options *o;
	__u32 zero = 0, addresses, client = bpf_ntohs((__u16)c->key.id);
	__u64 by_client = (c->key.source[0] + seeds[0]) * seeds[1];

	o = bpf_map_lookup_elem(&options, &zero);
	if (!o)
		return EVENT_FAULT_MAP;
	addresses = LOAD(v6 ? &o->locals6 : &o->locals4);
	s->is_found = 0;
	s->recipe = recipe;
	s->first = v6 ? LOCALS6 : 0;
	s->first_port = LOAD(&o->local_first);
	s->ports = LOAD(&o->local_last) - s->first_port + 1;
	s->space = addresses * s->ports;
	if (!s->space || addresses > LOCALS6)
		return EVENT_DROP_LOCAL_PORTS;
	if (v6)
		by_client += (c->key.source[1] ^ c->key.source[3]) * seeds[2] + c->key.source[2] * seeds[3];
	s->start = (__u64)c->hash * s->space >> 32;
	s->stride = LOCAL_PRIME % s->space;
	for (__u32 i = 0; i < (c->hash & (LOCAL_POWERS - 1)); i++)
		s->stride = s->stride * LOCAL_PRIME % s->space;
	s->own = s->start;
	if (client - s->first_port < s->ports)
		s->own = ((by_client >> 32) * addresses >> 32) * s->ports + client - s->first_port;
	if (v6)
		bpf_loop(LOCAL_TRIES, try_local6, &loop, 0);
	else
		bpf_loop(LOCAL_TRIES, try_local4, &loop, 0);
	if (!s->is_found)
		return EVENT_DROP_LOCAL_PORTS;
	c->local = s->word;
	if (!c->is_trial)
		set_local(c, s->word, v6);
	return EVENT_NONE;
}

__noinline int allocate4(struct slow *c, __u64 recipe)
{
	return c ? allocate(c, recipe, 0) : EVENT_FAULT_MAP;
}

__noinline int allocate6(struct slow *c, __u64 recipe)
{
	return c ? allocate(c, recipe, 1) : EVENT_FAULT_MAP;
}

#endif
