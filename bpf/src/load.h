/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Connections that exist elsewhere become the tables' own: the kernel's IPVS had
 * them, and their packets come here from now on. The arguments are read and the
 * results written in the "packet". What is inserted is claimed until it is
 * complete, so that no packet meets it with another time than it has left.
 */
#ifndef SHUNT_LOAD_H
#define SHUNT_LOAD_H

#include "create.h"

/* Whether the connection whose key is in the way has expired; it is removed then. */
static __always_inline int is_gone(const struct insert_request *r, __u32 tick, struct lookup *l, const int v6)
{
	l->group = r->group;
	l->slot = r->slot;
	if (v6)
		look_at6(l);
	else
		look_at4(l);
	if (!l->recipe)
		return 1;
	/* Also of templates: one with connections is given a minute, and is known. */
	if (l->recipe & (BIT(RECIPE_BUSY) | BIT(RECIPE_REPLY)) || !has_expired(l->recipe, l->seen, tick) ||
	    (is_template(l->recipe) && is_in_use(l->hop)))
		return 0;
	return remove_entry(l->group, l->slot, l->recipe, v6);
}

/* Inserts the claimed forward key, or the template's, of s. */
static __always_inline enum insertion insert_loaded(struct slow *s, __u64 recipe, const int v6)
{
	struct insert_request *r = &s->forward;
	enum insertion result;

	r->key = s->key;
	r->hash = s->hash;
	r->tick = s->tick;
	r->born = s->tick - s->loading.age;
	r->hop = is_template(recipe) ? make_counts(0, COUNT_UNKNOWN) : is_full_nat(recipe) ? s->local : 0;
	r->is_trial = 0;
	r->recipe = recipe | BIT(RECIPE_BUSY);
	result = insert_key(r, v6);
	if (result != EXISTS || !is_gone(r, s->tick, &s->hit, v6))
		return result;
	r->recipe = recipe | BIT(RECIPE_BUSY);
	return insert_key(r, v6);
}

/* Has the entry inserted seen its last packet so many ticks ago; of full NAT the forward entry's says it. */
static __always_inline void set_idle(const struct insert_request *r, __u32 idle, const int v6)
{
	void *group = group_at(r->group, v6);
	__u64 *entry;

	if (!group || has_hop_for_seen(r->recipe))
		return;
	entry = entry_at(group, r->slot, v6);
	if (entry)
		STORE((__u32 *)(entry + WORDS(v6) + 2), r->tick - idle);
}

/* Counts the connection to server under the template of its client, in s->template; false if there is none. */
static __always_inline int hold(struct slow *s, const struct server *server, __u32 index, const int v6)
{
	__u32 service_index = server->service;
	struct service *service = bpf_map_lookup_elem(&services, &service_index);
	struct lookup *t = &s->template;

	if (!service)
		return 0;
	template_key(&t->key, s->key.source, in_force(service), service_index);
	look_up_by(t, v6);
	if (!t->recipe || recipe_server(t->recipe) != index)
		return 0;
	return v6 ? hold_loaded6(t) : hold_loaded4(t);
}

/* Whether it has ended, so that its client may use its port for another one. */
static __always_inline int has_ended(__u64 recipe)
{
	return (1 << STATE_TIME_WAIT | 1 << STATE_CLOSE) >> recipe_state(recipe) & 1;
}

/*
 * A connection that was loaded, in s->hit, and that no packet has changed since, has
 * the state that it has elsewhere by now: its end may have been seen there after it
 * was read, and before its packets came here.
 */
static __always_inline int catch_up(struct slow *s, __u64 recipe, __u32 idle, const int v6)
{
	struct lookup *known = &s->hit;
	__u64 old = known->recipe, new = with_state(old, recipe_state(recipe)) | (recipe & BIT(RECIPE_PROVEN));
	__u32 seen = s->tick - idle;
	__u64 *entry = entry_of(known, v6);

	if (!entry || !(old & BIT(RECIPE_LOADED)) || old & (BIT(RECIPE_BUSY) | BIT(RECIPE_REPLY)) || new == old ||
	    is_template(recipe) || recipe_server(old) != recipe_server(recipe) || !change(entry, old, new, v6))
		return 0;
	move_count(old, new);
	if ((__s32)(seen - known->seen) > 0)
		STORE((__u32 *)(entry + WORDS(v6) + 2), seen);
	if (recipe_method(new) != METHOD_NAT)
		return 1;
	look_up_reply(&s->other, &s->key, new, known->hop, v6);
	if (s->other.recipe)
		mirror(&s->other, new, 0, v6);
	return 1;
}

__noinline int catch_up4(struct slow *s, __u64 recipe, __u32 idle)
{
	return s ? catch_up(s, recipe, idle, 0) : 0;
}

__noinline int catch_up6(struct slow *s, __u64 recipe, __u32 idle)
{
	return s ? catch_up(s, recipe, idle, 1) : 0;
}

/*
 * The reply entry of the connection with the recipe. One that has ended, which
 * make_reply has left in s->other, yields to one that has not: the client has gone
 * on to that with the same port (the kernel serves the newer one: ip_vs_conn.c,
 * ip_vs_conn_hash, ip_vs_conn_out_get).
 */
static __always_inline enum event make_loaded_reply(struct slow *s, __u64 recipe, const int v6)
{
	__u32 index = recipe_server(recipe);
	enum event event = v6 ? make_reply6(s, index, recipe) : make_reply4(s, index, recipe);
	struct lookup *way = &s->other;

	if (event != EVENT_DROP_REPLY_COLLISION || has_ended(recipe) || !way->recipe || !has_ended(way->recipe) ||
	    way->recipe & (BIT(RECIPE_BUSY) | BIT(RECIPE_REPLY)) ||
	    !remove_entry(way->group, way->slot, way->recipe, v6))
		return event;
	return v6 ? make_reply6(s, index, recipe) : make_reply4(s, index, recipe);
}

/* Inserts both halves, with the recipe, which the server's count then has. */
static __always_inline enum load_result load_connection(struct slow *s, __u64 recipe, __u32 idle, const int v6)
{
	__u32 index = recipe_server(recipe);
	enum insertion inserted = insert_loaded(s, recipe, v6);
	enum event event;

	if (inserted == EXISTS) {
		if (v6)
			catch_up6(s, recipe, idle);
		else
			catch_up4(s, recipe, idle);
		return LOAD_KNOWN;
	}
	if (inserted != INSERTED)
		return LOAD_NO_ROOM;
	if (recipe_method(recipe) == METHOD_NAT && !is_template(recipe)) {
		recipe &= ~BIT(RECIPE_CONTROLLED);
		event = make_loaded_reply(s, recipe, v6);
		if (event != EVENT_NONE)
			end_claim(&s->forward, 0, v6);
		if (event == EVENT_DROP_REPLY_COLLISION)
			return has_ended(recipe) ? LOAD_OVER : LOAD_COLLISION;
		if (event != EVENT_NONE)
			return LOAD_NO_ROOM;
		set_idle(&s->reply, idle, v6);
	}
	set_idle(&s->forward, idle, v6);
	bind_connection(index, recipe_state(recipe));
	announce(s->forward.group, s->forward.slot, s->forward.recipe, NEWS_OPENED, v6);
	end_claim(&s->forward, s->forward.recipe & ~BIT(RECIPE_BUSY), v6);
	return LOAD_DONE;
}

/* Loads the entry; its template's count, proof and time are seen to. */
static __always_inline enum load_result load_entry(struct slow *s, const struct load_entry *e, const int v6)
{
	__u32 index = e->server, timeout, idle;
	struct server *server = bpf_map_lookup_elem(&servers, &index);
	enum load_result result;
	__u64 recipe;

	if (!server || server->life != LIFE_LIVE)
		return LOAD_NO_SERVER;
	s->key.id = make_id(join_ports(e->client_port, e->virtual_port), e->protocol);
	s->hash = hash_key(&s->key, v6);
	s->tick = now_tick();
	s->is_trial = 0;
	s->hop = 0; /* the client's packets will show it: until then, by the route */
	s->local = e->local;
	if (e->state == STATE_TEMPLATE)
		recipe = template_recipe(index, e->method);
	else
		recipe =
			with_server((__u64)(e->state & STATE_MASK) << RECIPE_STATE, index, e->method, rules_of(server));
	recipe |= BIT(RECIPE_LOADED);
	if (e->flags & LOAD_PROVEN)
		recipe |= BIT(RECIPE_PROVEN);
	if (e->flags & LOAD_BOUND && !is_template(recipe))
		recipe |= BIT(RECIPE_BOUND);
	s->template.recipe = 0;
	if (e->flags & LOAD_CONTROLLED && hold(s, server, index, v6))
		recipe |= BIT(RECIPE_CONTROLLED);
	timeout = timeout_at(server, recipe);
	idle = timeout - (e->left < timeout ? e->left : timeout);
	/* The first packet is to be settled: a client's shows its next hop, which replies need. */
	if (idle < refresh_ticks && timeout > 2 * refresh_ticks)
		idle = refresh_ticks;
	result = load_connection(s, recipe, idle, v6);
	if (!(recipe & BIT(RECIPE_CONTROLLED)))
		return result;
	if (result != LOAD_DONE)
		let_template_go(s, v6);
	else if (e->flags & LOAD_PROVEN)
		mark(&s->template, BIT(RECIPE_PROVEN), 0, v6);
	return result;
}

/* Loads the i-th of the arguments; false if it is not there. */
static __always_inline int load_one(struct xdp_md *ctx, __u32 i, const int v6)
{
	__u32 at = __builtin_offsetof(struct load_args, entries) + i * sizeof(struct load_entry), scratch_index;
	struct slow *s;

	scratch_index = SCRATCH_CONTROL;
	s = bpf_map_lookup_elem(&scratch, &scratch_index);
	if (!s || bpf_xdp_load_bytes(ctx, at, &s->loading, sizeof(s->loading)))
		return 0;
#pragma unroll
	for (int word = 0; word < 4; word++) {
		s->key.source[word] = s->loading.client[word];
		s->key.destination[word] = s->loading.virtual_address[word];
	}
	s->loading.result = load_entry(s, &s->loading, v6);
	return !bpf_xdp_store_bytes(ctx, at, &s->loading, sizeof(s->loading));
}

__noinline int load_one4(struct xdp_md *ctx, __u32 i)
{
	return load_one(ctx, i, 0);
}

__noinline int load_one6(struct xdp_md *ctx, __u32 i)
{
	return load_one(ctx, i, 1);
}

static __always_inline int run_load(struct xdp_md *ctx, const int v6)
{
	struct load_args *args = (void *)(long)ctx->data;
	__u32 count;

	if ((void *)(args + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	count = args->count;
	for (__u32 i = 0; i < LOAD_BATCH && i < count; i++)
		if (!(v6 ? load_one6(ctx, i) : load_one4(ctx, i)))
			return XDP_ABORTED;
	return XDP_PASS;
}

SEC("xdp")
int shunt_load4(struct xdp_md *ctx)
{
	return run_load(ctx, 0);
}

SEC("xdp")
int shunt_load6(struct xdp_md *ctx)
{
	return run_load(ctx, 1);
}

#endif
