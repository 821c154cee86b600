/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A service's guard: a TCP client has to show that its address is its own before
 * anything is remembered of it. Its first segment is answered with a SYN-ACK whose
 * acknowledgment number is wrong and a cookie: a real client resets what it cannot
 * have asked for, with that number (RFC 9293 §3.10.7.3), which proves that it got it,
 * and sends its SYN again (kernel: net/ipv4/tcp_input.c,
 * tcp_rcv_synsent_state_process: at once; others when their timer runs out). From then
 * on its address passes, for VALID_SECONDS. No packet of a server is needed for it,
 * so that it is the same for all methods.
 *
 * A host that is up answers so even if it has sent no SYN: an invented address that
 * is such a host's passes. Those are few, and limits by source are for them.
 */
#ifndef SHUNT_GUARD_H
#define SHUNT_GUARD_H

#include "answer.h"
#include "siphash.h"
#include "track.h"

#define VALID_SECONDS 600
#define GUARD_SECONDS 10 /* how long GUARD_AUTO stays on after the last window that asks for it */
#define SLOT_SHIFT 6 /* of ticks: a cookie is of a slot of some 16 seconds, and good until the next one ends */
#define ACCEPTABLE 65536 /* more than what a client in SYN-SENT can have sent, a payload included (RFC 7413) */
#define COOKIE_SPARE 0x80000000 /* the bit that is not looked at */

/*
 * The cookie of the client's addresses and ports in the slot of the tick. SipHash of
 * the table hash's one secret that the table does not use: cookies tell nothing of
 * the others. No word is for the length: it is the same for all of a family. What
 * must not be mistaken, the client's address and port, has its own bits. The rest,
 * which a client may choose at will, shares 16 with the part of the slot's number that
 * changes within days: the virtual address, by its bit of the filter, and port.
 */
static __always_inline __u32 cookie(const struct key *key, __u32 tick, const int v6)
{
	__u32 ports = key->id, rest = tick >> SLOT_SHIFT ^ ports >> 16 ^ filter_bit(key->destination, v6);
	__u64 last = (__u64)(rest << 16 | (ports & 0xffff)) << 32, v[4];

	sip_begin(v, seeds[GUARD_SEED]);
	if (v6) {
		sip_word(v, key->source[0] | (__u64)key->source[1] << 32);
		sip_word(v, key->source[2] | (__u64)key->source[3] << 32);
	} else {
		last |= key->source[0];
	}
	sip_word(v, last);
	return sip_end(v);
}

/* Whether the reset in c has the cookie of this slot or of the last one. */
static __always_inline int has_cookie(const struct slow *c, const int v6)
{
	return !((cookie(&c->key, c->tick, v6) ^ c->sequence) & ~COOKIE_SPARE) ||
	       !((cookie(&c->key, c->tick - (1 << SLOT_SHIFT), v6) ^ c->sequence) & ~COOKIE_SPARE);
}

/*
 * When a client last answered whose address has the same bit of the filter: where
 * that is long ago there is none to look for, which costs less.
 */
static __always_inline __u32 *validated_hint(const __u32 *address)
{
	__u32 slot = filter_bit(address, 1); /* the words that IPv4 does not have are zero */

	return bpf_map_lookup_elem(&validated_hints, &slot);
}

static __always_inline int is_valid(const __u32 *since, __u32 tick)
{
	return since && (__s32)(tick - LOAD(since)) < (__s32)(VALID_SECONDS * refresh_ticks);
}

static __always_inline void copy_client(struct client_key *client, const struct slow *c)
{
#pragma unroll
	for (int i = 0; i < 4; i++)
		client->address[i] = c->key.source[i];
}

/*
 * Lets the client of the key pass from now on. Who resets the same answer again and
 * again must not count for many clients; one with several connections resets each,
 * within a moment.
 */
static __always_inline void validate(const struct slow *c)
{
	struct service_state *state = state_of_service(c->pick.service);
	__u32 tick = c->tick, *since;
	struct client_key client;

	copy_client(&client, c);
	since = bpf_map_lookup_elem(&validated, &client);
	if (!is_valid(since, tick)) {
		bpf_map_update_elem(&validated, &client, &tick, BPF_ANY);
		since = validated_hint(client.address);
		if (since)
			STORE(since, tick);
	} else if ((__s32)(tick - *since) > (__s32)(2 * refresh_ticks))
		return;
	if (state)
		__sync_fetch_and_add(&state->validated, 1);
}

/* Whether the reset in c, of a guarded service, answers the guard; its client passes from now on then. */
static __always_inline int answers_guard(const struct slow *c, const int v6)
{
	if (c->is_trial || !has_cookie(c, v6))
		return 0;
	validate(c);
	return 1;
}

__noinline int answers_guard4(struct slow *c)
{
	return c ? answers_guard(c, 0) : 0;
}

__noinline int answers_guard6(struct slow *c)
{
	return c ? answers_guard(c, 1) : 0;
}

/* Whether the tick is before the end of GUARD_AUTO's time; one that is long over is no later one. */
static __always_inline int is_on(__u32 until, __u32 tick)
{
	return until - tick - 1 < GUARD_SECONDS * refresh_ticks;
}

/*
 * GUARD_AUTO's goings on and off, by windows of a second: connections begun and not
 * proven, and first segments answered that no client followed up. Who moves the window
 * on looks at what was in it. A window may be short if that is enough to go on; one
 * in which no packet came for long is as long, and counts by its average.
 */
static __always_inline void watch_flood(const struct service_limits *limit, struct service_state *state, __u32 tick)
{
	__u64 sum = LOAD(&state->begun) - LOAD(&state->proven) + LOAD(&state->challenged) - LOAD(&state->validated);
	__u32 window = LOAD(&state->window), until = LOAD(&state->guard_until), end;
	__u32 elapsed = tick - window, on = is_on(until, tick);
	__s64 grown = sum - LOAD(&state->window_begun);
	__u64 rate = grown < 0 ? 0 : grown;

	/* Another CPU's clock may be a tick ahead. */
	if (window - tick < refresh_ticks || (elapsed < refresh_ticks && (on || rate < limit->guard_on)))
		return;
	if (__sync_val_compare_and_swap(&state->window, window, tick) != window)
		return;
	STORE(&state->window_begun, sum);
	if (elapsed > refresh_ticks)
		rate = rate * refresh_ticks / elapsed;
	if (rate >= (on ? limit->guard_off : limit->guard_on)) {
		end = tick + GUARD_SECONDS * refresh_ticks;
		if (__sync_val_compare_and_swap(&state->guard_until, until, end ? end : 1) == until && !on)
			count(EVENT_NOTE_GUARD_ON);
	} else if (!on && until && __sync_val_compare_and_swap(&state->guard_until, until, 0) == until) {
		count(EVENT_NOTE_GUARD_OFF);
	}
}

/*
 * EVENT_NONE if the guard lets the packet in c begin a connection: it is not on, or
 * the client has answered it before. What begins in the middle, as sloppy-tcp lets it,
 * cannot be answered, so that it has to wait for the guard to go off. Inlined, as
 * limit is.
 */
static __always_inline enum event ask_guard(struct slow *c)
{
	struct client_key client;
	struct service_limits *limit;
	struct service_state *state;
	__u32 index;

	if (!c)
		return EVENT_FAULT_MAP;
	if ((__u8)(c->key.id >> ID_PROTOCOL) != IPPROTO_TCP)
		return EVENT_NONE;
	index = c->pick.service;
	limit = bpf_map_lookup_elem(&limits, &index);
	state = bpf_map_lookup_elem(&service_states, &index);
	if (!limit || !state)
		return EVENT_FAULT_MAP;
	if (limit->guard == GUARD_AUTO) {
		if (!c->is_trial)
			watch_flood(limit, state, c->tick);
		if (!is_on(LOAD(&state->guard_until), c->tick))
			return EVENT_NONE;
	} else if (limit->guard != GUARD_ON) {
		return EVENT_NONE;
	}
	copy_client(&client, c);
	if (is_valid(validated_hint(client.address), c->tick) &&
	    is_valid(bpf_map_lookup_elem(&validated, &client), c->tick)) {
		c->is_validated = 1;
		return EVENT_NONE;
	}
	if ((c->tcp_flags & (TCP_SYN | TCP_RST | TCP_ACK | TCP_FIN)) != TCP_SYN)
		return EVENT_DROP_MIDSTREAM;
	if (!c->is_trial)
		__sync_fetch_and_add(&state->challenged, 1);
	return EVENT_ANSWER_GUARD;
}

/* The headers of the answer. */
struct challenge4 {
	struct iphdr ip;
	struct tcphdr tcp;
};

struct challenge6 {
	struct ipv6hdr ip6;
	struct tcphdr tcp;
};

/* The segment that answers the one in c, its checksum included. */
static __always_inline void write_challenge(__be32 *tcp, const struct slow *c, const int v6)
{
	__u32 number = cookie(&c->key, c->tick, v6), ports = c->key.id;
	const __be32 flags = bpf_htonl(sizeof(struct tcphdr) / 4 << 28 | (TCP_SYN | TCP_ACK) << 16 | 0xffff);
	__u64 sum = bpf_htons(IPPROTO_TCP) + bpf_htons(sizeof(struct tcphdr));

	/* What the client would take for an answer. */
	if (number - c->sequence - 1 < ACCEPTABLE)
		number ^= COOKIE_SPARE;
	ports = ports >> 16 | ports << 16;
	number = bpf_htonl(number);
#pragma unroll
	for (int i = 0; i < (v6 ? 4 : 1); i++)
		sum += (__u64)c->key.source[i] + c->key.destination[i];
	sum += (__u64)ports + flags + number + number;
	tcp[0] = ports;
	tcp[1] = number; /* any: nobody will acknowledge it */
	tcp[2] = number;
	tcp[3] = flags; /* and the largest window there is without options */
	tcp[4] = 0;
	((struct tcphdr *)tcp)->check = ~fold_words(sum);
}

/*
 * Turns the first segment in c round and makes it the guard's answer, in the frame's
 * beginning: it is shorter than what it answers, options and extension headers there
 * may be included. What follows is behind the end that the IP header says.
 */
static __always_inline int challenge(struct xdp_md *ctx, struct slow *c, const int v6)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	void *l3 = data + (c->l3 & 0x1f);
	__be32 *word = l3;
	__u64 sum;

	if (!return_link(data, end, 0, 0))
		return finish(ctx, EVENT_FAULT_MAP, 0);
	if (v6) {
		if (l3 + sizeof(struct challenge6) > end)
			return finish(ctx, EVENT_FAULT_MAP, 0);
		word[0] = bpf_htonl(6 << 28);
		word[1] = bpf_htonl(sizeof(struct tcphdr) << 16 | IPPROTO_TCP << 8 | TIME_TO_LIVE);
#pragma unroll
		for (int i = 0; i < 4; i++) {
			word[2 + i] = c->key.destination[i];
			word[6 + i] = c->key.source[i];
		}
		write_challenge(word + 10, c, v6);
		return end_refused(ctx, c, EVENT_ANSWER_GUARD, XDP_TX);
	}
	if (l3 + sizeof(struct challenge4) > end)
		return finish(ctx, EVENT_FAULT_MAP, 0);
	word[0] = bpf_htonl(PLAIN_IPV4 << 24 | sizeof(struct challenge4));
	word[1] = bpf_htonl(IP_DF);
	word[2] = bpf_htonl(TIME_TO_LIVE << 24 | IPPROTO_TCP << 16);
	sum = (__u64)word[0] + word[1] + word[2] + c->key.source[0] + c->key.destination[0];
	((struct iphdr *)l3)->check = ~fold_words(sum);
	word[3] = c->key.destination[0];
	word[4] = c->key.source[0];
	write_challenge(word + 5, c, v6);
	return end_refused(ctx, c, EVENT_ANSWER_GUARD, XDP_TX);
}

__noinline int challenge4(struct xdp_md *ctx, struct slow *c)
{
	return c ? challenge(ctx, c, 0) : XDP_DROP;
}

__noinline int challenge6(struct xdp_md *ctx, struct slow *c)
{
	return c ? challenge(ctx, c, 1) : XDP_DROP;
}

#endif
