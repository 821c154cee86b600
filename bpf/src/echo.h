/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Echo requests to virtual addresses: answered in place, whatever their length. An
 * answer is not longer than what asked for it and goes back where that came from, so
 * that there is nothing to be gained by sending many.
 */
#ifndef SHUNT_ECHO_H
#define SHUNT_ECHO_H

#include "admit.h"
#include "answer.h"

enum icmp_echo {
	ICMP4_ECHO_REQUEST = 8,
	ICMP4_ECHO_REPLY = 0,
	ICMP6_ECHO_REQUEST = 128,
	ICMP6_ECHO_REPLY = 129,
};

static __always_inline int is_echo_request(__u8 icmp_type, const int v6)
{
	return icmp_type == (v6 ? ICMP6_ECHO_REQUEST : ICMP4_ECHO_REQUEST);
}

/* What becomes of an echo request to the address: enum echo; 0: it is no virtual one. */
static __always_inline __u32 echo_of(const __u32 *address, const int v6)
{
	struct virtual_key key = { .bits = VIRTUAL_KEY_BITS, .family = v6 ? 6 : 4 };
	__u32 *echo;

#pragma unroll
	for (int i = 0; i < 4; i++)
		key.address[i] = address[i];
	echo = bpf_map_lookup_elem(&virtual_addresses, &key);
	return echo ? LOAD(echo) : 0;
}

/*
 * What becomes of an echo request with these addresses: EVENT_NONE if it is not to a
 * virtual one. One virtual address does not ask another: the answer would be this
 * host's, or another director's, to itself.
 */
static __always_inline enum event judge_echo(const struct key *key, const int v6)
{
	__u32 echo = echo_of(key->destination, v6);

	if (!echo)
		return EVENT_NONE;
	if (echo == ECHO_PASSED)
		return EVENT_PASS_ICMP;
	if (is_martian(key, v6) || echo_of(key->source, v6))
		return EVENT_DROP_MARTIAN;
	return echo == ECHO_ANSWERED ? EVENT_ANSWER_ECHO : EVENT_DROP_ECHO;
}

__noinline int judge_echo4(const struct key *key)
{
	return key ? judge_echo(key, 0) : EVENT_NONE;
}

__noinline int judge_echo6(const struct key *key)
{
	return key ? judge_echo(key, 1) : EVENT_NONE;
}

/* Makes the ICMP header at icmp a reply's. */
static __always_inline void reply_to_echo(struct icmp_error *icmp, const int v6)
{
	__u16 *head = (__u16 *)icmp, before = *head;

	icmp->icmp_type = v6 ? ICMP6_ECHO_REPLY : ICMP4_ECHO_REPLY;
	icmp->checksum = adjust_checksum(icmp->checksum, word_delta(before, *head));
}

/* Turns the IPv4 header at ip round: addresses do not change its sum, the time to live does. */
static __always_inline void turn_round4(struct iphdr *ip)
{
	__u16 *lifetime = (__u16 *)&ip->ttl, before = *lifetime;
	__be32 source = ip->saddr;

	ip->saddr = ip->daddr;
	ip->daddr = source;
	ip->ttl = TIME_TO_LIVE;
	ip->check = adjust_checksum(ip->check, word_delta(before, *lifetime));
}

static __always_inline void turn_round6(struct ipv6hdr *ip6)
{
	struct in6_addr source = ip6->saddr;

	ip6->saddr = ip6->daddr;
	ip6->daddr = source;
	ip6->hop_limit = TIME_TO_LIVE;
}

/*
 * Sends the echo request back as a reply: options and extension headers stay as they
 * are. l3 and l4 are the offsets of its headers; l4 is 0 of a fragment but the first,
 * which has no ICMP header: nothing else of the datagram differs, so that each
 * fragment is answered by itself.
 */
static __always_inline int return_echo(struct xdp_md *ctx, __u32 l3, __u32 l4, const int v6)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	void *network = data + (l3 & 0x1f);

	/* First: a check of what lies further on would tell clang that this one is not needed, but not the verifier. */
	if (data + sizeof(struct ethhdr) + 2 * sizeof(__u32) > end)
		return finish(ctx, EVENT_FAULT_MAP, 0);
	if (network + (v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) > end)
		return finish(ctx, EVENT_FAULT_MAP, 0);
	if (l4) {
		struct icmp_error *icmp = data + (l4 & 0x3fff);

		if ((void *)(icmp + 1) > end)
			return finish(ctx, EVENT_FAULT_MAP, 0);
		reply_to_echo(icmp, v6);
	}
	if (v6)
		turn_round6(network);
	else
		turn_round4(network);
	return_link(data, end, 0, 0);
	return finish(ctx, EVENT_ANSWER_ECHO, 0);
}

__noinline int return_echo4(struct xdp_md *ctx, __u32 l3, __u32 l4)
{
	return return_echo(ctx, l3, l4, 0);
}

__noinline int return_echo6(struct xdp_md *ctx, __u32 l3, __u32 l4)
{
	return return_echo(ctx, l3, l4, 1);
}

#endif
