/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The maximum segment size that the ends of a connection announce to each other (RFC
 * 9293 §3.7.1), lowered to the service's where it is larger: then no segment is too long
 * for the way, be it that no router tells so. Only first segments announce one, and
 * none of those is settled by the fast path (is_settled, may_prove).
 */
#ifndef SHUNT_MSS_H
#define SHUNT_MSS_H

#include "forward.h"

enum tcp_options {
	TCP_OPTION_END = 0,
	TCP_OPTION_NOP = 1,
	TCP_OPTION_MSS = 2,
	MSS_LENGTH = 4, /* kind, length, and the size as on the wire */
	MAX_TCP_OPTIONS = 40,
};

/* A segment's options, and two octets of room for one that claims to reach beyond. */
struct tcp_option_space {
	__u8 octets[64];
	__u32 length;
	__u32 next; /* where the next option begins */
	__u32 found; /* where the size stands; 0: not found */
	__u32 pad;
};

MAP(option_space, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct tcp_option_space, 1);

static __always_inline struct tcp_option_space *options_scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&option_space, &zero);
}

/* Looks at one option; true if it is the last to look at. */
static long look_at_option(__u32 i, void *unused)
{
	struct tcp_option_space *o = options_scratch();
	__u32 at, length;
	__u8 kind;

	if (!o)
		return 1;
	at = LOAD(&o->next);
	if (at >= LOAD(&o->length))
		return 1;
	at &= 63;
	kind = o->octets[at];
	if (kind == TCP_OPTION_END)
		return 1;
	if (kind == TCP_OPTION_NOP) {
		STORE(&o->next, at + 1);
		return 0;
	}
	length = at + 1 < LOAD(&o->length) ? o->octets[(at + 1) & 63] : 0;
	if (length < 2 || at + length > LOAD(&o->length))
		return 1; /* malformed: what follows cannot be told */
	if (kind == TCP_OPTION_MSS) {
		STORE(&o->found, length == MSS_LENGTH ? at + 2 : 0);
		return 1;
	}
	STORE(&o->next, at + length);
	return 0;
}

/* Where in the options behind a TCP header at offset l4 the segment size stands; 0: nowhere. */
static __always_inline __u32 find_mss(struct xdp_md *ctx, __u32 l4)
{
	struct tcp_option_space *o = options_scratch();
	struct tcphdr tcp;
	__u32 length;

	if (!o || bpf_xdp_load_bytes(ctx, l4, &tcp, sizeof(tcp)))
		return 0;
	length = tcp.doff * 4;
	if (length <= sizeof(tcp))
		return 0;
	length -= sizeof(tcp);
	asm volatile("" : "+r"(length));
	if (length == 0 || length > MAX_TCP_OPTIONS)
		return 0;
	if (bpf_xdp_load_bytes(ctx, l4 + sizeof(tcp), o->octets, length))
		return 0;
	STORE(&o->length, length);
	STORE(&o->next, 0);
	STORE(&o->found, 0);
	bpf_loop(MAX_TCP_OPTIONS, look_at_option, 0, 0);
	return LOAD(&o->found);
}

/* What the segment size adds to the checksum's words: at an odd offset its octets are in two of them. */
static __always_inline __u16 as_summed(__be16 size, __u32 offset)
{
	return offset & 1 ? (__u16)(size << 8 | size >> 8) : size;
}

/* Lowers the segment size that the segment in s announces to s->mss. Global: verified once. */
__noinline int clamp_mss(struct xdp_md *ctx, struct slow *s)
{
	__be16 size, clamped;
	__u32 found, l4;
	__u16 check;

	if (!s)
		return 0;
	l4 = s->l4;
	clamped = bpf_htons(s->mss);
	/* Options may not reach beyond the packet, where the frame may go on. */
	found = find_mss(ctx, l4);
	if (!found)
		return 0;
	found += sizeof(struct tcphdr);
	if (l4 + found + sizeof(size) > s->l3 + s->length || bpf_xdp_load_bytes(ctx, l4 + found, &size, sizeof(size)) ||
	    bpf_ntohs(size) <= bpf_ntohs(clamped))
		return 0;
	if (bpf_xdp_load_bytes(ctx, l4 + __builtin_offsetof(struct tcphdr, check), &check, sizeof(check)))
		return 0;
	check = adjust_checksum(check, word_delta(as_summed(size, found), as_summed(clamped, found)));
	bpf_xdp_store_bytes(ctx, l4 + found, &clamped, sizeof(clamped));
	bpf_xdp_store_bytes(ctx, l4 + __builtin_offsetof(struct tcphdr, check), &check, sizeof(check));
	count(EVENT_NOTE_MSS_CLAMPED);
	return 0;
}

#endif
