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
	__u64 began; /* nanoseconds */
	__u32 limit; /* nanoseconds; 0: none */
	__u32 work; /* since the clock was read */
	__u32 first; /* the set it began with, counted through the table */
	__u32 next; /* the first it has not gone through */
	__u32 index; /* of the group */
	__u32 set_slot; /* the set's first */
	__u32 tick;
	__u32 live_keys;
	__u32 removed;
	__u32 orphans;
	__u32 templates;
	__u32 pad;
};

/* Sets of a group as the sweep has them: the overflow slots are some more. */
#define SWEEP_SETS ((SLOTS + WAYS - 1) / WAYS)

/*
 * The clock is read after so much work: some five microseconds, by the weights of a set
 * without anything to do and of what costs a look in the table.
 */
#define CLOCK_WORK 64
#define LOOK_WORK 16

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

/* Notes that an entry with this recipe, and this for seen and hop, names a hop or stands for a client. */
static __always_inline void note_hop(__u64 recipe, __u64 tail)
{
	__u32 reference = has_hop_for_seen(recipe) ? tail : tail >> 32, index = reference & (HOPS - 1);
	struct local_address *local;
	__u32 *uses;

	if (is_full_nat(recipe) && !(recipe & BIT(RECIPE_REPLY))) {
		local = local_of(reference);
		if (local)
			local->uses += 1;
		return;
	}
	uses = bpf_map_lookup_elem(&hop_uses, &index);
	if (uses && reference && (has_hop_for_seen(recipe) || !has_place(recipe)) && !(recipe & BIT(RECIPE_SEQUENCE)))
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

/*
 * Keeps what began long ago from wrapping round to what has just begun: its age stays
 * what can be told of the oldest, a little less than BORN_OLDEST. The half of its birth
 * that is in the id cannot change. An age just below zero is that of an entry younger
 * than the sweep's tick, or one whose id is not written yet.
 */
static __always_inline void keep_birth(__u64 *entry, __u64 recipe, __u32 tick, const int v6)
{
	const __u32 half = (1 << BORN_HALF_BITS) - 1;
	__u32 low = LOAD(entry + WORDS(v6)) >> ID_BORN & half, now = tick >> BORN_SHIFT, oldest = now - BORN_OLDEST;
	__u32 born = (recipe >> RECIPE_BORN & half) << BORN_HALF_BITS | low;
	__u32 age = (now - born) & BORN_MASK;

	if (age <= BORN_OLDEST || age >= BORN_MASK - half)
		return;
	born = oldest + ((low - oldest) & half);
	change(entry, recipe,
	       (recipe & ~((__u64)half << RECIPE_BORN)) | (__u64)(born >> BORN_HALF_BITS & half) << RECIPE_BORN, v6);
}

static __always_inline long sweep_slot(__u32 i, struct sweep *sweep, const int v6)
{
	__u32 slot = sweep->set_slot + i;
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
		sweep->work += LOOK_WORK;
		if (sweep_template(sweep, slot, recipe, tail, v6))
			return 0;
		keep_birth(entry, recipe, sweep->tick, v6);
		sweep->live_keys++;
		recount(recipe);
		return 0;
	}
	if (recipe & BIT(RECIPE_REPLY)) {
		if (has_expired(recipe, tail_of(recipe, tail, v6), sweep->tick - ORPHAN_TICKS)) {
			sweep->work += LOOK_WORK;
			if (v6 ? remove_orphan6(sweep->index, slot) : remove_orphan4(sweep->index, slot)) {
				sweep->orphans++;
				return 0;
			}
		}
	} else if (is_over(recipe, tail, sweep->tick)) {
		sweep->work += LOOK_WORK;
		if (remove_entry(sweep->index, slot, recipe, v6)) {
			sweep->removed++;
			return 0;
		}
	} else {
		if (sweep->templates != TEMPLATES_LEFT && recipe & BIT(RECIPE_CONTROLLED)) {
			sweep->work += LOOK_WORK;
			tell(sweep->index, slot, recipe, NEWS_MET, v6);
		}
		keep_birth(entry, recipe, sweep->tick, v6);
	}
	sweep->live_keys++;
	recount(recipe);
	note_hop(recipe, tail);
	return 0;
}

static long sweep_slot4(__u32 i, struct sweep *sweep)
{
	return sweep_slot(i, sweep, 0);
}

static long sweep_slot6(__u32 i, struct sweep *sweep)
{
	return sweep_slot(i, sweep, 1);
}

/* Whether no slot of a set has an entry: most of a table that is not full. */
static __always_inline int is_empty(void *group, __u32 set_slot, const int v6)
{
	/* Of the last set, which has fewer slots, those before them too. */
	__u64 *entry = entry_at(group, set_slot < SLOTS - WAYS ? set_slot : SLOTS - WAYS, v6);
	__u64 recipes = 0;

	if (!entry)
		return 1;
#pragma unroll
	for (int i = 0; i < WAYS; i++)
		recipes |= LOAD(entry + i * (ENTRY_SIZE(v6) / sizeof(*entry)) + WORDS(v6) + 1);
	return !recipes;
}

/* Whether the slice has taken its time; the clock is read now and then. */
static __always_inline int is_late(struct sweep *sweep)
{
	if (++sweep->work < CLOCK_WORK || !sweep->limit)
		return 0;
	sweep->work = 0;
	return bpf_ktime_get_ns() - sweep->began >= sweep->limit;
}

static __always_inline long sweep_set(__u32 i, struct sweep *sweep, const int v6)
{
	__u32 set = sweep->first + i;

	sweep->index = set / SWEEP_SETS;
	sweep->set_slot = set % SWEEP_SETS * WAYS;
	sweep->group = group_at(sweep->index, v6);
	if (!sweep->group)
		return 1;
	if (!is_empty(sweep->group, sweep->set_slot, v6)) {
		if (v6)
			bpf_loop(WAYS, sweep_slot6, sweep, 0);
		else
			bpf_loop(WAYS, sweep_slot4, sweep, 0);
	}
	sweep->next = set + 1;
	return is_late(sweep);
}

static long sweep_set4(__u32 i, struct sweep *sweep)
{
	return sweep_set(i, sweep, 0);
}

static long sweep_set6(__u32 i, struct sweep *sweep)
{
	return sweep_set(i, sweep, 1);
}

#define SLICE_GROUPS (1 << 19) /* kernel: BPF_MAX_LOOPS, by SWEEP_SETS */

static __always_inline int run_sweep(struct sweep_args *args, const int v6)
{
	struct sweep sweep = {
		.began = bpf_ktime_get_ns(),
		.limit = args->limit,
		.first = args->first_group * SWEEP_SETS + args->first_set,
		.tick = now_tick(),
		.templates = args->templates,
	};
	__u32 groups = args->groups < SLICE_GROUPS ? args->groups : SLICE_GROUPS;
	__u32 sets = groups * SWEEP_SETS - args->first_set;

	sweep.next = sweep.first;
	if (v6)
		bpf_loop(sets, sweep_set6, &sweep, 0);
	else
		bpf_loop(sets, sweep_set4, &sweep, 0);
	args->next_group = sweep.next / SWEEP_SETS;
	args->next_set = sweep.next % SWEEP_SETS;
	args->live_keys = sweep.live_keys;
	args->removed = sweep.removed;
	args->orphans = sweep.orphans;
	args->taken = bpf_ktime_get_ns() - sweep.began;
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
