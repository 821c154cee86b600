/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * dh, sh, mh: the server that a table names for the virtual address or the client
 * (kernel: net/netfilter/ipvs/ip_vs_dh.c, _sh.c, _mh.c). User space makes the
 * tables. A server that cannot be used is not replaced, unless sh-fallback or
 * mh-fallback asks to look on.
 */
#ifndef SHUNT_SCHEDULERS_HASH_H
#define SHUNT_SCHEDULERS_HASH_H

#include "../siphash.h"
#include "request.h"

#define HASH_32_MULTIPLIER 0x61C88647 /* GOLDEN_RATIO_32, kernel: include/linux/hash.h */
#define BUCKET_BITS 8 /* IP_VS_SH_TAB_BITS, IP_VS_DH_TAB_BITS */
#define MH_KEY 2654435761U /* kernel: ip_vs_mh.c, ip_vs_mh_state.hash1 */

struct fallback {
	const struct pick_request *request;
	__u32 value; /* what is hashed */
	__u32 offset; /* where the first try, at offset 0, pointed */
	__u32 server; /* out */
	__u32 is_mh;
};

static __always_inline __u32 bucket_of(__u32 value)
{
	return (value * HASH_32_MULTIPLIER) >> (32 - BUCKET_BITS);
}

static __always_inline __u32 hash_slot(const struct pick_request *r, __u32 value, __u32 offset, const int is_mh)
{
	/* mh adds the offset before it hashes, sh after (kernel: ip_vs_mh_hashkey, ip_vs_sh_hashkey). */
	if (is_mh)
		return hsiphash_1u32(value + offset, MH_KEY) % r->schedule.slots;
	return (offset + bucket_of(value)) & ((1 << BUCKET_BITS) - 1);
}

static __always_inline long try_offset(__u32 i, struct fallback *f, const int is_mh)
{
	const struct pick_request *r = f->request;
	__u32 server;

	if (!r || !r->schedule.slots)
		return 1;
	server = load_word(r->schedule.table + hash_slot(r, f->value, (i + f->offset) % r->schedule.slots, is_mh));
	if (!server)
		return 1;
	f->server = is_usable(r, server) ? server : 0;
	return f->server != 0;
}

static long try_sh(__u32 i, struct fallback *f)
{
	return try_offset(i, f, 0);
}

static long try_mh(__u32 i, struct fallback *f)
{
	return try_offset(i, f, 1);
}

/* The server the table names for the client. */
static __always_inline __u32 pick_by_client(struct pick_request *r, const int is_mh)
{
	struct fallback f = { .request = r };
	__u32 server;

	if (!r->schedule.slots)
		return 0;
	f.value = r->client + (r->schedule.flags & SERVICE_HASH_PORT ? r->client_port : 0);
	f.offset = hash_slot(r, f.value, 0, is_mh);
	server = load_word(r->schedule.table + f.offset);
	if (!server || is_usable(r, server))
		return server;
	if (r->schedule.flags & SERVICE_FALLBACK)
		bpf_loop(r->schedule.slots, is_mh ? try_mh : try_sh, &f, 0);
	return f.server;
}

__noinline __u32 pick_sh(struct pick_request *r)
{
	return r ? pick_by_client(r, 0) : 0;
}

__noinline __u32 pick_mh(struct pick_request *r)
{
	return r ? pick_by_client(r, 1) : 0;
}

__noinline __u32 pick_dh(struct pick_request *r)
{
	__u32 server;

	if (!r || !r->schedule.slots)
		return 0;
	server = load_word(r->schedule.table + bucket_of(fold_destination(r)));
	return is_usable(r, server) ? server : 0;
}

#endif
