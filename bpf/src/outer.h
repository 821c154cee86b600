/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Outer headers: ipip (RFC 2003, RFC 2473, RFC 4213), gue (draft-ietf-intarea-gue,
 * variant 0; kernel: net/ipv4/fou_core.c) and gre (RFC 2784), over either IP version.
 * The bits are those of the kernel's IPVS (kernel: net/netfilter/ipvs/ip_vs_xmit.c,
 * ip_vs_tunnel_xmit, ip_vs_gue_encap, ip_vs_gre_encap), but for what decision 0006 says.
 * There must be room for them in front of the packet already.
 */
#ifndef SHUNT_OUTER_H
#define SHUNT_OUTER_H

#include "answer.h"
#include "leave.h"

#define GUE_FIRST_PORT 0xc000 /* RFC 6335 §6: dynamic ports, by the hash's upper 14 bits */
#define GRE_CHECKSUM 0x80 /* in the first octet */

struct udp_gue {
	__be16 source;
	__be16 dest;
	__be16 length;
	__u16 checksum;
	__u32 gue; /* variant 0, not control, no options: the protocol in the second octet, no flags */
};

struct gre {
	__u32 head; /* flags, version 0, EtherType */
	__u16 checksum; /* with GRE_CHECKSUM, and so the rest */
	__u16 reserved;
};

/* What they are written from. */
struct wrapping {
	__u32 hash;
	__u32 length; /* of the packet inside */
	__u32 sum; /* of it, with TUNNEL_CHECKSUM */
	__u32 id; /* of outer IPv4; not 0: routers may cut it up */
	__u8 traffic_class;
	__u8 protocol; /* of the packet inside */
	__be16 eth_proto; /* likewise */
	__be16 priority; /* of the tag that it came with */
	__u32 tags; /* octets of those that it gets */
};

/* The protocol of what follows the outer IP header. */
static __always_inline __u32 outer_protocol(__u8 type, const struct wrapping *w)
{
	return type == TUNNEL_IPIP ? w->protocol : type == TUNNEL_GUE ? IPPROTO_UDP : IPPROTO_GRE;
}

static __always_inline int put_outer4(struct iphdr *ip, void *end, const struct tunnel *tunnel, __u32 overhead,
				      __u32 protocol, const struct wrapping *w)
{
	__u32 *words = (void *)ip, length = overhead + w->length;
	__u32 first, second, third, source;

	if ((void *)(ip + 1) > end)
		return 0;
	/* Words as they lie in memory, little-endian. */
	first = 0x45 | w->traffic_class << 8 | (__u32)bpf_htons(length) << 16;
	second = w->id ? (__u16)w->id : (__u32)bpf_htons(IP_DF) << 16;
	third = TIME_TO_LIVE | protocol << 8;
	source = tunnel->source[0] | (w->hash & tunnel->spread);
	words[0] = first;
	words[1] = second;
	words[3] = source;
	words[4] = tunnel->address[0];
	third |= (__u32)(__u16)~fold_words((__u64)first + second + third + source + tunnel->address[0]) << 16;
	words[2] = third;
	return 1;
}

static __always_inline int put_outer6(struct ipv6hdr *ip6, void *end, const struct tunnel *tunnel, __u32 overhead,
				      __u32 protocol, const struct wrapping *w)
{
	const __u64 *source = (const __u64 *)tunnel->source, *destination = (const __u64 *)tunnel->address;
	__u64 *words = (void *)ip6;

	if ((void *)(ip6 + 1) > end)
		return 0;
	words[0] = bpf_htonl(6U << 28 | w->traffic_class << 20 | w->hash >> 12) |
		   (__u64)bpf_htons(overhead - sizeof(*ip6) + w->length) << 32 | (__u64)protocol << 48 |
		   (__u64)TIME_TO_LIVE << 56;
	words[1] = source[0];
	words[2] = source[1] | (__u64)(w->hash & tunnel->spread) << 32;
	words[3] = destination[0];
	words[4] = destination[1];
	return 1;
}

/* The sum of the pseudo-header of what lies after the outer IP header. */
static __always_inline __u64 outer_pseudo(const struct tunnel *tunnel, const struct wrapping *w, __be16 length)
{
	__u64 sum = (__u64)tunnel->address[0] + length + bpf_htons(IPPROTO_UDP);

	if (tunnel->family == 4)
		return sum + (tunnel->source[0] | (w->hash & tunnel->spread));
#pragma unroll
	for (int i = 0; i < 3; i++)
		sum += (__u64)tunnel->source[i] + tunnel->address[i + 1];
	return sum + (tunnel->source[3] | (w->hash & tunnel->spread));
}

/*
 * TUNNEL_REMOTE_CHECKSUM is the kernel's option of GUE for packets whose checksum the
 * hardware is still to fill in (ip_vs_xmit.c, ip_vs_tunnel_xmit: only with
 * CHECKSUM_PARTIAL is there room for it; __tun_gso_type_mask and ip_vs_gue_encap: the
 * UDP checksum is 0 with it). No packet from the wire is one.
 */
static __always_inline int put_gue(struct udp_gue *h, void *end, const struct tunnel *tunnel, __u8 checksum,
				   const struct wrapping *w)
{
	__be16 length = bpf_htons(sizeof(*h) + w->length);
	__u16 check = 0;

	if ((void *)(h + 1) > end)
		return 0;
	h->source = bpf_htons(GUE_FIRST_PORT | w->hash >> 18);
	h->dest = tunnel->port;
	h->length = length;
	h->gue = (__u32)w->protocol << 8;
	if (checksum == TUNNEL_CHECKSUM) {
		check = ~fold_words(outer_pseudo(tunnel, w, length) + h->source + h->dest + length + h->gue + w->sum);
		check = check ? check : 0xffff;
	}
	h->checksum = check;
	return 1;
}

static __always_inline int put_gre(struct gre *h, void *end, __u8 checksum, const struct wrapping *w)
{
	__u32 head = (__u32)w->eth_proto << 16;

	if ((void *)&h->checksum > end)
		return 0;
	if (checksum != TUNNEL_CHECKSUM) {
		h->head = head;
		return 1;
	}
	if ((void *)(h + 1) > end)
		return 0;
	head |= GRE_CHECKSUM;
	h->head = head;
	h->checksum = ~fold_words((__u64)head + w->sum);
	h->reserved = 0;
	return 1;
}

/* The priority in the tag. */
static __always_inline __be16 priority_of(struct vlan_tag *tag, void *end)
{
	/* Or clang leaves the check out, as the IP header lies behind the tag: the verifier does not see that. */
	asm volatile("" : "+r"(tag));
	return (void *)(tag + 1) <= end ? tag->tci & bpf_htons(VLAN_PRIORITY_MASK) : 0;
}

/* Writes all headers in front of the packet. */
static __always_inline int put_headers(struct xdp_md *ctx, const struct hop *hop, const struct tunnel *tunnel,
				       const struct wrapping *w)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	void *outer = data + sizeof(struct ethhdr) + w->tags;
	/* 20 or 40, by the second bit of 4 and 6: so the verifier walks what follows once. */
	void *next = outer + sizeof(struct iphdr) + (tunnel->family & 2) * sizeof(struct iphdr) / 2;
	const int is6 = tunnel->family == 6;
	const __u32 overhead = tunnel->overhead, protocol = outer_protocol(tunnel->type, w);

	if (!(is6 ? put_outer6(outer, end, tunnel, overhead, protocol, w) :
		    put_outer4(outer, end, tunnel, overhead, protocol, w)) ||
	    (tunnel->type == TUNNEL_GUE && !put_gue(next, end, tunnel, tunnel->checksum, w)) ||
	    (tunnel->type == TUNNEL_GRE && !put_gre(next, end, tunnel->checksum, w)))
		return 0;
	return put_link(data, end, hop, w->tags, w->priority, is6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP));
}

#endif
