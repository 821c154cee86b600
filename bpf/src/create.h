/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A packet that may begin a connection (admit.h): choose its server and make the
 * connection. The forward entry comes first, claimed, so that nobody
 * else makes or removes the same connection; then NAT's reply entry, which must
 * be new or another server is chosen; then the claim is given up.
 */
#ifndef SHUNT_CREATE_H
#define SHUNT_CREATE_H

#include "admit.h"
#include "carried.h"
#include "persist.h"
#include "allocate.h"

#define SERVER_TRIES 4

/* The client's address as one word in host order, as the kernel's schedulers fold it. */
static __always_inline __u32 fold_client(const struct key *key, const int v6)
{
	if (v6)
		return bpf_ntohl(key->source[0] ^ key->source[1] ^ key->source[2] ^ key->source[3]);
	return bpf_ntohl(key->source[0]);
}

/* Removes the connection whose reply key is in the way of c->reply, if it has expired; a trial says whether it would.
 */
static __always_inline int remove_if_expired(struct slow *c, const int v6)
{
	struct lookup *forward = &c->other;
	__u32 hop = 0;

	if (is_wide(c->reply.recipe)) {
		forward->group = c->reply.group;
		forward->slot = c->reply.slot;
		if (v6)
			look_at6(forward);
		else
			look_at4(forward);
		if (forward->recipe != c->reply.recipe)
			return 0;
		hop = forward->hop;
	}
	look_up_forward(forward, &c->reply.key, c->reply.recipe, hop, v6);
	if (c->is_trial && (c->dead || c->old) && forward->recipe && same_key(&forward->key, &c->key))
		return 1;
	if (!forward->recipe || forward->recipe & BIT(RECIPE_BUSY) ||
	    !has_expired(forward->recipe, forward->seen, c->tick))
		return 0;
	if (c->is_trial)
		return 1;
	return remove_entry(forward->group, forward->slot, forward->recipe, v6);
}

/* The reply entry of a claimed connection to server; EVENT_NONE or why there is none. */
static __always_inline enum event make_reply(struct slow *c, __u32 index, __u64 recipe, const int v6)
{
	struct server *server = bpf_map_lookup_elem(&servers, &index);
	struct insert_request *r = &c->reply;
	enum insertion result;

	if (!server)
		return EVENT_FAULT_MAP;
	reply_key(&r->key, &c->key, server, recipe, c->local);
	r->hash = hash_key(&r->key, v6);
	r->recipe = recipe | BIT(RECIPE_REPLY);
	r->tick = r->born = c->tick;
	r->hop = is_wide(recipe) ? make_place(c->forward.group, c->forward.slot) : c->hop;
	r->client_hop = c->hop;
	r->is_trial = c->is_trial;
	if (carried_groups(v6) && (v6 ? is_reply_carried6(&r->key) : is_reply_carried4(&r->key)))
		return EVENT_DROP_REPLY_COLLISION;
	result = insert_key(r, v6);
	if (result == EXISTS && remove_if_expired(c, v6)) {
		if (c->is_trial)
			return EVENT_NONE;
		r->recipe = recipe | BIT(RECIPE_REPLY);
		result = insert_key(r, v6);
	}
	switch (result) {
	case INSERTED:
		return EVENT_NONE;
	case EXISTS:
		return EVENT_DROP_REPLY_COLLISION;
	default:
		return EVENT_DROP_TABLE_FULL;
	}
}

__noinline int make_reply4(struct slow *c, __u32 index, __u64 recipe)
{
	return c ? make_reply(c, index, recipe, 0) : EVENT_FAULT_MAP;
}

__noinline int make_reply6(struct slow *c, __u32 index, __u64 recipe)
{
	return c ? make_reply(c, index, recipe, 1) : EVENT_FAULT_MAP;
}

/* The scheduler's next choice, the one before was in vain; 0: none. */
static __always_inline __u32 pick_another(struct slow *c, __u32 *method)
{
	__u32 index = c->pick.service;
	struct service *service = bpf_map_lookup_elem(&services, &index);

	c->pick.attempt++;
	return service ? pick_server(&c->pick, service, method) : 0;
}

/*
 * Gives the claimed connection its reply entry, on another server where the key
 * is taken. *recipe is the forward entry's, of which the caller is the only writer.
 */
static __always_inline enum event complete_nat(struct slow *c, __u64 *recipe, const int v6)
{
	enum event event = EVENT_NONE;
	__u32 index, method;
	__u64 reply;

	for (int i = 0; i < SERVER_TRIES; i++) {
		if (recipe_method(*recipe) != METHOD_NAT)
			return EVENT_NONE;
		reply = with_spaced(*recipe, SPACED_NONE) & ~(BIT(RECIPE_BUSY) | BIT(RECIPE_CONTROLLED) | FILLED_MASK |
							      BIT(RECIPE_COUNTED) | BIT(RECIPE_VALIDATED));
		event = EVENT_NONE;
		if (is_full_nat(reply))
			event = v6 ? allocate6(c, reply) : allocate4(c, reply);
		if (event == EVENT_NONE)
			event = v6 ? make_reply6(c, recipe_server(reply), reply) :
				     make_reply4(c, recipe_server(reply), reply);
		if (event != EVENT_DROP_REPLY_COLLISION && event != EVENT_DROP_LOCAL_PORTS)
			return event;
		index = pick_another(c, &method);
		if (!index)
			return event;
		if (index == recipe_server(*recipe))
			continue;
		/* Its template stays where it is. */
		*recipe = with_server(*recipe & ~BIT(RECIPE_CONTROLLED), index, method, c->pick.flags);
		if (v6)
			begin_anew6(c, *recipe);
		else
			begin_anew4(c, *recipe);
		c->decided_by = DECIDED_BY_SCHEDULER;
		if (!c->is_trial)
			count(EVENT_NOTE_COLLISION_AVOIDED);
	}
	return event;
}

/* Ends the claim on a new forward entry: with its final recipe, or by freeing the slot. */
static __always_inline void end_claim(const struct insert_request *r, __u64 recipe, const int v6)
{
	void *group = group_at(r->group, v6);
	__u64 *entry;

	if (!recipe) {
		release_slot(r->group, r->slot, v6);
		return;
	}
	if (!group)
		return;
	entry = entry_at(group, r->slot, v6);
	if (!entry)
		return;
	order();
	STORE(entry + WORDS(v6) + 1, recipe);
}

/* Another CPU has inserted the same connection: wait until it is complete, and go on with it. */
static __always_inline enum event adopt(struct slow *c, struct insert_request *r, const int v6)
{
	count(EVENT_NOTE_INSERT_RACE);
	c->hit.group = r->group;
	c->hit.slot = r->slot;
	c->hit.recipe = r->recipe;
	if (v6)
		await_entry6(&c->hit);
	else
		await_entry4(&c->hit);
	c->recipe = c->hit.recipe;
	c->local = c->hit.hop;
	return c->recipe && !(c->recipe & BIT(RECIPE_BUSY)) ? EVENT_NONE : EVENT_DROP_BUSY;
}

/* Chooses the server, unless a template does that; EVENT_NONE or why there is none. */
static __always_inline enum event choose(struct slow *c, struct service *service, const struct schedule *schedule,
					 const int v6)
{
	c->pick.client = fold_client(&c->key, v6);
	c->pick.client_port = bpf_ntohs((__u16)c->key.id);
	c->pick.attempt = 0;
	c->pick.is_trial = c->is_trial;
	c->pick.relents = 0;
	c->has_suspended = has_suspended(c->pick.service);
	__builtin_memcpy(c->pick.destination, c->key.destination, sizeof(c->pick.destination));
	c->template.recipe = 0;
	c->decided_by = DECIDED_BY_NOTHING;
	if (!(c->pick.flags & SERVICE_PERSISTENT))
		return schedule_server(c, service);
	template_key(&c->template.key, c->key.source, schedule, c->pick.service);
	return EVENT_NONE;
}

/*
 * One-packet scheduling: the server chosen has the packet as a connection that ends
 * with it (kernel: ip_vs_core.c, IP_VS_CONN_F_ONE_PACKET).
 */
static __always_inline enum event serve_once(struct slow *c, __u64 recipe, const int v6)
{
	c->recipe = recipe;
	c->is_new = 1;
	if (c->is_trial)
		return EVENT_NONE;
	bind_connection(c->chosen, STATE_UDP);
	unbind_connection(c->chosen, STATE_UDP);
	let_template_go(c, v6);
	return EVENT_NONE;
}

/* Counts that a TCP connection has begun, where the guard has to know (count_proof). */
static __always_inline void count_beginning(__u32 service, __u64 recipe)
{
	struct service_state *state;

	if (!spaced_of(recipe))
		return;
	state = state_of_service(service);
	if (state)
		__sync_fetch_and_add(&state->begun, 1);
}

/* Inserts the connection with the recipe, both keys; EVENT_NONE or why it could not be. */
static __always_inline enum event insert_connection(struct slow *c, __u64 recipe, const int v6)
{
	struct insert_request *r = &c->forward;
	enum insertion result;
	enum event event;

	r->key = c->key;
	r->hash = c->hash;
	r->tick = r->born = c->tick;
	r->recipe = recipe;
	r->hop = first_word(recipe, c->hop);
	r->is_trial = c->is_trial;
	result = v6 ? insert_key6(r) : insert_key4(r);
	if (result == NO_ROOM)
		return EVENT_DROP_TABLE_FULL;
	if (result == EXISTS && !c->is_trial)
		return adopt(c, r, v6);
	/* What a trial has found is the old connection, which would not be there. */
	c->recipe = (result == EXISTS ? recipe : r->recipe) & ~BIT(RECIPE_BUSY);
	event = complete_nat(c, &c->recipe, v6);
	if (event != EVENT_NONE && !c->is_trial)
		end_claim(r, 0, v6);
	if (event != EVENT_NONE || c->is_trial)
		return event;
	bind_connection(recipe_server(c->recipe), recipe_state(recipe));
	count_beginning(c->pick.service, recipe);
	announce(r->group, r->slot, c->recipe, NEWS_OPENED, v6);
	if (r->recipe & BIT(RECIPE_BUSY))
		end_claim(r, c->recipe, v6);
	c->is_new = 1;
	return EVENT_NONE;
}

/* Has the packet go to the server chosen, without an entry and in nobody's count of connections. */
static __always_inline enum event serve_by_hash(struct slow *c, __u64 recipe)
{
	c->recipe = recipe;
	if (!c->is_trial)
		count(EVENT_NOTE_STATELESS);
	return EVENT_NONE;
}

/* Makes the connection to the server chosen; EVENT_NONE or why it could not be. */
static __always_inline enum event connect(struct slow *c, const int v6)
{
	__u32 state = STATE_UDP;
	enum event event;
	__u64 recipe;

	if ((__u8)(c->key.id >> ID_PROTOCOL) == IPPROTO_TCP)
		state = next_tcp_state(is_nat(c->method) ? DIRECTION_INPUT : DIRECTION_INPUT_ONLY, c->tcp_flags,
				       STATE_NONE);
	c->hop = 0;
	recipe = with_server((__u64)state << RECIPE_STATE, c->chosen, c->method, c->pick.flags);
	if (c->is_stateless)
		return serve_by_hash(c, recipe);
	/* By full NAT its answer needs the entry. */
	if (c->pick.flags & SERVICE_ONE_PACKET && state == STATE_UDP && c->method != METHOD_FULLNAT)
		return serve_once(c, recipe, v6);
	if (c->pick.flags & SERVICE_GUARDED && state != STATE_UDP)
		recipe = with_spaced(recipe, SPACED_FIRST);
	/* No branches: the verifier of 6.1 walks what follows for each. */
	recipe |= (__u64)c->is_validated << RECIPE_VALIDATED | (__u64)c->is_counted << RECIPE_COUNTED;
	if (c->template.recipe)
		recipe |= BIT(RECIPE_CONTROLLED);
	if (is_nat(c->method)) {
		recipe |= BIT(RECIPE_BUSY);
		if (!c->is_trial)
			c->hop = learn_hop(&c->link);
	}
	event = insert_connection(c, recipe, v6);
	if (event == EVENT_DROP_TABLE_FULL) {
		note_full(c, v6);
		/* Replies that have to be rewritten need an entry. */
		if (!is_nat(c->method) && is_hashed(c->pick.schedule.scheduler, c->pick.flags))
			return serve_by_hash(c, recipe);
	}
	/* Dropped, adopted, or with another server: the template has not got this connection. */
	if (c->template.recipe && (event != EVENT_NONE || !c->is_new || !(c->recipe & BIT(RECIPE_CONTROLLED))))
		let_template_go(c, v6);
	return event;
}

/* Makes way for the new connection; true if an old one was there, which is counted still. */
static __always_inline int clear_way(struct slow *c, const int v6)
{
	if (!c->old || c->is_trial)
		return 0;
	return v6 ? take_out6(c->old_group, c->old_slot, c->old) : take_out4(c->old_group, c->old_slot, c->old);
}

/*
 * Whether the server chosen by hash may have the packet's connection although it has
 * no entry: there was no room for one, not longer ago than it would have lived.
 */
static __always_inline int may_go_on(const struct slow *c, const int v6)
{
	__u64 recipe = (__u64)STATE_ESTABLISHED << RECIPE_STATE;
	__u32 full_tick = last_full(v6);

	return is_hashed(c->pick.schedule.scheduler, c->pick.flags) && !is_nat(c->method) && full_tick &&
	       !is_longer(timeout_of(with_server(recipe, c->chosen, c->method, 0)), full_tick, c->tick);
}

/* Of a packet that was admitted: EVENT_NONE or what became of it. */
static __always_inline enum event create(struct slow *c, const int v6)
{
	__u32 index = c->pick.service;
	struct service *service = bpf_map_lookup_elem(&services, &index);
	const struct schedule *schedule;
	enum event event;
	int is_replaced;

	if (!service)
		return EVENT_FAULT_MAP;
	schedule = in_force(service);
	/* Another one may be in force than when the packet was admitted: all from here on is of this. */
	c->pick.flags = schedule->flags;
	c->mss = service->mss;
	event = choose(c, service, schedule, v6);
	if (c->is_stateless && (event != EVENT_NONE || !may_go_on(c, v6)))
		event = EVENT_DROP_MIDSTREAM;
	if (event == EVENT_NONE && c->pick.flags & SERVICE_PERSISTENT) {
		event = v6 ? choose_persistent6(c) : choose_persistent4(c);
		if (event == EVENT_DROP_TABLE_FULL)
			note_full(c, v6);
	}
	is_replaced = clear_way(c, v6);
	if (event == EVENT_NONE)
		event = connect(c, v6);
	if (is_replaced)
		unbind_connection(recipe_server(c->old), recipe_state(c->old));
	if (event != EVENT_NONE || !c->is_new || !(c->recipe & BIT(RECIPE_COUNTED)))
		give_back_source(c);
	return event;
}

__noinline int create4(struct slow *c)
{
	return c ? create(c, 0) : EVENT_FAULT_MAP;
}

__noinline int create6(struct slow *c)
{
	return c ? create(c, 1) : EVENT_FAULT_MAP;
}

#endif
