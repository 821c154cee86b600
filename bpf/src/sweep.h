/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The sweep: programs that walk the connection tables in slices, remove what is
 * over, and count what is there of each server and under each template.
 */
#ifndef SHUNT_SWEEP_H
#define SHUNT_SWEEP_H

#include "track.h"

struct sweep {
	void *group;
	__u32 index; /* of the group */
	__u32 first;
	__u32 tick;
	__u32 live_keys;
	__u32 removed;
	__u32 orphans;
	__u32 templates;
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
	__u32 counts = tail >> 32;

	if (sweep->templates == TEMPLATES_COUNTED)
		counts = v6 ? review_template6(sweep->index, slot, recipe) :
			      review_template4(sweep->index, slot, recipe);
	else if (sweep->templates == TEMPLATES_BEGUN)
		restart_count(sweep->index, slot, recipe, v6);
	else
		counts = make_counts(controlled(counts), 0);
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
	} else if (sweep->templates != TEMPLATES_LEFT) {
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
	struct sweep sweep = { .first = args->first_group, .tick = now_tick(), .templates = args->templates };
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

#endif
