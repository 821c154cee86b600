/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Proof that a connection's client is real and has not lent its address to a flood
 * (entry.h, proof_layout). Of TCP by NAT it is the client's acknowledgement of the
 * server's own sequence number: until then, the forward entry (by full NAT, the reply
 * entry) has that number in place of the hop. Of UDP it is a reply, which another packet a second later makes
 * firm, or several packets spaced in time. Where
 * replies are not seen the handshake's last segment is half of it, and all of it if
 * the guard had answered the client. conntrack/proof.go says the same.
 */
#ifndef SHUNT_PROOF_H
#define SHUNT_PROOF_H

#include "slow.h"

static __always_inline __u32 spaced_of(__u64 recipe)
{
	return recipe >> RECIPE_SPACED & SPACED_MASK;
}

static __always_inline __u64 with_spaced(__u64 recipe, __u32 n)
{
	return (recipe & ~((__u64)SPACED_MASK << RECIPE_SPACED)) | (__u64)n << RECIPE_SPACED;
}

static __always_inline __u64 prove(__u64 recipe)
{
	return with_spaced(recipe, SPACED_NONE) | BIT(RECIPE_PROVEN);
}

/* Of a connection whose replies are not seen, at the end of its handshake. */
static __always_inline __u64 prove_half(__u64 recipe)
{
	return with_spaced(recipe, recipe & BIT(RECIPE_VALIDATED) ? SPACED_NONE : SPACED_FIRST) | BIT(RECIPE_PROVEN);
}

/*
 * Of a UDP connection, by a packet from its server. What was sent in a client's name is
 * answered too: until the client sends another packet, a second later, it can be given up.
 */
static __always_inline __u64 prove_by_reply(__u64 recipe)
{
	if (recipe & BIT(RECIPE_PROVEN))
		return recipe;
	return with_spaced(recipe, spaced_of(recipe) ? SPACED_NONE : SPACED_FIRST) | BIT(RECIPE_PROVEN);
}

/* After a client's packet that came a second or more after the last. */
static __always_inline __u64 prove_by_time(__u64 recipe)
{
	__u32 n = spaced_of(recipe);

	if (n == SPACED_LAST || (recipe_state(recipe) == STATE_UDP && recipe & BIT(RECIPE_PROVEN)))
		return prove(recipe);
	return with_spaced(recipe, (n ? n : SPACED_FIRST) + 1);
}

/*
 * Whether a client's segment acknowledges what is in the hop word of its forward
 * entry, whose recipe was read from in_entry: read after that, see write_hop. By
 * full NAT it is elsewhere: acknowledges_reply.
 */
static __always_inline int acknowledges(const __u64 *in_entry, __u64 recipe, __u8 tcp_flags, __u32 ack)
{
	__u32 sequence;

	if (!(recipe & BIT(RECIPE_SEQUENCE)) || (tcp_flags & (TCP_SYN | TCP_RST | TCP_ACK)) != TCP_ACK)
		return 0;
	order();
	sequence = LOAD(in_entry + 1) >> 32;
	return ack - sequence < ACK_REACH;
}

/* Counts the proof of a TCP connection, the half one too, that had the recipe old, if its beginning was counted. */
static __always_inline void count_proof(const struct server *server, __u64 old)
{
	struct service_state *state;

	if (!spaced_of(old) || recipe_state(old) == STATE_UDP)
		return;
	state = state_of_service(server->service);
	if (state)
		__sync_fetch_and_add(&state->proven, 1);
}

/*
 * Writes the hop word of the entry that l has found (of a reply entry of full NAT, the
 * seen word, which has the hop there), unless its slot has been reused
 * or is claimed: a hop, or what the client must acknowledge. A reader that finds
 * RECIPE_SEQUENCE and reads the word after it has a number: the word is written
 * before the bit is set and after it is cleared.
 */
static __always_inline void write_hop(const struct lookup *l, __u32 word, const int is_sequence, const int v6)
{
	struct group_head *head = group_at(l->group, v6);
	__u32 *hop, before;
	__u64 *entry;

	if (!head)
		return;
	entry = entry_at(head, l->slot, v6);
	if (!entry)
		return;
	hop = (__u32 *)(entry + WORDS(v6) + 2) + !has_hop_for_seen(l->recipe);
	bpf_spin_lock(&head->lock);
	before = LOAD(hop);
	for (int i = 0; i < CHANGE_TRIES; i++) {
		__u64 old = LOAD(entry + WORDS(v6) + 1);

		if ((old ^ l->recipe) & GENERATION_MASK || old & BIT(RECIPE_BUSY))
			break;
		if (!is_sequence) {
			if (old & BIT(RECIPE_SEQUENCE) && !change(entry, old, old & ~BIT(RECIPE_SEQUENCE), v6))
				continue;
			order();
			STORE(hop, word);
			break;
		}
		if (old & BIT(RECIPE_PROVEN))
			break;
		STORE(hop, word);
		order();
		if (old & BIT(RECIPE_SEQUENCE) || change(entry, old, old | BIT(RECIPE_SEQUENCE), v6))
			break;
		STORE(hop, before);
	}
	bpf_spin_unlock(&head->lock);
}

__noinline int set_hop4(struct lookup *l, __u32 hop)
{
	if (l)
		write_hop(l, hop, 0, 0);
	return 0;
}

__noinline int set_hop6(struct lookup *l, __u32 hop)
{
	if (l)
		write_hop(l, hop, 0, 1);
	return 0;
}

__noinline int set_sequence4(struct lookup *l, __u32 sequence)
{
	if (l)
		write_hop(l, sequence, 1, 0);
	return 0;
}

__noinline int set_sequence6(struct lookup *l, __u32 sequence)
{
	if (l)
		write_hop(l, sequence, 1, 1);
	return 0;
}

static __always_inline void set_hop(struct lookup *l, __u32 hop, const int v6)
{
	if (v6)
		set_hop6(l, hop);
	else
		set_hop4(l, hop);
}

/*
 * Notes what the client of an unproven connection must acknowledge, by a segment from
 * its server: the beginning of a handshake, or the first of a connection that began
 * before the table had it. The latest handshake counts; a reset acknowledges nothing.
 * The forward entry has it, or by full NAT the one that the segment has hit.
 */
static __always_inline void note_sequence(struct slow *r, struct lookup *forward, const int v6)
{
	struct lookup *at = is_full_nat(forward->recipe) ? &r->hit : forward;
	__u32 sequence = r->sequence;

	if (forward->recipe & BIT(RECIPE_PROVEN) || r->protocol != IPPROTO_TCP ||
	    (r->tcp_flags & (TCP_RST | TCP_ACK)) != TCP_ACK)
		return;
	if (r->tcp_flags & TCP_SYN)
		sequence++;
	else if (at->recipe & BIT(RECIPE_SEQUENCE))
		return;
	if (v6)
		set_sequence6(at, sequence);
	else
		set_sequence4(at, sequence);
}

#endif
