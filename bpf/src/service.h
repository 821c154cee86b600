/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which service a packet is for, and whether that lets its client in. */
#ifndef SHUNT_SERVICE_H
#define SHUNT_SERVICE_H

#include "slow.h"

/* Port, protocol and family of a service's key, in one word as they are there. */
static __always_inline __u32 endpoint(const struct key *key, const int v6)
{
	return (__u32)(key->id >> 16) | (v6 ? 6 : 4) << 24;
}

_Static_assert(__builtin_offsetof(struct service_key, port) == 16 && sizeof(struct service_key) == 20, "see endpoint");

/* Whether the service, with these flags, is one of that address and port alone, and there. */
static __always_inline int is_service(const struct service *service, __u32 flags, const struct key *key, const int v6)
{
	__u32 differs = *(const __u32 *)&service->key.port ^ endpoint(key, v6);

#pragma unroll
	for (int i = 0; i < (v6 ? 4 : 1); i++)
		differs |= service->key.address[i] ^ key->destination[i];
	return !differs && service->life == LIFE_LIVE && !(flags & SERVICE_WIDE);
}

/* The search for the first range that has the port. */
struct ranges {
	__u32 next; /* word */
	__u32 port; /* host order */
	__u32 service; /* out: 0: none */
};

static long match_range(__u32 i, struct ranges *r)
{
	__u32 ports = load_word(r->next);

	if (r->port >= (ports & 0xffff) && r->port <= ports >> 16) {
		r->service = load_word(r->next + 1);
		return 1;
	}
	r->next += 2;
	return 0;
}

/*
 * Index of the most specific service of several addresses or ports that s->key is
 * for; 0: none. The ranges found are those of one moment: a list that is replaced
 * stays where it is for longer than this takes. Global: verified once.
 */
__noinline __u32 match_service(struct slow *s)
{
	struct match_key key = { .bits = MATCH_KEY_BITS };
	struct ranges r = {};
	struct match *match;

	if (!s)
		return 0;
	key.head = (__u8)(s->key.id >> ID_PROTOCOL) | (s->is_v6 ? 6 : 4) << 8;
	for (int i = 0; i < 4; i++)
		key.address[i] = s->key.destination[i];
	match = bpf_map_lookup_elem(&matches, &key);
	if (!match)
		return 0;
	r.next = match->list;
	r.port = bpf_ntohs((__u16)(s->key.id >> 16));
	bpf_loop(match->ranges < MATCH_RANGES ? match->ranges : MATCH_RANGES, match_range, &r, 0);
	return r.service;
}

/*
 * The service a client's packet is for, its index and flags in s->pick; 0 if there is
 * none. Which index it had last time is tried first: an array read, not a hash. Only
 * services of one address and port are found that way: they are the most specific.
 */
static __always_inline struct service *find_service(struct slow *s, const int v6)
{
	const struct key *key = &s->key;
	__u32 slot = (filter_bit(key->destination, v6) ^ (__u32)(key->id >> 16)) % SERVICE_HINTS;
	__u32 *hint = bpf_map_lookup_elem(&service_hints, &slot);
	struct service_key wanted = {};
	struct service *service;
	__u32 *value, index;

	if (!hint)
		return 0;
	index = *hint;
	service = bpf_map_lookup_elem(&services, &index);
	if (service) {
		s->pick.service = index;
		s->pick.flags = in_force(service)->flags;
		if (is_service(service, s->pick.flags, key, v6))
			return service;
	}
#pragma unroll
	for (int i = 0; i < (v6 ? 4 : 1); i++)
		wanted.address[i] = key->destination[i];
	*(__u32 *)&wanted.port = endpoint(key, v6);
	value = bpf_map_lookup_elem(&service_index, &wanted);
	if (value) {
		index = *value;
		if (!s->is_trial)
			*hint = index;
	} else {
		index = match_service(s);
	}
	s->pick.service = index;
	service = index ? bpf_map_lookup_elem(&services, &index) : 0;
	if (service)
		s->pick.flags = in_force(service)->flags;
	return service;
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
