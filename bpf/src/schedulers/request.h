/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What a scheduler is asked, and what it may look at: the list of servers of the
 * schedule in force, last added first, with the weights offered; their loads; the
 * hash table, if its kind has one. A scheduler is a global function
 *
 *	__u32 pick_NAME(struct pick_request *r)
 *
 * that returns a server's index, 0 for none. It leaves nothing behind that a pick
 * must not change where r->is_trial is set. See README.md.
 */
#ifndef SHUNT_SCHEDULERS_REQUEST_H
#define SHUNT_SCHEDULERS_REQUEST_H

#include "../count.h"
#include "../table.h"

#define MAX_SERVICE_SERVERS 1024

/* With a list's first word: of its servers the suspended ones are looked at too. */
#define LIST_RELENTS UNFIT_SUSPENDED

struct pick_request {
	__u32 service; /* index */
	__u32 client; /* address in host order; IPv6: its words xor-ed first */
	__u32 attempt; /* 0, or how many servers could not be taken for this packet */
	__u32 client_port;
	__u32 destination[4]; /* the virtual address, as on the wire */
	__u32 is_trial; /* nothing may be changed: no cursor moves, no cache learns */
	__u32 flags; /* of the service, at one moment: who is chosen must fit what is made */
	/* read_schedule's, for the scheduler */
	__u32 nothing; /* nobody writes it; see nothing() */
	__u32 has_moved; /* of a trial: the cursor is where its last pick has left it */
	__u32 relents; /* LIST_RELENTS: suspended servers are looked at as others; 0: not at all */
	__u32 pad;
	__u64 cursor; /* as it was when the schedule was read */
	__u64 next; /* rr, wrr: as it is to be after this pick */
	struct schedule schedule;
};

/*
 * 0, but the verifier must not know: whatever a bpf_loop's callback both looks at and
 * changes begins with this. Before Linux 6.7 a callback is verified as if it were
 * called once, and what could not happen at its first call is cut out of it (kernel
 * commit ab5cfac139ab ("bpf: verify callbacks as if they are called unknown number of
 * times")): "none yet" was then true for every server, and the last one won.
 */
static __always_inline __u32 nothing(const struct pick_request *r)
{
	return LOAD(&r->nothing);
}

static __always_inline __u32 load_word(__u32 index)
{
	__u32 *word = bpf_map_lookup_elem(&words, &index);

	return word ? LOAD(word) : 0;
}

/* Fills in which schedule is in force; a trial goes on from where its last pick has come to. */
static __always_inline void read_schedule(struct pick_request *r, const struct service *service)
{
	if (!r->is_trial || !r->has_moved)
		r->cursor = LOAD(&service->cursor);
	/* Masks are not the scheduler's. */
	__builtin_memcpy(&r->schedule, &service->schedule[r->cursor >> CURSOR_HALF & 1],
			 offsetof(struct schedule, client_mask));
	if (r->schedule.servers > MAX_SERVICE_SERVERS)
		r->schedule.servers = MAX_SERVICE_SERVERS;
	r->schedule.list |= r->relents;
}

/* A server of the list that may be given connections. */
struct candidate {
	__u32 server; /* index; 0: it may not */
	__u32 weight; /* not 0 */
	const struct server_load *load;
};

/* Whether a server with that load may be chosen from the list: it is neither overloaded nor suspended. */
static __always_inline int is_fit(const struct server_load *load, __u32 list)
{
	return !(LOAD(&load->unfit) & ~(list & LIST_RELENTS));
}

/* First word of the pair that the list has at a position. */
static __always_inline __u32 pair_at(__u32 list, __u32 position)
{
	return (list + 2 * position) & ~LIST_RELENTS;
}

/* The server at a position of the list, if its weight is not 0 and it is fit. */
static __always_inline struct candidate candidate_at(__u32 list, __u32 position)
{
	__u32 pair = pair_at(list, position), server;
	struct candidate c = { .weight = load_word(pair + 1) };

	if (!c.weight)
		return c;
	server = load_word(pair);
	c.load = bpf_map_lookup_elem(&loads, &server);
	if (c.load && is_fit(c.load, list))
		c.server = server;
	return c;
}

static __always_inline __s64 active_of(const struct server_load *load)
{
	return LOAD(&load->active);
}

/* What a server's connections weigh (kernel 6.1: ip_vs_dest_conn_overhead). */
static __always_inline __s64 overhead_of(const struct server_load *load)
{
	return (LOAD(&load->active) << 8) + LOAD(&load->inactive);
}

/* A server of the service that was not removed; 0 if the index is another's by now. */
static __always_inline const struct server *server_of(const struct pick_request *r, __u32 index)
{
	const struct server *server = bpf_map_lookup_elem(&servers, &index);

	if (!index || !server || server->life != LIFE_LIVE || server->service != r->service)
		return 0;
	return server;
}

/* Whether a server that a table names is there, of a weight, and fit. */
static __always_inline int is_usable(const struct pick_request *r, __u32 index)
{
	const struct server *server = server_of(r, index);
	const struct server_load *load = bpf_map_lookup_elem(&loads, &index);

	return server && load && LOAD(&server->offered_weight) && is_fit(load, r->schedule.list);
}

/* The virtual address as one word in host order, as the kernel's schedulers fold it. */
static __always_inline __u32 fold_destination(const struct pick_request *r)
{
	return bpf_ntohl(r->destination[0] ^ r->destination[1] ^ r->destination[2] ^ r->destination[3]);
}

#endif
