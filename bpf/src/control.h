/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Programs the control plane runs (BPF_PROG_TEST_RUN): what must happen in one
 * step with what packets do, and the sweep (sweep.h), which is an order of
 * magnitude cheaper here than from user space. Those that touch the connection tables are
 * XDP programs whose "packet" is their arguments: before 6.2 no other kind that
 * user space can run may use a map with a lock.
 */
#ifndef SHUNT_CONTROL_H
#define SHUNT_CONTROL_H

#include "kill.h"
#include "sweep.h"

#define EAGAIN 11
#define ENOENT 2

SEC("syscall")
int shunt_clock(struct clock_args *args)
{
	args->jiffies = bpf_jiffies64();
	args->nanoseconds = bpf_ktime_get_ns();
	return 0;
}

/* --- services and servers ---------------------------------------------------- */

/* wrr's current weight on its way through the schedules of several changes. */
struct cut {
	__u32 weight;
	__u32 steps;
};

static long cut_weight(__u32 i, struct cut *cut)
{
	__u32 max_weight = load_word(cut->steps + 2 * i), gcd = load_word(cut->steps + 2 * i + 1);

	if (cut->weight > max_weight || !cut->weight)
		cut->weight = max_weight;
	else if (gcd > 1)
		cut->weight = cut->weight / gcd * gcd + 1;
	return 0;
}

/*
 * The cursor for the new schedule. rr: its position follows its server (Go says
 * where each went, a removed one's to its predecessor). wrr: back to the head,
 * the weight cut to the new maximum as often as servers changed (kernel:
 * ip_vs_wrr_dest_changed); if none did, it stays, as rr's does. A weight that no
 * server has would never come to one: somebody else wrote it.
 */
static __always_inline __u64 moved_cursor(__u64 cursor, const struct switch_args *args)
{
	__u32 position = cursor >> CURSOR_POSITION & 0xffff;
	struct cut cut = { .weight = args->restart ? 0 : cursor, .steps = args->steps };

	if (args->step_count) {
		bpf_loop(args->step_count, cut_weight, &cut, 0);
		position = 0;
	} else if (args->restart || !position || position > args->old_servers) {
		position = 0;
	} else {
		position = load_word(args->positions + position - 1);
	}
	if (cut.weight > args->schedule.max_weight)
		cut.weight = args->schedule.max_weight;
	return (~cursor & BIT(CURSOR_HALF)) | (__u64)position << CURSOR_POSITION | cut.weight;
}

/* Tries are for picks in between; user space changes one service at a time. */
#define SWITCH_TRIES 64

SEC("syscall")
int shunt_switch(struct switch_args *args)
{
	__u32 index = args->service;
	struct service *service = bpf_map_lookup_elem(&services, &index);
	const struct passive_limits *limit = bpf_map_lookup_elem(&passive, &index);
	struct service_state *state = state_of_service(index);
	struct schedule *unused;

	args->result = -ENOENT;
	if (!service || !state)
		return 0;
	unused = &service->schedule[~(LOAD(&service->cursor) >> CURSOR_HALF) & 1];
	*unused = args->schedule;
	service->key = args->key;
	__builtin_memcpy(service->name, args->name, sizeof(service->name));
	service->life = args->life;
	for (int i = 0; i < 3; i++)
		service->seconds[i] = args->seconds[i];
	service->persistence = args->persistence;
	service->last_port = args->last_port;
	service->prefix = args->prefix;
	service->client_prefix = args->client_prefix;
	STORE(&service->mss, args->mss);
	STORE(&service->access, args->access);
	order();
	for (int i = 0; i < SWITCH_TRIES; i++) {
		__u64 cursor = LOAD(&service->cursor);

		if (__sync_val_compare_and_swap(&service->cursor, cursor, moved_cursor(cursor, args)) != cursor)
			continue;
		/* A server that has joined may be suspended: the next packet looks. */
		if (limit && has_limits(limit))
			STORE(&state->suspended_tick, 1);
		args->result = 0;
		return 0;
	}
	args->result = -EAGAIN;
	return 0;
}

/* Ends a server's suspension and forgets what led to it; what it was told of in all stays. */
SEC("syscall")
int shunt_absolve(struct absolve_args *args)
{
	__u32 index = args->server;
	struct server_load *load = bpf_map_lookup_elem(&loads, &index);
	struct testimony *e = bpf_map_lookup_elem(&evidence, &index);

	args->result = -ENOENT;
	if (!load || !e)
		return 0;
	forget_recent(e);
	__sync_fetch_and_and(&load->unfit, ~UNFIT_SUSPENDED);
	args->result = 0;
	return 0;
}

SEC("syscall")
int shunt_set_server(struct server_args *args)
{
	__u32 index = args->server;
	struct server *server = bpf_map_lookup_elem(&servers, &index);
	struct server_load *load = bpf_map_lookup_elem(&loads, &index);

	args->result = -ENOENT;
	if (!server || !load)
		return 0;
	/* Kernel: ip_vs_ctl.c, __ip_vs_update_dest. */
	if (!args->upper || args->upper > load->upper)
		__sync_fetch_and_and(&load->unfit, ~UNFIT_OVERLOADED);
	STORE(&load->upper, args->upper);
	STORE(&load->lower, args->lower);
	STORE(&server->hop, args->hop);
	STORE(&server->tunnel, args->tunnel);
	STORE(&server->weight, args->weight);
	STORE(&server->last_weight, args->last_weight);
	STORE(&server->offered_weight, args->offered_weight);
	STORE(&server->method, args->method);
	STORE(&server->flags, args->flags);
	STORE(&server->life, args->life);
	args->result = 0;
	return 0;
}

/* --- one connection ----------------------------------------------------------- */

static __always_inline void remove_connection(struct remove_args *args, const int v6)
{
	struct lookup l = {
		.key.id = make_id(join_ports(args->client_port, args->virtual_port), args->protocol),
	};

#pragma unroll
	for (int i = 0; i < 4; i++) {
		l.key.source[i] = args->client[i];
		l.key.destination[i] = args->virtual_address[i];
	}
	args->result = -ENOENT;
	look_up_by(&l, v6);
	if (!l.recipe || l.recipe & BIT(RECIPE_REPLY))
		return;
	args->result = -EAGAIN;
	if (args->with_resets && args->protocol == IPPROTO_TCP) {
		if (l.recipe & BIT(RECIPE_KILLED))
			args->result = -ENOENT;
		else if (kill_with_resets(&l, v6))
			args->result = 0;
		return;
	}
	if (!(l.recipe & BIT(RECIPE_BUSY)) && remove_entry(l.group, l.slot, l.recipe, v6))
		args->result = 0;
}

SEC("xdp")
int shunt_remove4(struct xdp_md *ctx)
{
	struct remove_args *args = (void *)(long)ctx->data;

	if ((void *)(args + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	remove_connection(args, 0);
	return XDP_PASS;
}

SEC("xdp")
int shunt_remove6(struct xdp_md *ctx)
{
	struct remove_args *args = (void *)(long)ctx->data;

	if ((void *)(args + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	remove_connection(args, 1);
	return XDP_PASS;
}

/* --- counts --------------------------------------------------------------------- */

/* Adds a correction to a server's load, as the recount found it, and to a service's count. */
SEC("syscall")
int shunt_correct(struct correct_args *args)
{
	__u32 index = args->server;
	struct server_load *load = bpf_map_lookup_elem(&loads, &index);
	struct service_state *state = state_of_service(args->service);

	if (!load || !state)
		return -ENOENT;
	__sync_fetch_and_add(&state->connections, args->connections);
	__sync_fetch_and_add(&load->active, args->active);
	__sync_fetch_and_add(&load->inactive, args->inactive);
	__sync_fetch_and_add(&load->templates, args->templates);
	/* By the counts that were wrong it may wait for an end that has been. */
	end_overload(load);
	return 0;
}

#endif
