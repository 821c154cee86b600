/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * An ICMP error in hand: what it quotes, and how that and its own addresses are
 * replaced. Checksums inside and out are adjusted for what changes, so that a wrong one
 * stays wrong; one that the quote does not reach is not there.
 */
#ifndef SHUNT_MESSAGE_H
#define SHUNT_MESSAGE_H

#include "forward.h"

struct message {
	struct key outer; /* the error's addresses */
	struct key quoted; /* those of what it quotes, its ports and protocol */
	struct key outer_to; /* what they are to be; also if they stay */
	struct key quoted_to;
	struct key wrapper; /* quoted, of a packet that was wrapped: its outer header's */
	__u32 l3; /* offsets from the frame's start: of its header, */
	__u32 l4; /* its ICMP header, */
	__u32 quote; /* the IP header it quotes, */
	__u32 transport; /* what is quoted behind that, */
	__u32 end; /* and of the packet's end */
	__u32 passed; /* enum event: what it is counted as if it is not of ours */
	__u32 service; /* index: of the connection; 0: of none */
	__u32 hop; /* that it goes by: of a server, or a reference to a client's */
	__u32 mtu; /* of the packet inside a quoted one that was wrapped; */
	__u32 tunnel; /* the index of the first tunnel with its key */
	__u32 path; /* the MTU of its path, as the error tells */
	__be32 parameter; /* the second word of the ICMP header */
	__u16 length; /* of the IP packet */
	__u16 quoted_length; /* of the one it quotes, as that says */
	__be16 outer_vlan; /* as in struct packet */
	__be16 inner_vlan;
	__u8 lifetime; /* TTL, or hop limit */
	__u8 icmp_type;
	__u8 code;
	__u8 inner_family; /* of the packet inside: 4 or 6 */
};

/* What an error quotes. */
enum quoted {
	QUOTED_NOTHING, /* that is understood */
	QUOTED_PORTS, /* TCP or UDP, with its ports */
	QUOTED_WRAPPER, /* the outer header of a packet in another */
};

/* What an error is about, if a wrapped packet. */
enum wrapped {
	WRAPPED_NOT, /* none of ours */
	WRAPPED_STRANGE, /* one that this host has not wrapped, or of a connection that has ended */
	WRAPPED_SHORT, /* one of which the quote does not reach the packet inside */
	WRAPPED_INSIDE, /* that is quoted too */
	WRAPPED_ALONE, /* and is to a service that makes no connections */
	WRAPPED_CONNECTION, /* and is of a connection by this path */
};

/* Each CPU's; see slow.h. */
MAP(messages, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct message, 1);

static __always_inline struct message *message_scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&messages, &zero);
}

static __always_inline void copy_address(__u32 *to, const __u32 *from)
{
#pragma unroll
	for (int i = 0; i < 4; i++)
		to[i] = from[i];
}

static __always_inline int address_differs(const __u32 *a, const __u32 *b)
{
	return !!((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]));
}

/* Counts the event if the packet goes out. */
static __always_inline int counted(int action, enum event event)
{
	if (action == XDP_TX || action == XDP_REDIRECT)
		count(event);
	return action;
}

/* Takes the addresses of the quoted header, which begins with IPv4's; false if it is none, or of a later fragment. */
static __always_inline int parse_quoted_network4(struct xdp_md *ctx, struct message *m, __u8 *protocol)
{
	struct iphdr ip;

	if (m->quote + sizeof(ip) > m->end || bpf_xdp_load_bytes(ctx, m->quote, &ip, sizeof(ip)))
		return 0;
	if (ip.version != 4 || ip.ihl * 4 < sizeof(ip) || ip.frag_off & bpf_htons(IP_OFFSET))
		return 0;
	m->quoted.source[0] = ip.saddr;
	m->quoted.destination[0] = ip.daddr;
#pragma unroll
	for (int i = 1; i < 4; i++)
		m->quoted.source[i] = m->quoted.destination[i] = 0;
	m->transport = m->quote + ip.ihl * 4;
	m->quoted_length = bpf_ntohs(ip.tot_len);
	*protocol = ip.protocol;
	return 1;
}

/* The same of IPv6, its extension headers skipped. */
static __always_inline int parse_quoted_network6(struct xdp_md *ctx, struct message *m, __u8 *protocol)
{
	struct extension_header extension;
	__u32 offset = m->quote;
	struct ipv6hdr ip6;

	if (offset + sizeof(ip6) > m->end || bpf_xdp_load_bytes(ctx, offset, &ip6, sizeof(ip6)) || ip6.version != 6)
		return 0;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		m->quoted.source[i] = ip6.saddr.in6_u.u6_addr32[i];
		m->quoted.destination[i] = ip6.daddr.in6_u.u6_addr32[i];
	}
	*protocol = ip6.nexthdr;
	m->quoted_length = bpf_ntohs(ip6.payload_len) + sizeof(ip6);
	offset += sizeof(ip6);
	for (int i = 0; i < EXTENSION_HEADERS + 1 && (is_extension(*protocol) || *protocol == IPPROTO_FRAGMENT); i++) {
		if (offset + sizeof(extension) > m->end ||
		    bpf_xdp_load_bytes(ctx, offset, &extension, sizeof(extension)))
			return 0;
		if (*protocol == IPPROTO_FRAGMENT) {
			if (*(__be16 *)extension.rest & bpf_htons(FRAGMENT_OFFSET6))
				return 0;
			extension.length = 0;
		}
		*protocol = extension.next;
		offset += (extension.length + 1) * 8;
	}
	m->transport = offset;
	return 1;
}

/* What the error quotes. */
static __always_inline enum quoted parse_quote(struct xdp_md *ctx, struct message *m, const int v6)
{
	__u8 protocol = 0;
	__u32 ports;

	if (!(v6 ? parse_quoted_network6(ctx, m, &protocol) : parse_quoted_network4(ctx, m, &protocol)))
		return QUOTED_NOTHING;
	m->quoted.id = make_id(0, protocol);
	if (protocol == IPPROTO_IPIP || protocol == IPPROTO_IPV6 || protocol == IPPROTO_GRE)
		return QUOTED_WRAPPER;
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return QUOTED_NOTHING;
	if (m->transport + QUOTED > m->end || bpf_xdp_load_bytes(ctx, m->transport, &ports, sizeof(ports)))
		return QUOTED_NOTHING;
	m->quoted.id = make_id(ports, protocol);
	return QUOTED_PORTS;
}

__noinline int parse_quote4(struct xdp_md *ctx, struct message *m)
{
	return m ? parse_quote(ctx, m, 0) : 0;
}

__noinline int parse_quote6(struct xdp_md *ctx, struct message *m)
{
	return m ? parse_quote(ctx, m, 1) : 0;
}

/*
 * What the addresses of one key, replaced by another's, add to a checksum's words.
 * Global: it has its stack to itself.
 */
__noinline __u32 addresses_delta(const struct key *from, const struct key *to)
{
	if (!from || !to)
		return 0;
	return address_delta(from->source, to->source) + address_delta(from->destination, to->destination);
}

/* Writes the key's addresses to the IP header at the offset. */
static __always_inline int put_addresses(struct xdp_md *ctx, __u32 offset, const struct key *key, const int v6)
{
	const __u32 size = v6 ? sizeof(struct in6_addr) : sizeof(__be32);

	offset += v6 ? __builtin_offsetof(struct ipv6hdr, saddr) : __builtin_offsetof(struct iphdr, saddr);
	return !bpf_xdp_store_bytes(ctx, offset, (void *)key->source, size) &&
	       !bpf_xdp_store_bytes(ctx, offset + size, (void *)key->destination, size);
}

/* Replaces the error's own addresses, which adds delta to their sum, and lowers its time to live. */
static __always_inline int rewrite_outer(struct xdp_md *ctx, const struct message *m, __u32 delta, const int v6)
{
	const __u32 check_at = m->l3 + __builtin_offsetof(struct iphdr, check);
	__u8 lifetime = m->lifetime - 1;
	__u16 check;

	if (!put_addresses(ctx, m->l3, &m->outer_to, v6))
		return 0;
	if (v6)
		return !bpf_xdp_store_bytes(ctx, m->l3 + __builtin_offsetof(struct ipv6hdr, hop_limit), &lifetime,
					    sizeof(lifetime));
	if (bpf_xdp_load_bytes(ctx, check_at, &check, sizeof(check)))
		return 0;
	check = adjust_checksum(check, delta + TTL_DELTA);
	return !bpf_xdp_store_bytes(ctx, m->l3 + __builtin_offsetof(struct iphdr, ttl), &lifetime, sizeof(lifetime)) &&
	       !bpf_xdp_store_bytes(ctx, check_at, &check, sizeof(check));
}

/*
 * Replaces the addresses of the quoted header, which adds delta to their sum; what that
 * and the header's own checksum add to the message's is added to *sum.
 */
static __always_inline int rewrite_quoted(struct xdp_md *ctx, const struct message *m, __u32 delta, __u32 *sum,
					  const int v6)
{
	const __u32 check_at = m->quote + __builtin_offsetof(struct iphdr, check);
	__u16 check, checked;

	*sum += delta;
	if (!put_addresses(ctx, m->quote, &m->quoted_to, v6))
		return 0;
	if (v6)
		return 1;
	if (bpf_xdp_load_bytes(ctx, check_at, &check, sizeof(check)))
		return 0;
	checked = adjust_checksum(check, delta);
	*sum += word_delta(check, checked);
	return !bpf_xdp_store_bytes(ctx, check_at, &checked, sizeof(checked));
}

/* The same of the quoted ports, and of the transport checksum if the quote reaches it. */
static __always_inline int rewrite_transport(struct xdp_md *ctx, const struct message *m, __u32 addresses, __u32 *sum)
{
	__u32 from = m->quoted.id, to = m->quoted_to.id, offset, delta;
	const int is_udp = (__u8)(m->quoted.id >> ID_PROTOCOL) == IPPROTO_UDP;
	__u16 check, checked;

	delta = word_delta(from, to) + word_delta(from >> 16, to >> 16);
	*sum += delta;
	if (bpf_xdp_store_bytes(ctx, m->transport, &to, sizeof(to)))
		return 0;
	offset = m->transport +
		 (is_udp ? __builtin_offsetof(struct udphdr, check) : __builtin_offsetof(struct tcphdr, check));
	if (offset + sizeof(check) > m->end)
		return 1;
	if (bpf_xdp_load_bytes(ctx, offset, &check, sizeof(check)))
		return 0;
	if (is_udp && !check)
		return 1; /* there is none, RFC 768 */
	delta += addresses;
	checked = adjust_checksum(check, delta);
	if (is_udp && !checked)
		checked = 0xffff;
	*sum += word_delta(check, checked);
	return !bpf_xdp_store_bytes(ctx, offset, &checked, sizeof(checked));
}

/* Makes the error what m says it is to be; false: the frame is not what m was made from. */
static __always_inline int rewrite_error(struct xdp_md *ctx, struct message *m, const int v6)
{
	const __u32 offset = m->l4 + __builtin_offsetof(struct icmp_error, checksum);
	__u32 outer = addresses_delta(&m->outer, &m->outer_to), quoted = addresses_delta(&m->quoted, &m->quoted_to);
	__u32 sum = 0;
	__u16 check;

	if (!rewrite_outer(ctx, m, outer, v6) || !rewrite_quoted(ctx, m, quoted, &sum, v6) ||
	    !rewrite_transport(ctx, m, quoted, &sum))
		return 0;
	if (v6)
		sum += outer; /* of the pseudo-header */
	if (bpf_xdp_load_bytes(ctx, offset, &check, sizeof(check)))
		return 0;
	check = adjust_checksum(check, sum);
	return !bpf_xdp_store_bytes(ctx, offset, &check, sizeof(check));
}

__noinline int rewrite_error4(struct xdp_md *ctx, struct message *m)
{
	return m ? rewrite_error(ctx, m, 0) : 0;
}

__noinline int rewrite_error6(struct xdp_md *ctx, struct message *m)
{
	return m ? rewrite_error(ctx, m, 1) : 0;
}

#endif
