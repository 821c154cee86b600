//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Our connection table against the kernel's HASH of the same keys and values, by
 * single operations: look a key up, insert it, delete it, sweep. Run behind
 * bench_wrapper, one IPv4 TCP key to a packet; floor_lookup4 is HASH's lookup.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>

#include <bpf/bpf_endian.h>

#include "insert.h"

struct hash_key4 {
	__u32 source;
	__u32 destination;
	__u32 ports;
	__u32 protocol;
};

/* What an entry has beyond its key. */
struct hash_value {
	__u64 recipe;
	__u32 seen;
	__u32 hop;
};

MAP(hash4, BPF_MAP_TYPE_HASH, struct hash_key4, struct hash_value, 1);

__u64 failed SEC(".data.failed"); /* operations that found what should not be, or not what should */

struct frame4 {
	struct ethhdr eth;
	struct iphdr ip;
	__u32 ports;
} __attribute__((packed));

static __always_inline int read_key(struct xdp_md *ctx, struct key *key)
{
	struct frame4 *f = (void *)(long)ctx->data;

	if ((void *)(f + 1) > (void *)(long)ctx->data_end || f->eth.h_proto != bpf_htons(ETH_P_IP))
		return 0;
	__builtin_memset(key, 0, sizeof(*key));
	key->source[0] = f->ip.saddr;
	key->destination[0] = f->ip.daddr;
	key->id = make_id(f->ports, f->ip.protocol);
	return 1;
}

static __always_inline void hash_key_of(struct hash_key4 *h, const struct key *key)
{
	h->source = key->source[0];
	h->destination = key->destination[0];
	h->ports = key->id;
	h->protocol = key->id >> ID_PROTOCOL;
}

static __always_inline int done(int ok)
{
	if (!ok)
		failed++;
	return XDP_TX;
}

SEC("xdp.frags")
int table_find(struct xdp_md *ctx)
{
	struct place place;
	struct found found;
	struct key key;

	if (!read_key(ctx, &key) || !locate(&place, hash_key(&key, 0), 0))
		return XDP_ABORTED;
	find(&found, &place, &key, 0);
	return done(found.entry && found.recipe);
}

SEC("xdp.frags")
int table_insert(struct xdp_md *ctx)
{
	struct insert_request r = { .recipe = 1ULL << RECIPE_SERVER | BIT(RECIPE_PROVEN) };

	if (!read_key(ctx, &r.key))
		return XDP_ABORTED;
	r.hash = hash_key(&r.key, 0);
	r.tick = now_tick();
	return done(insert_key(&r, 0) == INSERTED);
}

SEC("xdp.frags")
int table_delete(struct xdp_md *ctx)
{
	struct place place;
	struct found found;
	struct key key;

	if (!read_key(ctx, &key) || !locate(&place, hash_key(&key, 0), 0))
		return XDP_ABORTED;
	find(&found, &place, &key, 0);
	if (!found.entry || !change(found.entry, found.recipe, found.recipe | BIT(RECIPE_BUSY), 0))
		return done(0);
	release(place.group, found.entry, found.slot, 0);
	return done(1);
}

SEC("xdp.frags")
int hash_find(struct xdp_md *ctx)
{
	struct hash_value *value;
	struct hash_key4 h;
	struct key key;

	if (!read_key(ctx, &key))
		return XDP_ABORTED;
	hash_key_of(&h, &key);
	value = bpf_map_lookup_elem(&hash4, &h);
	return done(value && value->recipe);
}

SEC("xdp.frags")
int hash_insert(struct xdp_md *ctx)
{
	struct hash_value value = { .recipe = 1ULL << RECIPE_SERVER | BIT(RECIPE_PROVEN) };
	struct hash_key4 h;
	struct key key;

	if (!read_key(ctx, &key))
		return XDP_ABORTED;
	hash_key_of(&h, &key);
	value.seen = now_tick();
	return done(!bpf_map_update_elem(&hash4, &h, &value, BPF_NOEXIST));
}

SEC("xdp.frags")
int hash_delete(struct xdp_md *ctx)
{
	struct hash_key4 h;
	struct key key;

	if (!read_key(ctx, &key))
		return XDP_ABORTED;
	hash_key_of(&h, &key);
	return done(!bpf_map_delete_elem(&hash4, &h));
}

struct bpf_map;

/* A sweep: a tenth has expired, which the key says here; the rest is counted. */
static long sweep_hash(struct bpf_map *map, struct hash_key4 *h, struct hash_value *value, __u64 *left)
{
	if (((h->source * 0x9e3779b1U + h->ports * 0x85ebca6bU) >> 8) % 10 == 0)
		bpf_map_delete_elem(map, h);
	else if (value->recipe)
		*left += 1;
	return 0;
}

__u64 left SEC(".data.left");

SEC("xdp.frags")
int hash_sweep(struct xdp_md *ctx)
{
	__u64 counted = 0;

	bpf_for_each_map_elem(&hash4, sweep_hash, &counted, 0);
	left = counted;
	return XDP_TX;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
