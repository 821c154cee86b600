/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The end of a connection, or of a template: its claim, its other key, its counts. */
#ifndef SHUNT_REMOVE_H
#define SHUNT_REMOVE_H

#include "watch.h"

/* Removes the reply key of the connection in that slot with that recipe, which the caller has claimed. */
static __always_inline int remove_reply(__u32 index, __u32 slot, __u64 recipe, const int v6)
{
	void *group = group_at(index, v6);
	struct lookup reply = {};
	struct key key;
	__u64 *entry;

	if (!group)
		return 0;
	entry = entry_at(group, slot, v6);
	if (!entry)
		return 0;
	entry_key(&key, entry, v6);
	look_up_reply(&reply, &key, recipe, LOAD(entry + WORDS(v6) + 2) >> 32, v6);
	if (reply.recipe)
		release_slot(reply.group, reply.slot, v6);
	return 0;
}

__noinline int remove_reply4(__u32 index, __u32 slot, __u64 recipe)
{
	return remove_reply(index, slot, recipe, 0);
}

__noinline int remove_reply6(__u32 index, __u32 slot, __u64 recipe)
{
	return remove_reply(index, slot, recipe, 1);
}

/* The key of the network that a client of the service is in, by the service's limits. */
static __always_inline void source_of(struct source_key *source, const __u32 *client,
				      const struct service_limits *limit, __u32 service)
{
	source->service = service;
#pragma unroll
	for (int i = 0; i < 4; i++)
		source->network[i] = client[i] & limit->source_mask[i];
}

/*
 * Takes one connection from the count of a client's network; key is one of the
 * client's. The network may have been forgotten since it was counted, and have begun
 * anew: its count is never below 0.
 */
__noinline int uncount_source(__u32 service, struct key *key)
{
	struct service_limits *limit = bpf_map_lookup_elem(&limits, &service);
	struct source_key network;
	struct source *source;

	if (!limit || !key)
		return 0;
	source_of(&network, key->source, limit, service);
	source = bpf_map_lookup_elem(&sources, &network);
	if (source && __sync_fetch_and_add(&source->connections, -1) <= 0)
		__sync_fetch_and_add(&source->connections, 1);
	return 0;
}

/* As uncount_source, for the connection that is in that slot still. */
static __always_inline int uncount_entry(__u32 index, __u32 slot, __u64 recipe, const int v6)
{
	__u32 server_index = recipe_server(recipe);
	struct server *server = bpf_map_lookup_elem(&servers, &server_index);
	void *group = group_at(index, v6);
	struct key key;
	__u64 *entry;

	if (!server || !group)
		return 0;
	entry = entry_at(group, slot, v6);
	if (!entry)
		return 0;
	entry_key(&key, entry, v6);
	return uncount_source(server->service, &key);
}

__noinline int uncount_entry4(__u32 index, __u32 slot, __u64 recipe)
{
	return uncount_entry(index, slot, recipe, 0);
}

__noinline int uncount_entry6(__u32 index, __u32 slot, __u64 recipe)
{
	return uncount_entry(index, slot, recipe, 1);
}

/*
 * Claims the connection whose forward entry is in that slot and takes it out of the
 * table: its reply key, its template's and its source network's count of it, its entry. False if the recipe
 * is not what the caller read: somebody else has changed it since. A template is
 * taken out likewise, whether or not it has connections.
 */
static __always_inline int take_out(__u32 index, __u32 slot, __u64 recipe, const int v6)
{
	void *group = group_at(index, v6);
	__u64 *entry;

	if (!group)
		return 0;
	entry = entry_at(group, slot, v6);
	if (!entry || !change(entry, recipe, recipe | BIT(RECIPE_BUSY), v6))
		return 0;
	announce(index, slot, recipe, NEWS_CLOSED, v6);
	if (recipe_method(recipe) == METHOD_NAT && !is_template(recipe)) {
		if (v6)
			remove_reply6(index, slot, recipe);
		else
			remove_reply4(index, slot, recipe);
	}
	tell(index, slot, recipe, NEWS_ENDED, v6);
	if (recipe & BIT(RECIPE_COUNTED)) {
		if (v6)
			uncount_entry6(index, slot, recipe);
		else
			uncount_entry4(index, slot, recipe);
	}
	release(group, entry, slot, v6);
	return 1;
}

__noinline int take_out4(__u32 index, __u32 slot, __u64 recipe)
{
	return take_out(index, slot, recipe, 0);
}

__noinline int take_out6(__u32 index, __u32 slot, __u64 recipe)
{
	return take_out(index, slot, recipe, 1);
}

/* As take_out, and its server's count of it. */
static __always_inline int claim_and_remove(__u32 index, __u32 slot, __u64 recipe, const int v6)
{
	if (!take_out(index, slot, recipe, v6))
		return 0;
	unbind_connection(recipe_server(recipe), recipe_state(recipe));
	return 1;
}

__noinline int claim_and_remove4(__u32 index, __u32 slot, __u64 recipe)
{
	return claim_and_remove(index, slot, recipe, 0);
}

__noinline int claim_and_remove6(__u32 index, __u32 slot, __u64 recipe)
{
	return claim_and_remove(index, slot, recipe, 1);
}

static __always_inline int remove_entry(__u32 index, __u32 slot, __u64 recipe, const int v6)
{
	return v6 ? claim_and_remove6(index, slot, recipe) : claim_and_remove4(index, slot, recipe);
}

#endif
