/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Everything that Go sees of the decapsulator: map values, map keys, names of
 * events. Members named __be* and addresses are as on the wire, the others in
 * the host's order. An IPv4 address stands in the first of four words.
 */
#ifndef DECAP_ABI_H
#define DECAP_ABI_H

#include <linux/types.h>

/* Raised by every change below: what reads the maps is told which it has. */
enum decap_version {
	DECAP_VERSION = 1,
};

/* The kernel's numbers (kernel: include/uapi/linux/ip_vs.h, IP_VS_CONN_F_TUNNEL_TYPE_*). */
enum decap_type {
	DECAP_IPIP = 0,
	DECAP_GUE = 1,
	DECAP_GRE = 2,
};

enum decap_shape {
	DECAP_PORTS = 8, /* UDP ports of gue, at most */
	DECAP_HEAD_BITS = 32, /* of a prefix's key, before the address's */
	DECAP_KEY_BITS = 160,
};

/* Fixed when the program is loaded. */
struct decap_config {
	__u32 version; /* enum decap_version */
	__u32 types; /* bits, by enum decap_type */
	__u32 is_from_any; /* not 0: every outer source is let in */
	__be16 ports[DECAP_PORTS]; /* of gue; 0: none */
};

/* What a prefix is for. */
enum decap_role {
	DECAP_TO = 1, /* outer destinations: this host */
	DECAP_FROM, /* outer sources: directors */
	DECAP_VIRTUAL, /* inner destinations */
};

/* Key of the trie of prefixes. */
struct decap_prefix {
	__u32 bits; /* DECAP_HEAD_BITS, and the length of the prefix */
	__u8 role; /* enum decap_role */
	__u8 family; /* 4 or 6 */
	__u8 pad[2];
	__u32 address[4];
};

_Static_assert(sizeof(struct decap_prefix) == 24, "ABI");

/* Per CPU. Bytes are those of the frames as they came. */
struct decap_count {
	__u64 packets;
	__u64 bytes;
};

/* What became of a packet, in the order of what that is (finish). Names for people: events.go. */
enum decap_event {
	DECAP_NONE,
	/* left as they are */
	DECAP_PASS_OTHER, /* not of a tunnel */
	DECAP_PASS_MALFORMED, /* outer headers too short or inconsistent */
	DECAP_PASS_EXTENSIONS, /* too many IPv6 extension headers to look behind */
	DECAP_PASS_FRAGMENT, /* the outer packet is one */
	DECAP_PASS_ADDRESS, /* to another outer destination */
	DECAP_PASS_SOURCE, /* from another outer source */
	DECAP_PASS_OPTIONS, /* a tunnel header with what is not understood */
	DECAP_PASS_REMOTE_CHECKSUM, /* gue's option of that name */
	DECAP_PASS_PROTOCOL, /* what is inside is not IP */
	DECAP_PASS_INNER, /* no IP header where one should be */
	DECAP_PASS_NOT_VIRTUAL, /* to another inner destination */
	/* passed on without their outer headers */
	DECAP_TAKEN_IPIP,
	DECAP_TAKEN_GUE,
	DECAP_TAKEN_GRE,
	/* dropped */
	DECAP_DROP_OUTER_CHECKSUM, /* IPv4's */
	DECAP_DROP_GUE_CHECKSUM,
	DECAP_DROP_GRE_CHECKSUM,
	DECAP_DROP_INNER_LENGTH, /* the inner packet is longer than what is there, or its header's lengths are wrong */
	DECAP_DROP_ECN, /* congestion was experienced by a sender that does not know of it */
	DECAP_DROP_HEAD, /* the headers could not be taken off */
	/* worth counting */
	DECAP_NOTE_CE, /* congestion experienced outside was noted inside */
	DECAP_NOTE_ECN, /* a pair of codepoints that no sender should make */
	/* cannot happen */
	DECAP_FAULT_MAP,
	DECAP_EVENTS,
};

#endif
