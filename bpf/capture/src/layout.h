/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the capture's programs and package capture share. Addresses and members named __be* are as on the wire. */
#ifndef SHUNT_CAPTURE_LAYOUT_H
#define SHUNT_CAPTURE_LAYOUT_H

#include <linux/types.h>

enum capture_point {
	POINT_BEFORE = 1, /* as it came */
	POINT_AFTER = 2, /* as it leaves, or would have */
	POINT_DROPPED = 4, /* as it was when it ended here */
};

enum capture_side {
	SIDE_DESTINATION, /* a virtual address: what clients send */
	SIDE_SOURCE, /* a server: what it sends back */
};

/*
 * By what a packet is found to be a service's. Of port 0: any port. Of port 0 and
 * protocol 0: packets without ports, which are fragments and ICMP.
 */
struct capture_key {
	__u32 address[4];
	__be16 port;
	__u8 protocol;
	__u8 side; /* enum capture_side */
	__u32 family; /* 4 or 6 */
};

/* The same of a prefix of addresses, or of a range of ports. */
struct capture_range {
	__u32 address[4];
	__u32 mask[4];
	__u16 first; /* ports, host order */
	__u16 last;
	__u8 protocol;
	__u8 family;
	__u8 pad[2];
	__u32 service;
};

enum capture_shape {
	CAPTURE_KEYS = 65536,
	CAPTURE_RANGES = 64,
	CAPTURE_OCTETS = 16384, /* at most, of a packet */
};

/* What stands before the octets of each packet. */
struct capture_record {
	__u64 came; /* ktime at which it came: both records of a packet have it */
	__u64 time; /* and of this record */
	__u64 drop; /* struct drop_note's key; 0: it did not end here */
	__u32 length; /* of the frame */
	__u32 captured; /* octets that follow */
	__u32 ifindex; /* that it came by */
	__u32 service; /* index; 0: none */
	__u32 action; /* XDP action, of all but POINT_BEFORE */
	__u32 point; /* enum capture_point */
};

/* Records that are missing, of a CPU. */
struct capture_missing {
	__u64 limited; /* beyond the rate */
	__u64 lost; /* the reader was too slow */
};

#endif
