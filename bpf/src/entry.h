/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What lies in the connection tables: groups, entries, and the bits of their words.
 * A part of what Go sees (abi.h), whose rules hold here.
 */
#ifndef SHUNT_ENTRY_H
#define SHUNT_ENTRY_H

#include <linux/bpf.h>
#include <linux/types.h>

#ifdef LAYOUT_NEXT
#include "layout_next.h" /* for tests of upgrades: another layout of entries */
#endif

/*
 * A table is an array of groups. A key belongs to one set of one group; an
 * entry lies in its set or, if that is full, in the group's overflow slots.
 * The first half of a set that is searched depends on the key, so that most
 * hits touch two cache lines.
 */
enum table_shape {
	SETS = 14, /* sets in a group */
	WAYS = 8, /* entries in a set */
	OVERFLOW = 14, /* entries any set of the group may use when it is full */
	SLOTS = SETS * WAYS + OVERFLOW,
};

/*
 * One key of a connection, client to server or server to client, and what to
 * do with its packets. id and recipe carry the same generation while the entry
 * is live: a reader that finds them different met a slot being reused.
 */
struct entry4 {
	__u32 source; /* as on the wire */
	__u32 destination;
	__u64 id; /* ID_* below */
	__u64 recipe; /* RECIPE_* below */
	__u32 seen; /* tick of the last packet, two seconds behind at most; of full NAT's reply entry: see local.h */
	__u32 hop; /* HOP_*: next hop of the packets to the client; 0: by the route. RECIPE_SEQUENCE: see there */
};

struct entry6 {
	__u32 source[4];
	__u32 destination[4];
	__u64 id;
	__u64 recipe;
	__u32 seen;
	__u32 hop;
	__u64 pad;
};

#ifndef LAYOUT_NEXT
enum id_layout {
	ID_PORTS = 0, /* bits 0-31: source and destination port as on the wire */
	ID_PROTOCOL = 32, /* bits 32-39; 0 in a free slot */
	ID_KEY_BITS = 40, /* what is above is no part of the key */
	ID_GENERATION = 40, /* bits 40-55 */
	ID_BORN = 56, /* bits 56-63: the lower half of when it began */
};

enum recipe_layout {
	RECIPE_GENERATION = 0, /* bits 0-15; never 0 in a live entry */
	RECIPE_BORN = 16, /* bits 16-23: the upper half of when it began, see born_layout */
	RECIPE_SERVER = 24, /* bits 24-43: index into servers */
	RECIPE_STATE = 44, /* bits 44-47: enum conn_state */
	RECIPE_METHOD = 48, /* bits 48-49: enum method */
	RECIPE_REPLY = 50, /* set: the key is server to client */
	RECIPE_PROVEN = 51, /* set, and RECIPE_SPACED 0: the client has shown to be real, see proof_layout */
	RECIPE_BUSY = 52, /* set: whoever set it is making or removing the connection */
	RECIPE_CONTROLLED = 53, /* set: made under a template, which counts it */
	RECIPE_WIDE = 54, /* set: NAT by a service of many addresses or ports */
	RECIPE_DOUBT = 55, /* of a template: the last sweep counted other connections under it than it says */
	RECIPE_PROLONGED = 56, /* of a template: it has outlived its timeout, now it is a minute (ip_vs_conn_expire) */
	RECIPE_LOADED = 57, /* set: it began elsewhere, and no packet has changed its recipe since (load.h) */
	RECIPE_SEQUENCE = 58, /* of a forward entry, or of full NAT's reply entry: in place of the client's hop,
				 what the client must acknowledge to prove itself */
	RECIPE_SPACED = 59, /* bits 59-60: see proof_layout */
	RECIPE_COUNTED = 61, /* set: its source network's count has it (limits.h) */
	RECIPE_VALIDATED = 62, /* set: its client had answered the guard before it began (guard.h) */
	RECIPE_KILLED = 63, /* set: its next packets are made resets of (kill.h) */
	RECIPE_TOLD = RECIPE_DOUBT, /* with RECIPE_KILLED, no template's: the packet's other end has been reset */
	RECIPE_FULLNAT = RECIPE_PROLONGED, /* with RECIPE_WIDE, no template's: the client's address is replaced too */
	RECIPE_BOUND = RECIPE_DOUBT, /* without RECIPE_KILLED, no template's: its server is never another (load.h) */
};
#endif

/*
 * When an entry began, in units of 2^BORN_SHIFT ticks, 16 bits of it. The sweep keeps
 * it from wrapping round: no entry is older than BORN_OLDEST.
 */
enum born_layout {
	BORN_SHIFT = 3,
	BORN_HALF_BITS = 8,
	BORN_MASK = 0xffff,
	BORN_OLDEST = 0xd000, /* 25 to 38 hours, by the kernel's HZ: more than a day */
};

/*
 * How far a connection has proven that its client is real; none that has is given up
 * for another. The fast path asks of TCP for RECIPE_PROVEN alone, in the mask by which
 * it compares the state: so a connection whose replies are not seen (all methods but
 * NAT) has that bit from the handshake's last segment on, and RECIPE_SPACED says that
 * this was half a proof, as anybody can send both segments. UDP's is whole by a reply,
 * and firm by a client's packet a second or more after its first, see dispensability.
 */
enum proof_layout {
	SPACED_NONE = 0, /* with RECIPE_PROVEN: proven; UDP without: no packet came a second or more after the last */
	SPACED_FIRST = 1, /* TCP, with RECIPE_PROVEN: half proven; without: service_state.begun has it; UDP, with: by a
			     reply */
	SPACED_LAST = 3, /* two such packets came; one more is the proof: SPACED_NONE, and RECIPE_PROVEN */
	ACK_REACH = 65536, /* how far a client's acknowledgement may be past the number that proves it */
};

/*
 * What a reply entry with RECIPE_WIDE has in place of a next hop: where its forward
 * entry lies, whose key cannot be told from the server.
 */
enum place_layout {
	PLACE_SLOT = 0, /* bits 0-6 */
	PLACE_GROUP = 7, /* bits 7-31 */
};

enum masks {
	GENERATION_MASK = 0xffff,
	FILLED_MASK = 0xffffff, /* of a recipe: what an insert fills in */
	SPACED_MASK = 3,
	SERVER_MASK = 0xfffff,
	STATE_MASK = 0xf,
	METHOD_MASK = 0x3,
};

/*
 * A persistence template is an entry of the same tables: source is the client's
 * network, the first word of destination the service's index, ports are 0, and
 * the protocol is one that no packet has (RFC 3692: for experiments). In place of
 * the next hop it has the connections under it.
 */
enum template_layout {
	PROTOCOL_TEMPLATE = 254,
	TEMPLATE_CONTROLLED = 0, /* bits 0-15 of hop: how many there are; 65535: or more */
	TEMPLATE_RECOUNTED = 16, /* bits 16-31: how many the sweep has met since it met the template; */
	TEMPLATE_COUNT_MASK = 0xffff, /* 65535: one has come or gone since, so that it cannot tell */
};

/*
 * A group begins with a writer's part, which lookups that hit do not touch. The
 * lock is a member of the value itself: kernels before 6.2 look no deeper.
 */
struct group4 {
	struct bpf_spin_lock lock; /* zero when read from user space */
	__u32 generation; /* of the last entry written, 24 bits used */
	__u32 strays; /* live entries in the overflow slots */
	__u32 pad[13];
	struct entry4 slots[SLOTS];
};

struct group6 {
	struct bpf_spin_lock lock;
	__u32 generation;
	__u32 strays;
	__u32 pad[13];
	struct entry6 slots[SLOTS];
	__u64 tail_pad[8];
};

_Static_assert(sizeof(struct entry4) == 32, "ABI");
_Static_assert(sizeof(struct entry6) == 64, "ABI");
_Static_assert(sizeof(struct group4) == 4096, "ABI");
_Static_assert(sizeof(struct group6) == 8192, "ABI");
_Static_assert(SLOTS <= 1 << PLACE_GROUP, "ABI");

/*
 * The kernel's TCP states in the kernel's order (kernel: include/net/ip_vs.h,
 * IP_VS_TCP_S_*), then UDP's only one, then that of templates.
 */
enum conn_state {
	STATE_NONE,
	STATE_ESTABLISHED,
	STATE_SYN_SENT,
	STATE_SYN_RECV,
	STATE_FIN_WAIT,
	STATE_TIME_WAIT,
	STATE_CLOSE,
	STATE_CLOSE_WAIT,
	STATE_LAST_ACK,
	STATE_LISTEN,
	STATE_SYNACK,
	STATE_UDP,
	STATE_TEMPLATE,
	STATES = 16,
};

/* The kernel's numbers (kernel: include/uapi/linux/ip_vs.h, IP_VS_CONN_F_*). */
enum method {
	METHOD_NAT = 0,
	METHOD_LOCAL = 1,
	METHOD_TUNNEL = 2,
	METHOD_DR = 3,
	METHOD_FULLNAT = 5, /* ours; of a server. A recipe has METHOD_NAT and RECIPE_FULLNAT */
};

#endif
