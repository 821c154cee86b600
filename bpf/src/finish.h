/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Where packets end: each that is passed is counted by its event, each other also by
 * interface and service, in a row of the map drops that only this CPU writes. A CPU
 * does not do that at two places at once: packets are received in softirqs, which do
 * not nest, and test runs keep those off (kernel: net/core/dev.c, net/bpf/test_run.c).
 *
 * A flood ends for one reason: which row was last, and of what, is noted. The note
 * is also how bpf/capture knows what has become of a packet: it clears the key
 * before the packet, and whatever ends here leaves its own.
 */
#ifndef SHUNT_FINISH_H
#define SHUNT_FINISH_H

#include "slow.h"

/* What the rows tell apart, of a packet of the service with that index; 0: none is known. */
static __always_inline __u64 drop_key(const struct xdp_md *ctx, __u32 event, __u32 service)
{
	return (__u64)ctx->ingress_ifindex << DROP_INTERFACE | service << DROP_SERVICE | event;
}

/* The row of the note, if that is of the key. */
static __always_inline struct drop_row *noted_row(const struct drop_note *note, __u64 key)
{
	__u32 index = note->row;

	return note->key == key ? bpf_map_lookup_elem(&drops, &index) : 0;
}

/*
 * Has the note be of the key, which takes a free row of the CPU's if it has none; false
 * if there is no room. Global: verified once.
 */
__noinline int seek_drop_row(struct drop_note *note, __u64 key)
{
	__u32 first = bpf_get_smp_processor_id() * DROP_ROWS, at = key * 0x9e3779b97f4a7c15ULL >> 32;

	if (!note)
		return 0;
	note->key = key;
	for (int i = 0; i < DROP_TRIES; i++) {
		__u32 index = first + ((at + i) & (DROP_ROWS - 1));
		struct drop_row *row = bpf_map_lookup_elem(&drops, &index);

		if (!row)
			return 0;
		if (!row->key)
			row->key = key;
		note->row = index;
		if (row->key == key)
			return 1;
	}
	/* One that there is not: the next of the key seeks again. */
	note->row = ~0;
	return 0;
}

/* Counts where a packet ended, and why. Global: verified once. */
__noinline int note_drop(struct xdp_md *ctx, __u32 event, __u32 service)
{
	struct slow *s = slow_scratch();
	__u64 key = drop_key(ctx, event, service);
	struct drop_row *row;

	if (!s)
		return 0;
	row = noted_row(&s->drop, key);
	if (!row && seek_drop_row(&s->drop, key))
		row = noted_row(&s->drop, key);
	if (!row) {
		count(EVENT_NOTE_DROPS_UNLISTED);
		count(event);
		return 0;
	}
	row->packets += 1;
	row->bytes += bpf_xdp_get_buff_len(ctx);
	return 0;
}

/* The XDP action that an event implies. */
static __always_inline int action_of(__u32 event)
{
	if (event < EVENT_DROPS)
		return XDP_PASS;
	return event >= EVENT_ANSWERS && event < EVENT_NOTES ? XDP_TX : XDP_DROP;
}

/*
 * Counts an event and says what it makes of the packet: with end_refused, the only way
 * out. service is the index of the one that the packet was for; 0: none is known. What
 * the rows count, events does not (EventCounts in bpf/events.go adds them).
 */
static __always_inline int finish(struct xdp_md *ctx, __u32 event, __u32 service)
{
	if (event < EVENT_DROPS)
		count(event);
	else
		note_drop(ctx, event, service);
	return action_of(event);
}

/* The service of a connection, by its recipe; 0: its server is gone. Global: verified once. */
__noinline int service_with(__u64 recipe)
{
	__u32 index = recipe_server(recipe);
	struct server *server = bpf_map_lookup_elem(&servers, &index);

	return server ? server->service : 0;
}

/*
 * As finish, of the packet in s, for what comes in floods: inlined, and cheap while the
 * last one ended so too. action is the event's, if it has a row.
 */
static __always_inline int end_refused(struct xdp_md *ctx, const struct slow *s, __u32 event, const int action)
{
	struct drop_row *row = noted_row(&s->drop, drop_key(ctx, event, s->pick.service));
	__u64 length = ctx->data_end - ctx->data;

	/* The rest of a frame in several buffers is not between the two. */
	if (!row || length < s->length)
		return finish(ctx, event, s->pick.service);
	row->packets += 1;
	row->bytes += length;
	return action;
}

#endif
