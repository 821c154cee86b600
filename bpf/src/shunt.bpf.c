//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The fast path. A packet's way, in order: parse, filter, find its connection,
 * follow the recipe (shunt_main). What that does not settle goes by a tail call
 * to shunt_settle, where the connection's state has to move. A packet without a
 * connection is refused or admitted, at once or in shunt_admit, and goes on to
 * shunt_create then; the recipe is followed after that.
 */
#include "forward.h"
#include "create.h"
#include "control.h"
#include "load.h"
#include "explain.h"
#include "icmp.h"
#include "fragment.h"
#include "bring.h"

static __always_inline int is_only_ack(__u8 tcp_flags)
{
	return (tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK)) == TCP_ACK;
}

/* Whether following the recipe is all that the packet asks for. */
static __always_inline int is_settled(const struct packet *p, const struct found *found)
{
	const __u64 asked = (__u64)STATE_MASK << RECIPE_STATE | BIT(RECIPE_BUSY) | BIT(RECIPE_WIDE);

	if (p->tick - found->seen >= refresh_ticks)
		return 0;
	if (p->protocol == IPPROTO_TCP)
		return (found->recipe & (asked | BIT(RECIPE_PROVEN))) ==
			       ((__u64)STATE_ESTABLISHED << RECIPE_STATE | BIT(RECIPE_PROVEN)) &&
		       is_only_ack(p->tcp_flags);
	return (found->recipe & asked) == (__u64)STATE_UDP << RECIPE_STATE &&
	       (found->recipe & (BIT(RECIPE_REPLY) | BIT(RECIPE_PROVEN))) != BIT(RECIPE_REPLY);
}

/*
 * Whether the packet is the handshake's last segment, soon after the one before, and
 * nobody but its connection's entry has to know.
 */
static __always_inline int may_prove(const struct packet *p, const struct found *found)
{
	const __u64 asked = (__u64)STATE_MASK << RECIPE_STATE | BIT(RECIPE_BUSY) | BIT(RECIPE_WIDE) |
			    BIT(RECIPE_REPLY) | BIT(RECIPE_CONTROLLED) | BIT(RECIPE_LOADED) | BIT(RECIPE_PROVEN);

	return (found->recipe & asked) == (__u64)STATE_SYN_RECV << RECIPE_STATE && is_only_ack(p->tcp_flags) &&
	       p->tick - found->seen < refresh_ticks && !current.watching;
}

/* How an entry ends; what lies behind its id. */
struct entry_end {
	__u64 recipe;
	__u64 seen_and_hop;
};

/*
 * Proves the connection with that recipe in place, in one change of it: it is
 * established. Its other key follows when settle has a packet of it. False if the
 * segment is no proof, or settle's. Global: hits keep their registers, and it is
 * verified once.
 */
__noinline int prove_in_place(struct entry_end *entry, __u64 old, __u32 ack)
{
	__u64 *recipe = (__u64 *)entry, new = with_state(old, STATE_ESTABLISHED);
	__u32 index = recipe_server(old);
	struct server *server;

	if (!entry)
		return 0;
	if (recipe_method(old) != METHOD_NAT)
		new = prove_half(new);
	else if (acknowledges(recipe, old, TCP_ACK, ack))
		new = prove(new);
	else
		return 0;
	server = bpf_map_lookup_elem(&servers, &index);
	if (!server || server->life != LIFE_LIVE || __sync_val_compare_and_swap(recipe, old, new) != old)
		return 0;
	count_proof(server, old);
	return 1;
}

/* The same, of a packet that met the entry. */
static __always_inline int is_proof(const struct packet *p, const struct found *found, const int v6)
{
	const struct tcphdr *tcp = p->l4;

	return may_prove(p, found) &&
	       prove_in_place((void *)(found->entry + WORDS(v6) + 1), found->recipe, bpf_ntohl(tcp->ack_seq));
}

/* go_on, by what parse_transport says; what it says else becomes of the packet. */
static __always_inline int divert(struct xdp_md *ctx, enum event event)
{
	if (event == EVENT_GO_ODD)
		return go_on(ctx, SLOT_ODD);
	if (event == EVENT_GO_ICMP)
		return go_on(ctx, SLOT_ICMP);
	if (event == EVENT_GO_FRAGMENT)
		return go_on(ctx, SLOT_FRAGMENT);
	return finish(ctx, event, 0);
}

/* Hands the packet to shunt_settle; comes back only if that is not there. */
static __always_inline int go_settle(struct xdp_md *ctx, const struct packet *p, __u32 hash, int is_virtual,
				     const int v6)
{
	if (note_packet(ctx, p, hash, is_virtual, v6))
		bpf_tail_call(ctx, &slots, slot_set + SLOT_SETTLE);
	return finish(ctx, EVENT_FAULT_MAP, 0);
}

/* Ends the matter of a packet that gets no connection; the XDP action. */
static __always_inline int refuse(struct xdp_md *ctx, const struct slow *s, enum event event)
{
	struct answer_request r = { .l3 = s->l3, .l4 = s->l4, .service = s->pick.service };

	if (event == EVENT_DROP_MIDSTREAM && current.midstream == MIDSTREAM_RESET && !(s->tcp_flags & TCP_RST))
		event = EVENT_ANSWER_RESET;
	if (event != EVENT_ANSWER_NO_SERVER && event != EVENT_ANSWER_RESET)
		return end_refused(ctx, s, event, XDP_DROP);
	r.event = event;
#pragma unroll
	for (int i = 0; i < 4; i++)
		r.from[i] = s->key.destination[i];
	return s->is_v6 ? answer6(ctx, &r) : answer4(ctx, &r);
}

/* The packet in s goes to shunt_create, unless admit says what else becomes of it; the XDP action. */
static __always_inline int begin(struct xdp_md *ctx, struct slow *s, enum event event, const int v6)
{
	if (event == EVENT_ANSWER_GUARD)
		return v6 ? challenge6(ctx, s) : challenge4(ctx, s);
	if (event != EVENT_NONE)
		return refuse(ctx, s, event);
	if (carried_groups(v6) && s->pick.flags & SERVICE_PERSISTENT) {
		/* The client's template may be in the old table. */
		s->is_admitted = 1;
		bpf_tail_call(ctx, &slots, slot_set + SLOT_CARRY);
	}
	bpf_tail_call(ctx, &slots, slot_set + SLOT_CREATE);
	return finish(ctx, EVENT_FAULT_MAP, 0);
}

/*
 * Has the packet without a connection begin one, or be refused. Here, so that a flood
 * of first segments costs little; others go to shunt_admit.
 */
static __always_inline int meet(struct xdp_md *ctx, const struct packet *p, __u32 hash, int is_virtual, int is_segment,
				const int v6)
{
	struct slow *s = note_packet(ctx, p, hash, is_virtual, v6);
	const struct tcphdr *tcp = p->l4;

	if (!s)
		return finish(ctx, EVENT_FAULT_MAP, 0);
	if (is_segment && !carried_groups(v6)) {
		s->sequence = bpf_ntohl(tcp->seq);
		return begin(ctx, s, v6 ? admit6(s) : admit4(s), v6);
	}
	bpf_tail_call(ctx, &slots, slot_set + (carried_groups(v6) ? SLOT_CARRY : SLOT_ADMIT));
	return finish(ctx, EVENT_FAULT_MAP, 0);
}

/*
 * As count_hit, of a packet whose entry has to be found once more: to keep it until
 * after the call would cost all other hits an instruction.
 */
static __always_inline void count_again(const struct packet *p, const int v6)
{
	struct slow *s;

	if (!counts_connections)
		return;
	s = slow_scratch();
	if (!s)
		return;
	s->key = p->key;
	s->length = p->length;
	count_slow(s, v6);
}

/* Follows the recipe of a hit by full NAT; the XDP action, or NOT_SETTLED. */
static __always_inline int follow_full_nat_hit(struct xdp_md *ctx, struct packet *p, const struct found *found,
					       const int v6)
{
	int action = v6 ? meet_full_nat6(ctx, found->recipe, (__u64)found->hop << 32 | found->seen, p->tick) :
			  meet_full_nat4(ctx, found->recipe, found->seen, found->hop, p->tick);

	if (action != NOT_SETTLED) {
		count_again(p, v6);
		return action;
	}
	/* Not the same pointers for the verifier, after a function that may change the packet. */
	p->l3 = (void *)(long)ctx->data + sizeof(struct ethhdr);
	p->l4 = p->l3 + (v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	return action;
}

static __always_inline int dispatch(struct xdp_md *ctx, struct packet *p, struct parsed *scratch, const int v6)
{
	void *end = (void *)(long)ctx->data_end;
	struct server *server;
	struct found found;
	struct place place;
	enum event event;
	int is_virtual, action = 0;
	__u32 index;

	if (!parse_addresses(p, end, v6))
		return finish(ctx, EVENT_PASS_MALFORMED, 0);
	is_virtual = may_be_virtual(p, v6);
	if (!is_virtual && !may_be_server(p, v6))
		return is_icmp(p, v6) ? go_on(ctx, SLOT_ICMP) : finish(ctx, EVENT_PASS_NOT_OURS, 0);
	event = parse_transport(p, end, scratch, v6);
	if (event != EVENT_NONE)
		return divert(ctx, event);
	if (!locate(&place, hash_key(&p->key, v6), v6))
		return finish(ctx, EVENT_FAULT_MAP, 0);
	p->tick = now_tick();
	p->is_new = 0;
	p->is_later = 0;
	find(&found, &place, &p->key, v6);
	if (!found.entry) {
		if (!is_virtual && !carried_groups(v6))
			return finish(ctx, EVENT_PASS_NO_SERVICE, 0);
		return meet(ctx, p, place.hash, is_virtual, !scratch && p->protocol == IPPROTO_TCP, v6);
	}
	/* What is odd is settle's, hit or proof: the verifier would walk what follows here once more. */
	if (!is_settled(p, &found)) {
		if (!scratch && is_full_nat(found.recipe)) {
			action = follow_full_nat_hit(ctx, p, &found, v6);
			if (action != NOT_SETTLED)
				return action;
			return go_settle(ctx, p, place.hash, is_virtual, v6);
		}
		if (scratch || !is_proof(p, &found, v6))
			return go_settle(ctx, p, place.hash, is_virtual, v6);
	}
	index = recipe_server(found.recipe);
	server = bpf_map_lookup_elem(&servers, &index);
	if (!server)
		return finish(ctx, EVENT_FAULT_MAP, 0);
	/* What the service wants of the connections of a server that is gone, settle knows. */
	if (server->life != LIFE_LIVE)
		return go_settle(ctx, p, place.hash, is_virtual, v6);
	count_hit(found.entry, p->length, v6);
	return follow_to(ctx, p, server, found.recipe, found.hop, v6);
}

/* The network layer, which p->l3 and p->eth_proto say; scratch as for parse_network6. */
static __always_inline int dispatch_network(struct xdp_md *ctx, struct packet *p, struct parsed *scratch)
{
	if (p->eth_proto == bpf_htons(ETH_P_IP))
		return dispatch(ctx, p, scratch, 0);
	if (p->eth_proto == bpf_htons(ETH_P_IPV6))
		return dispatch(ctx, p, scratch, 1);
	return finish(ctx, EVENT_PASS_NOT_OURS, 0);
}

SEC("xdp.frags")
int shunt_main(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct packet p;

	if (!parse_link(&p, (void *)(long)ctx->data, end))
		return finish(ctx, EVENT_PASS_MALFORMED, 0);
	if (is_vlan(p.eth_proto))
		return go_on(ctx, SLOT_ODD);
	return dispatch_network(ctx, &p, 0);
}

/* As shunt_main, of packets with VLAN tags, IPv4 options or IPv6 extension headers: offsets are not constant here. */
SEC("xdp.frags")
int shunt_odd(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct slow *s = slow_scratch();
	struct packet p;

	if (!s)
		return finish(ctx, EVENT_FAULT_MAP, 0);
	if (!parse_tagged_link(&p, &s->parsed, data, end))
		return finish(ctx, EVENT_PASS_MALFORMED, 0);
	return dispatch_network(ctx, &p, &s->parsed);
}

/* Takes tags without a VLAN out of a link: they say what priority a frame has, and nothing of its way (IEEE 802.1Q
 * §6.9). */
static __always_inline void forget_priority(struct link_view *link)
{
	const __be16 none = bpf_htons(VLAN_PRESENT);

	if (link->inner_vlan == none)
		link->inner_vlan = 0;
	if (link->outer_vlan == none) {
		link->outer_vlan = link->inner_vlan;
		link->inner_vlan = 0;
	}
}

/* Notes how the packet came, for the hop that leads back there. */
static __always_inline int view_link(struct xdp_md *ctx, struct slow *s)
{
	struct ethhdr *eth = (void *)(long)ctx->data;

	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return 0;
	s->link.destination = load_mac(eth->h_dest);
	s->link.source = load_mac(eth->h_source);
	s->link.ifindex = ctx->ingress_ifindex;
	s->link.outer_vlan = s->outer_vlan;
	s->link.inner_vlan = s->inner_vlan;
	if (s->outer_vlan)
		forget_priority(&s->link);
	return 1;
}

/* Notes the numbers of a TCP segment, for the guard and for proof. */
static __always_inline int view_segment(struct xdp_md *ctx, struct slow *s)
{
	struct tcphdr *tcp = (void *)(long)ctx->data + (s->l4 & 0x3fff);

	if (s->protocol != IPPROTO_TCP)
		return 1;
	if ((void *)(tcp + 1) > (void *)(long)ctx->data_end)
		return 0;
	s->sequence = bpf_ntohl(tcp->seq);
	s->acknowledged = bpf_ntohl(tcp->ack_seq);
	return 1;
}

/* Packets that change their connection's state, or come when a second has passed. */
SEC("xdp.frags")
int shunt_settle(struct xdp_md *ctx)
{
	struct slow *s = slow_scratch();
	enum settled settled;
	int action;

	if (!s || !view_link(ctx, s) || !view_segment(ctx, s))
		return finish(ctx, EVENT_FAULT_MAP, 0);
	settled = s->is_v6 ? settle6(s) : settle4(s);
	if (settled == SETTLED_BUSY)
		return finish(ctx, EVENT_DROP_BUSY, service_with(s->hit.recipe));
	if (settled == SETTLED_KILLED) {
		action = s->is_v6 ? meet_killed6(ctx, s) : meet_killed4(ctx, s);
		if (action != KILL_GOES_ON)
			return action;
	}
	if (settled != SETTLED_DEAD)
		return follow_made(ctx, s);
	if (!s->is_virtual) {
		bind_refused(s, EVENT_PASS_NO_SERVICE);
		return finish(ctx, EVENT_PASS_NO_SERVICE, 0);
	}
	bpf_tail_call(ctx, &slots, slot_set + SLOT_ADMIT);
	return finish(ctx, EVENT_FAULT_MAP, 0);
}

/* As begin; the packet ends a connection that is over, also where it begins no other. */
static __always_inline int begin_after(struct xdp_md *ctx, struct slow *s, const int v6)
{
	enum event event = v6 ? admit6(s) : admit4(s);

	if (event != EVENT_NONE && s->old)
		remove_entry(s->old_group, s->old_slot, s->old, v6);
	bind_refused(s, event);
	return begin(ctx, s, event, v6);
}

/* Packets without a connection that shunt_main does not admit itself (meet), or has not known to be such. */
SEC("xdp.frags")
int shunt_admit(struct xdp_md *ctx)
{
	struct slow *s = slow_scratch();

	if (!s || !view_segment(ctx, s))
		return finish(ctx, EVENT_FAULT_MAP, 0);
	return s->is_v6 ? begin_after(ctx, s, 1) : begin_after(ctx, s, 0);
}

/* Packets that begin a connection. */
SEC("xdp.frags")
int shunt_create(struct xdp_md *ctx)
{
	struct slow *s = slow_scratch();
	enum event event;

	if (!s || !view_link(ctx, s))
		return finish(ctx, EVENT_FAULT_MAP, 0);
	event = s->is_v6 ? create6(s) : create4(s);
	bind_created(s, event);
	return event == EVENT_NONE ? follow_made(ctx, s) : refuse(ctx, s, event);
}

/* What is attached to interfaces: one write to slots switches them all. */
SEC("xdp.frags")
int shunt_root(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &slots, SLOT_MAIN);
	return XDP_PASS; /* detached: the slot is empty */
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Types that Go names but no map has: kept in the object's type information. */
#define EXPORT(type, name) const type *export_##name __attribute__((unused))
EXPORT(enum conn_state, conn_state);
EXPORT(enum method, method);
EXPORT(enum scheduler, scheduler);
EXPORT(enum service_flags, service_flags);
EXPORT(enum server_flags, server_flags);
EXPORT(enum template_layout, template_layout);
EXPORT(enum destination_shape, destination_shape);
EXPORT(enum match_layout, match_layout);
EXPORT(enum lifecycle, lifecycle);
EXPORT(enum midstream, midstream);
EXPORT(enum event, event);
EXPORT(enum event_kinds, event_kinds);
EXPORT(enum drop_shape, drop_shape);
EXPORT(enum drop_layout, drop_layout);
EXPORT(enum table_shape, table_shape);
EXPORT(enum id_layout, id_layout);
EXPORT(enum recipe_layout, recipe_layout);
EXPORT(enum cursor_layout, cursor_layout);
EXPORT(enum hop_layout, hop_layout);
EXPORT(enum filter_shape, filter_shape);
EXPORT(enum masks, masks);
EXPORT(enum place_layout, place_layout);
EXPORT(enum access_layout, access_layout);
EXPORT(enum access_verdict, access_verdict);
EXPORT(struct sweep_args, sweep_args);
EXPORT(enum sweep_templates, sweep_templates);
EXPORT(struct remove_args, remove_args);
EXPORT(struct explain_args, explain_args);
EXPORT(enum decider, decider);
EXPORT(struct load_args, load_args);
EXPORT(enum load_shape, load_shape);
EXPORT(enum load_flags, load_flags);
EXPORT(enum load_result, load_result);
EXPORT(enum slot, slot);
EXPORT(enum born_layout, born_layout);
EXPORT(enum guard_mode, guard_mode);
EXPORT(enum news_kind, news_kind);
EXPORT(struct connection_news, connection_news);
EXPORT(struct carry_args, carry_args);
EXPORT(enum carry_what, carry_what);
EXPORT(struct event_args, event_args);
EXPORT(enum tunnel_type, tunnel_type);
EXPORT(enum tunnel_checksum, tunnel_checksum);
EXPORT(enum local_layout, local_layout);
EXPORT(enum virtual_layout, virtual_layout);
EXPORT(enum echo, echo);
EXPORT(enum abi_version, abi_version);
EXPORT(enum layout, layout);
EXPORT(enum unfit, unfit);
EXPORT(enum evidence_kind, evidence_kind);
EXPORT(struct absolve_args, absolve_args);
