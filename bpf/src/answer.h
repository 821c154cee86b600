/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Answers in the packet's own frame, sent back where it came from: ICMP errors
 * (RFC 792, RFC 4443), from the virtual address, and TCP resets (RFC 9293
 * §3.5.2). An error quotes the IP header and 8 octets, what RFC 792 asks for; of
 * IPv6 the extension headers too, or its receiver would not find whose packet it was
 * (kernel: net/ipv6/icmp.c, icmpv6_notify, wants 8 octets behind them).
 */
#ifndef SHUNT_ANSWER_H
#define SHUNT_ANSWER_H

#include "checksum.h"
#include "finish.h"

#define QUOTED 8
#define MAX_HEADER4 60
#define TIME_TO_LIVE 64

/* RFC 792 and RFC 4443: both families' errors have this shape. */
struct icmp_error {
	__u8 icmp_type;
	__u8 code;
	__u16 checksum;
	__be32 parameter; /* 0, or the MTU in the low 16 bits (RFC 1191) or all 32 (RFC 4443) */
};

enum icmp_numbers {
	ICMP4_UNREACHABLE = 3,
	ICMP4_UNREACHABLE_PORT = 3,
	ICMP4_UNREACHABLE_FRAGMENTATION = 4,
	ICMP4_TIME_EXCEEDED = 11,
	ICMP6_UNREACHABLE = 1,
	ICMP6_UNREACHABLE_PORT = 4,
	ICMP6_TOO_BIG = 2,
	ICMP6_TIME_EXCEEDED = 3,
};

struct answer_request {
	enum event event; /* EVENT_ANSWER_*: what to say */
	__u32 mtu; /* of EVENT_ANSWER_TOO_BIG */
	__u32 l3; /* offset of the IP header */
	__u32 l4; /* offset of the transport header, from the frame's start */
	__u32 from[4]; /* whose error it is: the virtual address */
	__u32 service; /* index */
};

/*
 * A CPU may send settings.icmp_per_tick answers a tick: the kernel's limits do
 * not see ours (kernel: net/ipv4/icmp.c, icmp_global_allow).
 */
static __always_inline int may_answer(void)
{
	__u32 zero = 0, tick = now_tick();
	__u64 *budget = bpf_map_lookup_elem(&answer_budgets, &zero);

	if (!budget)
		return 0;
	if ((__u32)(*budget >> 32) != tick)
		*budget = (__u64)tick << 32;
	if ((__u32)*budget >= current.icmp_per_tick)
		return 0;
	*budget += 1;
	return 1;
}

/* One's complement sum of length octets at data, a multiple of 4, added to sum. */
static __always_inline __u32 add_sum(__u32 sum, void *data, const int length)
{
	return bpf_csum_diff(0, 0, data, length, sum);
}

/* Moves the link header, tags included, to the frame's new start and turns it round. */
static __always_inline int return_link(void *data, void *end, __u32 l3, const __u32 moved)
{
	struct ethhdr *eth = data, *old = data + moved;
	__u32 *tag = data + sizeof(*eth), *old_tag = (void *)tag + moved;
	__u64 destination, source;

	if ((void *)(old_tag + 2) > end)
		return 0;
	destination = load_mac(old->h_dest);
	source = load_mac(old->h_source);
	store_mac(eth->h_dest, source);
	store_mac(eth->h_source, destination);
	eth->h_proto = old->h_proto;
	if (l3 > sizeof(*eth)) {
		tag[0] = old_tag[0];
		if (l3 > sizeof(*eth) + sizeof(*tag))
			tag[1] = old_tag[1];
	}
	return 1;
}

/* Cuts the frame to length octets; false if it cannot be. */
static __always_inline int cut(struct xdp_md *ctx, __u32 length)
{
	__s64 surplus = (__s64)bpf_xdp_get_buff_len(ctx) - length;

	return surplus <= 0 || !bpf_xdp_adjust_tail(ctx, -(int)surplus);
}

#define GROWN4 (sizeof(struct iphdr) + sizeof(struct icmp_error))

/* Adds to sum the options that the quoted header, of that length, has, and as much behind them; -1: they are not there.
 */
static __always_inline __s64 add_options(__u32 sum, __u32 *word, void *end, __u32 header)
{
	for (int i = 0; i < (MAX_HEADER4 - sizeof(struct iphdr)) / 4 && sizeof(struct iphdr) + i * 4 < header; i++) {
		if ((void *)(word + i + 1) > end)
			return -1;
		sum = add_sum(sum, word + i, sizeof(*word));
	}
	return sum;
}

/* An ICMP error that quotes the header and 8 octets. */
static __always_inline int icmp4(struct xdp_md *ctx, const struct answer_request *r)
{
	const __u32 header = r->l4 - r->l3, quote = header + QUOTED;
	struct icmp_error *icmp;
	__u32 l3 = r->l3 & 0x1f;
	struct iphdr *ip, *quoted;
	void *data, *end;
	__s64 sum;

	if (bpf_xdp_adjust_head(ctx, -(int)GROWN4) || !cut(ctx, l3 + GROWN4 + quote))
		return 0;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (!return_link(data, end, l3, GROWN4))
		return 0;
	ip = data + l3;
	icmp = (void *)(ip + 1);
	quoted = (void *)(icmp + 1);
	if ((void *)(quoted + 1) + QUOTED > end)
		return 0;
	icmp->icmp_type = ICMP4_UNREACHABLE;
	icmp->code = ICMP4_UNREACHABLE_PORT;
	icmp->checksum = 0;
	icmp->parameter = 0;
	if (r->event == EVENT_ANSWER_TTL) {
		icmp->icmp_type = ICMP4_TIME_EXCEEDED;
		icmp->code = 0; /* in transit */
	} else if (r->event == EVENT_ANSWER_TOO_BIG) {
		icmp->code = ICMP4_UNREACHABLE_FRAGMENTATION;
		icmp->parameter = bpf_htonl(r->mtu);
	}
	sum = add_options(add_sum(0, icmp, sizeof(*icmp) + sizeof(*quoted) + QUOTED), (void *)(quoted + 1) + QUOTED,
			  end, header);
	if (sum < 0)
		return 0;
	icmp->checksum = ~fold(sum);
	*(__u32 *)ip = 0;
	ip->version = 4;
	ip->ihl = sizeof(*ip) / 4;
	ip->tos = 0xc0; /* internetwork control, RFC 1812 §4.3.2.5 */
	ip->tot_len = bpf_htons(GROWN4 + quote);
	ip->id = 0;
	ip->frag_off = bpf_htons(IP_DF);
	ip->ttl = TIME_TO_LIVE;
	ip->protocol = IPPROTO_ICMP;
	ip->check = 0;
	ip->saddr = r->from[0];
	ip->daddr = quoted->saddr;
	ip->check = ~fold(add_sum(0, ip, sizeof(*ip)));
	return 1;
}

#define GROWN6 (sizeof(struct ipv6hdr) + sizeof(struct icmp_error))
#define QUOTE6 (sizeof(struct ipv6hdr) + QUOTED)
#define MORE6 (MAX_HEADER4 - sizeof(struct iphdr)) /* what add_options adds at most */

/* Octets that are quoted of the packet at offset l3 beyond QUOTE6: those of its extension headers, a multiple of 4. */
static __always_inline __u32 more_quoted(struct xdp_md *ctx, __u32 l3)
{
	struct ipv6hdr *ip6 = (void *)(long)ctx->data + l3;
	__s32 more = bpf_xdp_get_buff_len(ctx) - l3 - QUOTE6, length;

	if ((void *)(ip6 + 1) > (void *)(long)ctx->data_end || ip6->nexthdr == IPPROTO_TCP ||
	    ip6->nexthdr == IPPROTO_UDP)
		return 0;
	length = bpf_ntohs(ip6->payload_len) - QUOTED;
	more = length < more ? length : more;
	if (more < 0)
		return 0;
	return (more < (__s32)MORE6 ? more : MORE6) & ~3;
}

static __always_inline int icmp6(struct xdp_md *ctx, const struct answer_request *r)
{
	struct ipv6hdr *ip6, *quoted;
	struct icmp_error *icmp;
	__u32 l3 = r->l3 & 0x1f, more = more_quoted(ctx, l3);
	void *data, *end;
	__s64 sum;

	if (bpf_xdp_adjust_head(ctx, -(int)GROWN6) || !cut(ctx, l3 + GROWN6 + QUOTE6 + more))
		return 0;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (!return_link(data, end, l3, GROWN6))
		return 0;
	ip6 = data + l3;
	icmp = (void *)(ip6 + 1);
	quoted = (void *)(icmp + 1);
	if ((void *)quoted + QUOTE6 > end)
		return 0;
	icmp->icmp_type = ICMP6_UNREACHABLE;
	icmp->code = ICMP6_UNREACHABLE_PORT;
	icmp->checksum = 0;
	icmp->parameter = 0;
	if (r->event == EVENT_ANSWER_TTL) {
		icmp->icmp_type = ICMP6_TIME_EXCEEDED;
		icmp->code = 0; /* in transit */
	} else if (r->event == EVENT_ANSWER_TOO_BIG) {
		icmp->icmp_type = ICMP6_TOO_BIG;
		icmp->code = 0;
		icmp->parameter = bpf_htonl(r->mtu);
	}
	*(__u32 *)ip6 = 0;
	ip6->version = 6;
	ip6->payload_len = bpf_htons(sizeof(*icmp) + QUOTE6 + more);
	ip6->nexthdr = IPPROTO_ICMPV6;
	ip6->hop_limit = TIME_TO_LIVE;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		ip6->saddr.in6_u.u6_addr32[i] = r->from[i];
		ip6->daddr.in6_u.u6_addr32[i] = quoted->saddr.in6_u.u6_addr32[i];
	}
	/* Pseudo-header, RFC 8200 §8.1, then the message. */
	sum = add_sum(ip6->payload_len + bpf_htons(IPPROTO_ICMPV6), &ip6->saddr, 2 * sizeof(ip6->saddr));
	sum = add_options(add_sum(sum, icmp, sizeof(*icmp) + QUOTE6), (void *)quoted + QUOTE6, end,
			  sizeof(struct iphdr) + more);
	if (sum < 0)
		return 0;
	icmp->checksum = ~fold(sum);
	return 1;
}

/* The TCP part of a reset of the segment at tcp; payload is its length. */
static __always_inline void reset_tcp(struct tcphdr *tcp, __u32 payload)
{
	__be32 ack = tcp->ack_seq, seq = tcp->seq;
	__u8 flags = ((__u8 *)tcp)[13];
	__be16 source = tcp->source;

	tcp->source = tcp->dest;
	tcp->dest = source;
	tcp->window = 0;
	tcp->urg_ptr = 0;
	tcp->check = 0;
	((__u8 *)tcp)[12] = sizeof(*tcp) / 4 << 4;
	if (flags & 0x10) {
		tcp->seq = ack;
		tcp->ack_seq = 0;
		((__u8 *)tcp)[13] = 0x04;
		return;
	}
	payload += (flags & 0x02) / 0x02 + (flags & 0x01);
	tcp->seq = 0;
	tcp->ack_seq = bpf_htonl(bpf_ntohl(seq) + payload);
	((__u8 *)tcp)[13] = 0x14;
}

static __always_inline int reset4(struct xdp_md *ctx, const struct answer_request *r)
{
	__u32 l3 = r->l3 & 0x1f;
	struct tcphdr *tcp;
	struct iphdr *ip;
	void *data, *end;
	__u32 sum, payload;
	__be32 source;

	/* Options would have to move; nobody who sends them waits for a reset. */
	if (r->l4 - r->l3 != sizeof(*ip) || !cut(ctx, l3 + sizeof(*ip) + sizeof(*tcp)))
		return 0;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	ip = data + l3;
	tcp = (void *)(ip + 1);
	if (!return_link(data, end, 0, 0) || (void *)(tcp + 1) > end)
		return 0;
	payload = bpf_ntohs(ip->tot_len) - sizeof(*ip) - tcp->doff * 4;
	source = ip->saddr;
	ip->saddr = ip->daddr;
	ip->daddr = source;
	ip->tos = 0;
	ip->tot_len = bpf_htons(sizeof(*ip) + sizeof(*tcp));
	ip->id = 0;
	ip->frag_off = bpf_htons(IP_DF);
	ip->ttl = TIME_TO_LIVE;
	ip->check = 0;
	ip->check = ~fold(add_sum(0, ip, sizeof(*ip)));
	reset_tcp(tcp, payload);
	sum = add_sum(bpf_htons(sizeof(*tcp)) + bpf_htons(IPPROTO_TCP), &ip->saddr, 2 * sizeof(ip->saddr));
	tcp->check = ~fold(add_sum(sum, tcp, sizeof(*tcp)));
	return 1;
}

static __always_inline int reset6(struct xdp_md *ctx, const struct answer_request *r)
{
	__u32 l3 = r->l3 & 0x1f;
	struct in6_addr source;
	struct ipv6hdr *ip6;
	struct tcphdr *tcp;
	void *data, *end;
	__u32 sum, payload;

	if (r->l4 - r->l3 != sizeof(*ip6) || !cut(ctx, l3 + sizeof(*ip6) + sizeof(*tcp)))
		return 0;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	ip6 = data + l3;
	tcp = (void *)(ip6 + 1);
	if (!return_link(data, end, 0, 0) || (void *)(tcp + 1) > end)
		return 0;
	payload = bpf_ntohs(ip6->payload_len) - tcp->doff * 4;
	source = ip6->saddr;
	ip6->saddr = ip6->daddr;
	ip6->daddr = source;
	ip6->payload_len = bpf_htons(sizeof(*tcp));
	ip6->hop_limit = TIME_TO_LIVE;
	reset_tcp(tcp, payload);
	sum = add_sum(bpf_htons(sizeof(*tcp)) + bpf_htons(IPPROTO_TCP), &ip6->saddr, 2 * sizeof(ip6->saddr));
	tcp->check = ~fold(add_sum(sum, tcp, sizeof(*tcp)));
	return 1;
}

static __always_inline int build_answer4(struct xdp_md *ctx, const struct answer_request *r)
{
	if (r->event == EVENT_ANSWER_RESET)
		return reset4(ctx, r);
	return icmp4(ctx, r);
}

static __always_inline int build_answer6(struct xdp_md *ctx, const struct answer_request *r)
{
	return r->event == EVENT_ANSWER_RESET ? reset6(ctx, r) : icmp6(ctx, r);
}

/*
 * Turns the packet into the answer r names, within the limits; the XDP action.
 * Its source is one host's address: create() refuses others before anything else.
 */
static __always_inline int answer(struct xdp_md *ctx, struct answer_request *r, const int v6)
{
	if (!may_answer())
		return finish(ctx, EVENT_DROP_RATE_LIMITED, r->service);
	if (!(v6 ? build_answer6(ctx, r) : build_answer4(ctx, r)))
		return finish(ctx, EVENT_DROP_NOT_QUOTABLE, r->service);
	return finish(ctx, r->event, r->service);
}

__noinline int answer4(struct xdp_md *ctx, struct answer_request *r)
{
	return r ? answer(ctx, r, 0) : XDP_DROP;
}

__noinline int answer6(struct xdp_md *ctx, struct answer_request *r)
{
	return r ? answer(ctx, r, 1) : XDP_DROP;
}

/* As answer, to the packet in hand, from the virtual address. */
static __always_inline int answer_packet(struct xdp_md *ctx, const struct packet *p, const __u32 *from,
					 enum event event, __u32 mtu, __u32 service, const int v6)
{
	struct answer_request r = { .event = event, .mtu = mtu, .service = service };

#pragma unroll
	for (int i = 0; i < (v6 ? 4 : 1); i++)
		r.from[i] = from[i];

	r.l3 = p->l3 - (void *)(long)ctx->data;
	r.l4 = p->l4 - (void *)(long)ctx->data;
	return v6 ? answer6(ctx, &r) : answer4(ctx, &r);
}

#endif
