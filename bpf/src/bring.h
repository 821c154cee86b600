/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The programs that bring connections over from the tables before these (carry.h):
 * a packet's own, and slices of all the others for user space.
 */
#ifndef SHUNT_BRING_H
#define SHUNT_BRING_H

#include "carry.h"

/* --- whole connections ---------------------------------------------------------- */

/* As bring_any, and its template, if it has one, before it. */
static __always_inline enum carried bring_whole(struct carrying *c, const int v6)
{
	__u32 index = recipe_server(c->forward.old.recipe);
	struct server *server = bpf_map_lookup_elem(&servers, &index);

	if (server && c->forward.old.recipe & BIT(RECIPE_CONTROLLED))
		bring_template_of(c, c->forward.old.key.source, server->service, v6);
	return bring_any(c, v6);
}

/* Finds the old forward entry of the connection whose old reply entry is in c->reply.old. */
static __always_inline void find_old_forward(struct carrying *c, const int v6)
{
	struct old_entry *forward = &c->forward.old, *reply = &c->reply.old;
	__u32 index = recipe_server(reply->recipe);
	struct server *server = bpf_map_lookup_elem(&servers, &index);

	forward->raw = 0;
	if (!server)
		return;
	if (is_wide(reply->recipe)) {
		forward->group = reply->hop >> LAYOUT_PLACE_GROUP;
		forward->slot = reply->hop & ((1 << LAYOUT_PLACE_GROUP) - 1);
		if (v6)
			read_old6(forward, c->tick);
		else
			read_old4(forward, c->tick);
		if (!forward->raw)
			return;
		reply_key(&c->look.key, &forward->key, server, forward->recipe, forward->hop);
		if (!is_wide(forward->recipe) || !same_key(&c->look.key, &reply->key))
			forward->raw = 0;
	} else {
		forward_key(&forward->key, &reply->key, server);
		look_up_old(forward, c->tick, v6);
	}
	if (forward->recipe & BIT(RECIPE_REPLY) || recipe_server(forward->recipe) != index)
		forward->raw = 0;
}

__noinline int find_old_forward4(struct carrying *c)
{
	if (c)
		find_old_forward(c, 0);
	return 0;
}

__noinline int find_old_forward6(struct carrying *c)
{
	if (c)
		find_old_forward(c, 1);
	return 0;
}

/* --- packets -------------------------------------------------------------------- */

/* Finds the old forward entry of the connection that the packet in s is of; false if there is none. */
static __always_inline int find_whole(const struct slow *s, struct carrying *c, const int v6)
{
	c->reply.old.key = s->key;
	look_up_old(&c->reply.old, c->tick, v6);
	if (!c->reply.old.raw)
		return 0;
	if (!(c->reply.old.recipe & BIT(RECIPE_REPLY)))
		c->forward.old = c->reply.old;
	else if (v6)
		find_old_forward6(c);
	else
		find_old_forward4(c);
	return !!c->forward.old.raw;
}

/* Brings the connection over that the packet in s is of; CARRY_NOTHING: it is not in the old table. */
static __always_inline enum carried bring_for(struct slow *s, struct carrying *c, const int v6)
{
	c->tick = s->tick;
	if (!find_whole(s, c, v6))
		return CARRY_NOTHING;
	if (is_old_busy(c->forward.old.raw)) {
		await_old(&c->forward.old, v6);
		if (!find_whole(s, c, v6))
			return CARRY_NOTHING;
	}
	return bring_whole(c, v6);
}

__noinline int bring_for4(struct slow *s, struct carrying *c)
{
	return s && c ? bring_for(s, c, 0) : CARRY_NOTHING;
}

__noinline int bring_for6(struct slow *s, struct carrying *c)
{
	return s && c ? bring_for(s, c, 1) : CARRY_NOTHING;
}

/* Brings the template over that the connection which the packet in s may begin would be under. */
static __always_inline int bring_template_for(struct slow *s, struct carrying *c, const int v6)
{
	c->tick = s->tick;
	bring_template_of(c, s->key.source, s->pick.service, v6);
	return 0;
}

__noinline int bring_template_for4(struct slow *s, struct carrying *c)
{
	return s && c ? bring_template_for(s, c, 0) : 0;
}

__noinline int bring_template_for6(struct slow *s, struct carrying *c)
{
	return s && c ? bring_template_for(s, c, 1) : 0;
}

/* Packets that found no entry, while connections come over; and those that were admitted under a template. */
SEC("xdp.frags")
int shunt_carry(struct xdp_md *ctx)
{
	struct slow *s = slow_scratch();
	__u32 index = SCRATCH_PACKETS;
	struct carrying *c = bpf_map_lookup_elem(&carry_scratch, &index);

	if (!s || !c)
		return finish(ctx, EVENT_FAULT_MAP, 0);
	if (s->is_admitted) {
		if (s->is_v6)
			bring_template_for6(s, c);
		else
			bring_template_for4(s, c);
		bpf_tail_call(ctx, &slots, slot_set + SLOT_CREATE);
		return finish(ctx, EVENT_FAULT_MAP, 0);
	}
	if ((s->is_v6 ? bring_for6(s, c) : bring_for4(s, c)) == CARRY_BUSY)
		return finish(ctx, EVENT_DROP_BUSY, 0);
	/* Also if it was not there: another CPU may have brought it over just before. */
	bpf_tail_call(ctx, &slots, slot_set + SLOT_SETTLE);
	return finish(ctx, EVENT_FAULT_MAP, 0);
}

/* --- all the others ------------------------------------------------------------- */

struct bringing {
	__u64 began;
	__u32 first; /* slot, counted through all groups */
	__u32 done;
	__u32 left;
	__u32 carried;
	__u32 lost;
	__u32 expired;
	__u32 limit;
	__u32 what;
};

/* Brings over or drops what is in the old slot that c->forward.old says. */
static __always_inline enum carried bring_slot(struct carrying *c, __u32 what, const int v6)
{
	struct old_entry *old = &c->forward.old;

	if (v6)
		read_old6(old, c->tick);
	else
		read_old4(old, c->tick);
	if (!old->raw)
		return CARRY_NOTHING;
	if (is_template(old->recipe)) {
		c->template.old = *old;
		if (is_over(old->recipe, old->seen, c->tick) && !controlled(old->hop)) {
			if (!(v6 ? free_old6(old) : free_old4(old)))
				return CARRY_NOTHING;
			unbind_connection(recipe_server(old->recipe), STATE_TEMPLATE);
			return CARRY_EXPIRED;
		}
		return bring_any_template(c, v6);
	}
	if (what == CARRY_TEMPLATES)
		return CARRY_NOTHING;
	if (old->recipe & BIT(RECIPE_REPLY)) {
		/* It comes with its connection. One without is a fault's, and ends here. */
		c->reply.old = *old;
		if (v6)
			find_old_forward6(c);
		else
			find_old_forward4(c);
		if (!c->forward.old.raw)
			return (v6 ? free_old6(&c->reply.old) : free_old4(&c->reply.old)) ? CARRY_EXPIRED :
											    CARRY_NOTHING;
		return CARRY_NOTHING;
	}
	if (!is_over(old->recipe, old->seen, c->tick) || is_old_busy(old->raw))
		return bring_any(c, v6);
	find_old_reply(c, v6);
	if (!(v6 ? free_old6(old) : free_old4(old)))
		return CARRY_NOTHING;
	if (v6) {
		free_old6(&c->reply.old);
		write_off6(c);
	} else {
		free_old4(&c->reply.old);
		write_off4(c);
	}
	return CARRY_EXPIRED;
}

#define CLOCK_SLOTS 64 /* after so many empty ones the time is looked at */

static __always_inline long bring_next(__u32 i, struct bringing *b, const int v6)
{
	__u32 at = b->first + i, index = SCRATCH_CONTROL;
	struct carrying *c = bpf_map_lookup_elem(&carry_scratch, &index);
	void *group;
	__u64 *entry;

	b->done = i + 1;
	if (!c)
		return 1;
	c->forward.old.group = at / LAYOUT_SLOTS;
	c->forward.old.slot = at % LAYOUT_SLOTS;
	group = old_group_at(c->forward.old.group, v6);
	if (!group)
		return 1;
	entry = old_entry_at(group, c->forward.old.slot, v6);
	if (!entry)
		return 1;
	if (LOAD(entry + WORDS(v6) + 1)) {
		switch (bring_slot(c, b->what, v6)) {
		case CARRY_DONE:
			b->carried++;
			break;
		case CARRY_LOST:
			b->lost++;
			break;
		case CARRY_EXPIRED:
			b->expired++;
			break;
		default:
			break;
		}
		if (LOAD(entry + WORDS(v6) + 1))
			b->left++;
	} else if (i % CLOCK_SLOTS) {
		return 0;
	}
	return bpf_ktime_get_ns() - b->began >= b->limit;
}

static long bring_next4(__u32 i, struct bringing *b)
{
	return bring_next(i, b, 0);
}

static long bring_next6(__u32 i, struct bringing *b)
{
	return bring_next(i, b, 1);
}

static __always_inline int run_bring(struct carry_args *args, const int v6)
{
	struct bringing b = {
		.began = bpf_ktime_get_ns(), .first = args->first_slot, .limit = args->limit, .what = args->what
	};
	__u32 index = SCRATCH_CONTROL;
	struct carrying *c = bpf_map_lookup_elem(&carry_scratch, &index);

	if (!c)
		return XDP_ABORTED;
	c->tick = now_tick();
	if (v6)
		bpf_loop(args->slots, bring_next6, &b, 0);
	else
		bpf_loop(args->slots, bring_next4, &b, 0);
	args->next_slot = b.first + b.done;
	args->carried = b.carried;
	args->lost = b.lost;
	args->expired = b.expired;
	args->left = b.left;
	return XDP_PASS;
}

SEC("xdp")
int shunt_bring4(struct xdp_md *ctx)
{
	struct carry_args *args = (void *)(long)ctx->data;

	if ((void *)(args + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	return run_bring(args, 0);
}

SEC("xdp")
int shunt_bring6(struct xdp_md *ctx)
{
	struct carry_args *args = (void *)(long)ctx->data;

	if ((void *)(args + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	return run_bring(args, 1);
}

/*
 * Adds to an event's counter, on whatever CPU this runs: what was counted in another
 * map. Atomically: packets interrupt this, and not the addition.
 */
SEC("syscall")
int shunt_add_event(struct event_args *args)
{
	__u32 index = args->event;
	__u64 *counter = bpf_map_lookup_elem(&events, &index);

	if (!counter)
		return -ENOENT;
	__sync_fetch_and_add(counter, args->count);
	return 0;
}

#endif
