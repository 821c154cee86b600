/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Reading a fragment into struct slow: as note_packet leaves a packet there, with the
 * key of its datagram in fragment, and where it lies in that one. Of the first, all
 * headers up to the transport header's end have to be there (RFC 7112); of the others
 * nothing is read behind the headers that every fragment has.
 */
#ifndef SHUNT_PIECE_H
#define SHUNT_PIECE_H

#include "echo.h"
#include "follow.h"

/* What an IPv4 header says: what follows it, and of which fragment. */
static __always_inline enum event view_network4(struct packet *p, struct slow *s)
{
	struct iphdr *ip = p->l3;
	__u32 place = bpf_ntohs(ip->frag_off);

	if (ip->version != 4 || ip->ihl * 4 < sizeof(*ip))
		return EVENT_PASS_MALFORMED;
	p->length = bpf_ntohs(ip->tot_len);
	p->protocol = ip->protocol;
	s->parsed.l4 = ip->ihl * 4;
	s->begin = (place & IP_OFFSET) * 8;
	s->piece = s->begin ? PIECE_LATER : place & IP_MORE ? PIECE_FIRST : PIECE_WHOLE;
	s->header = 0;
	s->fragment.id = ip->id;
	s->fragment.protocol = ip->protocol;
	s->fragment.family = 4;
	return EVENT_NONE;
}

/* The same of IPv6. What follows a first fragment's header is read to the transport header. */
static __always_inline enum event view_network6(struct packet *p, struct slow *s, void *end)
{
	struct ipv6hdr *ip6 = p->l3;
	struct fragment_header *header;
	__u32 offset = sizeof(*ip6);
	enum event event;

	if (ip6->version != 6)
		return EVENT_PASS_MALFORMED;
	p->length = bpf_ntohs(ip6->payload_len) + sizeof(*ip6);
	p->protocol = ip6->nexthdr;
	s->begin = 0;
	s->piece = PIECE_WHOLE;
	s->header = 0;
	event = skip_extensions(p, &offset, end);
	STORE(&s->parsed.l4, offset);
	if (event != EVENT_NONE || p->protocol != IPPROTO_FRAGMENT)
		return event;
	offset = LOAD(&s->parsed.l4) & 0x3fff;
	header = p->l3 + offset;
	if ((void *)(header + 1) > end)
		return EVENT_PASS_MALFORMED;
	s->begin = bpf_ntohs(header->place) & FRAGMENT_OFFSET6;
	s->fragment.id = header->id;
	s->fragment.protocol = 0;
	s->fragment.family = 6;
	p->protocol = header->next;
	offset += sizeof(*header);
	s->header = -offset;
	s->piece = s->begin ? PIECE_LATER : PIECE_FIRST;
	if (!s->begin) {
		event = skip_extensions(p, &offset, end);
		if (event == EVENT_PASS_MALFORMED && p->length < offset + sizeof(struct extension_header))
			event = EVENT_DROP_FRAGMENT_TINY;
	}
	STORE(&s->parsed.l4, offset);
	s->header += offset;
	return event;
}

/* Of an ICMP message: EVENT_GO_ICMP if it is whole, or begins an echo request. */
static __always_inline enum event view_icmp(struct packet *p, struct slow *s, enum piece piece, void *end, const int v6)
{
	struct icmp_error *icmp = p->l4;

	if (piece == PIECE_WHOLE)
		return EVENT_GO_ICMP;
	if ((void *)(icmp + 1) > end || p->length < p->l4 - p->l3 + sizeof(*icmp) ||
	    !is_echo_request(icmp->icmp_type, v6))
		return EVENT_PASS_FRAGMENT;
	s->header += sizeof(*icmp);
	return EVENT_GO_ICMP;
}

/* The transport header of a packet that has to have one; EVENT_NONE and the rest of the key, or why not. */
static __always_inline enum event view_transport(struct packet *p, struct slow *s, enum piece piece, void *end,
						 const int v6)
{
	enum event short_of_it = piece == PIECE_FIRST ? EVENT_DROP_FRAGMENT_TINY : EVENT_PASS_MALFORMED;
	__u32 before = p->l4 - p->l3;

	if (p->protocol == IPPROTO_TCP) {
		if (p->length < before + sizeof(struct tcphdr))
			return short_of_it;
		if (p->l4 + sizeof(struct tcphdr) > end)
			return EVENT_PASS_MALFORMED;
		p->tcp_flags = ((__u8 *)p->l4)[13];
		s->header += sizeof(struct tcphdr);
	} else if (p->protocol == IPPROTO_UDP) {
		if (p->length < before + sizeof(struct udphdr))
			return short_of_it;
		if (p->l4 + sizeof(struct udphdr) > end)
			return EVENT_PASS_MALFORMED;
		s->header += sizeof(struct udphdr);
	} else if (p->protocol == (v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP)) {
		return view_icmp(p, s, piece, end, v6);
	} else {
		return EVENT_PASS_PROTOCOL;
	}
	p->key.id = make_id(*(__u32 *)p->l4, p->protocol);
	return EVENT_NONE;
}

/* Leaves the packet in s, what it shows as a fragment included; EVENT_NONE or what becomes of it at once. */
static __always_inline enum event view_packet(struct xdp_md *ctx, struct slow *s, struct packet *p, const int v6)
{
	void *end = (void *)(long)ctx->data_end;
	enum event event;
	enum piece piece;

	if (!parse_addresses(p, end, v6))
		return EVENT_PASS_MALFORMED;
	event = v6 ? view_network6(p, s, end) : view_network4(p, s);
	if (event != EVENT_NONE && event != EVENT_DROP_FRAGMENT_TINY)
		return event;
	p->l4 = p->l3 + (LOAD(&s->parsed.l4) & 0x3fff);
	piece = s->piece;
	if (piece != PIECE_FIRST && (p->l4 > end || p->length <= p->l4 - p->l3))
		return EVENT_PASS_MALFORMED;
	p->tcp_flags = 0;
	p->key.id = 0;
	p->tick = now_tick();
	if (piece != PIECE_LATER && event == EVENT_NONE)
		event = view_transport(p, s, piece, end, v6);
	note_packet(ctx, p, 0, may_be_virtual(p, v6), v6);
	s->piece = piece;
	__builtin_memcpy(s->fragment.source, p->key.source, sizeof(p->key.source));
	__builtin_memcpy(s->fragment.destination, p->key.destination, sizeof(p->key.destination));
	s->fragment.is_last = 0;
	s->fragment.pad = 0;
	return event;
}

__noinline int view_fragment(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct slow *s = slow_scratch();
	struct packet p;

	if (!s)
		return EVENT_FAULT_MAP;
	if (!parse_tagged_link(&p, &s->parsed, data, end))
		return EVENT_PASS_MALFORMED;
	return p.eth_proto == bpf_htons(ETH_P_IPV6) ? view_packet(ctx, s, &p, 1) : view_packet(ctx, s, &p, 0);
}

#endif
