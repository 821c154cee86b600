/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Wrapping packets for servers of method tunnel: ipip (RFC 2003, RFC 2473, RFC 4213),
 * gue (draft-ietf-intarea-gue, variant 0; kernel: net/ipv4/fou_core.c) and gre
 * (RFC 2784), either IP version in either. The bits are those of the kernel's IPVS
 * (kernel: net/netfilter/ipvs/ip_vs_xmit.c, ip_vs_tunnel_xmit, ip_vs_gue_encap,
 * ip_vs_gre_encap), but for what decision 0006 says.
 *
 * The packet inside loses one from its time to live, and nothing else of it changes.
 */
#ifndef SHUNT_WRAP_H
#define SHUNT_WRAP_H

#include "answer.h"
#include "leave.h"

#define LEAST_MTU4 68 /* RFC 791 §3.2 */
#define LEAST_MTU6 1280 /* RFC 8200 §5 */
#define GUE_FIRST_PORT 0xc000 /* RFC 6335 §6: dynamic ports, by the hash's upper 14 bits */
#define GRE_CHECKSUM 0x80 /* in the first octet */

/* What wrap returns where it does not: no XDP action, and in the upper bits the MTU for the sender if it was that. */
enum wrap_refusal {
	WRAP_REFUSED = 0x100,
	WRAP_MTU = 16,
};

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

/*
 * What makes the connections to one server look different from outside. By secret
 * seeds: whose they are does not show, and nobody can aim at one queue.
 */
static __always_inline __u32 flow_hash(const __u32 *source, __u32 ports, const int v6)
{
	__u64 hash = (seeds[0] + source[0]) * (seeds[1] + ports);

	if (v6)
		hash += (seeds[2] + source[1]) * (seeds[3] + source[2]) + seeds[4] * source[3];
	return hash >> 32;
}

/* What a packet may have on the tunnel's path, outer headers included, as a router has told; 0: none has of late. */
static __always_inline __u32 path_mtu(const struct tunnel *tunnel)
{
	const struct packet_options *o;
	__u32 zero = 0, mtu = LOAD(&tunnel->mtu);

	if (!mtu)
		return 0;
	o = bpf_map_lookup_elem(&options, &zero);
	return o && now_tick() - LOAD(&tunnel->mtu_tick) < o->path_ticks ? mtu : 0;
}

/*
 * The longest packet that the tunnel takes, for the sender of one of that length that
 * is too long; 0: it is not, and is_cut says whether routers may cut it up on its way:
 * IPv6 that must always fit, on an IPv4 path that is too narrow (RFC 4213 §3.2.1).
 */
static __always_inline __u32 tunnel_limit(const struct tunnel *tunnel, const struct hop *hop, __u32 length, int *is_cut,
					  const int v6)
{
	const __u32 least = v6 ? LEAST_MTU6 : LEAST_MTU4;
	__u32 path = path_mtu(tunnel), limit = hop->mtu;
	int leaves;

	*is_cut = 0;
	length += tunnel->overhead;
	leaves = !limit || length <= limit;
	if (path && (!limit || path < limit))
		limit = path;
	if (!limit || length <= limit)
		return 0;
	limit = limit > tunnel->overhead + least ? limit - tunnel->overhead : least;
	if (!leaves || length > tunnel->overhead + limit || !v6 || tunnel->family == 6)
		return limit;
	*is_cut = 1;
	return 0;
}

/* --- sums of what is wrapped ------------------------------------------------------- */

#define SUM_CHUNK 64

struct summing {
	struct xdp_md *ctx;
	__u32 offset;
	__u32 left;
	__u32 sum;
};

static long sum_chunk(__u32 index, struct summing *s)
{
	__u32 words[SUM_CHUNK / 4] = {}, length = s->left < SUM_CHUNK ? s->left : SUM_CHUNK;

	/* Of a bound from below 6.1's verifier wants to see more than that it is not 0. */
	asm volatile("" : "+r"(length));
	length = ((length - 1) & (SUM_CHUNK - 1)) + 1;
	if (bpf_xdp_load_bytes(s->ctx, s->offset, words, length))
		return 1;
	s->sum = fold(bpf_csum_diff(0, 0, words, sizeof(words), s->sum));
	s->offset += length;
	s->left -= length;
	return 0;
}

/* One's complement sum of length octets from offset on, as far as there are as many. */
__noinline __u32 sum_octets(struct xdp_md *ctx, __u32 offset, __u32 length)
{
	struct summing s = { .ctx = ctx, .offset = offset, .left = length & 0xffff };

	bpf_loop((s.left + SUM_CHUNK - 1) / SUM_CHUNK, sum_chunk, &s, 0);
	return s.sum;
}

/*
 * The length of the packet's header if the transport checksum says what the sum is of
 * all behind it: where there is one, it makes that and the pseudo-header 0; else 0.
 */
static __always_inline __u32 summed_header(const struct packet *p, void *end, const int v6)
{
	__u32 header = v6 ? sizeof(struct ipv6hdr) : ((struct iphdr *)p->l3)->ihl * 4;
	struct udphdr *udp = p->l3 + (header & 0x3c);

	if (!v6 && ((struct iphdr *)p->l3)->frag_off & bpf_htons(IP_FRAGMENT))
		return 0;
	if (p->protocol == IPPROTO_TCP)
		return header;
	if (p->protocol != IPPROTO_UDP || (void *)(udp + 1) > end || !udp->check ||
	    bpf_ntohs(udp->len) + header != p->length)
		return 0;
	return header;
}

/* One's complement sum of the packet as it leaves. */
static __always_inline __u32 sum_of_wrapped(struct xdp_md *ctx, const struct packet *p, void *end, const int v6)
{
	__u32 header = summed_header(p, end, v6), rest = bpf_htons(p->length - header) + bpf_htons(p->protocol);
	const __u32 *words = p->l3;

	if (!header)
		return sum_octets(ctx, p->l3 - (void *)(long)ctx->data, p->length);
	/* The header less the pseudo-header: the addresses are in both. */
	if (v6)
		return fold_words((__u64)words[0] + words[1] + (__u16)~fold(rest));
	/* That of the header, options included, is 0. */
	return (__u16)~fold_words((__u64)words[3] + words[4] + rest);
}

/* --- outer headers ------------------------------------------------------------------- */

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
static __always_inline __u32 outer_protocol(const struct tunnel *tunnel, const struct wrapping *w)
{
	return tunnel->type == TUNNEL_IPIP ? w->protocol : tunnel->type == TUNNEL_GUE ? IPPROTO_UDP : IPPROTO_GRE;
}

static __always_inline int put_outer4(struct iphdr *ip, void *end, const struct tunnel *tunnel,
				      const struct wrapping *w)
{
	__u32 *words = (void *)ip, length = tunnel->overhead + w->length;
	__u32 first, second, third, source;

	if ((void *)(ip + 1) > end)
		return 0;
	/* Words as they lie in memory, little-endian. */
	first = 0x45 | w->traffic_class << 8 | (__u32)bpf_htons(length) << 16;
	second = w->id ? (__u16)w->id : (__u32)bpf_htons(IP_DF) << 16;
	third = TIME_TO_LIVE | outer_protocol(tunnel, w) << 8;
	source = tunnel->source[0] | (w->hash & tunnel->spread);
	words[0] = first;
	words[1] = second;
	words[3] = source;
	words[4] = tunnel->address[0];
	third |= (__u32)(__u16)~fold_words((__u64)first + second + third + source + tunnel->address[0]) << 16;
	words[2] = third;
	return 1;
}

static __always_inline int put_outer6(struct ipv6hdr *ip6, void *end, const struct tunnel *tunnel,
				      const struct wrapping *w)
{
	const __u64 *source = (const __u64 *)tunnel->source, *destination = (const __u64 *)tunnel->address;
	__u64 *words = (void *)ip6;

	if ((void *)(ip6 + 1) > end)
		return 0;
	words[0] = bpf_htonl(6U << 28 | w->traffic_class << 20 | w->hash >> 12) |
		   (__u64)bpf_htons(tunnel->overhead - sizeof(*ip6) + w->length) << 32 |
		   (__u64)outer_protocol(tunnel, w) << 48 | (__u64)TIME_TO_LIVE << 56;
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
static __always_inline int put_gue(struct udp_gue *h, void *end, const struct tunnel *tunnel, const struct wrapping *w)
{
	__be16 length = bpf_htons(sizeof(*h) + w->length);
	__u16 check = 0;

	if ((void *)(h + 1) > end)
		return 0;
	h->source = bpf_htons(GUE_FIRST_PORT | w->hash >> 18);
	h->dest = tunnel->port;
	h->length = length;
	h->gue = (__u32)w->protocol << 8;
	if (tunnel->checksum == TUNNEL_CHECKSUM) {
		check = ~fold_words(outer_pseudo(tunnel, w, length) + h->source + h->dest + length + h->gue + w->sum);
		check = check ? check : 0xffff;
	}
	h->checksum = check;
	return 1;
}

static __always_inline int put_gre(struct gre *h, void *end, const struct tunnel *tunnel, const struct wrapping *w)
{
	__u32 head = (__u32)w->eth_proto << 16;

	if ((void *)&h->checksum > end)
		return 0;
	if (tunnel->checksum != TUNNEL_CHECKSUM) {
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

	if (!(is6 ? put_outer6(outer, end, tunnel, w) : put_outer4(outer, end, tunnel, w)) ||
	    (tunnel->type == TUNNEL_GUE && !put_gue(next, end, tunnel, w)) ||
	    (tunnel->type == TUNNEL_GRE && !put_gre(next, end, tunnel, w)))
		return 0;
	return put_link(data, end, hop, w->tags, w->priority, is6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP));
}

/* The connection's hash, of a packet with ports; of a later fragment and others the one that is given. */
static __always_inline __u32 hash_of(const struct packet *p, void *end, __u32 hash, const int v6)
{
	const __u32 *ports = p->l3 + (v6 ? sizeof(struct ipv6hdr) : (((struct iphdr *)p->l3)->ihl & 15) * 4);
	__u8 protocol = p->protocol;

	/* The first of its datagram: the others come with a hash, and are to go by the same way. */
	if (v6 && protocol == IPPROTO_FRAGMENT) {
		const struct fragment_header *header = (void *)ports;

		if ((void *)(header + 1) > end)
			return hash;
		protocol = header->next;
		ports = (void *)(header + 1);
	}
	if (hash || (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP) || (void *)(ports + 1) > end)
		return hash;
	return v6 ? flow_hash(((struct ipv6hdr *)p->l3)->saddr.in6_u.u6_addr32, *ports, 1) :
		    flow_hash(&((struct iphdr *)p->l3)->saddr, *ports, 0);
}

/* Writes down what the outer headers have of the packet in front of which they come. */
static __always_inline void view_wrapped(struct wrapping *w, const struct packet *p, const int v6)
{
	w->length = p->length;
	w->traffic_class = v6 ? bpf_ntohl(*(__u32 *)p->l3) >> 20 : ((struct iphdr *)p->l3)->tos;
	w->protocol = v6 ? IPPROTO_IPV6 : IPPROTO_IPIP;
	w->eth_proto = v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
}

static __always_inline __u32 wrap(struct xdp_md *ctx, struct server *server, __u32 l3, __u32 hash, const int v6)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 tunnel_index = server->tunnel, hop_index = server->hop, limit;
	struct tunnel *tunnel = bpf_map_lookup_elem(&tunnels, &tunnel_index);
	struct hop *hop = bpf_map_lookup_elem(&hops, &hop_index);
	struct wrapping w = {};
	struct packet p = { .l3 = data + (l3 & 0x1f) };
	int is_cut;

	if (!tunnel || !tunnel->family || !hop || !hop->ifindex)
		return finish(ctx, EVENT_DROP_UNREACHABLE, server->service);
	if (p.l3 + (v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) > end)
		return finish(ctx, EVENT_FAULT_MAP, 0);
	if (!lifetime_left(&p, v6))
		return WRAP_REFUSED;
	p.protocol = v6 ? ((struct ipv6hdr *)p.l3)->nexthdr : ((struct iphdr *)p.l3)->protocol;
	p.length = v6 ? bpf_ntohs(((struct ipv6hdr *)p.l3)->payload_len) + sizeof(struct ipv6hdr) :
			bpf_ntohs(((struct iphdr *)p.l3)->tot_len);
	limit = tunnel_limit(tunnel, hop, p.length, &is_cut, v6);
	if (limit)
		return WRAP_REFUSED | limit << WRAP_MTU;
	age(&p, 0, v6);
	view_wrapped(&w, &p, v6);
	w.hash = hash_of(&p, end, hash, v6);
	w.id = is_cut ? bpf_get_prandom_u32() | 1 : 0;
	w.tags = tags_of(hop);
	if (tunnel->checksum == TUNNEL_CHECKSUM)
		w.sum = sum_of_wrapped(ctx, &p, end, v6);
	if (l3 > sizeof(struct ethhdr))
		w.priority = priority_of(data + sizeof(struct ethhdr), end);
	if (bpf_xdp_adjust_head(ctx, (int)(l3 - sizeof(struct ethhdr) - w.tags - tunnel->overhead)))
		return finish(ctx, EVENT_DROP_HEADROOM, server->service);
	if (!put_headers(ctx, hop, tunnel, &w))
		return finish(ctx, EVENT_FAULT_MAP, 0);
	return leave_by(ctx, hop->ifindex, server->service);
}

/*
 * Wraps the IPv4 packet at offset l3 for a server of either family and sends it on; the
 * XDP action. More than any is returned where the packet has no time to live left or is
 * too long, and it is as it was then. hash is that of a connection whose ports the packet
 * does not show; 0: take it from the packet. Global: verified once, and no part of plain
 * hits.
 */
__noinline __u32 wrap4(struct xdp_md *ctx, struct server *server, __u32 l3, __u32 hash)
{
	return server ? wrap(ctx, server, l3, hash, 0) : XDP_DROP;
}

/* Of IPv6. */
__noinline __u32 wrap6(struct xdp_md *ctx, struct server *server, __u32 l3, __u32 hash)
{
	return server ? wrap(ctx, server, l3, hash, 1) : XDP_DROP;
}

#endif
