/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Which server a new connection gets: the one that its client network's template
 * names, or else the scheduler's choice, of which a template is made (kernel:
 * ip_vs_core.c, ip_vs_sched_persist). A template is followed whatever its server's
 * weight and load, but not to one that is suspended. The answer is in struct slow: chosen, method, decided_by, and
 * template, of which the connection is counted already.
 */
#ifndef SHUNT_PERSIST_H
#define SHUNT_PERSIST_H

#include "admit.h"
#include "slow.h"
#include "witness.h"

/* Whether replies by the method come back by us and are rewritten. */
static __always_inline int is_nat(__u32 method)
{
	return method == METHOD_NAT || method == METHOD_FULLNAT;
}

/* The recipe for a server of that method, of a service with these flags. Global: what it may be is not walked for each.
 */
__noinline __u64 with_server(__u64 recipe, __u32 index, __u32 method, __u32 flags)
{
	recipe &= ~((__u64)SERVER_MASK << RECIPE_SERVER | (__u64)METHOD_MASK << RECIPE_METHOD | BIT(RECIPE_WIDE) |
		    BIT(RECIPE_FULLNAT));
	if (method == METHOD_FULLNAT) {
		recipe |= BIT(RECIPE_WIDE) | BIT(RECIPE_FULLNAT);
		method = METHOD_NAT;
	} else if (method == METHOD_NAT && flags & SERVICE_WIDE) {
		recipe |= BIT(RECIPE_WIDE);
	}
	return recipe | (__u64)index << RECIPE_SERVER | (__u64)(method & METHOD_MASK) << RECIPE_METHOD;
}

/* The recipe of a template that names the server. Its connections have the method that the server has then. */
static __always_inline __u64 template_recipe(__u32 index, __u32 method)
{
	return (__u64)STATE_TEMPLATE << RECIPE_STATE | (__u64)index << RECIPE_SERVER |
	       (is_nat(method) ? 0 : (__u64)(method & METHOD_MASK) << RECIPE_METHOD);
}

/* Picks a server that belongs to the service still; 0: none. */
static __always_inline __u32 pick_server(struct pick_request *p, struct service *service, __u32 *method)
{
	__u32 index = pick(p, service);
	struct server *server = bpf_map_lookup_elem(&servers, &index);

	/* A schedule replaced while it was read may name what is another's by now. */
	if (!index || !server || server->life != LIFE_LIVE || server->service != p->service)
		return 0;
	*method = server->method;
	return index;
}

/* A walk over a list of whose servers none was chosen. */
struct resort {
	__u32 list;
	__u32 suspended; /* out: not 0: one would do but for that */
	__u32 others; /* out: not 0: one that is not suspended would do */
};

static long resort_step(__u32 i, struct resort *resort)
{
	struct candidate c = candidate_at(resort->list, i);

	if (!c.server)
		return 0;
	resort->suspended = 1;
	resort->others |= !LOAD(&c.load->unfit);
	return 0;
}

/*
 * Picks a server where none was chosen, if suspended servers are all that is left to
 * choose from: then they are suspended no more, or looked at as if they were not, if this
 * is a trial. Where others are left, and the scheduler does not want them for this client,
 * that stands. Global: the packet's way is short of stack, and it is verified once.
 */
__noinline __u32 relent(struct slow *c)
{
	struct resort resort = {};
	struct service *service;
	__u32 index;

	if (!c || !c->has_suspended)
		return 0;
	resort.list = c->pick.schedule.list | LIST_RELENTS;
	bpf_loop(c->pick.schedule.servers, resort_step, &resort, 0);
	if (!resort.suspended || resort.others)
		return 0;
	index = c->pick.service;
	service = bpf_map_lookup_elem(&services, &index);
	if (!service)
		return 0;
	if (c->is_trial) {
		c->pick.relents = LIST_RELENTS;
	} else {
		count(EVENT_NOTE_SUSPENSIONS_LIFTED);
		pardon(index, 1);
	}
	return pick_server(&c->pick, service, &c->method);
}

/* The scheduler's choice; EVENT_NONE or that there is no server: the stack may have one still. */
static __always_inline enum event schedule_server(struct slow *c, struct service *service)
{
	c->chosen = pick_server(&c->pick, service, &c->method);
	if (!c->chosen)
		c->chosen = relent(c);
	if (!c->chosen)
		return c->pick.flags & SERVICE_MIGRATING ? leave_to_stack(c->pick.flags) : EVENT_ANSWER_NO_SERVER;
	c->decided_by = DECIDED_BY_SCHEDULER;
	return EVENT_NONE;
}

/* Chooses the server of the template found, if it may be followed (kernel: ip_vs_conn.c, ip_vs_check_template). */
static __always_inline int follow_template(struct slow *c)
{
	__u32 index = recipe_server(c->template.recipe);
	struct server *server = bpf_map_lookup_elem(&servers, &index);
	if (!server || server->life != LIFE_LIVE || server->service != c->pick.service ||
	    server->flags & SERVER_DRAINING)
		return 0;
	if (c->pick.flags & SERVICE_EXPIRE_QUIESCENT && !server->offered_weight)
		return 0;
	if (is_suspended(index))
		return 0;
	c->chosen = index;
	c->method = server->method;
	c->decided_by = DECIDED_BY_TEMPLATE;
	return 1;
}

/* A template's counts as they are once the expired connection that a trial would have removed is gone. */
static __always_inline __u32 counts_without_dead(const struct slow *c)
{
	__u32 counts = c->template.hop;

	if (c->dead & BIT(RECIPE_CONTROLLED) && recipe_server(c->dead) == recipe_server(c->template.recipe))
		counts = counts_after(counts, NEWS_ENDED);
	return counts;
}

/* Whether the time of the template found is over, and so the template, unless this is a trial. */
static __always_inline int is_template_over(const struct slow *c, const int v6)
{
	const struct lookup *t = &c->template;

	if (!has_expired(t->recipe, t->seen, c->tick))
		return 0;
	if (c->is_trial)
		return !is_in_use(counts_without_dead(c));
	return v6 ? expire_template6(t->group, t->slot, t->recipe, c->tick) :
		    expire_template4(t->group, t->slot, t->recipe, c->tick);
}

/* The hash of the template's key. Global: inlined, it has the stack of its caller full. */
__noinline __u32 hash_template4(struct slow *c)
{
	return c ? hash_key(&c->template.key, 0) : 0;
}

__noinline __u32 hash_template6(struct slow *c)
{
	return c ? hash_key(&c->template.key, 1) : 0;
}

/* Makes the template, which names the server chosen, with one connection; INSERTED, EXISTS or NO_ROOM. */
static __always_inline enum insertion make_template(struct slow *c, const int v6)
{
	struct insert_request *r = &c->made;
	enum insertion result;

	r->key = c->template.key;
	r->hash = v6 ? hash_template6(c) : hash_template4(c);
	r->recipe = template_recipe(c->chosen, c->method);
	r->tick = r->born = c->tick;
	r->hop = make_counts(1, COUNT_UNKNOWN);
	r->is_trial = c->is_trial;
	result = insert_key(r, v6);
	if (c->is_trial && result == EXISTS)
		result = INSERTED; /* it would have been removed before */
	if (result == INSERTED) {
		if (!c->is_trial)
			bind_connection(c->chosen, STATE_TEMPLATE);
		c->template.recipe = r->recipe;
		c->template.group = r->group;
		c->template.slot = r->slot;
	}
	return result;
}

#define TEMPLATE_TRIES 3

/* Chooses the server by the client's template. Another CPU's template is as good as one's own. */
static __always_inline enum event choose_persistent(struct slow *c, const int v6)
{
	__u32 index = c->pick.service;
	struct service *service = bpf_map_lookup_elem(&services, &index);
	struct lookup *t = &c->template;
	enum insertion result;

	if (!service)
		return EVENT_FAULT_MAP;
	for (int i = 0; i < TEMPLATE_TRIES; i++) {
		look_up_by(t, v6);
		t->recipe = await(t->group, t->slot, t->recipe, v6);
		if (t->recipe & BIT(RECIPE_BUSY))
			return EVENT_DROP_BUSY;
		if (t->recipe && !is_template_over(c, v6)) {
			if (follow_template(c)) {
				if (c->is_trial || (v6 ? hold_template6(t, c->tick) : hold_template4(t, c->tick)))
					return EVENT_NONE;
				continue; /* it was just removed */
			}
			if (!c->is_trial)
				remove_entry(t->group, t->slot, t->recipe, v6);
		}
		t->recipe = 0;
		/* The template may be the stack's: what it gives the client comes here with the others. */
		if (c->pick.flags & SERVICE_MIGRATING)
			return leave_to_stack(c->pick.flags);
		if (c->decided_by != DECIDED_BY_SCHEDULER && schedule_server(c, service) != EVENT_NONE)
			return EVENT_ANSWER_NO_SERVER;
		result = make_template(c, v6);
		if (result != EXISTS)
			return result == INSERTED ? EVENT_NONE : EVENT_DROP_TABLE_FULL;
		count(EVENT_NOTE_INSERT_RACE);
	}
	return EVENT_DROP_BUSY;
}

__noinline int choose_persistent4(struct slow *c)
{
	return c ? choose_persistent(c, 0) : EVENT_FAULT_MAP;
}

__noinline int choose_persistent6(struct slow *c)
{
	return c ? choose_persistent(c, 1) : EVENT_FAULT_MAP;
}

/* Takes back that the connection under c's template has begun; it did not. */
static __always_inline void let_template_go(struct slow *c, const int v6)
{
	if (c->is_trial || !c->template.recipe)
		return;
	if (v6)
		let_template_go6(&c->template);
	else
		let_template_go4(&c->template);
}

#endif
