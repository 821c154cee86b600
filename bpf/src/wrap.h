/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Wrapping packets for servers of method tunnel, either IP version in either. The
 * packet inside loses one from its time to live, and nothing else of it changes.
 */
#ifndef SHUNT_WRAP_H
#define SHUNT_WRAP_H

#include "outer.h"
#include "sum.h"

#define LEAST_MTU4 68 /* RFC 791 §3.2 */
#define LEAST_MTU6 1280 /* RFC 8200 §5 */

/* What wrap returns where it does not: no XDP action, and in the upper bits the MTU for the sender if it was that. */
enum wrap_refusal {
	WRAP_REFUSED = 0x100,
	WRAP_MTU = 16,
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

/* Writes down what the outer headers have of the packet in front of which they come. */
static __always_inline void view_wrapped(struct wrapping *w, const struct packet *p, const int v6)
{
	w->length = p->length;
	w->traffic_class = v6 ? bpf_ntohl(*(__u32 *)p->l3) >> 20 : ((struct iphdr *)p->l3)->tos;
	w->protocol = v6 ? IPPROTO_IPV6 : IPPROTO_IPIP;
	w->eth_proto = v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
}

/* --- the plain case ------------------------------------------------------------------- */

/* A tunnel's first octets, by which the plain kinds are told: one load. */
#define TUNNEL_KIND(family, type, overhead) ((__u32)(family) | (__u32)(type) << 8 | (__u32)(overhead) << 24)

_Static_assert(__builtin_offsetof(struct tunnel, overhead) - __builtin_offsetof(struct tunnel, family) == 3, "ABI");

#define NOT_PLAIN 0x200 /* as WRAP_REFUSED, for others than callers of wrap */

/* Octets of the outer headers without a checksum of their own. */
static __always_inline __u32 plain_overhead(const int type, const int is_outer6)
{
	return (is_outer6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) +
	       (type == TUNNEL_GUE ? sizeof(struct udp_gue) :
		type == TUNNEL_GRE ? __builtin_offsetof(struct gre, checksum) :
				     0);
}

/*
 * wrap, of what most packets are: no tags, no options, whole, with a time to live left,
 * and nothing to be known of the tunnel but that they fit. All offsets are constants. The
 * packet is in hand: its length and what lies at l3 and l4.
 */
static __always_inline __u32 wrap_plain(struct xdp_md *ctx, const struct packet *p, const struct tunnel *tunnel,
					const struct hop *hop, __u32 service, const int type, const int is_outer6,
					const int v6)
{
	const __u32 overhead = plain_overhead(type, is_outer6), l3 = sizeof(struct ethhdr);
	const __u32 *source = v6 ? ((struct ipv6hdr *)p->l3)->saddr.in6_u.u6_addr32 : &((struct iphdr *)p->l3)->saddr;
	struct wrapping w = {};
	void *data, *end;

	age(p, 0, v6);
	view_wrapped(&w, p, v6);
	if (is_outer6 || type == TUNNEL_GUE || tunnel->spread)
		w.hash = flow_hash(source, *(__u32 *)p->l4, v6);
	if (bpf_xdp_adjust_head(ctx, -(int)overhead))
		return finish(ctx, EVENT_DROP_HEADROOM, service);
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + l3 + overhead > end)
		return finish(ctx, EVENT_FAULT_MAP, 0);
	if (is_outer6)
		put_outer6(data + l3, end, tunnel, overhead, outer_protocol(type, &w), &w);
	else
		put_outer4(data + l3, end, tunnel, overhead, outer_protocol(type, &w), &w);
	if (type == TUNNEL_GUE)
		put_gue(data + l3 + overhead - sizeof(struct udp_gue), end, tunnel, TUNNEL_NO_CHECKSUM, &w);
	else if (type == TUNNEL_GRE)
		put_gre(data + l3 + overhead - __builtin_offsetof(struct gre, checksum), end, TUNNEL_NO_CHECKSUM, &w);
	put_link(data, end, hop, 0, 0, is_outer6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP));
	return leave_by(ctx, hop->ifindex, service);
}

/*
 * wrap_plain, of a packet that shunt_main has (TCP or UDP, whole, untagged, of IPv4
 * without options), if the tunnel is a plain one and the packet fits.
 */
static __always_inline __u32 wrap_if_plain(struct xdp_md *ctx, const struct packet *p, const struct server *server,
					   const struct hop *hop, const int v6)
{
	__u32 index = server->tunnel, service = server->service;
	struct tunnel *tunnel = bpf_map_lookup_elem(&tunnels, &index);

	if (!tunnel || tunnel->mtu || *(__u32 *)&hop->outer_vlan || p->length + tunnel->overhead > hop->mtu)
		return NOT_PLAIN;
	switch (*(__u32 *)&tunnel->family) {
	case TUNNEL_KIND(4, TUNNEL_IPIP, 20):
		return wrap_plain(ctx, p, tunnel, hop, service, TUNNEL_IPIP, 0, v6);
	case TUNNEL_KIND(4, TUNNEL_GUE, 32):
		return wrap_plain(ctx, p, tunnel, hop, service, TUNNEL_GUE, 0, v6);
	case TUNNEL_KIND(4, TUNNEL_GRE, 24):
		return wrap_plain(ctx, p, tunnel, hop, service, TUNNEL_GRE, 0, v6);
	case TUNNEL_KIND(6, TUNNEL_IPIP, 40):
		return wrap_plain(ctx, p, tunnel, hop, service, TUNNEL_IPIP, 1, v6);
	case TUNNEL_KIND(6, TUNNEL_GUE, 52):
		return wrap_plain(ctx, p, tunnel, hop, service, TUNNEL_GUE, 1, v6);
	case TUNNEL_KIND(6, TUNNEL_GRE, 44):
		return wrap_plain(ctx, p, tunnel, hop, service, TUNNEL_GRE, 1, v6);
	default:
		return NOT_PLAIN;
	}
}

/*
 * The same of IPv6. Global: with this in line, clang lays shunt_main out so that the verifier
 * walks a quarter more of it.
 */
__noinline __u32 plain6(struct xdp_md *ctx, struct server *server, struct hop *hop)
{
	struct packet p = { .l3 = (void *)(long)ctx->data + sizeof(struct ethhdr) };
	struct ipv6hdr *ip6 = p.l3;

	p.l4 = ip6 + 1;
	if (!server || !hop || p.l4 + sizeof(__u32) > (void *)(long)ctx->data_end)
		return NOT_PLAIN;
	p.length = bpf_ntohs(ip6->payload_len) + sizeof(*ip6);
	return wrap_if_plain(ctx, &p, server, hop, 1);
}

/* --- all others ----------------------------------------------------------------------- */

/* The connection's hash: the one that is given, or of the ports behind the IP header. */
static __always_inline __u32 hash_of(const struct packet *p, void *end, __u32 hash, const int v6)
{
	const __u32 *ports = p->l3 + (v6 ? sizeof(struct ipv6hdr) : (((struct iphdr *)p->l3)->ihl & 15) * 4);
	__u8 protocol = p->protocol;

	if (hash || (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP) || (void *)(ports + 1) > end)
		return hash;
	return v6 ? flow_hash(((struct ipv6hdr *)p->l3)->saddr.in6_u.u6_addr32, *ports, 1) :
		    flow_hash(&((struct iphdr *)p->l3)->saddr, *ports, 0);
}

static __always_inline __u32 wrap(struct xdp_md *ctx, struct server *server, struct hop *hop, __u32 l3, __u32 hash,
				  const int v6)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 tunnel_index = server->tunnel, limit;
	struct tunnel *tunnel = bpf_map_lookup_elem(&tunnels, &tunnel_index);
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
 * Wraps the IPv4 packet at offset l3 for a server of either family and sends it on by its
 * next hop, if it has one; the XDP action. More than any is returned where the packet has no time to live left or is
 * too long, and it is as it was then. hash is that of a connection whose ports may not
 * stand right behind the IP header; 0: they do. Global: verified once, and no part of plain
 * hits.
 */
__noinline __u32 wrap4(struct xdp_md *ctx, struct server *server, struct hop *hop, __u32 l3, __u32 hash)
{
	return server ? wrap(ctx, server, hop, l3, hash, 0) : XDP_DROP;
}

/* Of IPv6. */
__noinline __u32 wrap6(struct xdp_md *ctx, struct server *server, struct hop *hop, __u32 l3, __u32 hash)
{
	return server ? wrap(ctx, server, hop, l3, hash, 1) : XDP_DROP;
}

#endif
