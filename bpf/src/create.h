/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A packet of ours without a connection: refuse it by name, or schedule it and
 * make the connection. The forward entry comes first, claimed, so that nobody
 * else makes or removes the same connection; then NAT's reply entry, which must
 * be new or another server is chosen; then the claim is given up.
 */
#ifndef SHUNT_CREATE_H
#define SHUNT_CREATE_H

#include "service.h"
#include "track.h"

#define FTP_DATA_PORT 20 /* kernel: ip_vs_core.c, ip_vs_schedule, "Not scheduling FTPDATA" */
#define SERVER_TRIES 4

/*
 * Whether no other host can be the source: 0/8, 127/8, multicast and broadcast;
 * ::, ::1, ff00::/8 (RFC 1812 §5.3.7, RFC 4291 §2.5), or the virtual address itself.
 */
static __always_inline int is_martian(const struct key *key, const int v6)
{
	const __u32 *source = key->source, *destination = key->destination;
	__u8 first = source[0];

	if (!v6)
		return first == 0 || first == 127 || first >= 224 || source[0] == destination[0];
	if (first == 0xff || !(source[0] | source[1] | source[2] | (source[3] & ~bpf_htonl(1))))
		return 1;
	return !((source[0] ^ destination[0]) | (source[1] ^ destination[1]) | (source[2] ^ destination[2]) |
		 (source[3] ^ destination[3]));
}

/* The client's address as one word in host order, as the kernel's schedulers fold it. */
static __always_inline __u32 fold_client(const struct key *key, const int v6)
{
	if (v6)
		return bpf_ntohl(key->source[0] ^ key->source[1] ^ key->source[2] ^ key->source[3]);
	return bpf_ntohl(key->source[0]);
}

/* Removes the connection whose reply key is in the way of c->reply, if it has expired. */
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
	if (!forward->recipe || forward->recipe & BIT(RECIPE_BUSY) ||
	    !has_expired(forward->recipe, forward->seen, c->tick))
		return 0;
	return remove_entry(forward->group, forward->slot, forward->recipe, v6);
}

/* The reply entry of a claimed connection to server; EVENT_NONE or why there is none. */
static __always_inline enum event insert_reply(struct slow *c, __u32 index, __u64 recipe, const int v6)
{
	struct server *server = bpf_map_lookup_elem(&servers, &index);
	struct insert_request *r = &c->reply;
	enum insertion result;

	if (!server)
		return EVENT_FAULT_MAP;
	reply_key(&r->key, &c->key, server);
	r->hash = hash_key(&r->key, v6);
	r->recipe = recipe | BIT(RECIPE_REPLY);
	r->tick = c->tick;
	r->hop = is_wide(recipe) ? make_place(c->forward.group, c->forward.slot) : c->hop;
	result = insert_key(r, v6);
	if (result == EXISTS && remove_if_expired(c, v6)) {
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

static __always_inline __u64 with_server(__u64 recipe, __u32 index, __u32 method)
{
	if (method != METHOD_NAT)
		recipe &= ~BIT(RECIPE_WIDE);
	recipe &= ~((__u64)SERVER_MASK << RECIPE_SERVER | (__u64)METHOD_MASK << RECIPE_METHOD);
	return recipe | (__u64)index << RECIPE_SERVER | (__u64)method << RECIPE_METHOD;
}

/* Picks a server that belongs to the service still; 0: none. */
static __always_inline __u32 pick_server(struct pick_request *p, __u32 *method)
{
	__u32 index = pick(p);
	struct server *server = bpf_map_lookup_elem(&servers, &index);

	/* A schedule replaced while it was read may name what is another's by now. */
	if (!index || !server || server->life != LIFE_LIVE || server->service != p->service)
		return 0;
	*method = server->method & METHOD_MASK;
	return index;
}

/*
 * Gives the claimed connection its reply entry, on another server where the key
 * is taken. *recipe is the forward entry's, of which the caller is the only writer.
 */
static __always_inline enum event complete_nat(struct slow *c, __u64 *recipe, const int v6)
{
	enum event event = EVENT_NONE;
	__u32 index, method;

	for (int i = 0; i < SERVER_TRIES; i++) {
		if (recipe_method(*recipe) != METHOD_NAT)
			return EVENT_NONE;
		event = insert_reply(c, recipe_server(*recipe), *recipe & ~(BIT(RECIPE_BUSY) | GENERATION_MASK), v6);
		if (event != EVENT_DROP_REPLY_COLLISION)
			return event;
		c->pick.attempt++;
		index = pick_server(&c->pick, &method);
		if (!index)
			return event;
		if (index == recipe_server(*recipe))
			continue;
		*recipe = with_server(*recipe, index, method);
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
static __always_inline enum event adopt(struct slow *c, const struct insert_request *r, const int v6)
{
	count(EVENT_NOTE_INSERT_RACE);
	c->recipe = await(r->group, r->slot, r->recipe, v6);
	return c->recipe && !(c->recipe & BIT(RECIPE_BUSY)) ? EVENT_NONE : EVENT_DROP_BUSY;
}

static __always_inline enum event create(struct slow *c, const int v6)
{
	const __u8 protocol = c->key.id >> ID_PROTOCOL;
	struct insert_request *r = &c->forward;
	const struct service *service;
	enum event event;
	__u32 index, method = 0, state = STATE_UDP;

	service = find_service(c, v6);
	if (!service)
		return EVENT_PASS_NO_SERVICE;
	if (is_martian(&c->key, v6))
		return EVENT_DROP_MARTIAN;
	if (service->access && !is_let_in(c))
		return EVENT_DROP_ACCESS_DENIED;
	if (protocol == IPPROTO_TCP && (c->tcp_flags & (TCP_SYN | TCP_RST)) != TCP_SYN)
		return EVENT_DROP_MIDSTREAM;
	c->pick.client = fold_client(&c->key, v6);
	c->pick.client_port = bpf_ntohs((__u16)c->key.id);
	c->pick.attempt = 0;
	for (int i = 0; i < 4; i++)
		c->pick.destination[i] = c->key.destination[i];
	if (c->pick.client_port == FTP_DATA_PORT)
		return EVENT_DROP_FTP_DATA;
	index = pick_server(&c->pick, &method);
	if (!index)
		return EVENT_ANSWER_NO_SERVER;

	if (protocol == IPPROTO_TCP)
		state = next_tcp_state(method == METHOD_NAT ? DIRECTION_INPUT : DIRECTION_INPUT_ONLY, c->tcp_flags,
				       STATE_NONE);
	r->key = c->key;
	r->hash = c->hash;
	r->tick = c->tick;
	r->recipe = with_server((__u64)state << RECIPE_STATE, index, method);
	c->hop = 0;
	if (method == METHOD_NAT) {
		r->recipe |= BIT(RECIPE_BUSY);
		if (service->flags & SERVICE_WIDE)
			r->recipe |= BIT(RECIPE_WIDE);
		c->hop = learn_hop(&c->link);
	}
	r->hop = c->hop;
	switch (insert_key(r, v6)) {
	case INSERTED:
		break;
	case EXISTS:
		return adopt(c, r, v6);
	default:
		return EVENT_DROP_TABLE_FULL;
	}
	c->recipe = r->recipe & ~BIT(RECIPE_BUSY);
	event = complete_nat(c, &c->recipe, v6);
	if (event != EVENT_NONE) {
		end_claim(r, 0, v6);
		return event;
	}
	bind_connection(recipe_server(c->recipe), state);
	if (r->recipe & BIT(RECIPE_BUSY))
		end_claim(r, c->recipe, v6);
	c->is_new = 1;
	return EVENT_NONE;
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
