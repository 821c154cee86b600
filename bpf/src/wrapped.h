/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Errors about packets that this host has wrapped for a server: that one is too big for
 * a tunnel's path. They come to the outer source. The path's MTU is learned from them;
 * where they quote enough of the packet inside, its client is told at once, by an
 * error from the virtual address. What is not understood is the stack's.
 */
#ifndef SHUNT_WRAPPED_H
#define SHUNT_WRAPPED_H

#include "message.h"

/*
 * Who tells of less is not believed to say more than this: a path of IPv4 that takes no
 * 576 octets is rarer than a forged error (kernel: net/ipv4/route.c, ip_rt_min_pmtu).
 */
#define LEAST_PATH4 576
#define TUNNEL_CHAIN 8 /* tunnels of one key that are looked at */

/* The MTU that the error tells of; 0: none. */
static __always_inline __u32 told_mtu(const struct message *m, const int v6)
{
	__u32 mtu = bpf_ntohl(m->parameter);

	if (v6)
		return m->icmp_type == ICMP6_TOO_BIG ? mtu : 0;
	return m->icmp_type == ICMP4_UNREACHABLE && m->code == ICMP4_UNREACHABLE_FRAGMENTATION ? mtu & 0xffff : 0;
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

/* Whether the quoted packet's source is one that the tunnel has. */
static __always_inline int is_from_tunnel(const struct message *m, const struct tunnel *tunnel, const int v6)
{
	const int last = v6 ? 3 : 0;
	__u32 differs = 0;

#pragma unroll
	for (int i = 0; i <= last; i++) {
		__u32 bits = m->quoted.source[i] ^ tunnel->source[i];

		differs |= i == last ? bits & ~tunnel->spread : bits;
	}
	return !differs && tunnel->family == (v6 ? 6 : 4);
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

/* Where the packet inside begins, and its family in *inner_v6; 0: it cannot be told. */
static __always_inline __u32 find_inside(struct xdp_md *ctx, const struct message *m, const struct tunnel *tunnel,
					 int *inner_v6, const int v6)
{
	__u8 protocol = m->quoted.id >> ID_PROTOCOL;
	const __u32 header = v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	__be16 eth_proto;

	/* Ours have neither options nor extension headers. */
	if (m->transport != m->quote + header)
		return 0;
	if (tunnel->type == TUNNEL_GRE) {
		if (bpf_xdp_load_bytes(ctx, m->transport + 2, &eth_proto, sizeof(eth_proto)))
			return 0;
		protocol = eth_proto == bpf_htons(ETH_P_IPV6) ? IPPROTO_IPV6 :
			   eth_proto == bpf_htons(ETH_P_IP)   ? IPPROTO_IPIP :
								0;
	} else if (tunnel->type == TUNNEL_GUE &&
		   bpf_xdp_load_bytes(ctx, m->transport + sizeof(struct udphdr) + 1, &protocol, sizeof(protocol))) {
		return 0;
	}
	*inner_v6 = protocol == IPPROTO_IPV6;
	return protocol == IPPROTO_IPIP || *inner_v6 ? m->quote + tunnel->overhead : 0;
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
 * Learns from the error in m: all tunnels of the path do, which differ in their
 * checksums alone; by that the one is known whose packet is quoted. Where the quote
 * goes on with the packet inside, m->quote is where that begins then, m->mtu what it
 * may have and m->inner_family its version.
 */
static __always_inline enum wrapped_news learn_wrapped(struct xdp_md *ctx, struct message *m, const int v6)
{
	__u32 mtu = told_mtu(m, v6), index = mtu ? find_tunnel(m, v6) : 0, inside;
	struct tunnel *tunnel, *of = 0;
	int inner_v6, has_sum;

	/* A packet that would have fitted was not too big (RFC 5927 §7.2). */
	if (!index || mtu >= m->quoted_length || !is_sound(ctx, m, v6))
		return WRAPPED_NOT;
	if (mtu < (v6 ? LEAST_MTU6 : LEAST_PATH4))
		mtu = v6 ? LEAST_MTU6 : LEAST_PATH4;
	has_sum = has_tunnel_sum(ctx, m);
	for (int i = 0; i < TUNNEL_CHAIN && index; i++) {
		tunnel = bpf_map_lookup_elem(&tunnels, &index);
		if (!tunnel)
			break;
		if (is_from_tunnel(m, tunnel, v6)) {
			learn_path(tunnel, mtu);
			if (!of || (tunnel->checksum == TUNNEL_CHECKSUM) == has_sum) {
				of = tunnel;
				m->tunnel = index;
			}
		}
		index = tunnel->next;
	}
	if (!of)
		return WRAPPED_NOT;
	m->mtu = mtu - of->overhead;
	inside = find_inside(ctx, m, of, &inner_v6, v6);
	if (!inside)
		return WRAPPED_LEARNED;
	m->quote = inside;
	m->inner_family = inner_v6 ? 6 : 4;
	return WRAPPED_INSIDE;
}

__noinline int learn_wrapped4(struct xdp_md *ctx, struct message *m)
{
	return m ? learn_wrapped(ctx, m, 0) : WRAPPED_NOT;
}

__noinline int learn_wrapped6(struct xdp_md *ctx, struct message *m)
{
	return m ? learn_wrapped(ctx, m, 1) : WRAPPED_NOT;
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

/*
 * Tells the client of the packet inside, if that is of a connection by this tunnel; the
 * XDP action, or 0 if there is nothing to tell, and the frame is as it was.
 */
static __always_inline int go_inside(struct xdp_md *ctx, struct slow *s, struct message *m, const int v6)
{
	struct server *server;
	__u32 index;

	if (m->outer_vlan || (v6 ? parse_quote6(ctx, m) : parse_quote4(ctx, m)) != QUOTED_PORTS)
		return 0;
	s->hit.key = m->quoted;
	look_up_by(&s->hit, v6);
	if (!s->hit.recipe || s->hit.recipe & BIT(RECIPE_REPLY) || recipe_method(s->hit.recipe) != METHOD_TUNNEL)
		return 0;
	index = recipe_server(s->hit.recipe);
	server = bpf_map_lookup_elem(&servers, &index);
	if (!server || server->tunnel != m->tunnel)
		return 0;
	m->service = server->service;
	return tell_client(ctx, s, m, v6);
}

__noinline int go_inside4(struct xdp_md *ctx, struct slow *s, struct message *m)
{
	return s && m ? go_inside(ctx, s, m, 0) : 0;
}

__noinline int go_inside6(struct xdp_md *ctx, struct slow *s, struct message *m)
{
	return s && m ? go_inside(ctx, s, m, 1) : 0;
}

/* An error that is about no packet of a connection, but may be about one that was wrapped; the XDP action. */
static __always_inline int meet_wrapped(struct xdp_md *ctx, struct slow *s, struct message *m, const int v6)
{
	int news = v6 ? learn_wrapped6(ctx, m) : learn_wrapped4(ctx, m), action = 0;

	if (news == WRAPPED_NOT)
		return finish(ctx, m->passed, 0);
	count(EVENT_NOTE_PATH_MTU);
	if (news == WRAPPED_INSIDE)
		action = m->inner_family == 6 ? go_inside6(ctx, s, m) : go_inside4(ctx, s, m);
	return action ? counted(action, EVENT_NOTE_ICMP_OUT) : finish(ctx, EVENT_PASS_ICMP, 0);
}

#endif
