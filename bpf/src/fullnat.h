/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Packets of connections by full NAT (local.h says what their entries have): both
 * addresses and both ports are replaced, by what stands in both directions in the
 * forward entry, whose key is the client's end and whose hop word is ours.
 */
#ifndef SHUNT_FULLNAT_H
#define SHUNT_FULLNAT_H

#include "forward.h"

#define NOT_SETTLED (-1) /* no XDP action: the packet is shunt_settle's */

/* The one's complement sum of 16-bit words that the sum of 32-bit ones amounts to; no more than 17 bits. */
static __always_inline __u32 delta_of(__u64 sum)
{
	sum = (sum >> 32) + (__u32)sum;
	return (sum >> 16) + (sum & 0xffff);
}

/* Where the transport checksum is from the transport header on. */
static __always_inline __u32 checksum_offset(__u8 protocol)
{
	return protocol == IPPROTO_UDP ? __builtin_offsetof(struct udphdr, check) :
					 __builtin_offsetof(struct tcphdr, check);
}

/*
 * Rewrites both addresses and, but in later fragments, both ports (source in the low
 * half, as on the wire). check is the transport checksum; 0 in UDP says there is none.
 */
static __always_inline void rewrite_both(const struct packet *p, __u16 *check, const __u32 *source,
					 const __u32 *destination, __u32 new_ports, const int v6)
{
	__u32 *ports = p->l4,
	      *addresses = v6 ? ((struct ipv6hdr *)p->l3)->saddr.in6_u.u6_addr32 : &((struct iphdr *)p->l3)->saddr;
	const int words = WORDS(v6);
	__u64 sum = 0;

#pragma unroll
	for (int i = 0; i < words; i++) {
		sum += (__u32)~addresses[i];
		sum += (__u32)~addresses[words + i];
		sum += source[i];
		sum += destination[i];
		addresses[i] = source[i];
		addresses[words + i] = destination[i];
	}
	age(p, v6 ? 0 : delta_of(sum), v6);
	if (p->is_later)
		return;
	sum += (__u32)~*ports;
	sum += new_ports;
	*ports = new_ports;
	if (p->protocol == IPPROTO_UDP && !*check)
		return;
	sum = adjust_checksum(*check, delta_of(sum));
	*check = sum || p->protocol != IPPROTO_UDP ? sum : 0xffff;
}

/*
 * A client's packet, to the server of its connection; word is the forward entry's. A
 * hit that asks for more than that is NOT_SETTLED, and nothing has been done to it.
 */
static __always_inline int full_nat_in(struct xdp_md *ctx, const struct packet *p, __u16 *check, struct server *server,
				       __u32 index, __u32 word, const int is_hit, const int v6)
{
	struct traffic *traffic = bpf_map_lookup_elem(&server_traffic, &index);
	struct local_address *local = local_of(word);
	__u32 hop_index = server->hop;
	struct hop *hop = bpf_map_lookup_elem(&hops, &hop_index);

	if (is_hit && (!local || !hop || !hop->ifindex || !lifetime_left(p, v6) || is_too_big(p, hop)))
		return NOT_SETTLED;
	if (traffic) {
		if (p->is_new)
			traffic->connections += 1;
		traffic->in_packets += 1;
		traffic->in_bytes += p->length;
	}
	if (!local) /* the word was read before the claim's end, the recipe after it */
		return finish(ctx, EVENT_DROP_BUSY, server->service);
	if (!hop || !hop->ifindex)
		return finish(ctx, EVENT_DROP_UNREACHABLE, server->service);
	if (!is_hit && !lifetime_left(p, v6))
		return time_out(ctx, p, destination_of(p, v6), server->service, v6);
	if (!is_hit && is_too_big(p, hop))
		return too_big(ctx, p, destination_of(p, v6), hop, server->service, v6);
	rewrite_both(p, check, local->address, server->address,
		     join_ports(local_port(word), real_port(server, p->key.id)), v6);
	return leave(ctx, p, hop, server->service);
}

/*
 * A server's packet, to the client whose forward key this is; as full_nat_in. Errors
 * about it come from the address it was for: that one the server can reach.
 */
static __always_inline int full_nat_out(struct xdp_md *ctx, const struct packet *p, __u16 *check, struct server *server,
					__u32 index, const struct key *client, __u32 hop_ref, const int is_hit,
					const int v6)
{
	struct traffic *traffic = bpf_map_lookup_elem(&server_traffic, &index);
	struct hop *hop = learned_hop(hop_ref);

	if (is_hit && (!hop || !lifetime_left(p, v6) || is_too_big(p, hop)))
		return NOT_SETTLED;
	if (traffic) {
		traffic->out_packets += 1;
		traffic->out_bytes += p->length;
	}
	if (!is_hit && !lifetime_left(p, v6))
		return time_out(ctx, p, destination_of(p, v6), server->service, v6);
	if (!is_hit && hop && is_too_big(p, hop))
		return too_big(ctx, p, destination_of(p, v6), hop, server->service, v6);
	rewrite_both(p, check, client->destination, client->source, join_ports(client->id >> 16, client->id), v6);
	if (!hop)
		return return_by_route(ctx, p, client->destination, client->source, server->service, v6);
	return leave(ctx, p, hop, server->service);
}

/* Follows the recipe in s, of full NAT; p is its packet. */
static __always_inline int follow_full_nat(struct xdp_md *ctx, const struct packet *p, struct server *server,
					   const struct slow *s, const int v6)
{
	__u16 *check = p->l4 + checksum_offset(p->protocol);
	__u32 index = recipe_server(s->recipe);

	if (server->life != LIFE_LIVE)
		return finish(ctx, event_of_dead(server), server->service);
	if (s->recipe & BIT(RECIPE_REPLY))
		return full_nat_out(ctx, p, check, server, index, &s->other.key, s->hop, 0, v6);
	return full_nat_in(ctx, p, check, server, index, s->local, 0, v6);
}

/* --- hits ------------------------------------------------------------------------- */

/* What of a recipe tells whether a hit is settled by it. */
#define ASKED_OF_HIT                                                                                       \
	((__u64)STATE_MASK << RECIPE_STATE | BIT(RECIPE_BUSY) | BIT(RECIPE_SEQUENCE) | BIT(RECIPE_REPLY) | \
	 BIT(RECIPE_PROVEN))

/*
 * Whether the reply can go on by the forward entry that its own names, without the
 * connection being settled. A second more than others, as replies leave a last-seen
 * that is a second early (seen_after): half of them would be settled. Where the
 * timeout is short, that is too long.
 */
static __always_inline int is_fresh(const struct server *server, const struct lookup *forward, __u32 tick)
{
	__u32 idle = tick - forward->seen;

	if (idle < refresh_ticks)
		return 1;
	return idle < 2 * refresh_ticks && timeout_at(server, forward->recipe) > 4 * refresh_ticks;
}

/* Whether the forward entry is that of the packet's connection, by server and by what the packet was sent to. */
static __always_inline int is_forward_of(const struct lookup *forward, const struct packet *p, __u64 reply,
					 const struct server *server, const int v6)
{
	const __u64 same = (__u64)SERVER_MASK << RECIPE_SERVER | BIT(RECIPE_WIDE) | BIT(RECIPE_FULLNAT);
	struct local_address *local = local_of(forward->hop);
	const __u32 *destination = destination_of(p, v6);
	__u32 differs = 0;

	if (!local || (forward->recipe ^ reply) & same || forward->recipe & (BIT(RECIPE_REPLY) | BIT(RECIPE_BUSY)))
		return 0;
#pragma unroll
	for (int i = 0; i < WORDS(v6); i++)
		differs |= local->address[i] ^ destination[i];
	return !differs &&
	       p->key.id == make_id(join_ports(real_port(server, forward->key.id), local_port(forward->hop)),
				    forward->key.id >> ID_PROTOCOL);
}

/* A server's packet whose entry has the place and the client's hop. */
static __always_inline int meet_reply(struct xdp_md *ctx, const struct packet *p, __u16 *check, struct server *server,
				      __u64 recipe, __u32 hop_ref, __u32 place, const int v6)
{
	struct lookup forward;

	forward.group = place >> PLACE_GROUP;
	forward.slot = place & ((1 << PLACE_GROUP) - 1);
	look_at(&forward, v6);
	if (!forward.recipe || !is_forward_of(&forward, p, recipe, server, v6) || !is_fresh(server, &forward, p->tick))
		return NOT_SETTLED;
	return full_nat_out(ctx, p, check, server, recipe_server(recipe), &forward.key, hop_ref, 1, v6);
}

/* Follows the recipe of a hit, whose packet is p and whose transport protocol is a constant there. */
static __always_inline int meet_hit(struct xdp_md *ctx, struct packet *p, __u16 *check, __u64 recipe, __u32 seen,
				    __u32 word, const int v6)
{
	const __u64 is_client = p->protocol == IPPROTO_UDP ?
					(__u64)STATE_UDP << RECIPE_STATE :
					(__u64)STATE_ESTABLISHED << RECIPE_STATE | BIT(RECIPE_PROVEN);
	/* Of UDP only a reply is to be proven: the first one proves. */
	const __u64 asked = ASKED_OF_HIT & ~(p->protocol == IPPROTO_UDP ? BIT(RECIPE_PROVEN) : 0);
	__u32 index = recipe_server(recipe);
	struct server *server;
	int is_reply;

	is_reply = (recipe & ASKED_OF_HIT) == (is_client | BIT(RECIPE_PROVEN) | BIT(RECIPE_REPLY));
	if (!is_reply && ((recipe & asked) != is_client || p->tick - seen >= refresh_ticks))
		return NOT_SETTLED;
	server = bpf_map_lookup_elem(&servers, &index);
	if (!server || server->life != LIFE_LIVE)
		return NOT_SETTLED;
	p->key.id = make_id(*(__u32 *)p->l4, p->protocol);
	if (is_reply)
		return meet_reply(ctx, p, check, server, recipe, seen, word, v6);
	return full_nat_in(ctx, p, check, server, index, word, 1, v6);
}

/*
 * Follows the recipe of the packet as it lies in the frame, which shunt_main has parsed:
 * without tags, options or extension headers. The XDP action; NOT_SETTLED: the packet
 * asks for more. Global, as shunt_main has no room for it.
 */
static __always_inline int meet_full_nat(struct xdp_md *ctx, __u64 recipe, __u32 seen, __u32 word, __u32 tick,
					 const int v6)
{
	void *end = (void *)(long)ctx->data_end;
	struct packet p;

	p.l3 = (void *)(long)ctx->data + sizeof(struct ethhdr);
	p.l4 = p.l3 + (v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	p.tick = tick;
	p.is_new = 0;
	p.is_later = 0;
	p.outer_vlan = 0;
	p.inner_vlan = 0;
	if (p.l4 + sizeof(struct udphdr) > end)
		return NOT_SETTLED;
	if (v6)
		p.length = bpf_ntohs(((struct ipv6hdr *)p.l3)->payload_len) + sizeof(struct ipv6hdr);
	else
		p.length = bpf_ntohs(((struct iphdr *)p.l3)->tot_len);
	if (recipe_state(recipe) == STATE_UDP) {
		p.protocol = IPPROTO_UDP;
		return meet_hit(ctx, &p, &((struct udphdr *)p.l4)->check, recipe, seen, word, v6);
	}
	p.protocol = IPPROTO_TCP;
	if (p.l4 + sizeof(struct tcphdr) > end ||
	    (((__u8 *)p.l4)[TCP_HEADER_FLAGS] & (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK)) != TCP_ACK)
		return NOT_SETTLED;
	return meet_hit(ctx, &p, &((struct tcphdr *)p.l4)->check, recipe, seen, word, v6);
}

__noinline int meet_full_nat4(struct xdp_md *ctx, __u64 recipe, __u32 seen, __u32 word, __u32 tick)
{
	return meet_full_nat(ctx, recipe, seen, word, tick, 0);
}

/* tail: seen and word as they lie in the entry; hits of IPv6 that are none of full NAT cost less so. */
__noinline int meet_full_nat6(struct xdp_md *ctx, __u64 recipe, __u64 tail, __u32 tick)
{
	return meet_full_nat(ctx, recipe, tail, tail >> 32, tick, 1);
}

#endif
