/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The maximum segment size that the ends of a connection announce to each other (RFC
 * 9293 §3.7.1), lowered to the service's where it is larger: then no segment is too long
 * for the way, be it that no router tells so. Only first segments announce one, and
 * none of those is settled by the fast path (is_settled, may_prove).
 *
 * Should one be announced twice, both are lowered: Linux believes the last (kernel:
 * net/ipv4/tcp_input.c, tcp_parse_options), though its own clamp stops at the first
 * (net/netfilter/xt_TCPMSS.c, tcpmss_mangle_packet).
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
	__u32 mss; /* the largest size there may be */
	__u32 delta; /* what the clamped sizes add to the checksum's words; 0: none was */
};

MAP(option_space, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct tcp_option_space, 1);

static __always_inline struct tcp_option_space *options_scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&option_space, &zero);
}

/* What a size adds to the checksum's words: at an odd offset its octets are in two of them. */
static __always_inline __u16 as_summed(__u32 size, __u32 offset)
{
	return offset & 1 ? size : bpf_htons(size);
}

/* Lowers the size at the offset if it is larger than it may be. */
static __always_inline void clamp_size(struct tcp_option_space *o, __u32 at)
{
	__u32 high = at & 63, low = (at + 1) & 63, mss = LOAD(&o->mss), size = o->octets[high] << 8 | o->octets[low];

	if (size <= mss)
		return;
	o->octets[high] = mss >> 8;
	o->octets[low] = mss;
	STORE(&o->delta, LOAD(&o->delta) + word_delta(as_summed(size, at), as_summed(mss, at)));
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
	if (kind == TCP_OPTION_MSS && length == MSS_LENGTH)
		clamp_size(o, at + 2);
	STORE(&o->next, at + length);
	return 0;
}

/* Lowers the segment size that the segment in s announces to s->mss. Global: verified once. */
__noinline int clamp_mss(struct xdp_md *ctx, struct slow *s)
{
	struct tcp_option_space *o = options_scratch();
	struct tcphdr tcp;
	__u32 length, l4;

	if (!s || !o)
		return 0;
	l4 = s->l4;
	if (bpf_xdp_load_bytes(ctx, l4, &tcp, sizeof(tcp)))
		return 0;
	length = tcp.doff * 4;
	/* Options may not reach beyond the packet, where the frame may go on. */
	if (length <= sizeof(tcp) || l4 + length > s->l3 + s->length)
		return 0;
	length -= sizeof(tcp);
	asm volatile("" : "+r"(length));
	if (length == 0 || length > MAX_TCP_OPTIONS)
		return 0;
	if (bpf_xdp_load_bytes(ctx, l4 + sizeof(tcp), o->octets, length))
		return 0;
	STORE(&o->length, length);
	STORE(&o->next, 0);
	STORE(&o->mss, s->mss);
	STORE(&o->delta, 0);
	bpf_loop(MAX_TCP_OPTIONS, look_at_option, 0, 0);
	if (!LOAD(&o->delta))
		return 0;
	tcp.check = adjust_checksum(tcp.check, LOAD(&o->delta));
	bpf_xdp_store_bytes(ctx, l4 + sizeof(tcp), o->octets, length);
	bpf_xdp_store_bytes(ctx, l4 + __builtin_offsetof(struct tcphdr, check), &tcp.check, sizeof(tcp.check));
	count(EVENT_NOTE_MSS_CLAMPED);
	return 0;
}

#endif
