/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Following a recipe: rewrite or wrap, then out (leave.h). Checksums are updated
 * incrementally, never computed, so that a wrong one stays wrong.
 */
#ifndef SHUNT_FORWARD_H
#define SHUNT_FORWARD_H

#include "answer.h"
#include "leave.h"
#include "wrap.h"

/* Adds delta to the transport checksum; a UDP checksum of 0 says there is none (RFC 768). */
static __always_inline void adjust_transport(const struct packet *p, __u32 delta)
{
	if (p->protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = p->l4;

		tcp->check = adjust_checksum(tcp->check, delta);
	} else {
		struct udphdr *udp = p->l4;

		if (udp->check) {
			__u16 check = adjust_checksum(udp->check, delta);

			udp->check = check ? check : 0xffff;
		}
	}
}

/* From the client: to the server's address and port. */
static __always_inline void rewrite_destination(const struct packet *p, const struct server *server, const int v6)
{
	if (v6) {
		struct ipv6hdr *ip6 = p->l3;

#pragma unroll
		for (int i = 0; i < 4; i++)
			ip6->daddr.in6_u.u6_addr32[i] = server->address[i];
	} else {
		((struct iphdr *)p->l3)->daddr = server->address[0];
	}
	if (p->is_later)
		return;
	((struct udphdr *)p->l4)->dest = server->port;
	adjust_transport(p, server->delta_l4);
}

/* From the server: from the virtual address and port. */
static __always_inline void rewrite_source(const struct packet *p, const struct server *server, const int v6)
{
	if (v6) {
		struct ipv6hdr *ip6 = p->l3;

#pragma unroll
		for (int i = 0; i < 4; i++)
			ip6->saddr.in6_u.u6_addr32[i] = server->virtual_address[i];
	} else {
		((struct iphdr *)p->l3)->saddr = server->virtual_address[0];
	}
	if (p->is_later)
		return;
	((struct udphdr *)p->l4)->source = server->virtual_port;
	adjust_transport(p, (__u16)~server->delta_l4);
}

static __always_inline int is_too_big(const struct packet *p, const struct hop *hop)
{
	return hop->mtu && p->length > hop->mtu;
}

/* The virtual address a client's packet is for, while it has not been rewritten. */
static __always_inline const __u32 *destination_of(const struct packet *p, const int v6)
{
	return v6 ? ((struct ipv6hdr *)p->l3)->daddr.in6_u.u6_addr32 : &((struct iphdr *)p->l3)->daddr;
}

/* A packet whose time to live is used up: tell the sender, but not of a later fragment (RFC 1122 §3.2.2). */
static __always_inline int time_out(struct xdp_md *ctx, const struct packet *p, const __u32 *virtual_address,
				    __u32 service, const int v6)
{
	if (p->is_later)
		return finish(ctx, EVENT_DROP_NOT_QUOTABLE, service);
	return answer_packet(ctx, p, virtual_address, EVENT_ANSWER_TTL, 0, service, v6);
}

/*
 * A packet longer than that: tell the sender. Also of IPv4 without DF, of which
 * this program makes no fragments: hosts lower their path's MTU by it (decision 0006).
 */
static __always_inline int too_long(struct xdp_md *ctx, const struct packet *p, const __u32 *virtual_address, __u32 mtu,
				    __u32 service, const int v6)
{
	if (p->is_later)
		return finish(ctx, EVENT_DROP_TOO_BIG, service);
	return answer_packet(ctx, p, virtual_address, EVENT_ANSWER_TOO_BIG, mtu, service, v6);
}

/* The same of one longer than the next hop's MTU. */
static __always_inline int too_big(struct xdp_md *ctx, const struct packet *p, const __u32 *virtual_address,
				   const struct hop *hop, __u32 service, const int v6)
{
	return too_long(ctx, p, virtual_address, hop->mtu, service, v6);
}

#define WHERE_IS_LATER 16 /* above the offset */

/*
 * A client's packet that is not just sent to a next hop: what its method says, or why
 * it cannot be. It is as it came. refusal is what wrap has said of it.
 */
static __always_inline int forward_other(struct xdp_md *ctx, struct server *server, __u32 where, __u64 recipe,
					 __u32 refusal, const int v6)
{
	__u32 hop_index = server->hop, method = recipe_method(recipe);
	struct hop *hop = bpf_map_lookup_elem(&hops, &hop_index);
	struct packet p;

	if (method == METHOD_LOCAL)
		return finish(ctx, EVENT_PASS_LOCAL, server->service);
	if (!hop || !hop->ifindex)
		return finish(ctx, EVENT_DROP_UNREACHABLE, server->service);
	p.l3 = (void *)(long)ctx->data + (where & 0x1f);
	if (p.l3 + (v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) > (void *)(long)ctx->data_end)
		return finish(ctx, EVENT_FAULT_MAP, 0);
	p.is_later = where >> WHERE_IS_LATER;
	p.l4 = p.l3 + (v6 ? (int)sizeof(struct ipv6hdr) : ((struct iphdr *)p.l3)->ihl * 4);
	if (!lifetime_left(&p, v6))
		return time_out(ctx, &p, destination_of(&p, v6), server->service, v6);
	return too_long(ctx, &p, destination_of(&p, v6), method == METHOD_TUNNEL ? refusal >> WRAP_MTU : hop->mtu,
			server->service, v6);
}

/* Of IPv4. Global: verified once, and no part of plain hits. */
__noinline int forward_other4(struct xdp_md *ctx, struct server *server, __u32 where, __u64 recipe, __u32 refusal)
{
	return server ? forward_other(ctx, server, where, recipe, refusal, 0) : XDP_DROP;
}

/* Of IPv6. */
__noinline int forward_other6(struct xdp_md *ctx, struct server *server, __u32 where, __u64 recipe, __u32 refusal)
{
	return server ? forward_other(ctx, server, where, recipe, refusal, 1) : XDP_DROP;
}

/* A client's packet, to the server of its connection. */
static __always_inline int forward(struct xdp_md *ctx, const struct packet *p, struct server *server, __u32 index,
				   __u64 recipe, const int v6)
{
	struct traffic *traffic = bpf_map_lookup_elem(&server_traffic, &index);
	__u64 later = recipe;
	__u32 hop_index, hash, where, method, action = 0;
	struct hop *hop;

	if (traffic) {
		if (p->is_new)
			traffic->connections += 1;
		traffic->in_packets += 1;
		traffic->in_bytes += p->length;
	}
	hop_index = server->hop;
	hop = bpf_map_lookup_elem(&hops, &hop_index);
	if (!hop || !hop->ifindex || !lifetime_left(p, v6) || is_too_big(p, hop))
		goto other;
	/* Or clang takes the method from it before the calls, and has to put it aside. */
	asm volatile("" : "+r"(later));
	method = recipe_method(later);
	if (__builtin_expect(method == METHOD_NAT, 1)) {
		rewrite_destination(p, server, v6);
		age(p, server->delta_ip, v6);
	} else if (method == METHOD_DR) {
		age(p, 0, v6);
	} else {
		/* shunt_main's, whose offsets are constants. */
		if (__builtin_constant_p(p->offset) && method == METHOD_TUNNEL) {
			action = v6 ? plain6(ctx, server, hop) : wrap_if_plain(ctx, p, server, hop, 0);
			if (action != NOT_PLAIN)
				return action;
		}
		goto other;
	}
	return leave(ctx, p, hop, server->service);
other:
	if (recipe_method(recipe) == METHOD_TUNNEL) {
		/* Where headers may be in front of the ports, what has none in sight goes by the same way. */
		hash = __builtin_constant_p(p->offset) ? 0 : flow_hash(p->key.source, p->key.id, v6);
		action = v6 ? wrap6(ctx, server, hop, p->offset, hash) : wrap4(ctx, server, hop, p->offset, hash);
		if (action <= XDP_REDIRECT)
			return action;
	}
	where = p->offset | (__u32)p->is_later << WHERE_IS_LATER;
	return v6 ? forward_other6(ctx, server, where, recipe, action) :
		    forward_other4(ctx, server, where, recipe, action);
}

/* Sends a reply, rewritten already, from the virtual address to the client by the route. */
static __always_inline int return_by_route(struct xdp_md *ctx, const struct packet *p, const __u32 *virtual_address,
					   const __u32 *client, __u32 service, const int v6)
{
	struct slow *slow = slow_scratch();
	struct bpf_fib_lookup *fib;

	if (!slow)
		return finish(ctx, EVENT_FAULT_MAP, 0);
	if (p->outer_vlan)
		return finish(ctx, EVENT_DROP_VLAN, service);
	fib = (void *)slow->fib;
	ask_route(fib, p->protocol, p->length, virtual_address, client, v6);
	return leave_by_route(ctx, fib, service);
}

/* A server's packet, to the client of its connection. */
static __always_inline int give_back(struct xdp_md *ctx, const struct packet *p, struct server *server, __u32 index,
				     __u32 hop_ref, const int v6)
{
	struct traffic *traffic = bpf_map_lookup_elem(&server_traffic, &index);
	struct hop *hop = learned_hop(hop_ref);

	if (traffic) {
		traffic->out_packets += 1;
		traffic->out_bytes += p->length;
	}
	if (!lifetime_left(p, v6))
		return time_out(ctx, p, server->virtual_address, server->service, v6);
	if (hop && is_too_big(p, hop))
		return too_big(ctx, p, server->virtual_address, hop, server->service, v6);
	rewrite_source(p, server, v6);
	age(p, (__u16)~server->delta_ip, v6);
	if (!hop)
		return return_by_route(ctx, p, server->virtual_address, p->key.destination, server->service, v6);
	return leave(ctx, p, hop, server->service);
}

/* What becomes of the packets of connections to a server that is not live. */
static __always_inline enum event event_of_dead(const struct server *server)
{
	return server->life == LIFE_SERVER_REMOVED  ? EVENT_DROP_SERVER_REMOVED :
	       server->life == LIFE_SERVICE_REMOVED ? EVENT_DROP_SERVICE_REMOVED :
						      EVENT_FAULT_SERVER;
}

/* Follows the recipe of a packet's connection, whose server is this one; the XDP action. */
static __always_inline int follow_to(struct xdp_md *ctx, const struct packet *p, struct server *server, __u64 recipe,
				     __u32 hop, const int v6)
{
	__u32 index = recipe_server(recipe);

	if (server->life != LIFE_LIVE)
		return finish(ctx, event_of_dead(server), server->service);
	if (recipe & BIT(RECIPE_REPLY))
		return give_back(ctx, p, server, index, hop, v6);
	return forward(ctx, p, server, index, recipe, v6);
}

/* The one's complement sum that an address replaced by another adds to a checksum's words. */
static __always_inline __u32 address_delta(const __u32 *from, const __u32 *to)
{
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < 4; i++)
		sum += (__u16)~from[i] + (__u16)~(from[i] >> 16) + (__u16)to[i] + (to[i] >> 16);
	return sum;
}

/*
 * Makes s->own the server as the wide connection in s has it: with the connection's
 * own virtual address and port, and what follows from them. Global: verified once.
 */
__noinline int tailor_server(struct slow *s)
{
	struct server *server, *own;
	__u32 index, sum;
	__be16 from, to;

	if (!s)
		return 0;
	index = recipe_server(s->recipe);
	server = bpf_map_lookup_elem(&servers, &index);
	if (!server)
		return 0;
	own = &s->own;
	*own = *server;
	from = s->recipe & BIT(RECIPE_REPLY) ? (__be16)(s->other.key.id >> 16) : (__be16)(s->key.id >> 16);
#pragma unroll
	for (int i = 0; i < 4; i++)
		own->virtual_address[i] =
			s->recipe & BIT(RECIPE_REPLY) ? s->other.key.destination[i] : s->key.destination[i];
	to = own->port ? own->port : from;
	sum = address_delta(own->virtual_address, own->address);
	own->port = to;
	own->virtual_port = from;
	own->delta_ip = fold(sum);
	own->delta_l4 = fold(sum + (__u16)~from + to);
	return 1;
}

#endif
