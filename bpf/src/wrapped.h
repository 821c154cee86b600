/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Errors about packets that this host has wrapped for a server: that one is too big for
 * a tunnel's path. They come to the outer source. The path's MTU is learned from them,
 * and the client of the packet inside is told at once, by an error from the virtual
 * address. What is not understood is the stack's. One that says that the host or its port
 * cannot be reached is the stack's too, and evidence of its server (witness.h).
 *
 * Anybody can send such an error, so that it has to quote what only few know: a packet
 * of a connection that goes by this path (RFC 5927 §4.1 asks the like of TCP's ends). IPv6's
 * routers quote as much as fits (RFC 4443 §2.4 (c)); IPv4's may quote 8 octets behind
 * the outer header alone (RFC 792), which do not reach a connection: these are believed
 * as far as LEAST_UNSHOWN.
 */
#ifndef SHUNT_WRAPPED_H
#define SHUNT_WRAPPED_H

#include "message.h"
#include "service.h"
#include "witness.h"

/*
 * Who tells of less is not believed to say more than this: a path of IPv4 that takes no
 * 576 octets is rarer than a forged error (kernel: net/ipv4/route.c, ip_rt_min_pmtu).
 */
#define LEAST_PATH4 576
/* Nor is one who does not show the packet inside: what any path of IPv6 takes does not hurt much. */
#define LEAST_UNSHOWN 1280
#define TUNNEL_CHAIN 8 /* tunnels of one key that are looked at */

/* The MTU that the error tells of; 0: none. */
static __always_inline __u32 told_mtu(const struct message *m, const int v6)
{
	__u32 mtu = bpf_ntohl(m->parameter);

	if (v6)
		return m->icmp_type == ICMP6_TOO_BIG ? mtu : 0;
	return m->icmp_type == ICMP4_UNREACHABLE && m->code == ICMP4_UNREACHABLE_FRAGMENTATION ? mtu & 0xffff : 0;
}

/* Whether the error says that a host, or a port of it, cannot be reached, whatever the packet. */
static __always_inline int is_unreachable(const struct message *m, const int v6)
{
	if (v6)
		return m->icmp_type == ICMP6_UNREACHABLE;
	return m->icmp_type == ICMP4_UNREACHABLE && m->code != ICMP4_UNREACHABLE_FRAGMENTATION;
}

/*
 * Whether the error's checksum is right. Of others that is their receiver's to find out;
 * this host is this one's.
 */
static __always_inline int is_sound(struct xdp_md *ctx, const struct message *m, const int v6)
{
	__u32 length = m->end - m->l4, sum = sum_octets(ctx, m->l4, length);

	if (v6) {
		sum += bpf_htons(length) + bpf_htons(IPPROTO_ICMPV6);
		sum += address_sum(m->outer.source) + address_sum(m->outer.destination);
	}
	return fold(sum) == 0xffff;
}

/* Index of the first tunnel to the quoted packet's destination, by its protocol; 0: there is none. */
static __always_inline __u32 find_tunnel(const struct message *m, const int v6)
{
	struct tunnel_key key = { .family = v6 ? 6 : 4 };
	__u8 protocol = m->quoted.id >> ID_PROTOCOL;
	__u32 *index;

	copy_address(key.address, m->quoted.destination);
	key.type = TUNNEL_IPIP;
	if (protocol == IPPROTO_UDP) {
		key.type = TUNNEL_GUE;
		key.port = m->quoted.id >> 16;
	} else if (protocol == IPPROTO_GRE) {
		key.type = TUNNEL_GRE;
	}
	index = bpf_map_lookup_elem(&tunnel_index, &key);
	return index ? *index : 0;
}

/* Whether the wrapped packet's source is one that the tunnel has. */
static __always_inline int is_from_tunnel(const struct message *m, const struct tunnel *tunnel)
{
	const int last = tunnel->family == 6 ? 3 : 0;
	__u32 differs = 0;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		__u32 bits = m->wrapper.source[i] ^ tunnel->source[i];

		differs |= i == last ? bits & ~tunnel->spread : bits;
	}
	return !differs;
}

/*
 * Notes what a path takes. Less than was known of late is believed, or the same once
 * more; for more one has to wait until that is forgotten.
 */
static __always_inline void learn_path(struct tunnel *tunnel, __u32 mtu)
{
	__u32 zero = 0, tick = now_tick(), known = LOAD(&tunnel->mtu);
	struct packet_options *o = bpf_map_lookup_elem(&options, &zero);

	if (known && known < mtu && o && tick - LOAD(&tunnel->mtu_tick) < o->path_ticks)
		return;
	STORE(&tunnel->mtu_tick, tick);
	STORE(&tunnel->mtu, mtu);
}

/*
 * Finds the packet inside: m->quote is where it begins then, and m->inner_family its
 * version. Whatever the tunnel, ours have neither options nor extension headers outside.
 */
static __always_inline enum wrapped find_inside(struct xdp_md *ctx, struct message *m, const struct tunnel *tunnel,
						const int v6)
{
	const __u32 header = v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	const enum wrapped lacking = v6 ? WRAPPED_STRANGE : WRAPPED_SHORT;
	__u8 protocol = m->quoted.id >> ID_PROTOCOL;
	__u32 inside = m->quote + tunnel->overhead;
	__be16 eth_proto;

	if (m->transport != m->quote + header || m->transport + QUOTED > m->end)
		return WRAPPED_STRANGE;
	if (tunnel->type == TUNNEL_GRE) {
		if (bpf_xdp_load_bytes(ctx, m->transport + 2, &eth_proto, sizeof(eth_proto)))
			return WRAPPED_STRANGE;
		protocol = eth_proto == bpf_htons(ETH_P_IPV6) ? IPPROTO_IPV6 :
			   eth_proto == bpf_htons(ETH_P_IP)   ? IPPROTO_IPIP :
								0;
	} else if (tunnel->type == TUNNEL_GUE) {
		if (inside > m->end)
			return lacking;
		if (bpf_xdp_load_bytes(ctx, m->transport + sizeof(struct udphdr) + 1, &protocol, sizeof(protocol)))
			return WRAPPED_STRANGE;
	}
	if (protocol != IPPROTO_IPIP && protocol != IPPROTO_IPV6)
		return WRAPPED_STRANGE;
	if (inside + (protocol == IPPROTO_IPV6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) + QUOTED > m->end)
		return lacking;
	m->quote = inside;
	m->inner_family = protocol == IPPROTO_IPV6 ? 6 : 4;
	return WRAPPED_INSIDE;
}

/* Whether the quoted packet has a checksum that its tunnel has made. */
static __always_inline int has_tunnel_sum(struct xdp_md *ctx, const struct message *m)
{
	__u8 protocol = m->quoted.id >> ID_PROTOCOL, flags = 0;
	__be16 check = 0;

	/* What is not there is not seen: then any of the path's tunnels will do. */
	if (protocol == IPPROTO_UDP)
		bpf_xdp_load_bytes(ctx, m->transport + __builtin_offsetof(struct udphdr, check), &check, sizeof(check));
	else if (protocol == IPPROTO_GRE)
		bpf_xdp_load_bytes(ctx, m->transport, &flags, sizeof(flags));
	return check || flags & 0x80; /* RFC 2784 §2.2: the first bit */
}

/*
 * Finds the tunnel of the packet that the error in m quotes: of those that differ in their
 * checksums alone, the one whose it is. m->path is what the error tells of: 0 if it says
 * that the server cannot be reached.
 */
static __always_inline enum wrapped find_wrapped(struct xdp_md *ctx, struct message *m, const int v6)
{
	__u32 mtu = told_mtu(m, v6), index = 0;
	struct tunnel *tunnel, *of = 0;
	enum wrapped found;
	int has_sum;

	if (mtu || is_unreachable(m, v6))
		index = find_tunnel(m, v6);
	/* A packet that would have fitted was not too big (RFC 5927 §7.2). */
	if (!index || mtu >= m->quoted_length || !is_sound(ctx, m, v6))
		return WRAPPED_NOT;
	m->wrapper = m->quoted;
	m->tunnel = index;
	has_sum = has_tunnel_sum(ctx, m);
	for (int i = 0; i < TUNNEL_CHAIN && index; i++) {
		tunnel = bpf_map_lookup_elem(&tunnels, &index);
		if (!tunnel)
			break;
		if (is_from_tunnel(m, tunnel) && (!of || (tunnel->checksum == TUNNEL_CHECKSUM) == has_sum))
			of = tunnel;
		index = tunnel->next;
	}
	if (!of)
		return WRAPPED_NOT;
	found = find_inside(ctx, m, of, v6);
	if (mtu && mtu < (v6 ? LEAST_MTU6 : LEAST_PATH4))
		mtu = v6 ? LEAST_MTU6 : LEAST_PATH4;
	if (found == WRAPPED_SHORT && mtu && mtu < LEAST_UNSHOWN)
		mtu = LEAST_UNSHOWN;
	m->path = mtu;
	return found;
}

__noinline int find_wrapped4(struct xdp_md *ctx, struct message *m)
{
	return m ? find_wrapped(ctx, m, 0) : WRAPPED_NOT;
}

__noinline int find_wrapped6(struct xdp_md *ctx, struct message *m)
{
	return m ? find_wrapped(ctx, m, 1) : WRAPPED_NOT;
}

/* Has all tunnels of the path learn its MTU. Global: it has its stack to itself. */
__noinline int learn_wrapped(struct message *m)
{
	__u32 index = m ? m->tunnel : 0;
	struct tunnel *tunnel;

	for (int i = 0; i < TUNNEL_CHAIN && index; i++) {
		tunnel = bpf_map_lookup_elem(&tunnels, &index);
		if (!tunnel)
			break;
		if (is_from_tunnel(m, tunnel))
			learn_path(tunnel, m->path);
		index = tunnel->next;
	}
	return 0;
}

/* Makes the frame begin with the packet that was wrapped, behind a link header of no account. */
static __always_inline int bare_inside(struct xdp_md *ctx, __u32 offset, const int v6)
{
	struct ethhdr *eth;

	if (offset > 0x3fff || bpf_xdp_adjust_head(ctx, (int)(offset - sizeof(*eth))))
		return 0;
	eth = (void *)(long)ctx->data;
	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return 0;
	store_mac(eth->h_dest, 0);
	store_mac(eth->h_source, 0);
	eth->h_proto = v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	return 1;
}

/* The error to the client about its packet, which begins at m->quote and has m->quoted's addresses. */
static __always_inline int tell_client(struct xdp_md *ctx, struct slow *s, struct message *m, const int v6)
{
	const __u32 header = v6 ? sizeof(struct ipv6hdr) : m->transport - m->quote,
		    least = v6 ? LEAST_MTU6 : LEAST_MTU4;
	struct answer_request r = {
		.event = EVENT_ANSWER_TOO_BIG,
		.mtu = m->mtu > least ? m->mtu : least,
		.l3 = sizeof(struct ethhdr),
		.l4 = sizeof(struct ethhdr) + header,
		.service = m->service,
	};
	struct bpf_fib_lookup *fib = (void *)s->fib;

	copy_address(r.from, m->quoted.destination);
	if (!bare_inside(ctx, m->quote, v6) || !(v6 ? icmp6(ctx, &r) : icmp4(ctx, &r)))
		return finish(ctx, EVENT_DROP_ICMP, m->service);
	ask_route(fib, v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP, v6 ? GROWN6 + QUOTE6 : GROWN4 + header + QUOTED, r.from,
		  m->quoted.source, v6);
	return leave_by_route(ctx, fib, m->service);
}

/* Whether the server's packets go by the path of the wrapped one; m->mtu is what they may have then. */
static __always_inline int is_on_path(struct message *m, const struct server *server)
{
	__u32 index = server->tunnel;
	struct tunnel *tunnel = bpf_map_lookup_elem(&tunnels, &index);

	if (!tunnel || !tunnel->family || address_differs(tunnel->address, m->wrapper.destination) ||
	    !is_from_tunnel(m, tunnel))
		return 0;
	m->mtu = m->path - tunnel->overhead;
	return 1;
}

/*
 * Says whose the packet inside is, which begins at m->quote: the connection it is of
 * is in s->hit then.
 */
static __always_inline enum wrapped know_inside(struct xdp_md *ctx, struct slow *s, struct message *m, const int v6)
{
	struct service *service;
	struct server *server;
	__u32 index;

	if ((v6 ? parse_quote6(ctx, m) : parse_quote4(ctx, m)) != QUOTED_PORTS)
		return WRAPPED_STRANGE;
	s->hit.key = m->quoted;
	look_up_by(&s->hit, v6);
	if (s->hit.recipe) {
		index = recipe_server(s->hit.recipe);
		server = bpf_map_lookup_elem(&servers, &index);
		if (s->hit.recipe & BIT(RECIPE_REPLY) || recipe_method(s->hit.recipe) != METHOD_TUNNEL || !server ||
		    !is_on_path(m, server))
			return WRAPPED_STRANGE;
		m->service = server->service;
		return WRAPPED_CONNECTION;
	}
	s->key = m->quoted;
	s->is_v6 = v6;
	service = find_service(s, v6);
	if (!service || service->life != LIFE_LIVE || !(s->pick.flags & SERVICE_ONE_PACKET) ||
	    (__u8)(m->quoted.id >> ID_PROTOCOL) != IPPROTO_UDP)
		return WRAPPED_STRANGE;
	return WRAPPED_ALONE;
}

__noinline int know_inside4(struct xdp_md *ctx, struct slow *s, struct message *m)
{
	return s && m ? know_inside(ctx, s, m, 0) : WRAPPED_STRANGE;
}

__noinline int know_inside6(struct xdp_md *ctx, struct slow *s, struct message *m)
{
	return s && m ? know_inside(ctx, s, m, 1) : WRAPPED_STRANGE;
}

__noinline int tell_client4(struct xdp_md *ctx, struct slow *s, struct message *m)
{
	return s && m ? tell_client(ctx, s, m, 0) : XDP_DROP;
}

__noinline int tell_client6(struct xdp_md *ctx, struct slow *s, struct message *m)
{
	return s && m ? tell_client(ctx, s, m, 1) : XDP_DROP;
}

/* An error that is about no packet of a connection, but may be about one that was wrapped; the XDP action. */
static __always_inline int meet_wrapped(struct xdp_md *ctx, struct slow *s, struct message *m, const int v6)
{
	int about = v6 ? find_wrapped6(ctx, m) : find_wrapped4(ctx, m), action;

	if (about == WRAPPED_NOT)
		return finish(ctx, m->passed, 0);
	if (about == WRAPPED_INSIDE)
		about = m->inner_family == 6 ? know_inside6(ctx, s, m) : know_inside4(ctx, s, m);
	if (!m->path) {
		if (about == WRAPPED_CONNECTION)
			witness(recipe_server(s->hit.recipe), EVIDENCE_UNREACHABLE);
		return finish(ctx, m->passed, 0);
	}
	if (about == WRAPPED_STRANGE) {
		count(EVENT_NOTE_PATH_MTU_REFUSED);
		return finish(ctx, EVENT_PASS_ICMP, 0);
	}
	learn_wrapped(m);
	count(EVENT_NOTE_PATH_MTU);
	if (about != WRAPPED_CONNECTION || m->outer_vlan)
		return finish(ctx, EVENT_PASS_ICMP, 0);
	action = m->inner_family == 6 ? tell_client6(ctx, s, m) : tell_client4(ctx, s, m);
	return counted(action, EVENT_NOTE_ICMP_OUT);
}

#endif
