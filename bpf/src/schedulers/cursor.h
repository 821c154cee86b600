/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The cursor of rr and wrr: read with the schedule, moved by compare-and-swap. A
 * pick that loses to another CPU's is made again from where that one left it.
 */
#ifndef SHUNT_SCHEDULERS_CURSOR_H
#define SHUNT_SCHEDULERS_CURSOR_H

#include "request.h"

#define CURSOR_TRIES 4

/* Position in the list that the walk goes on from: the one after the last server's. */
static __always_inline __u32 next_position(const struct pick_request *r)
{
	return r->cursor >> CURSOR_POSITION & 0xffff;
}

/* The cursor after the pick of the server before position; 0: the list's head. */
static __always_inline __u64 cursor_at(const struct pick_request *r, __u32 position, __u32 weight)
{
	return (r->cursor & BIT(CURSOR_HALF)) | (__u64)position << CURSOR_POSITION | weight;
}

/*
 * Puts r->next in place of r->cursor; false: another CPU was first, and r has what it
 * left. A change of the scheduler counts as after this pick.
 */
static __always_inline int move_cursor(struct pick_request *r, struct service *service)
{
	__u8 was;

	if (r->is_trial) {
		r->cursor = r->next;
		r->has_moved = 1;
		return 1;
	}
	if (r->next == r->cursor)
		return 1;
	if (__sync_val_compare_and_swap(&service->cursor, r->cursor, r->next) == r->cursor)
		return 1;
	was = r->schedule.scheduler;
	read_schedule(r, service);
	return r->schedule.scheduler != was;
}

#endif
