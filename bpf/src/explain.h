/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What would become of a packet: the functions that packets go through themselves,
 * as a trial, which changes nothing. Packets may interrupt it, so that it works in
 * a space of its own; what they change meanwhile it may see or not. An expired
 * connection of the same client that no sweep has removed yet is one connection too
 * many to schedulers that look at loads.
 */
#ifndef SHUNT_EXPLAIN_H
#define SHUNT_EXPLAIN_H

#include "create.h"
#include "forward.h"

/* What happens to a packet that follows the recipe, as far as its server decides it; EVENT_NONE: it is sent on. */
static __always_inline enum event outlook(__u64 recipe)
{
	__u32 index = recipe_server(recipe);
	struct server *server = bpf_map_lookup_elem(&servers, &index);
	struct hop *hop;

	if (!server)
		return EVENT_FAULT_MAP;
	if (server->life != LIFE_LIVE)
		return event_of_dead(server);
	if (recipe & BIT(RECIPE_REPLY) || recipe_method(recipe) == METHOD_LOCAL)
		return EVENT_NONE;
	index = server->hop;
	hop = bpf_map_lookup_elem(&hops, &index);
	return hop && hop->ifindex ? EVENT_NONE : EVENT_DROP_UNREACHABLE;
}

/* Takes up the question; false if no packet with such addresses is ours. */
static __always_inline int take_up(struct slow *s, const struct explain_args *args, const int v6)
{
#pragma unroll
	for (int i = 0; i < 4; i++) {
		s->key.source[i] = args->source[i];
		s->key.destination[i] = args->destination[i];
	}
	s->key.id = make_id(join_ports(args->source_port, args->destination_port), args->protocol);
	s->hash = hash_key(&s->key, v6);
	s->tick = now_tick();
	s->protocol = args->protocol;
	s->tcp_flags = args->protocol == IPPROTO_TCP ? args->tcp_flags : 0;
	s->is_v6 = v6;
	s->is_virtual = has_bit(ours.virtual_address, s->key.destination, v6);
	s->is_new = 0;
	s->is_trial = 1;
	s->recipe = 0;
	s->dead = 0;
	s->old = 0;
	s->chosen = 0;
	s->pick.service = 0;
	s->pick.has_moved = 0;
	s->template.recipe = 0;
	s->decided_by = DECIDED_BY_NOTHING;
	return s->is_virtual || has_bit(ours.server_address, s->key.source, v6);
}

/* The packet's event, and in s what decided it. */
static __always_inline enum event try_packet(struct slow *s, const int v6)
{
	enum settled settled = v6 ? settle6(s) : settle4(s);
	enum event event;

	if (settled == SETTLED_BUSY)
		return EVENT_DROP_BUSY;
	if (settled == SETTLED) {
		s->decided_by = DECIDED_BY_CONNECTION;
		return outlook(s->recipe);
	}
	if (!s->is_virtual)
		return EVENT_PASS_NO_SERVICE;
	event = v6 ? admit6(s) : admit4(s);
	if (event == EVENT_NONE)
		event = v6 ? create6(s) : create4(s);
	if (event == EVENT_NONE)
		return outlook(s->recipe);
	s->recipe = 0;
	return event;
}

static __always_inline void explain(struct slow *s, struct explain_args *args, const int v6)
{
	__u32 index;
	struct server *server;

	args->event = EVENT_PASS_NOT_OURS;
	args->decided_by = DECIDED_BY_NOTHING;
	args->service = args->server = args->met_seen = args->met_hop = 0;
	args->recipe = args->met = 0;
	if (args->protocol != IPPROTO_TCP && args->protocol != IPPROTO_UDP) {
		args->event = EVENT_PASS_PROTOCOL;
		return;
	}
	if (!take_up(s, args, v6))
		return;
	args->event = try_packet(s, v6);
	args->service = s->pick.service;
	if (!s->recipe)
		return;
	args->recipe = s->recipe;
	args->decided_by = s->decided_by;
	args->server = index = recipe_server(s->recipe);
	server = bpf_map_lookup_elem(&servers, &index);
	if (server)
		args->service = server->service;
	if (s->decided_by == DECIDED_BY_TEMPLATE) {
		args->met = s->template.recipe;
		args->met_seen = s->template.seen;
		args->met_hop = s->template.hop;
	} else if (s->decided_by == DECIDED_BY_CONNECTION) {
		args->met = s->hit.recipe;
		args->met_seen = has_hop_for_seen(s->hit.recipe) ? s->other.seen : s->hit.seen;
		args->met_hop = s->hit.hop;
	}
}

static __always_inline int run_explain(struct xdp_md *ctx, const int v6)
{
	struct explain_args *args = (void *)(long)ctx->data;
	__u32 index = SCRATCH_CONTROL;
	struct slow *s = bpf_map_lookup_elem(&scratch, &index);

	if (!s || (void *)(args + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	explain(s, args, v6);
	return XDP_PASS;
}

SEC("xdp")
int shunt_explain4(struct xdp_md *ctx)
{
	return run_explain(ctx, 0);
}

SEC("xdp")
int shunt_explain6(struct xdp_md *ctx)
{
	return run_explain(ctx, 1);
}

#endif
