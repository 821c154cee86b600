/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Next hops of clients: learned from the packets they send, so that a reply goes
 * back to the router it came from. A reference is an index and the generation
 * the hop had; user space frees a hop by raising its generation.
 */
#ifndef SHUNT_HOP_H
#define SHUNT_HOP_H

#include "packet.h"

#define HOP_PROBES 4

static __always_inline __u32 hop_reference(__u32 index, const struct hop *hop)
{
	return index | (__u32)hop->generation << HOP_INDEX_BITS;
}

/* The hop a reference names, or 0 if it is void or has failed. */
static __always_inline struct hop *learned_hop(__u32 reference)
{
	__u32 index = reference & (HOPS - 1);
	struct hop *hop = bpf_map_lookup_elem(&hops, &index);

	if (!hop || !reference || !hop->ifindex || hop->failed || hop->generation != reference >> HOP_INDEX_BITS)
		return 0;
	return hop;
}

struct link_view {
	__u64 destination; /* the six bytes, then zero */
	__u64 source;
	__u32 ifindex;
	__be16 outer_vlan;
	__be16 inner_vlan;
};

static __always_inline __u64 load_mac(const __u8 *mac)
{
	return *(const __u32 *)mac | (__u64)*(const __u16 *)(mac + 4) << 32;
}

static __always_inline void store_mac(__u8 *mac, __u64 value)
{
	*(__u32 *)mac = value;
	*(__u16 *)(mac + 4) = value >> 32;
}

_Static_assert(__builtin_offsetof(struct hop, source_mac) == ETH_ALEN, "as struct ethhdr begins");

/* Sets the frame's link addresses to the hop's, in two stores. */
static __always_inline void store_link(struct ethhdr *eth, const struct hop *hop)
{
	*(__u64 *)eth = *(const __u64 *)hop;
	*(__u32 *)((void *)eth + sizeof(__u64)) = *(const __u32 *)((const void *)hop + sizeof(__u64));
}

static __always_inline int same_link(const struct hop *hop, const struct link_view *link)
{
	return load_mac(hop->destination_mac) == link->source && load_mac(hop->source_mac) == link->destination &&
	       hop->ifindex == link->ifindex && hop->outer_vlan == link->outer_vlan &&
	       hop->inner_vlan == link->inner_vlan;
}

/* Reference to the hop that leads back to where the packet came from; 0: none could be learned. */
__noinline __u32 learn_hop(struct link_view *link)
{
	__u64 hash;

	if (!link)
		return 0;
	hash = (link->source + link->destination * 3 + ((__u64)link->ifindex << 48) + ((__u64)link->outer_vlan << 32) +
		link->inner_vlan) *
	       0x9e3779b97f4a7c15ULL;
	for (int i = 0; i < HOP_PROBES; i++) {
		__u32 index = LEARNED_HOPS + ((hash >> 49) + i) % (HOPS - LEARNED_HOPS);
		struct hop *hop = bpf_map_lookup_elem(&hops, &index);

		if (!hop)
			return 0;
		if (LOAD(&hop->ifindex)) {
			if (!same_link(hop, link))
				continue;
			if (hop->failed)
				STORE(&hop->failed, 0); /* its packets arrive: it is alive */
			return hop_reference(index, hop);
		}
		if (__sync_val_compare_and_swap(&hop->claim, 0, 1))
			continue; /* another CPU fills it in */
		store_mac(hop->destination_mac, link->source);
		store_mac(hop->source_mac, link->destination);
		hop->outer_vlan = link->outer_vlan;
		hop->inner_vlan = link->inner_vlan;
		hop->mtu = 0;
		order();
		STORE(&hop->ifindex, link->ifindex);
		return hop_reference(index, hop);
	}
	count(EVENT_NOTE_HOPS_FULL);
	return 0;
}

#endif
