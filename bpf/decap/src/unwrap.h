/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the steps of decapsulation share: what is known of a packet so far, in a
 * place of each CPU's, its octets by offset, sums over them, and counting.
 */
#ifndef DECAP_UNWRAP_H
#define DECAP_UNWRAP_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "checksum.h"

#define OFFSET_MASK 0x3fff /* more than all headers have */
#define LINK_ROOM 32 /* more than an Ethernet header and two tags have */
#define CHUNK 512 /* bpf_csum_diff sums no more at a time (kernel: net/core/filter.c, bpf_csum_diff) */

struct unwrap {
	__u32 frame; /* octets of it */
	__u32 l3; /* offset of the outer header; all offsets are the frame's */
	__u32 header; /* octets of the outer IPv4 header; 0 of IPv6 */
	__u32 next; /* offset of what is read next */
	__u32 end; /* offset behind the outer payload */
	__u32 inner_end; /* and behind the inner packet, which begins at next */
	__u32 covered; /* offset from which the tunnel's checksum covers all to end; 0: there is none */
	__u32 pseudo; /* what else it covers */
	__u32 source[4]; /* outer */
	__u32 destination[4];
	__u8 is_v6;
	__u8 is_inner_v6;
	__u8 protocol; /* of what is at next */
	__u8 type; /* enum decap_type */
	__u8 is_fragment;
	__u8 is_later; /* a fragment but the first */
	__u8 ecn; /* outer */
	__u8 pad;
	__u8 link[LINK_ROOM];
	__u32 chunk[CHUNK / 4];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct unwrap);
} decap_scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DECAP_EVENTS);
	__type(key, __u32);
	__type(value, struct decap_count);
} decap_counters SEC(".maps");

/* Who is let in, and to where; sized by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct decap_prefix);
	__type(value, __u32);
} decap_prefixes SEC(".maps");

volatile const struct decap_config config SEC(".rodata.config");

static __always_inline void count(const struct unwrap *u, enum decap_event event)
{
	__u32 index = event;
	struct decap_count *c = bpf_map_lookup_elem(&decap_counters, &index);

	if (c) {
		c->packets += 1;
		c->bytes += u ? u->frame : 0;
	}
}

/* Counts what became of the packet and says it to the kernel: the only way out. */
static __always_inline int finish(const struct unwrap *u, enum decap_event event)
{
	count(u, event);
	return event >= DECAP_DROP_OUTER_CHECKSUM && event < DECAP_NOTE_CE ? XDP_DROP : XDP_PASS;
}

/* The size octets at the offset; 0: they are not in the frame, or not in its first part. */
static __always_inline void *at(struct xdp_md *ctx, __u32 offset, __u32 size)
{
	void *start = (void *)(long)ctx->data + (offset & OFFSET_MASK);

	return start + size <= (void *)(long)ctx->data_end ? start : 0;
}

/* Adds the octets, of which there are 1 to CHUNK, to *sum; false: the frame has fewer. */
static __always_inline int add_chunk(struct xdp_md *ctx, struct unwrap *u, __u32 offset, __u32 octets, __u32 *sum)
{
	__u32 last = (octets - 1) & (CHUNK - 1); /* octet */

	/* What is left of its word counts as zero. */
	u->chunk[last / 4] = 0;
	if (bpf_xdp_load_bytes(ctx, offset, u->chunk, last + 1))
		return 0;
	*sum = fold(bpf_csum_diff(0, 0, u->chunk, (last & (CHUNK - 4)) + 4, *sum));
	return 1;
}

/*
 * The one's complement sum of so many octets from the offset on, of no more than an
 * IP packet can have; negative: the frame has fewer. Global: verified once.
 */
__noinline int sum_octets(struct xdp_md *ctx, struct unwrap *u, __u32 offset, __u32 octets)
{
	__u32 sum = 0;

	if (!u)
		return -1;
	for (int i = 0; i < 65536 / CHUNK && octets >= CHUNK; i++) {
		if (!add_chunk(ctx, u, offset, CHUNK, &sum))
			return -1;
		offset += CHUNK;
		octets -= CHUNK;
	}
	if (octets >= CHUNK)
		return -1;
	if (!octets)
		return sum;
	/* Or clang leaves out the mask that shows the verifier the bounds. */
	asm volatile("" : "+r"(octets));
	return add_chunk(ctx, u, offset, octets, &sum) ? (int)sum : -1;
}

#endif
