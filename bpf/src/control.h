/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Programs the control plane runs (BPF_PROG_TEST_RUN): what must happen in one
 * step with what packets do, and the sweep, which is an order of magnitude
 * cheaper here than from user space. Those that touch the connection tables are
 * XDP programs whose "packet" is their arguments: before 6.2 no other kind that
 * user space can run may use a map with a lock.
 */
#ifndef SHUNT_CONTROL_H
#define SHUNT_CONTROL_H

#include "track.h"

#define EAGAIN 11
#define ENOENT 2

SEC("syscall")
int shunt_clock(struct clock_args *args)
{
	args->jiffies = bpf_jiffies64();
	args->nanoseconds = bpf_ktime_get_ns();
	return 0;
}

/* --- sweep ---------------------------------------------------------------- */

struct sweep {
	void *group;
	__u32 index; /* of the group */
	__u32 first;
	__u32 tick;
	__u32 live_keys;
	__u32 removed;
	__u32 orphans;
};

/* How long after its timeout a reply key may still wait for its connection's removal. */
#define ORPHAN_TICKS 240

static __always_inline void recount(__u64 recipe)
{
	__u32 server = recipe_server(recipe);
	struct recount *recount = bpf_map_lookup_elem(&recounts, &server);

	if (!recount)
		return;
	recount->keys++;
	if (recipe & BIT(RECIPE_REPLY))
		return;
	if (recipe_state(recipe) == STATE_TEMPLATE)
		recount->templates++;
	else if (is_active(recipe_state(recipe)))
		recount->active++;
	else
		recount->inactive++;
	if (recipe_state(recipe) == STATE_UDP)
		recount->udp++;
}

/* Notes that an entry with this recipe names the hop. */
static __always_inline void note_hop(__u64 recipe, __u32 reference)
{
	__u32 index = reference & (HOPS - 1);
	__u32 *uses = bpf_map_lookup_elem(&hop_uses, &index);

	if (uses && reference && !has_place(recipe))
		*uses += 1;
}

/*
 * Removes a reply entry whose connection is gone; false if it is not. Only a
 * claimant of the connection removes its reply key, so that this is a fault's repair.
 */
static __always_inline int remove_orphan(__u32 index, __u32 slot, const int v6)
{
	void *group = group_at(index, v6);
	struct lookup forward = {};
	__u64 *entry, recipe;
	struct key key;

	if (!group)
		return 0;
	entry = entry_at(group, slot, v6);
	if (!entry)
		return 0;
	recipe = LOAD(entry + WORDS(v6) + 1);
	entry_key(&key, entry, v6);
	look_up_forward(&forward, &key, recipe, LOAD(entry + WORDS(v6) + 2) >> 32, v6);
	if (forward.recipe || !change(entry, recipe, recipe | BIT(RECIPE_BUSY), v6))
		return 0;
	release_slot(index, slot, v6);
	return 1;
}

__noinline int remove_orphan4(__u32 index, __u32 slot)
{
	return remove_orphan(index, slot, 0);
}

__noinline int remove_orphan6(__u32 index, __u32 slot)
{
	return remove_orphan(index, slot, 1);
}

/*
 * What a sweep has to do with a template: see that its count is right, end its time;
 * true if it removed it. One whose last connection has just gone, or that the sweep
 * found in use against its count, is left to the next sweep.
 */
static __always_inline int sweep_template(struct sweep *sweep, __u32 slot, __u64 recipe, __u64 tail, const int v6)
{
	__u32 counts = v6 ? review_template6(sweep->index, slot, recipe) : review_template4(sweep->index, slot, recipe);

	if (!is_over(recipe, tail, sweep->tick) || (!controlled(counts) && recounted(counts)))
		return 0;
	/* Its doubt may have been marked or cleared since: then the next sweep ends it. */
	return v6 ? expire_template6(sweep->index, slot, recipe, sweep->tick) :
		    expire_template4(sweep->index, slot, recipe, sweep->tick);
}

static __always_inline long sweep_slot(__u32 slot, struct sweep *sweep, const int v6)
{
	void *group = sweep->group;
	__u64 *entry, recipe, tail;

	if (!group)
		return 1;
	entry = entry_at(group, slot, v6);
	if (!entry)
		return 1;
	recipe = LOAD(entry + WORDS(v6) + 1);
	tail = LOAD(entry + WORDS(v6) + 2);
	if (!recipe)
		return 0;
	if (recipe & BIT(RECIPE_BUSY)) {
		sweep->live_keys++;
		return 0;
	}
	if (is_template(recipe)) {
		if (sweep_template(sweep, slot, recipe, tail, v6))
			return 0;
		sweep->live_keys++;
		recount(recipe);
		return 0;
	}
	if (recipe & BIT(RECIPE_REPLY)) {
		if (has_expired(recipe, tail, sweep->tick - ORPHAN_TICKS) &&
		    (v6 ? remove_orphan6(sweep->index, slot) : remove_orphan4(sweep->index, slot))) {
			sweep->orphans++;
			return 0;
		}
	} else if (is_over(recipe, tail, sweep->tick) && remove_entry(sweep->index, slot, recipe, v6)) {
		sweep->removed++;
		return 0;
	} else {
		tell(sweep->index, slot, recipe, NEWS_MET, v6);
	}
	sweep->live_keys++;
	recount(recipe);
	note_hop(recipe, tail >> 32);
	return 0;
}

static long sweep_slot4(__u32 slot, struct sweep *sweep)
{
	return sweep_slot(slot, sweep, 0);
}

static long sweep_slot6(__u32 slot, struct sweep *sweep)
{
	return sweep_slot(slot, sweep, 1);
}

static long sweep_group4(__u32 i, struct sweep *sweep)
{
	sweep->index = sweep->first + i;
	sweep->group = group_at(sweep->index, 0);
	bpf_loop(SLOTS, sweep_slot4, sweep, 0);
	return !sweep->group;
}

static long sweep_group6(__u32 i, struct sweep *sweep)
{
	sweep->index = sweep->first + i;
	sweep->group = group_at(sweep->index, 1);
	bpf_loop(SLOTS, sweep_slot6, sweep, 0);
	return !sweep->group;
}

static __always_inline int run_sweep(struct sweep_args *args, const int v6)
{
	struct sweep sweep = { .first = args->first_group, .tick = now_tick() };
	long groups;

	if (v6)
		groups = bpf_loop(args->groups, sweep_group6, &sweep, 0);
	else
		groups = bpf_loop(args->groups, sweep_group4, &sweep, 0);
	args->next_group = args->first_group + groups;
	args->live_keys = sweep.live_keys;
	args->removed = sweep.removed;
	args->orphans = sweep.orphans;
	return XDP_PASS;
}

SEC("xdp")
int shunt_sweep4(struct xdp_md *ctx)
{
	struct sweep_args *args = (void *)(long)ctx->data;

	if ((void *)(args + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	return run_sweep(args, 0);
}

SEC("xdp")
int shunt_sweep6(struct xdp_md *ctx)
{
	struct sweep_args *args = (void *)(long)ctx->data;

	if ((void *)(args + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	return run_sweep(args, 1);
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
 * ip_vs_wrr_dest_changed).
 */
static __always_inline __u64 moved_cursor(__u64 cursor, const struct switch_args *args)
{
	__u32 position = cursor >> CURSOR_POSITION & 0xffff;
	struct cut cut = { .steps = args->steps };

	if (args->scheduler == SCHEDULER_WRR) {
		cut.weight = args->restart ? 0 : cursor;
		bpf_loop(args->step_count, cut_weight, &cut, 0);
		position = 0;
	} else if (args->restart || !position || position > args->old_servers) {
		position = 0;
	} else {
		position = load_word(args->positions + position - 1);
	}
	return (~cursor & BIT(CURSOR_HALF)) | (__u64)position << CURSOR_POSITION | cut.weight;
}

/* Tries are for picks in between; user space changes one service at a time. */
#define SWITCH_TRIES 64

SEC("syscall")
int shunt_switch(struct switch_args *args)
{
	__u32 index = args->service;
	struct service *service = bpf_map_lookup_elem(&services, &index);
	struct schedule *unused;

	args->result = -ENOENT;
	if (!service)
		return 0;
	unused = &service->schedule[~(LOAD(&service->cursor) >> CURSOR_HALF) & 1];
	*unused = args->schedule;
	service->key = args->key;
	__builtin_memcpy(service->name, args->name, sizeof(service->name));
	service->life = args->life;
	service->flags = args->flags;
	service->scheduler = args->scheduler;
	for (int i = 0; i < 4; i++)
		service->client_mask[i] = args->client_mask[i];
	for (int i = 0; i < 3; i++)
		service->seconds[i] = args->seconds[i];
	service->persistence = args->persistence;
	service->last_port = args->last_port;
	service->prefix = args->prefix;
	service->client_prefix = args->client_prefix;
	STORE(&service->access, args->access);
	order();
	for (int i = 0; i < SWITCH_TRIES; i++) {
		__u64 cursor = LOAD(&service->cursor);

		if (__sync_val_compare_and_swap(&service->cursor, cursor, moved_cursor(cursor, args)) != cursor)
			continue;
		args->result = 0;
		return 0;
	}
	args->result = -EAGAIN;
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
		STORE(&load->overloaded, 0);
	STORE(&load->upper, args->upper);
	STORE(&load->lower, args->lower);
	STORE(&server->hop, args->hop);
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
	if (v6)
		look_up6(&l);
	else
		look_up4(&l);
	if (!l.recipe || l.recipe & BIT(RECIPE_REPLY))
		return;
	args->result = -EAGAIN;
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

/* Adds a correction found by the recount to a server's load. */
SEC("syscall")
int shunt_correct(struct correct_args *args)
{
	__u32 index = args->server;
	struct server_load *load = bpf_map_lookup_elem(&loads, &index);

	if (!load)
		return -ENOENT;
	__sync_fetch_and_add(&load->active, args->active);
	__sync_fetch_and_add(&load->inactive, args->inactive);
	__sync_fetch_and_add(&load->templates, args->templates);
	/* By the counts that were wrong it may wait for an end that has been. */
	end_overload(load);
	return 0;
}

#endif
