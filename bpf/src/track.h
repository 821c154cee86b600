/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The states of a connection. Tables as in the kernel (kernel:
 * net/netfilter/ipvs/ip_vs_proto_tcp.c, tcp_states); conntrack/tcp.go has the
 * same and a test compares them.
 */
#ifndef SHUNT_TRACK_H
#define SHUNT_TRACK_H

#include "proof.h"
#include "witness.h"

enum direction {
	DIRECTION_INPUT, /* from the client, replies are seen too (NAT) */
	DIRECTION_OUTPUT, /* from the server */
	DIRECTION_INPUT_ONLY, /* from the client, replies are not seen */
	DIRECTIONS,
};

enum tcp_event {
	TCP_EVENT_SYN,
	TCP_EVENT_FIN,
	TCP_EVENT_ACK,
	TCP_EVENT_RST,
	TCP_EVENTS,
};

#define NO STATE_NONE
#define ES STATE_ESTABLISHED
#define SS STATE_SYN_SENT
#define SR STATE_SYN_RECV
#define FW STATE_FIN_WAIT
#define TW STATE_TIME_WAIT
#define CL STATE_CLOSE
#define CW STATE_CLOSE_WAIT
#define LA STATE_LAST_ACK
#define LI STATE_LISTEN
#define SA STATE_SYNACK

/* Next state by direction, event and state; states in the order of enum conn_state. */
static const __u8 tcp_next[DIRECTIONS][TCP_EVENTS][STATES] = {
	[DIRECTION_INPUT] = {
		/*                   NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA */
		[TCP_EVENT_SYN] = { SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR },
		[TCP_EVENT_FIN] = { CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW },
		[TCP_EVENT_ACK] = { ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES },
		[TCP_EVENT_RST] = { CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR },
	},
	[DIRECTION_OUTPUT] = {
		[TCP_EVENT_SYN] = { SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR },
		[TCP_EVENT_FIN] = { TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW },
		[TCP_EVENT_ACK] = { ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES },
		[TCP_EVENT_RST] = { CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL },
	},
	[DIRECTION_INPUT_ONLY] = {
		[TCP_EVENT_SYN] = { SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR },
		[TCP_EVENT_FIN] = { CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW },
		[TCP_EVENT_ACK] = { ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES },
		[TCP_EVENT_RST] = { CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL },
	},
};

#undef NO
#undef ES
#undef SS
#undef SR
#undef FW
#undef TW
#undef CL
#undef CW
#undef LA
#undef LI
#undef SA

static __always_inline __u32 next_tcp_state(enum direction direction, __u8 flags, __u32 state)
{
	enum tcp_event event;

	if (flags & TCP_RST)
		event = TCP_EVENT_RST;
	else if (flags & TCP_SYN)
		event = TCP_EVENT_SYN;
	else if (flags & TCP_FIN)
		event = TCP_EVENT_FIN;
	else if (flags & TCP_ACK)
		event = TCP_EVENT_ACK;
	else
		return STATE_CLOSE;
	if (direction == DIRECTION_INPUT)
		return tcp_next[DIRECTION_INPUT][event][state & STATE_MASK];
	if (direction == DIRECTION_OUTPUT)
		return tcp_next[DIRECTION_OUTPUT][event][state & STATE_MASK];
	return tcp_next[DIRECTION_INPUT_ONLY][event][state & STATE_MASK];
}

/*
 * The recipe of a forward entry after a packet. acked: it is a client's, and
 * acknowledges what its server has sent.
 */
static __always_inline __u64 advance(__u64 recipe, enum direction direction, __u8 flags, int spaced, int acked)
{
	__u32 state = recipe_state(recipe);

	if (state == STATE_UDP) {
		if (is_firm(recipe))
			return recipe;
		if (direction == DIRECTION_OUTPUT)
			return prove_by_reply(recipe);
		return spaced ? prove_by_time(recipe) : recipe;
	}
	state = next_tcp_state(direction, flags, state);
	recipe = with_state(recipe, state);
	if (is_proven(recipe))
		return recipe;
	if (acked)
		return prove(recipe);
	if (direction != DIRECTION_INPUT_ONLY || state != STATE_ESTABLISHED)
		return recipe;
	if (!(recipe & BIT(RECIPE_PROVEN)))
		return prove_half(recipe);
	return spaced ? prove_by_time(recipe) : recipe;
}

/* Moves the server's count of one connection from one state to another. */
static __always_inline void move_count(__u64 from, __u64 to)
{
	struct server_load *load;

	if (is_active(recipe_state(from)) == is_active(recipe_state(to)))
		return;
	load = load_of(recipe_server(from));
	if (!load)
		return;
	add_load(load, recipe_state(from), -1);
	add_load(load, recipe_state(to), 1);
}

enum settled {
	SETTLED, /* go on with found as it is now */
	SETTLED_DEAD, /* the connection has expired and is gone: a miss */
	SETTLED_BUSY, /* claimed by another CPU */
	SETTLED_KILLED, /* it was killed: kill.h's; SETTLED, but for the state */
};

/* The entry a lookup found, or 0. */
static __always_inline __u64 *entry_of(const struct lookup *l, const int v6)
{
	void *group = group_at(l->group, v6);

	return group ? entry_at(group, l->slot, v6) : 0;
}

/* Gives a reply entry the forward entry's state and proof. */
static __always_inline void mirror(const struct lookup *reply, __u64 forward, __u32 tick, const int v6)
{
	__u64 recipe = with_state(reply->recipe, recipe_state(forward));
	__u64 *entry = entry_of(reply, v6);

	if (!entry)
		return;
	if (forward & BIT(RECIPE_PROVEN))
		recipe = with_spaced(recipe, spaced_of(forward)) | BIT(RECIPE_PROVEN);
	if (recipe != reply->recipe)
		/* Lost to another packet of the connection: that one's state stands. */
		change(entry, reply->recipe, recipe, v6);
	if (tick && !has_hop_for_seen(reply->recipe))
		STORE((__u32 *)(entry + WORDS(v6) + 2), tick);
}

/*
 * The last-seen that a packet leaves in the forward entry. A reply's is a second
 * early where the timeout allows: the client's next packet then still counts as
 * spaced and shows its next hop. Else a server whose packets come just before
 * the client's would hide that the client's router is another.
 */
static __always_inline __u32 seen_after(const struct lookup *forward, const struct server *server,
					enum direction direction, __u32 tick)
{
	__u32 early = tick - refresh_ticks;

	if (direction != DIRECTION_OUTPUT || timeout_at(server, forward->recipe) <= 2 * refresh_ticks)
		return tick;
	return (__s32)(forward->seen - early) > 0 ? forward->seen : early;
}

/*
 * As acknowledges, of the client's segment in r by full NAT: the number is the reply
 * entry's. It is one only if the recipe says so before and after it was read.
 */
static __always_inline int acknowledges_reply(struct slow *r, const int v6)
{
	const __u64 same = GENERATION_MASK | BIT(RECIPE_SEQUENCE);
	struct lookup *reply = &r->other;
	__u64 *entry, recipe;
	__u32 sequence;

	if ((r->tcp_flags & (TCP_SYN | TCP_RST | TCP_ACK)) != TCP_ACK)
		return 0;
	look_up_reply(reply, &r->key, r->hit.recipe, r->hit.hop, v6);
	if (!reply->recipe)
		return 0;
	entry = entry_of(reply, v6);
	if (!entry)
		return 0;
	recipe = LOAD(entry + WORDS(v6) + 1);
	if ((recipe ^ reply->recipe) & GENERATION_MASK || !(recipe & BIT(RECIPE_SEQUENCE)))
		return 0;
	order();
	sequence = LOAD(entry + WORDS(v6) + 2);
	order();
	return r->acknowledged - sequence < ACK_REACH && !((LOAD(entry + WORDS(v6) + 1) ^ recipe) & same);
}

__noinline int acknowledges_reply4(struct slow *r)
{
	return r ? acknowledges_reply(r, 0) : 0;
}

__noinline int acknowledges_reply6(struct slow *r)
{
	return r ? acknowledges_reply(r, 1) : 0;
}

/* Runs a packet through the forward entry's state; false if somebody removes the connection. */
static __always_inline int transit(struct slow *r, struct lookup *forward, const struct server *server,
				   enum direction direction, int spaced, const int v6)
{
	__u64 *entry = entry_of(forward, v6);
	int by_reply = 0;

	if (!entry)
		return 0;
	if (direction == DIRECTION_INPUT && is_full_nat(forward->recipe) && !(forward->recipe & BIT(RECIPE_PROVEN)))
		by_reply = v6 ? acknowledges_reply6(r) : acknowledges_reply4(r);
	for (int i = 0; i < CHANGE_TRIES; i++) {
		__u64 old = forward->recipe, new;
		int acked = direction == DIRECTION_INPUT &&
			    (by_reply || acknowledges(entry + WORDS(v6) + 1, old, r->tcp_flags, r->acknowledged));

		new = advance(old, direction, r->tcp_flags, spaced, acked);
		if (new == old)
			break;
		new &= ~BIT(RECIPE_LOADED);
		if (change(entry, old, new, v6)) {
			forward->recipe = new;
			move_count(old, new);
			if (new & ~old & BIT(RECIPE_PROVEN)) {
				count_proof(server, old);
				announce(forward->group, forward->slot, new, NEWS_ESTABLISHED, v6);
			}
			/* Kernel: ip_vs_conn.c, ip_vs_control_assure_ct. */
			if (is_firm(new) && !is_firm(old))
				tell(forward->group, forward->slot, new, NEWS_PROVEN, v6);
			break;
		}
		forward->recipe = LOAD(entry + WORDS(v6) + 1);
		if ((forward->recipe ^ old) & GENERATION_MASK || forward->recipe & BIT(RECIPE_BUSY))
			return 0;
		/* Contended past all tries: the other packets' states stand. */
	}
	STORE((__u32 *)(entry + WORDS(v6) + 2), seen_after(forward, server, direction, r->tick));
	return 1;
}

/*
 * Whether a client's first segment is scheduled anew although there is a
 * connection: it is over, or its server is not to have any (kernel: ip_vs_core.c,
 * ip_vs_in, is_new_conn and is_new_conn_expected). A draining server has the
 * strict rule, expire_nodest_conn, whatever its service has.
 */
static __always_inline int is_reuse(__u64 recipe, const struct server *server, __u8 tcp_flags)
{
	__u32 over = 1 << STATE_TIME_WAIT | 1 << STATE_CLOSE, rules;

	if (!(tcp_flags & TCP_SYN) || recipe & BIT(RECIPE_BOUND))
		return 0;
	rules = rules_of(server);
	if (server->flags & SERVER_DRAINING)
		rules |= SERVICE_EXPIRE_NODEST;
	if (rules & SERVICE_EXPIRE_NODEST && !server->offered_weight)
		return 1; /* whatever conn_reuse_mode is */
	if (rules & SERVICE_REUSE_NEVER)
		return 0;
	if (recipe & BIT(RECIPE_CONTROLLED))
		return 0;
	if (rules & SERVICE_REUSE_FIN_WAIT && recipe_method(recipe) != METHOD_NAT)
		over |= 1 << STATE_FIN_WAIT;
	return over >> recipe_state(recipe) & 1;
}

/* The end of an expired connection that a packet has met; a trial notes it and leaves it there. */
static __always_inline enum settled bury(struct slow *r, const struct lookup *forward, const int v6)
{
	if (r->is_trial) {
		r->dead = forward->recipe;
		return SETTLED_DEAD;
	}
	count(EVENT_NOTE_EXPIRED_HIT);
	return remove_entry(forward->group, forward->slot, forward->recipe, v6) ? SETTLED_DEAD : SETTLED_BUSY;
}

/*
 * The end of a connection that a client's packet may not go on with. It is counted
 * until there is another: the kernel's ends by a timer, after the packet (kernel:
 * ip_vs_core.c, ip_vs_in, ip_vs_conn_expire_now).
 */
static __always_inline enum settled replace(struct slow *r, const struct lookup *forward, const int v6)
{
	if (!r->is_virtual && !r->is_trial)
		return remove_entry(forward->group, forward->slot, forward->recipe, v6) ? SETTLED_DEAD : SETTLED_BUSY;
	r->old = forward->recipe;
	r->old_group = forward->group;
	r->old_slot = forward->slot;
	return SETTLED_DEAD;
}

/* As keep_up, by full NAT: the reply entry alone has the hop, or the sequence in its place. */
static __always_inline void keep_up_full_nat(struct slow *r, const struct lookup *forward, __u32 hop, const int v6)
{
	struct lookup *reply = &r->other;
	int is_kept;

	look_up_reply(reply, &r->key, forward->recipe, forward->hop, v6);
	if (!reply->recipe)
		return;
	mirror(reply, forward->recipe, 0, v6);
	is_kept = !!(reply->recipe & BIT(RECIPE_SEQUENCE));
	if (is_kept && !(forward->recipe & BIT(RECIPE_PROVEN)) && !(r->tcp_flags & TCP_SYN))
		return;
	if (!is_kept && (!hop || hop == reply->seen))
		return;
	set_hop(reply, hop, v6);
	if (!is_kept)
		count(EVENT_NOTE_HOP_CHANGED);
}

/*
 * After a client's packet by NAT, which has changed the recipe from before: its reply
 * entry follows, and both have the hop that leads to where it came from. While the
 * forward entry has a sequence the reply entry alone has the hop, or nobody if the
 * connection is wide: there a first segment, which the server answers with the
 * sequence once more, puts it back.
 */
static __always_inline void keep_up(struct slow *r, struct lookup *forward, __u64 before, const int v6)
{
	__u64 recipe = forward->recipe, is_kept = recipe & BIT(RECIPE_SEQUENCE);
	__u32 hop = learn_hop(&r->link), known = forward->hop;
	struct lookup *reply = &r->other;
	int has_hop, has_changed;

	if (is_full_nat(recipe)) {
		keep_up_full_nat(r, forward, hop, v6);
		return;
	}
	if (recipe == before && !is_kept && (!hop || hop == known))
		return;
	look_up_reply(reply, &r->key, recipe, forward->hop, v6);
	if (reply->recipe)
		mirror(reply, recipe, 0, v6);
	has_hop = reply->recipe && !has_place(reply->recipe);
	if (is_kept)
		known = has_hop ? reply->hop : hop;
	has_changed = hop && hop != known;
	if (!hop)
		hop = known;
	if (has_changed && has_hop)
		set_hop(reply, hop, v6);
	if (is_kept ? recipe & BIT(RECIPE_PROVEN) || (is_wide(recipe) && r->tcp_flags & TCP_SYN) : has_changed)
		set_hop(forward, hop, v6);
	if (has_changed)
		count(EVENT_NOTE_HOP_CHANGED);
}

/* The hop of the replies to the client, as the entries that were found have it. */
static __always_inline __u32 hop_of_reply(const struct lookup *reply, const struct lookup *forward)
{
	if (has_hop_for_seen(reply->recipe))
		return reply->recipe & BIT(RECIPE_SEQUENCE) ? 0 : reply->seen;
	if (!has_place(reply->recipe))
		return reply->hop;
	return forward->recipe & BIT(RECIPE_SEQUENCE) ? 0 : forward->hop;
}

/*
 * What a packet tells of the server of its connection, which had this recipe before the
 * packet and is in r after it. A client waits a second before it sends its first segment
 * again (RFC 6298 §2.1); a tick less, as both readings of the clock are of the ticks'
 * beginnings. The first segment that a loaded entry sees is no repetition: it is that of a
 * probe of the director's own, which has its entry before. By full NAT the reply entry knows
 * that the server has begun the handshake.
 * Global: verified once.
 */
__noinline int testify(struct slow *r, __u64 recipe, __u32 is_reply)
{
	__u64 noted = recipe;
	__u8 flags;

	if (!r || recipe_state(recipe) != STATE_SYN_RECV)
		return 0;
	if (is_full_nat(recipe))
		noted = is_reply ? r->hit.recipe : r->other.recipe;
	if (!noted || noted & BIT(RECIPE_SEQUENCE))
		return 0;
	flags = r->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK);
	if (is_reply && flags == (TCP_RST | TCP_ACK))
		witness(recipe_server(recipe), EVIDENCE_RESET);
	if (!is_reply && flags == TCP_SYN && !(recipe & BIT(RECIPE_LOADED)) &&
	    (__s32)(r->tick - r->hit.seen) >= (__s32)refresh_ticks - 1)
		witness(recipe_server(recipe), EVIDENCE_UNANSWERED);
	return 0;
}

/*
 * All that a hit may need beyond following the recipe: expiry, the state, proof,
 * the time of the last packet, the client's next hop. The forward entry has the
 * last word; the reply entry is given what the fast path needs of it.
 */
static __always_inline enum settled settle(struct slow *r, const int v6)
{
	struct lookup *hit = &r->hit, *other = &r->other, *forward = hit;
	enum direction direction = DIRECTION_INPUT_ONLY;
	struct server *server;
	int is_reply, spaced;
	__u64 recipe;
	__u32 index;

	hit->key = r->key;
	look_up_by(hit, v6);
	if (!hit->recipe)
		return SETTLED_DEAD;
	is_reply = !!(hit->recipe & BIT(RECIPE_REPLY));
	spaced = (__s32)(r->tick - hit->seen) >= (__s32)refresh_ticks;
	if (is_reply) {
		direction = DIRECTION_OUTPUT;
		look_up_forward(other, &r->key, hit->recipe, hit->hop, v6);
		forward = other;
	} else if (recipe_method(hit->recipe) == METHOD_NAT) {
		direction = DIRECTION_INPUT;
	}
	if (forward->recipe & BIT(RECIPE_BUSY)) {
		if (v6)
			await_entry6(forward);
		else
			await_entry4(forward);
	}
	if (!forward->recipe)
		return SETTLED_DEAD;
	if (forward->recipe & BIT(RECIPE_BUSY))
		return SETTLED_BUSY;
	index = recipe_server(forward->recipe);
	server = bpf_map_lookup_elem(&servers, &index);
	if (is_longer(timeout_at(server, forward->recipe), forward->seen, r->tick))
		return bury(r, forward, v6);
	if (forward->recipe & BIT(RECIPE_KILLED) && !is_reply && r->tcp_flags & TCP_SYN)
		return replace(r, forward, v6);
	if (forward->recipe & BIT(RECIPE_KILLED) && !r->is_trial) {
		r->recipe = hit->recipe;
		r->hop = hop_of_reply(hit, forward);
		r->local = forward->hop;
		return SETTLED_KILLED;
	}
	if (!is_reply && server && (is_reuse(forward->recipe, server, r->tcp_flags) || is_forsaken(server)))
		return replace(r, forward, v6);
	if (!server || server->life != LIFE_LIVE || r->is_trial) {
		/* Without a server its packets are dropped and must not keep it: kernel ip_vs_core.c, ip_vs_in. */
		r->recipe = hit->recipe;
		r->hop = hit->hop;
		return SETTLED;
	}
	recipe = forward->recipe;
	if (r->tcp_flags & TCP_SYN)
		r->mss = mss_of(server);
	r->hop = hop_of_reply(hit, forward);
	r->local = forward->hop;
	if (!transit(r, forward, server, direction, spaced, v6))
		return SETTLED_BUSY;
	if (is_reply) {
		mirror(hit, forward->recipe, r->tick, v6);
		note_sequence(r, forward, v6);
		r->recipe = hit->recipe;
	} else {
		r->recipe = forward->recipe;
		if (direction == DIRECTION_INPUT)
			keep_up(r, forward, recipe, v6);
	}
	if (r->tcp_flags & (TCP_SYN | TCP_RST))
		testify(r, recipe, is_reply);
	return SETTLED;
}

__noinline int settle4(struct slow *r)
{
	return r ? settle(r, 0) : SETTLED_DEAD;
}

__noinline int settle6(struct slow *r)
{
	return r ? settle(r, 1) : SETTLED_DEAD;
}

#endif
