/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What Go sees of odd packets: who is answered by ICMP, what becomes of fragments, and
 * what is counted and kept of drops. A part of abi.h, which includes it; byte orders
 * and the rules of the layout are said there.
 */
#ifndef SHUNT_ABI_ODD_H
#define SHUNT_ABI_ODD_H

/* --- ICMP and fragments --------------------------------------------------------- */

/* Key of the trie of virtual addresses; a service of a prefix has one of its length. */
struct virtual_key {
	__u32 bits; /* VIRTUAL_HEAD_BITS, and the length of the prefix */
	__u32 family; /* 4 or 6 */
	__u32 address[4];
};

enum virtual_layout {
	VIRTUAL_HEAD_BITS = 32,
	VIRTUAL_KEY_BITS = 160,
};

/* What becomes of an echo request to a virtual address. */
enum echo {
	ECHO_PASSED = 1, /* it is left to the stack */
	ECHO_ANSWERED,
	ECHO_DROPPED, /* no service of it has a server to offer */
};

/* A datagram in fragments (RFC 791 §3.2, RFC 8200 §4.5). */
struct fragment_key {
	__u32 source[4];
	__u32 destination[4];
	__u32 id; /* as on the wire */
	__u8 protocol; /* IPv4's; 0 of IPv6, whose fragments need not agree on what follows */
	__u8 family;
	__u8 is_last; /* of the last datagram between the two addresses, whatever its id: that is 0 */
	__u8 pad;
};

/* What becomes of a datagram's later fragments. */
enum fragment_fate {
	FRAGMENT_FOLLOWS, /* its connection, or the recipe */
	FRAGMENT_PASSED, /* as its first was */
	FRAGMENT_ECHOED, /* it is an echo request that is answered */
	FRAGMENT_DROPPED, /* it is one that is not */
};

/* What its first fragment has shown of it. */
struct fragment {
	__u64 recipe; /* to be followed if there is no connection; 0: none is */
	__u32 ports; /* as in a key's id */
	__u32 tick;
	__u32 mixed_tick; /* is_last: when datagrams of other ports were last seen, or long ago */
	__u16 header; /* octets that the transport header ends at: no other fragment may have them */
	__u8 protocol;
	__u8 fate; /* enum fragment_fate */
};

/* --- packets that were dropped ---------------------------------------------------- */

/*
 * How many packets ended for one reason, of one service and one interface, on one CPU:
 * only that writes it, and it is never another's. See finish.h.
 */
struct drop_row {
	__u64 key; /* DROP_*; 0: the row is free */
	__u64 packets;
	__u64 bytes; /* of the frames */
	__u64 cleared_packets; /* user space only: what of these is not shown, being another service's of the index */
	__u64 cleared_bytes;
	__u64 pad[3];
};

_Static_assert(sizeof(struct drop_row) == 64, "ABI: one cache line");

enum drop_layout {
	DROP_EVENT = 0, /* bits 0-7: enum event, a drop, an answer or a fault */
	DROP_SERVICE = 8, /* bits 8-31: its index; 0: none is known */
	DROP_INTERFACE = 32, /* bits 32-63: index of the one the packets came by */
};

/* Of a CPU: how its last packet ended that was not forwarded or passed. */
struct drop_note {
	__u64 key; /* of the row; 0: not since this was cleared */
	__u32 row; /* its index */
	__u32 pad;
};

enum drop_shape {
	DROP_ROWS = 1024, /* of a CPU */
	DROP_TRIES = 16, /* rows that a reason is looked for in */
};

#endif
