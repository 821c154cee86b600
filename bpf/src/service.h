/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which service a packet is for, and whether that lets its client in. */
#ifndef SHUNT_SERVICE_H
#define SHUNT_SERVICE_H

#include "slow.h"

static __always_inline int is_service(const struct service *service, const struct key *key, const int v6)
{
	__u32 differs = 0;

#pragma unroll
	for (int i = 0; i < (v6 ? 4 : 1); i++)
		differs |= service->key.address[i] ^ key->destination[i];
	return !differs && service->key.port == (__u16)(key->id >> 16) &&
	       service->key.protocol == (__u8)(key->id >> ID_PROTOCOL) && service->key.family == (v6 ? 6 : 4) &&
	       service->life == LIFE_LIVE;
}

/*
 * The service a client's packet is for, and its index; 0 if there is none.
 * Which index it had last time is tried first: an array read, not a hash.
 */
static __always_inline struct service *find_service(const struct key *key, __u32 *index, const int v6)
{
	__u32 slot = (filter_bit(key->destination, v6) ^ (__u32)(key->id >> 16)) % SERVICE_HINTS;
	__u32 *hint = bpf_map_lookup_elem(&service_hints, &slot);
	struct service_key wanted = {};
	struct service *service;
	__u32 *value, hinted;

	if (!hint)
		return 0;
	hinted = *hint;
	service = bpf_map_lookup_elem(&services, &hinted);
	if (service && is_service(service, key, v6)) {
		*index = hinted;
		return service;
	}
#pragma unroll
	for (int i = 0; i < (v6 ? 4 : 1); i++)
		wanted.address[i] = key->destination[i];
	wanted.port = (__u16)(key->id >> 16);
	wanted.protocol = (__u8)(key->id >> ID_PROTOCOL);
	wanted.family = v6 ? 6 : 4;
	value = bpf_map_lookup_elem(&service_index, &wanted);
	if (!value)
		return 0;
	hinted = *value;
	*index = hinted;
	*hint = hinted;
	return bpf_map_lookup_elem(&services, &hinted);
}

/* How often a list may be replaced while one packet looks at it. */
#define ACCESS_TRIES 4

/*
 * Whether the service's list lets the client of s->key in. A list is replaced as
 * a whole: if the service names another set after the look than before it, keys
 * may have been missing. Global: verified once.
 */
__noinline int is_let_in(struct slow *s)
{
	struct access_key key = { .bits = ACCESS_KEY_BITS };
	struct service *service;
	__u32 index;

	if (!s)
		return 0;
	index = s->pick.service;
	service = bpf_map_lookup_elem(&services, &index);
	if (!service)
		return 0;
	for (int i = 0; i < 4; i++)
		key.address[i] = s->key.source[i];
	for (int i = 0; i < ACCESS_TRIES; i++) {
		__u32 word = LOAD(&service->access), verdict;
		__u32 *value;

		if (!word)
			return 1;
		order();
		key.set = word & ACCESS_SET_MASK;
		value = bpf_map_lookup_elem(&access, &key);
		verdict = value ? LOAD(value) : word >> ACCESS_DENY_REST ? ACCESS_DENY : ACCESS_ALLOW;
		order();
		if (LOAD(&service->access) == word)
			return verdict == ACCESS_ALLOW;
	}
	return 0;
}

#endif
