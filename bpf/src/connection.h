/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A connection over its one or two keys: find them, wait for them, tell whether
 * they are over. NAT has
 * two keys, client to server ("forward", which has the last word on the state)
 * and server to client ("reply"); other methods have one.
 */
#ifndef SHUNT_CONNECTION_H
#define SHUNT_CONNECTION_H

#include "local.h"

/* Ports as on the wire: source in the low half of the word as loaded. */
static __always_inline __u32 join_ports(__be16 source, __be16 destination)
{
	return (__u32)source | (__u32)destination << 16;
}

/* The server's port of a connection: without one of its own, the port the client asked for. */
static __always_inline __be16 real_port(const struct server *server, __u64 forward_id)
{
	__be16 port = server->port;

	return port ? port : (__be16)(forward_id >> 16);
}

/*
 * The reply key of the connection with this forward key on server; recipe and word are
 * its forward entry's, the word its hop's. Both keys may be one and the same.
 */
static __always_inline void reply_key(struct key *reply, const struct key *forward, const struct server *server,
				      __u64 recipe, __u32 word)
{
	const __u32 *client = forward->source;
	__be16 port = forward->id;

	if (is_full_nat(recipe)) {
		struct local_address *local = local_of(word);

		if (local)
			client = local->address;
		port = local_port(word);
	}
#pragma unroll
	for (int i = 0; i < 4; i++) {
		__u32 address = client[i];

		reply->source[i] = server->address[i];
		reply->destination[i] = address;
	}
	reply->id = make_id(join_ports(real_port(server, forward->id), port), forward->id >> ID_PROTOCOL);
}

/* The forward key of the connection with this reply key from server, unless it is wide. */
static __always_inline void forward_key(struct key *forward, const struct key *reply, const struct server *server)
{
#pragma unroll
	for (int i = 0; i < 4; i++) {
		forward->source[i] = reply->destination[i];
		forward->destination[i] = server->virtual_address[i];
	}
	forward->id = make_id(join_ports((__u16)(reply->id >> 16), server->virtual_port), reply->id >> ID_PROTOCOL);
}

/* The key that the entry holds. */
static __always_inline void entry_key(struct key *key, const __u64 *entry, const int v6)
{
	__u64 *source = (__u64 *)key->source;
	__u64 *destination = (__u64 *)key->destination;

	if (v6) {
		source[0] = LOAD(entry);
		source[1] = LOAD(entry + 1);
		destination[0] = LOAD(entry + 2);
		destination[1] = LOAD(entry + 3);
	} else {
		source[0] = (__u32)LOAD(entry);
		source[1] = 0;
		destination[0] = LOAD(entry) >> 32;
		destination[1] = 0;
	}
	key->id = LOAD(entry + WORDS(v6)) & ID_MASK;
}

/*
 * From here on: global functions, which the verifier checks once each, whoever
 * calls them. They take no pointers into maps: entries are named by number.
 */
struct lookup {
	struct key key;
	__u64 recipe; /* out: 0: the key has no live entry */
	__u32 group; /* out: where it is */
	__u32 slot;
	__u32 seen; /* out: what it holds */
	__u32 hop;
};

static __always_inline void look_up(struct lookup *l, const int v6)
{
	/* No copy of the key: stacks are short where this is called from (watch.h). */
	struct place place;
	struct found found;

	l->recipe = 0;
	if (!locate(&place, hash_key(&l->key, v6), v6))
		return;
	find(&found, &place, &l->key, v6);
	if (!found.entry)
		return;
	l->group = place.index;
	l->slot = found.slot;
	l->recipe = found.recipe;
	l->seen = found.seen;
	l->hop = found.hop;
}

__noinline int look_up4(struct lookup *l)
{
	if (l)
		look_up(l, 0);
	return 0;
}

__noinline int look_up6(struct lookup *l)
{
	if (l)
		look_up(l, 1);
	return 0;
}

/* look_up, by the global function of the family. */
static __always_inline void look_up_by(struct lookup *l, const int v6)
{
	if (v6)
		look_up6(l);
	else
		look_up4(l);
}

/* Reads whatever live entry is in l's slot of l's group into l, with its key. */
static __always_inline void look_at(struct lookup *l, const int v6)
{
	void *group = group_at(l->group, v6);
	__u64 *entry, id, tail;

	l->recipe = 0;
	if (!group)
		return;
	entry = entry_at(group, l->slot, v6);
	if (!entry)
		return;
	id = LOAD(entry + WORDS(v6));
	order();
	entry_key(&l->key, entry, v6);
	tail = LOAD(entry + WORDS(v6) + 2);
	order();
	l->recipe = LOAD(entry + WORDS(v6) + 1);
	l->seen = tail;
	l->hop = tail >> 32;
	l->key.id = id & ID_MASK;
	if (((id >> ID_GENERATION) ^ l->recipe) & GENERATION_MASK)
		l->recipe = 0;
}

__noinline int look_at4(struct lookup *l)
{
	if (l)
		look_at(l, 0);
	return 0;
}

__noinline int look_at6(struct lookup *l)
{
	if (l)
		look_at(l, 1);
	return 0;
}

/* Whether its client has shown to be real beyond what an invented one may, see proof_layout: it is not given up. */
static __always_inline int is_firm(__u64 recipe)
{
	const __u64 asked = BIT(RECIPE_PROVEN) | (__u64)SPACED_MASK << RECIPE_SPACED;

	return (recipe & asked) == BIT(RECIPE_PROVEN);
}

/* Whether it has proven all that it has to: of UDP, a reply is enough. */
static __always_inline int is_proven(__u64 recipe)
{
	return recipe_state(recipe) == STATE_UDP ? !!(recipe & BIT(RECIPE_PROVEN)) : is_firm(recipe);
}

static __always_inline int is_wide(__u64 recipe)
{
	return !!(recipe & BIT(RECIPE_WIDE));
}

/* Whether the hop word of an entry with that recipe is a place (place_layout), and no hop. */
static __always_inline int has_place(__u64 recipe)
{
	const __u64 both = BIT(RECIPE_WIDE) | BIT(RECIPE_REPLY);

	return (recipe & both) == both;
}

static __always_inline __u32 make_place(__u32 group, __u32 slot)
{
	return group << PLACE_GROUP | slot;
}

static __always_inline int same_key(const struct key *a, const struct key *b)
{
	__u32 differs = 0;

#pragma unroll
	for (int i = 0; i < 4; i++)
		differs |= (a->source[i] ^ b->source[i]) | (a->destination[i] ^ b->destination[i]);
	return !differs && a->id == b->id;
}

/* Looks l's key up; what it finds must be of the server and in the direction given. */
static __always_inline void look_up_half(struct lookup *l, __u32 server, __u64 reply_bit, const int v6)
{
	look_up_by(l, v6);
	if (recipe_server(l->recipe) != server || (l->recipe & BIT(RECIPE_REPLY)) != reply_bit)
		l->recipe = 0;
}

/* The reply entry of the connection with this forward key, and its entry's recipe and hop word. */
static __always_inline void look_up_reply(struct lookup *reply, const struct key *forward, __u64 recipe, __u32 word,
					  const int v6)
{
	__u32 index = recipe_server(recipe);
	struct server *server = bpf_map_lookup_elem(&servers, &index);

	reply->recipe = 0;
	if (!server)
		return;
	reply_key(&reply->key, forward, server, recipe, word);
	look_up_half(reply, index, BIT(RECIPE_REPLY), v6);
}

/* The forward entry that a wide connection's reply entry names by its place: it must have that reply key. */
static __always_inline void look_up_place(struct lookup *forward, const struct key *reply, __u32 index, __u32 place,
					  const int v6)
{
	struct server *server = bpf_map_lookup_elem(&servers, &index);
	struct key expected;

	forward->group = place >> PLACE_GROUP;
	forward->slot = place & ((1 << PLACE_GROUP) - 1);
	look_at(forward, v6);
	if (!server) {
		forward->recipe = 0;
		return;
	}
	reply_key(&expected, &forward->key, server, forward->recipe, forward->hop);
	if (!is_wide(forward->recipe) || forward->recipe & BIT(RECIPE_REPLY) ||
	    recipe_server(forward->recipe) != index || !same_key(&expected, reply))
		forward->recipe = 0;
}

__noinline int look_up_place4(struct lookup *forward, const struct key *reply, __u32 index, __u32 place)
{
	if (forward && reply)
		look_up_place(forward, reply, index, place, 0);
	return 0;
}

__noinline int look_up_place6(struct lookup *forward, const struct key *reply, __u32 index, __u32 place)
{
	if (forward && reply)
		look_up_place(forward, reply, index, place, 1);
	return 0;
}

/* The forward entry of the connection with the reply entry that has this key, recipe and hop. */
static __always_inline void look_up_forward(struct lookup *forward, const struct key *reply, __u64 recipe, __u32 hop,
					    const int v6)
{
	__u32 index = recipe_server(recipe);
	struct server *server;

	if (is_wide(recipe)) {
		if (v6)
			look_up_place6(forward, reply, index, hop);
		else
			look_up_place4(forward, reply, index, hop);
		return;
	}
	server = bpf_map_lookup_elem(&servers, &index);
	forward->recipe = 0;
	if (!server)
		return;
	forward_key(&forward->key, reply, server);
	look_up_half(forward, index, 0, v6);
}

#define LONG_AGO (1U << 30) /* ticks: more than any timeout */

/*
 * When the connection that a reply entry of full NAT with this recipe and place is of
 * had its last packet: its forward entry says so. Long ago, if there is none.
 */
static __always_inline __u32 seen_at(__u32 place, __u64 reply, const int v6)
{
	const __u64 same = (__u64)SERVER_MASK << RECIPE_SERVER | BIT(RECIPE_WIDE) | BIT(RECIPE_FULLNAT);
	void *group = group_at(place >> PLACE_GROUP, v6);
	__u64 *entry, recipe;

	if (!group)
		return now_tick() - LONG_AGO;
	entry = entry_at(group, place & ((1 << PLACE_GROUP) - 1), v6);
	if (!entry)
		return now_tick() - LONG_AGO;
	recipe = LOAD(entry + WORDS(v6) + 1);
	if ((recipe ^ reply) & same || recipe & BIT(RECIPE_REPLY))
		return now_tick() - LONG_AGO;
	return LOAD(entry + WORDS(v6) + 2);
}

__noinline __u32 seen_at4(__u32 place, __u64 reply)
{
	return seen_at(place, reply, 0);
}

__noinline __u32 seen_at6(__u32 place, __u64 reply)
{
	return seen_at(place, reply, 1);
}

/* An entry's seen and hop words with a tick for seen, whatever it has there. */
static __always_inline __u64 tail_of(__u64 recipe, __u64 tail, const int v6)
{
	if (!has_hop_for_seen(recipe))
		return tail;
	return (tail >> 32 << 32) | (v6 ? seen_at6(tail >> 32, recipe) : seen_at4(tail >> 32, recipe));
}

/* Frees the slot, whose entry is the caller's to remove. */
static __always_inline void release_slot(__u32 index, __u32 slot, const int v6)
{
	void *group = group_at(index, v6);
	__u64 *entry;

	if (!group)
		return;
	entry = entry_at(group, slot, v6);
	if (entry)
		release(group, entry, slot, v6);
}

/* Loads while another CPU makes or removes the connection: a microsecond or so. */
#define BUSY_LOADS 256

struct wait {
	__u64 recipe;
	__u32 group;
	__u32 slot;
};

static __always_inline long reload(struct wait *wait, const int v6)
{
	void *group = group_at(wait->group, v6);
	__u64 *entry;

	if (!group)
		return 1;
	entry = entry_at(group, wait->slot, v6);
	if (!entry)
		return 1;
	wait->recipe = LOAD(entry + WORDS(v6) + 1);
	return !(wait->recipe & BIT(RECIPE_BUSY));
}

static long reload4(__u32 i, struct wait *wait)
{
	return reload(wait, 0);
}

static long reload6(__u32 i, struct wait *wait)
{
	return reload(wait, 1);
}

/*
 * Waits for the claim on an entry to end. Its recipe then; 0 if the entry is
 * gone, with RECIPE_BUSY still if it took too long.
 */
static __always_inline __u64 await(__u32 group, __u32 slot, __u64 recipe, const int v6)
{
	struct wait wait = { .recipe = recipe, .group = group, .slot = slot };

	if (!(recipe & BIT(RECIPE_BUSY)))
		return recipe;
	if (v6)
		bpf_loop(BUSY_LOADS, reload6, &wait, 0);
	else
		bpf_loop(BUSY_LOADS, reload4, &wait, 0);
	return (wait.recipe ^ recipe) & GENERATION_MASK ? 0 : wait.recipe;
}

/*
 * Waits for the claim on the entry that l has found, and reads it anew: by full NAT its
 * hop word is written under the claim. Its recipe is 0 if it is gone.
 */
static __always_inline void await_entry(struct lookup *l, const int v6)
{
	__u64 recipe = await(l->group, l->slot, l->recipe, v6);

	if (!recipe || recipe & BIT(RECIPE_BUSY)) {
		l->recipe = recipe;
		return;
	}
	if (v6)
		look_at6(l);
	else
		look_at4(l);
	if ((l->recipe ^ recipe) & GENERATION_MASK)
		l->recipe = 0;
}

__noinline int await_entry4(struct lookup *l)
{
	if (l)
		await_entry(l, 0);
	return 0;
}

__noinline int await_entry6(struct lookup *l)
{
	if (l)
		await_entry(l, 1);
	return 0;
}

#define PROLONGED_SECONDS 60 /* kernel: ip_vs_conn.c, ip_vs_conn_expire */

/* Ticks that may pass without a packet before the connection, or the template, of that server dies. */
static __always_inline __u32 timeout_at(const struct server *server, __u64 recipe)
{
	__u32 state = recipe_state(recipe), service;
	struct timeout_set *own;

	if (recipe & BIT(RECIPE_PROLONGED) && state == STATE_TEMPLATE)
		return PROLONGED_SECONDS * refresh_ticks;
	if (!server || !(server->flags & SERVER_OWN_TIMEOUTS))
		return current.timeout[state];
	service = server->service;
	own = bpf_map_lookup_elem(&timeouts, &service);
	return own ? own->ticks[state] : current.timeout[state];
}

static __always_inline __u32 timeout_of(__u64 recipe)
{
	__u32 index = recipe_server(recipe);

	return timeout_at(bpf_map_lookup_elem(&servers, &index), recipe);
}

static __always_inline int is_longer(__u32 timeout, __u32 seen, __u32 tick)
{
	__s32 idle = tick - seen;

	/* Negative: another CPU saw a later tick. */
	return idle > (__s32)timeout;
}

/*
 * Whether a forward entry has outlived its state's timeout. Replies write the
 * forward entry's seen too, once a second (settle), so it speaks for both keys.
 */
static __always_inline int has_expired(__u64 recipe, __u32 seen, __u32 tick)
{
	return is_longer(timeout_of(recipe), seen, tick);
}

/* What is in force of a service. What must fit together is read from one answer. */
static __always_inline const struct schedule *in_force(const struct service *service)
{
	return &service->schedule[LOAD(&service->cursor) >> CURSOR_HALF & 1];
}

/* The flags of the server's service. */
static __always_inline __u32 rules_of(const struct server *server)
{
	__u32 index = server->service;
	struct service *service = bpf_map_lookup_elem(&services, &index);

	return service ? in_force(service)->flags : 0;
}

/* What the server's service has announced segment sizes clamped to; 0: nothing. */
static __always_inline __u32 mss_of(const struct server *server)
{
	__u32 index = server->service;
	struct service *service = bpf_map_lookup_elem(&services, &index);

	return service ? service->mss : 0;
}

/* Whether the connections of the server, which was removed, are to end (expire_nodest_conn). */
static __always_inline int is_forsaken(const struct server *server)
{
	return server->life == LIFE_SERVER_REMOVED && rules_of(server) & SERVICE_EXPIRE_NODEST;
}

/* As has_expired; also of connections whose server was removed, where the service does not want them. */
static __always_inline int is_over(__u64 recipe, __u32 seen, __u32 tick)
{
	__u32 index = recipe_server(recipe);
	struct server *server = bpf_map_lookup_elem(&servers, &index);

	return is_longer(timeout_at(server, recipe), seen, tick) || (server && is_forsaken(server));
}

#endif
