/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Parsing: from the frame to a struct packet. Bounds are checked here and
 * nowhere else; what the parser leaves in l3 and l4 may be read and written up
 * to the size of the IP header without options and of a TCP or UDP header.
 */
#ifndef SHUNT_PACKET_H
#define SHUNT_PACKET_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>

#include "table.h"

#define VLAN_ID_MASK 0x0fff
#define VLAN_PRESENT 0x1000
#define VLAN_PRIORITY_MASK 0xe000
#define IP_FRAGMENT 0x3fff /* more fragments, or an offset */
#define IP_MORE 0x2000
#define IP_OFFSET 0x1fff /* in units of 8 octets */
#define IP_DF 0x4000
#define EXTENSION_HEADERS 4
/* Not counted: the packet is another program's. */
#define EVENT_GO_ODD EVENTS
#define EVENT_GO_ICMP (EVENTS + 1)
#define EVENT_GO_FRAGMENT (EVENTS + 2)

#define TCP_HEADER_FLAGS 13 /* the octet that has them */

enum tcp_flags {
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_ACK = 0x10,
};

struct vlan_tag {
	__be16 tci;
	__be16 eth_proto; /* of what follows */
};

struct packet {
	struct key key;
	void *l3;
	void *l4;
	__u32 offset; /* of l3 in the frame */
	__u32 tick;
	__u16 length; /* of the IP packet, from its header */
	__be16 eth_proto; /* after the tags */
	__be16 outer_vlan; /* as in struct hop */
	__be16 inner_vlan;
	__u8 protocol;
	__u8 tcp_flags;
	__u8 is_new; /* the first of its connection */
	__u8 is_later; /* a fragment but the first: it has no transport header */
};

static __always_inline __be16 vlan_id(__be16 tci)
{
	return (tci & bpf_htons(VLAN_ID_MASK)) | bpf_htons(VLAN_PRESENT);
}

static __always_inline int is_vlan(__be16 eth_proto)
{
	return eth_proto == bpf_htons(ETH_P_8021Q) || eth_proto == bpf_htons(ETH_P_8021AD);
}

/* The Ethernet header; false: too short. */
static __always_inline int parse_link(struct packet *p, void *data, void *end)
{
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) > end)
		return 0;
	/*
	 * A group's frame is no packet to be routed (RFC 1812 §5.3.4): let it look like no IP.
	 * One load: struct ethhdr is packed, of which clang would load the octets.
	 */
	p->eth_proto = eth->h_dest[0] & 1 ? 0 : *(__be16 *)(data + __builtin_offsetof(struct ethhdr, h_proto));
	p->l3 = eth + 1;
	p->offset = sizeof(*eth);
	p->outer_vlan = 0;
	p->inner_vlan = 0;
	return 1;
}

/* One VLAN tag at l3; false: too short. */
static __always_inline int parse_tag(struct packet *p, __be16 *vlan, void *end)
{
	struct vlan_tag *tag = p->l3;

	if ((void *)(tag + 1) > end)
		return 0;
	*vlan = vlan_id(tag->tci);
	p->eth_proto = tag->eth_proto;
	p->l3 = tag + 1;
	p->offset += sizeof(*tag);
	return 1;
}

/* Where what was parsed is left and taken from again. */
struct parsed {
	__u32 l3; /* offsets: of the frame, */
	__u32 l4; /* of the network header */
	__be16 outer_vlan;
	__be16 inner_vlan;
	__be16 eth_proto;
	__u8 protocol;
	__u8 pad;
};

/*
 * The link header and VLAN tags; false: too short. By way of scratch memory, or the
 * verifier would walk all that follows for each number of tags.
 */
static __always_inline int parse_tagged_link(struct packet *p, struct parsed *scratch, void *data, void *end)
{
	if (!parse_link(p, data, end))
		return 0;
	if (is_vlan(p->eth_proto) && !parse_tag(p, &p->outer_vlan, end))
		return 0;
	if (is_vlan(p->eth_proto) && !parse_tag(p, &p->inner_vlan, end))
		return 0;
	STORE(&scratch->l3, p->offset);
	STORE(&scratch->outer_vlan, p->outer_vlan);
	STORE(&scratch->inner_vlan, p->inner_vlan);
	STORE(&scratch->eth_proto, p->eth_proto);
	p->offset = LOAD(&scratch->l3) & 0x1f;
	p->l3 = data + p->offset;
	p->outer_vlan = LOAD(&scratch->outer_vlan);
	p->inner_vlan = LOAD(&scratch->inner_vlan);
	p->eth_proto = LOAD(&scratch->eth_proto);
	return 1;
}

/* Which bit of the filter an address has; folded by multiplying, as xor cancels regular ones. */
static __always_inline __u32 filter_bit(const __u32 *address, const int v6)
{
	__u64 fold = address[0] * 0x9e3779b97f4a7c15ULL;

	if (v6) {
		fold += address[1] * 0xc2b2ae3d27d4eb4fULL;
		fold += address[2] * 0x165667b19e3779f9ULL;
		fold += address[3] * 0xd6e8feb86659fd93ULL;
	}
	return fold >> 48;
}

/* Whether the address's bit is set in the words, which are a half of the filter. */
static __always_inline int has_bit(const __u32 *words, const __u32 *address, const int v6)
{
	__u32 bit = filter_bit(address, v6);

	return words[bit >> 5] >> (bit & 31) & 1;
}

static __always_inline int may_be_virtual(const struct packet *p, const int v6)
{
	return has_bit(ours.virtual_address, p->key.destination, v6);
}

static __always_inline int may_be_server(const struct packet *p, const int v6)
{
	return has_bit(ours.server_address, p->key.source, v6);
}

/* Whether an ICMP message follows the addresses: of an error, only what it quotes says whose it is. */
static __always_inline int is_icmp(const struct packet *p, const int v6)
{
	return v6 ? ((struct ipv6hdr *)p->l3)->nexthdr == IPPROTO_ICMPV6 :
		    ((struct iphdr *)p->l3)->protocol == IPPROTO_ICMP;
}

/* The addresses; false: no whole header. */
static __always_inline int parse_addresses(struct packet *p, void *end, const int v6)
{
	if (v6) {
		struct ipv6hdr *ip6 = p->l3;

		if ((void *)(ip6 + 1) > end)
			return 0;
#pragma unroll
		for (int i = 0; i < 4; i++) {
			p->key.source[i] = ip6->saddr.in6_u.u6_addr32[i];
			p->key.destination[i] = ip6->daddr.in6_u.u6_addr32[i];
		}
		return 1;
	}
	struct iphdr *ip = p->l3;

	if ((void *)(ip + 1) > end)
		return 0;
	p->key.source[0] = ip->saddr;
	p->key.destination[0] = ip->daddr;
#pragma unroll
	for (int i = 1; i < 4; i++)
		p->key.source[i] = p->key.destination[i] = 0;
	return 1;
}

#define PLAIN_IPV4 0x45 /* version 4, a header of 5 words */

/*
 * Leaves the transport header in l4 and its protocol; EVENT_NONE or why not. A
 * header with options is for those who give scratch memory; others get
 * EVENT_GO_ODD. Its length goes by way of that memory, or the verifier would
 * walk all that follows once more.
 */
static __always_inline enum event parse_network4(struct packet *p, void *end, struct parsed *scratch)
{
	struct iphdr *ip = p->l3;
	__u32 header = sizeof(*ip);

	if (*(__u8 *)ip != PLAIN_IPV4) {
		if (!scratch)
			return EVENT_GO_ODD;
		if (ip->version != 4 || ip->ihl * 4 < sizeof(*ip))
			return EVENT_PASS_MALFORMED;
	}
	if (ip->frag_off & bpf_htons(IP_FRAGMENT))
		return EVENT_GO_FRAGMENT;
	p->length = bpf_ntohs(ip->tot_len);
	p->protocol = ip->protocol;
	if (scratch) {
		STORE(&scratch->l4, ip->ihl * 4);
		header = LOAD(&scratch->l4) & 0x3c;
	}
	p->l4 = p->l3 + header;
	return EVENT_NONE;
}

struct extension_header {
	__u8 next;
	__u8 length; /* in 8 octets, less the first (RFC 8200 §4.3) */
	__u8 rest[6]; /* of a routing header: its type, and how many addresses are left */
};

static __always_inline int is_extension(__u8 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_DSTOPTS || next == IPPROTO_ROUTING;
}

/* The fragment header (RFC 8200 §4.5). */
struct fragment_header {
	__u8 next;
	__u8 reserved;
	__be16 place; /* the offset in octets, a multiple of 8, and FRAGMENT_MORE6 */
	__be32 id;
};

#define FRAGMENT_MORE6 1
#define FRAGMENT_OFFSET6 0xfff8

/* Whether the datagram is one fragment and nothing else: it is like any whole packet (RFC 6946). */
static __always_inline int is_atomic(const struct fragment_header *header)
{
	return !(header->place & bpf_htons(FRAGMENT_OFFSET6 | FRAGMENT_MORE6));
}

/*
 * Skips extension headers from *offset on; EVENT_NONE and the protocol, or why not. It
 * ends at a fragment header that says of other fragments. A routing header with
 * addresses left is one of a packet that is not at its destination (RFC 8200 §4.4).
 */
static __always_inline enum event skip_extensions(struct packet *p, __u32 *offset, void *end)
{
	for (int i = 0; i < EXTENSION_HEADERS; i++) {
		struct extension_header *extension = p->l3 + *offset;
		int is_fragment = p->protocol == IPPROTO_FRAGMENT;

		if (!is_fragment && !is_extension(p->protocol))
			break;
		if ((void *)(extension + 1) > end)
			return EVENT_PASS_MALFORMED;
		if (is_fragment && !is_atomic((void *)extension))
			break;
		if (p->protocol == IPPROTO_ROUTING && extension->rest[1])
			return EVENT_PASS_PROTOCOL;
		p->protocol = extension->next;
		*offset += is_fragment ? sizeof(struct fragment_header) : (extension->length + 1) * 8;
	}
	return EVENT_NONE;
}

/*
 * As parse_network4. Extension headers are for those who give scratch memory;
 * others get EVENT_GO_ODD. The offset goes by way of that memory, or the
 * verifier would walk all that follows for each number of headers.
 */
static __always_inline enum event parse_network6(struct packet *p, void *end, struct parsed *scratch)
{
	struct ipv6hdr *ip6 = p->l3;
	__u32 offset = sizeof(*ip6);
	enum event event;

	if (ip6->version != 6)
		return EVENT_PASS_MALFORMED;
	p->protocol = ip6->nexthdr;
	p->length = bpf_ntohs(ip6->payload_len) + sizeof(*ip6);
	if (!scratch && is_extension(p->protocol))
		return EVENT_GO_ODD;
	if (scratch) {
		event = skip_extensions(p, &offset, end);
		if (event != EVENT_NONE)
			return event;
		STORE(&scratch->l4, offset);
		STORE(&scratch->protocol, p->protocol);
		offset = LOAD(&scratch->l4) & 0x3fff;
		p->protocol = LOAD(&scratch->protocol);
	}
	if (p->protocol == IPPROTO_FRAGMENT)
		return EVENT_GO_FRAGMENT;
	p->l4 = p->l3 + offset;
	return EVENT_NONE;
}

/* Ports, protocol and TCP flags; EVENT_NONE or why the packet is not for the table. */
static __always_inline enum event parse_transport(struct packet *p, void *end, struct parsed *scratch, const int v6)
{
	enum event event = v6 ? parse_network6(p, end, scratch) : parse_network4(p, end, scratch);
	struct tcphdr *tcp = p->l4;
	struct udphdr *udp = p->l4;

	if (event != EVENT_NONE)
		return event;
	p->tcp_flags = 0;
	if (p->protocol == IPPROTO_TCP) {
		if ((void *)(tcp + 1) > end || (__u32)p->length < (__u32)(p->l4 - p->l3) + sizeof(*tcp))
			return EVENT_PASS_MALFORMED;
		p->tcp_flags = ((__u8 *)tcp)[13];
	} else if (p->protocol == IPPROTO_UDP) {
		if ((void *)(udp + 1) > end || (__u32)p->length < (__u32)(p->l4 - p->l3) + sizeof(*udp))
			return EVENT_PASS_MALFORMED;
	} else if (p->protocol == (v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP)) {
		return EVENT_GO_ICMP;
	} else {
		return EVENT_PASS_PROTOCOL;
	}
	p->key.id = make_id(*(__u32 *)p->l4, p->protocol);
	return EVENT_NONE;
}

#endif
