/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * ICMP and ICMPv6 messages, whoever's: whose an error is, only the packet it quotes
 * says. Of that packet the IP header and 8 octets are enough (RFC 792). TCP's sequence
 * number is among them, and is not looked at (RFC 5927 §4.1 asks it of the host that is
 * told: only that one knows what it has sent). No error changes a connection: neither
 * its state nor when it was last seen.
 *
 * Errors are read and written by offset, at the price of a helper's call for each piece:
 * headers lie behind headers of any length here, of which the verifier would think
 * together. All is read and found right before anything is written.
 */
#ifndef SHUNT_ICMP_H
#define SHUNT_ICMP_H

#include "echo.h"
#include "follow.h"
#include "message.h"
#include "track.h"
#include "wrapped.h"

enum icmp_errors {
	ICMP4_PARAMETER_PROBLEM = 12,
	ICMP6_PARAMETER_PROBLEM = 4,
	ICMP6_FIRST_ERROR = ICMP6_UNREACHABLE,
	ICMP6_LAST_ERROR = ICMP6_PARAMETER_PROBLEM,
};

/* Source quench is none: it is not to be sent, nor listened to (RFC 6633). */
static __always_inline int is_error(__u8 icmp_type, const int v6)
{
	if (v6)
		return icmp_type >= ICMP6_FIRST_ERROR && icmp_type <= ICMP6_LAST_ERROR;
	return icmp_type == ICMP4_UNREACHABLE || icmp_type == ICMP4_TIME_EXCEEDED ||
	       icmp_type == ICMP4_PARAMETER_PROBLEM;
}

/*
 * The key that packets of the quoted one's connection have the other way. An entry with
 * it is the forward one if a packet to the client is quoted, the reply entry if it is
 * one to a server.
 */
static __always_inline void turned_key(struct key *key, const struct key *quoted)
{
	__u32 ports = quoted->id;

	copy_address(key->source, quoted->destination);
	copy_address(key->destination, quoted->source);
	key->id = make_id(ports >> 16 | ports << 16, quoted->id >> ID_PROTOCOL);
}

/*
 * An error about a packet to the client, which is for its connection's server: what it
 * quotes is a reply as that has sent it. By full NAT the server knows no router beyond
 * this host, and need not have a route to one.
 */
static __always_inline enum event aim_at_server(struct slow *s, struct message *m, const struct server *server)
{
	if (recipe_method(s->hit.recipe) == METHOD_LOCAL)
		return EVENT_PASS_LOCAL;
	m->hop = server->hop;
	if (recipe_method(s->hit.recipe) != METHOD_NAT)
		return EVENT_NONE;
	reply_key(&m->quoted_to, &s->hit.key, server, s->hit.recipe, s->hit.hop);
	copy_address(m->outer_to.destination, m->quoted_to.source);
	if (is_full_nat(s->hit.recipe))
		copy_address(m->outer_to.source, m->quoted_to.destination);
	return EVENT_NONE;
}

/*
 * An error about a packet to a server, which is for its connection's client: what it
 * quotes has the forward key. Whose the error is stays, unless it is the server's
 * (kernel: ip_vs_core.c, ip_vs_nat_icmp, has it from the virtual address always: then no
 * traceroute shows the way).
 */
static __always_inline enum event aim_at_client(struct slow *s, struct message *m, const struct server *server,
						const int v6)
{
	struct lookup *forward = &s->other;

	if (is_wide(s->hit.recipe)) {
		look_up_forward(forward, &s->hit.key, s->hit.recipe, s->hit.hop, v6);
		if (!forward->recipe)
			return m->passed;
	} else {
		forward_key(&forward->key, &s->hit.key, server);
	}
	if (!address_differs(m->outer.source, m->quoted.destination))
		copy_address(m->outer_to.source, forward->key.destination);
	copy_address(m->outer_to.destination, forward->key.source);
	m->quoted_to = forward->key;
	m->hop = hop_of_reply(&s->hit, forward);
	return EVENT_NONE;
}

/*
 * What the error becomes, and by which hop it goes, as the connection in s->hit says;
 * EVENT_NONE or what else is to be said of it. Global: it has its stack to itself.
 */
static __always_inline enum event aim(struct slow *s, struct message *m, const int v6)
{
	__u32 index = recipe_server(s->hit.recipe);
	struct server *server = bpf_map_lookup_elem(&servers, &index);

	if (!server)
		return EVENT_FAULT_MAP;
	m->service = server->service;
	if (server->life != LIFE_LIVE)
		return event_of_dead(server);
	if (m->lifetime <= 1)
		return EVENT_DROP_ICMP;
	m->outer_to = m->outer;
	m->quoted_to = m->quoted;
	if (s->hit.recipe & BIT(RECIPE_REPLY))
		return aim_at_client(s, m, server, v6);
	return aim_at_server(s, m, server);
}

__noinline int aim4(struct slow *s, struct message *m)
{
	return s && m ? aim(s, m, 0) : EVENT_FAULT_MAP;
}

__noinline int aim6(struct slow *s, struct message *m)
{
	return s && m ? aim(s, m, 1) : EVENT_FAULT_MAP;
}

/* Sends the error on by the hop, with what it quotes as m has it; the XDP action. */
static __always_inline int send_by(struct xdp_md *ctx, struct message *m, struct hop *hop, const int v6)
{
	struct packet p = { .outer_vlan = m->outer_vlan, .inner_vlan = m->inner_vlan };

	if (hop->mtu && m->length > hop->mtu)
		return finish(ctx, EVENT_DROP_TOO_BIG, m->service);
	if (!(v6 ? rewrite_error6(ctx, m) : rewrite_error4(ctx, m)))
		return finish(ctx, EVENT_FAULT_MAP, m->service);
	return leave(ctx, &p, hop, m->service);
}

/* The same by the route. */
static __always_inline int send_by_route(struct xdp_md *ctx, struct slow *s, struct message *m, const int v6)
{
	struct bpf_fib_lookup *fib = (void *)s->fib;

	if (m->outer_vlan)
		return finish(ctx, EVENT_DROP_VLAN, m->service);
	if (!(v6 ? rewrite_error6(ctx, m) : rewrite_error4(ctx, m)))
		return finish(ctx, EVENT_FAULT_MAP, m->service);
	ask_route(fib, v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP, m->length, m->outer_to.source, m->outer_to.destination, v6);
	return leave_by_route(ctx, fib, m->service);
}

/* Sends the error as it is to a server behind a tunnel, on the way of the connection's packets. */
static __always_inline int send_wrapped(struct xdp_md *ctx, const struct slow *s, const struct message *m, const int v6)
{
	__u32 index = recipe_server(s->hit.recipe), hash = flow_hash(s->hit.key.source, s->hit.key.id, v6), action;
	struct server *server = bpf_map_lookup_elem(&servers, &index);
	struct hop *hop;
	__u32 hop_index;

	if (!server)
		return finish(ctx, EVENT_FAULT_MAP, 0);
	hop_index = server->hop;
	hop = bpf_map_lookup_elem(&hops, &hop_index);
	action = v6 ? wrap6(ctx, server, hop, m->l3, hash) : wrap4(ctx, server, hop, m->l3, hash);
	return action < WRAP_REFUSED ? action : finish(ctx, EVENT_DROP_TOO_BIG, m->service);
}

/* Sends the error, which was aimed, on; the XDP action. */
static __always_inline int send_on(struct xdp_md *ctx, struct slow *s, struct message *m, const int v6)
{
	__u32 index = m->hop;
	struct hop *hop;

	if (s->hit.recipe & BIT(RECIPE_REPLY)) {
		hop = learned_hop(index);
		return counted(hop ? send_by(ctx, m, hop, v6) : send_by_route(ctx, s, m, v6), EVENT_NOTE_ICMP_OUT);
	}
	if (recipe_method(s->hit.recipe) == METHOD_TUNNEL)
		return counted(send_wrapped(ctx, s, m, v6), EVENT_NOTE_ICMP_IN);
	hop = bpf_map_lookup_elem(&hops, &index);
	if (!hop || !hop->ifindex)
		return finish(ctx, EVENT_DROP_UNREACHABLE, m->service);
	return counted(send_by(ctx, m, hop, v6), EVENT_NOTE_ICMP_IN);
}

__noinline int send_on4(struct xdp_md *ctx, struct slow *s, struct message *m)
{
	return s && m ? send_on(ctx, s, m, 0) : XDP_DROP;
}

__noinline int send_on6(struct xdp_md *ctx, struct slow *s, struct message *m)
{
	return s && m ? send_on(ctx, s, m, 1) : XDP_DROP;
}

/* Whether the quoted packet may be of a connection of ours: from a virtual address, or to a server. */
static __always_inline int may_be_quoted(const struct message *m, const int v6)
{
	return has_bit(ours.virtual_address, m->quoted.source, v6) ||
	       has_bit(ours.server_address, m->quoted.destination, v6);
}

/* Whether the quoted packet is of a connection of ours: in s->hit then. */
static __always_inline int is_quoted_ours(struct slow *s, const struct message *m, const int v6)
{
	if (!may_be_quoted(m, v6))
		return 0;
	turned_key(&s->hit.key, &m->quoted);
	look_up_by(&s->hit, v6);
	return !!s->hit.recipe;
}

/* Of an error about a packet to a server by NAT: what it tells of that one. */
static __always_inline void hear_error(const struct slow *s, const struct message *m, const int v6)
{
	const __u8 port = v6 ? ICMP6_UNREACHABLE_PORT : ICMP4_UNREACHABLE_PORT;
	const int is_refusal = m->code == port && (__u8)(m->quoted.id >> ID_PROTOCOL) == IPPROTO_UDP;

	if (s->hit.recipe & BIT(RECIPE_REPLY) && is_unreachable(m, v6))
		witness(recipe_server(s->hit.recipe), is_refusal ? EVIDENCE_RESET : EVIDENCE_UNREACHABLE);
}

/*
 * An error. It comes to the sender of what it quotes (RFC 1812 §4.3.2.5, RFC 4443
 * §2.2 (b)): any other one is not the network's.
 */
static __always_inline int meet_error(struct xdp_md *ctx, struct slow *s, struct message *m, const int v6)
{
	enum quoted quoted;
	enum event event;

	quoted = v6 ? parse_quote6(ctx, m) : parse_quote4(ctx, m);
	if (quoted == QUOTED_NOTHING || address_differs(m->outer.destination, m->quoted.source))
		return finish(ctx, m->passed, 0);
	if (quoted == QUOTED_WRAPPER || !is_quoted_ours(s, m, v6))
		return meet_wrapped(ctx, s, m, v6);
	hear_error(s, m, v6);
	event = v6 ? aim6(s, m) : aim4(s, m);
	if (event != EVENT_NONE)
		return finish(ctx, event, m->service);
	return v6 ? send_on6(ctx, s, m) : send_on4(ctx, s, m);
}

/* Leaves in m where the message's parts are; EVENT_NONE or why it is passed. */
static __always_inline enum event note_message(struct xdp_md *ctx, struct packet *p, struct slow *s, struct message *m,
					       struct icmp_error **header, const int v6)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct icmp_error *icmp;
	enum event event;

	event = v6 ? parse_network6(p, end, &s->parsed) : parse_network4(p, end, &s->parsed);
	if (event == EVENT_GO_FRAGMENT)
		return EVENT_PASS_FRAGMENT;
	if (event != EVENT_NONE)
		return event;
	if (p->protocol != (v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
		return EVENT_PASS_PROTOCOL;
	icmp = p->l4;
	if ((void *)(icmp + 1) > end || (__u32)p->length < (__u32)(p->l4 - p->l3) + sizeof(*icmp) ||
	    p->l3 - data + p->length > bpf_xdp_get_buff_len(ctx))
		return EVENT_PASS_MALFORMED;
	m->l3 = p->l3 - data;
	m->l4 = p->l4 - data;
	m->quote = m->l4 + sizeof(*icmp);
	m->end = m->l3 + p->length;
	m->length = p->length;
	m->outer_vlan = p->outer_vlan;
	m->inner_vlan = p->inner_vlan;
	m->lifetime = v6 ? ((struct ipv6hdr *)p->l3)->hop_limit : ((struct iphdr *)p->l3)->ttl;
	m->outer = p->key;
	m->service = 0;
	*header = icmp;
	return EVENT_NONE;
}

static __always_inline int meet_icmp(struct xdp_md *ctx, struct packet *p, struct slow *s, struct message *m,
				     const int v6)
{
	struct icmp_error *icmp;
	enum event event;

	if (!parse_addresses(p, (void *)(long)ctx->data_end, v6))
		return finish(ctx, EVENT_PASS_MALFORMED, 0);
	p->key.id = 0;
	m->passed = may_be_virtual(p, v6) || may_be_server(p, v6) ? EVENT_PASS_ICMP : EVENT_PASS_NOT_OURS;
	event = note_message(ctx, p, s, m, &icmp, v6);
	if (event != EVENT_NONE)
		return finish(ctx, m->passed == EVENT_PASS_ICMP ? event : m->passed, 0);
	if (is_echo_request(icmp->icmp_type, v6)) {
		event = may_be_virtual(p, v6) ? (v6 ? judge_echo6(&m->outer) : judge_echo4(&m->outer)) : EVENT_NONE;
		if (event == EVENT_NONE)
			return finish(ctx, m->passed, 0);
		if (event != EVENT_ANSWER_ECHO)
			return finish(ctx, event, 0);
		return v6 ? return_echo6(ctx, m->l3, m->l4) : return_echo4(ctx, m->l3, m->l4);
	}
	if (!is_error(icmp->icmp_type, v6))
		return finish(ctx, m->passed, 0);
	m->icmp_type = icmp->icmp_type;
	m->code = icmp->code;
	m->parameter = icmp->parameter;
	return meet_error(ctx, s, m, v6);
}

SEC("xdp.frags")
int shunt_icmp(struct xdp_md *ctx)
{
	struct message *m = message_scratch();
	struct slow *s = slow_scratch();
	struct packet p;

	if (!s || !m)
		return finish(ctx, EVENT_FAULT_MAP, 0);
	if (!parse_tagged_link(&p, &s->parsed, (void *)(long)ctx->data, (void *)(long)ctx->data_end))
		return finish(ctx, EVENT_PASS_MALFORMED, 0);
	return p.eth_proto == bpf_htons(ETH_P_IPV6) ? meet_icmp(ctx, &p, s, m, 1) : meet_icmp(ctx, &p, s, m, 0);
}

#endif
