//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Programs that only benchmarks load. A test run does not restore the packet
 * between repetitions, so bench_wrapper writes the frame anew each time, with
 * the addresses of the next connection of its plan, and then goes on to the
 * program under test. Its own cost is that of the same with bench_empty.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/types.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define WORDS 9
#define FRAME (6 + WORDS * 8)
#define SERVERS 4

/* Which members of the frame name the connection. */
enum vary {
	VARY_NOTHING,
	VARY_CLIENT4, /* source address and port */
	VARY_CLIENT6,
	VARY_REPLY4, /* destination address and port; the source is the connection's server */
	VARY_REPLY6,
	VARY_SOURCE4, /* source address only, any: traffic that is not ours */
	VARY_SOURCE6,
};

/*
 * The connections a run visits: index = index * multiplier + addend below the
 * mask. Multiplier 1 and addend 1 go through all in order; with a multiplier of
 * 1 modulo 4 and an odd addend, each is visited once, in pseudo-random order.
 */
struct plan {
	__u32 index;
	__u32 multiplier;
	__u32 addend;
	__u32 mask;
	__u32 vary; /* enum vary */
	__u32 client; /* base of the clients' addresses, last word, host order */
	__u32 server; /* base of the servers' addresses, last word, host order */
	__u32 server_port; /* host order */
	__u8 start[6]; /* the frame: here so that no member of a header lies in two stores, */
	__u8 pad[2];
	__u64 words[WORDS]; /* which a load of it would have to wait for */
};

struct plan now SEC(".data.plan");
__u64 missed SEC(".data.missed"); /* floor_lookup's packets that were not in the map */

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} target SEC(".maps");

/* The floor: what the kernel's HASH costs for the same keys and as much value. */
struct floor_key4 {
	__u32 source;
	__u32 destination;
	__u32 ports;
	__u32 protocol;
};

struct floor_key6 {
	__u32 source[4];
	__u32 destination[4];
	__u32 ports;
	__u32 protocol;
};

struct floor_value {
	__u64 words[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct floor_key4);
	__type(value, struct floor_value);
} floor4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct floor_key6);
	__type(value, struct floor_value);
} floor6 SEC(".maps");

static __always_inline __u32 client_ports(__u32 index, __u32 other, int is_reply)
{
	__u32 port = bpf_htons(1024 + (index & 0xff));

	return is_reply ? other | port << 16 : port | other << 16;
}

/* Gives the frame the addresses of the plan's next connection. */
static __always_inline void personalise(void *data, __u32 index)
{
	struct iphdr *ip = data + sizeof(struct ethhdr);
	struct ipv6hdr *ip6 = data + sizeof(struct ethhdr);
	__u32 *ports4 = (void *)(ip + 1), *ports6 = (void *)(ip6 + 1);
	__u32 client = bpf_htonl(now.client + (index >> 8));
	__u32 server = bpf_htonl(now.server + (index & (SERVERS - 1)));
	__u32 port = bpf_htons(now.server_port);

	switch (now.vary) {
	case VARY_CLIENT4:
		ip->saddr = client;
		*ports4 = client_ports(index, port, 0);
		break;
	case VARY_CLIENT6:
		ip6->saddr.in6_u.u6_addr32[3] = client;
		*ports6 = client_ports(index, port, 0);
		break;
	case VARY_REPLY4:
		ip->saddr = server;
		ip->daddr = client;
		*ports4 = client_ports(index, port, 1);
		break;
	case VARY_REPLY6:
		ip6->saddr.in6_u.u6_addr32[3] = server;
		ip6->daddr.in6_u.u6_addr32[3] = client;
		*ports6 = client_ports(index, port, 1);
		break;
	case VARY_SOURCE4:
		ip->saddr = client;
		break;
	case VARY_SOURCE6:
		ip6->saddr.in6_u.u6_addr32[3] = client;
		break;
	}
}

/* Writes the frame of the plan's next connection; an XDP action if it cannot be. */
static __always_inline int restore(struct xdp_md *ctx)
{
	long surplus = (long)ctx->data_end - (long)ctx->data - FRAME;
	void *data, *end;

	/*
	 * A program that pushed or popped headers moved the frame's start. Also where none
	 * did, so that what it takes is in the cost of bench_empty too.
	 */
	if (bpf_xdp_adjust_head(ctx, surplus))
		return XDP_DROP;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + FRAME > end)
		return XDP_DROP;
	*(__u32 *)data = *(__u32 *)now.start;
	*(__u16 *)(data + 4) = *(__u16 *)(now.start + 4);
#pragma unroll
	for (int i = 0; i < WORDS; i++)
		*(__u64 *)(data + 6 + i * 8) = now.words[i];
	personalise(data, now.index);
	now.index = (now.index * now.multiplier + now.addend) & now.mask;
	return 0;
}

SEC("xdp.frags")
int bench_wrapper(struct xdp_md *ctx)
{
	int action = restore(ctx);

	if (!action)
		bpf_tail_call(ctx, &target, 0);
	return XDP_DROP;
}

/* Sends the plan's packets out of an interface, as live frames. */
__u32 outgoing SEC(".data.outgoing"); /* its index */

static __always_inline __u16 checksum(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~((sum & 0xffff) + (sum >> 16));
}

/* Right checksums for an IPv4 UDP datagram of zeros: the kernel looks at them. */
static __always_inline int sum_up(struct xdp_md *ctx)
{
	struct iphdr *ip = (void *)(long)ctx->data + sizeof(struct ethhdr);
	struct udphdr *udp = (void *)(ip + 1);
	__u32 *words = (void *)ip;
	__u64 sum = 0;

	if ((void *)(udp + 1) > (void *)(long)ctx->data_end)
		return 0;
	ip->check = 0;
#pragma unroll
	for (int i = 0; i < 5; i++)
		sum += words[i];
	ip->check = checksum(sum);
	udp->check = checksum((__u64)ip->saddr + ip->daddr + bpf_htons(IPPROTO_UDP) + udp->len + udp->source +
			      udp->dest + udp->len);
	return 1;
}

SEC("xdp.frags")
int bench_generate(struct xdp_md *ctx)
{
	int action = restore(ctx);

	if (action)
		return action;
	return sum_up(ctx) ? bpf_redirect(outgoing, 0) : XDP_DROP;
}

/* What has arrived where packets end. */
struct arrivals {
	__u64 packets;
	__u64 last; /* CLOCK_MONOTONIC, ns */
};

struct arrivals arrived SEC(".data.arrived");

static __always_inline void arrive(void)
{
	arrived.packets++;
	arrived.last = bpf_ktime_get_ns();
}

SEC("xdp.frags")
int sink_xdp(struct xdp_md *ctx)
{
	arrive();
	return XDP_DROP;
}

SEC("tc")
int sink_tc(struct __sk_buff *skb)
{
	arrive();
	return TC_ACT_SHOT;
}

SEC("xdp.frags")
int bench_empty(struct xdp_md *ctx)
{
	return XDP_TX;
}

/* Swaps the link addresses; the least that sending a packet back takes. */
static __always_inline int send_back(void *data)
{
	__u32 *d = data;
	__u16 *e = data;
	__u32 first = d[0];
	__u16 last = e[2];

	*(__u32 *)data = *(__u32 *)(data + 6);
	*(__u16 *)(data + 4) = *(__u16 *)(data + 10);
	*(__u32 *)(data + 6) = first;
	*(__u16 *)(data + 10) = last;
	return XDP_TX;
}

SEC("xdp.frags")
int floor_tx(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;

	if (data + sizeof(struct ethhdr) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	return send_back(data);
}

SEC("xdp.frags")
int floor_lookup4(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	__u32 *ports = (void *)(ip + 1);
	struct floor_key4 key;

	if ((void *)(ports + 1) > end)
		return XDP_ABORTED;
	if (eth->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	key.source = ip->saddr;
	key.destination = ip->daddr;
	key.ports = *ports;
	key.protocol = ip->protocol;
	if (!bpf_map_lookup_elem(&floor4, &key)) {
		missed++;
		return XDP_DROP;
	}
	return send_back(data);
}

SEC("xdp.frags")
int floor_lookup6(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	__u32 *ports = (void *)(ip6 + 1);
	struct floor_key6 key;

	if ((void *)(ports + 1) > end)
		return XDP_ABORTED;
	if (eth->h_proto != bpf_htons(ETH_P_IPV6))
		return XDP_PASS;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		key.source[i] = ip6->saddr.in6_u.u6_addr32[i];
		key.destination[i] = ip6->daddr.in6_u.u6_addr32[i];
	}
	key.ports = *ports;
	key.protocol = ip6->nexthdr;
	if (!bpf_map_lookup_elem(&floor6, &key)) {
		missed++;
		return XDP_DROP;
	}
	return send_back(data);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const enum vary *export_vary __attribute__((unused));
