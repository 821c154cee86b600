/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Hands a server's answers to the director's own connections to virtual addresses to
 * the namespace that these begin in, before the host's stack has them: that would drop
 * what comes from an address of its own, and reset what comes from another. It runs
 * after the fast path, on what that has passed, and takes nothing but the packets that
 * are awaited at the moment, and ICMP errors about such.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* The packets of one connection, from the server: as on the wire, IPv4 in the first words. */
struct awaited_key {
	__u32 source[4];
	__u32 destination[4];
	__be16 source_port;
	__be16 destination_port;
	__u32 protocol;
};

_Static_assert(sizeof(struct awaited_key) == 40, "ABI");

enum awaited_shape {
	AWAITED_FIRST_PORT = 61000, /* no other destination port is looked up; 32768 to 60999 are the host's own */
	AWAITED_MAX = 8192, /* more than there are such ports */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, AWAITED_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct awaited_key);
	__type(value, __u32); /* index of the host's end of the link to the namespace */
} awaited SEC(".maps");

/* linux/icmp.h and linux/icmpv6.h, which lead to libc's headers, have these. */
enum icmp_shape {
	ICMP_UNREACHABLE = 3,
	ICMP6_UNREACHABLE = 1,
	ICMP6_TOO_BIG = 2,
	ICMP_HEADER = 8,
};

#define NEXT (-1) /* TCX_NEXT, TC_ACT_UNSPEC */
#define FRAGMENT 0x3fff /* offset and "more fragments" */

static __always_inline int load(struct __sk_buff *skb, __u32 at, void *to, __u32 length)
{
	return !bpf_skb_load_bytes_relative(skb, at, to, length, BPF_HDR_START_NET);
}

/* Addresses and protocol of the header at; where the next one begins, or 0: none of ours. */
static __always_inline __u32 read4(struct __sk_buff *skb, __u32 at, struct awaited_key *k)
{
	struct iphdr ip;

	if (!load(skb, at, &ip, sizeof(ip)) || ip.frag_off & bpf_htons(FRAGMENT))
		return 0;
	k->source[0] = ip.saddr;
	k->destination[0] = ip.daddr;
	k->protocol = ip.protocol;
	return at + ip.ihl * 4;
}

static __always_inline __u32 read6(struct __sk_buff *skb, __u32 at, struct awaited_key *k)
{
	struct ipv6hdr ip;

	if (!load(skb, at, &ip, sizeof(ip)))
		return 0;
	__builtin_memcpy(k->source, &ip.saddr, sizeof(k->source));
	__builtin_memcpy(k->destination, &ip.daddr, sizeof(k->destination));
	k->protocol = ip.nexthdr;
	return at + sizeof(ip);
}

static __always_inline int is_error(struct __sk_buff *skb, __u32 at, int v6)
{
	__u8 type;

	if (!load(skb, at, &type, sizeof(type)))
		return 0;
	if (v6)
		return type == ICMP6_UNREACHABLE || type == ICMP6_TOO_BIG;
	return type == ICMP_UNREACHABLE;
}

static __always_inline int has_ports(const struct awaited_key *k)
{
	return k->protocol == IPPROTO_TCP || k->protocol == IPPROTO_UDP;
}

/* The key of the packet that the connection of the quoted one, sent by us, is awaiting. */
static __always_inline void turn(struct awaited_key *k)
{
	__be16 port = k->source_port;

	k->source_port = k->destination_port;
	k->destination_port = port;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		__u32 word = k->source[i];

		k->source[i] = k->destination[i];
		k->destination[i] = word;
	}
}

SEC("tc")
int shunt_probe(struct __sk_buff *skb)
{
	int v6 = skb->protocol == bpf_htons(ETH_P_IPV6), is_quoted = 0;
	struct awaited_key k = {};
	__u32 at, *index;

	if (!v6 && skb->protocol != bpf_htons(ETH_P_IP))
		return NEXT;
	at = v6 ? read6(skb, 0, &k) : read4(skb, 0, &k);
	if (at && k.protocol == (v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP) && is_error(skb, at, v6)) {
		is_quoted = 1;
		at += ICMP_HEADER;
		at = v6 ? read6(skb, at, &k) : read4(skb, at, &k);
	}
	if (!at || !has_ports(&k) || !load(skb, at, &k.source_port, 2 * sizeof(k.source_port)))
		return NEXT;
	if (is_quoted)
		turn(&k);
	if (bpf_ntohs(k.destination_port) < AWAITED_FIRST_PORT)
		return NEXT;
	index = bpf_map_lookup_elem(&awaited, &k);
	if (!index)
		return NEXT;
	if (skb->vlan_present && bpf_skb_vlan_pop(skb))
		return NEXT;
	return bpf_redirect_peer(*index, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Types that Go names but no map has: kept in the object's type information. */
const enum awaited_shape *export_shape __attribute__((unused));
