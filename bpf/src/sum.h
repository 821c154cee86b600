/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The one's complement sum of a packet that is wrapped, for checksums of outer headers:
 * of TCP and UDP what their own checksum says, of others summed up.
 */
#ifndef SHUNT_SUM_H
#define SHUNT_SUM_H

#include "checksum.h"
#include "packet.h"

#define SUM_CHUNK 64

struct summing {
	struct xdp_md *ctx;
	__u32 offset;
	__u32 left;
	__u32 sum;
};

static long sum_chunk(__u32 index, struct summing *s)
{
	__u32 words[SUM_CHUNK / 4] = {}, length = s->left < SUM_CHUNK ? s->left : SUM_CHUNK;

	/* Of a bound from below 6.1's verifier wants to see more than that it is not 0. */
	asm volatile("" : "+r"(length));
	length = ((length - 1) & (SUM_CHUNK - 1)) + 1;
	if (bpf_xdp_load_bytes(s->ctx, s->offset, words, length))
		return 1;
	s->sum = fold(bpf_csum_diff(0, 0, words, sizeof(words), s->sum));
	s->offset += length;
	s->left -= length;
	return 0;
}

/* One's complement sum of length octets from offset on, as far as there are as many. */
__noinline __u32 sum_octets(struct xdp_md *ctx, __u32 offset, __u32 length)
{
	struct summing s = { .ctx = ctx, .offset = offset, .left = length & 0xffff };

	bpf_loop((s.left + SUM_CHUNK - 1) / SUM_CHUNK, sum_chunk, &s, 0);
	return s.sum;
}

/*
 * The length of the packet's header if the transport checksum says what the sum is of
 * all behind it: where there is one, it makes that and the pseudo-header 0; else 0.
 */
static __always_inline __u32 summed_header(const struct packet *p, void *end, const int v6)
{
	__u32 header = v6 ? sizeof(struct ipv6hdr) : ((struct iphdr *)p->l3)->ihl * 4;
	struct udphdr *udp = p->l3 + (header & 0x3c);

	if (!v6 && ((struct iphdr *)p->l3)->frag_off & bpf_htons(IP_FRAGMENT))
		return 0;
	if (p->protocol == IPPROTO_TCP)
		return header;
	if (p->protocol != IPPROTO_UDP || (void *)(udp + 1) > end || !udp->check ||
	    bpf_ntohs(udp->len) + header != p->length)
		return 0;
	return header;
}

/* One's complement sum of the packet as it leaves. */
static __always_inline __u32 sum_of_wrapped(struct xdp_md *ctx, const struct packet *p, void *end, const int v6)
{
	__u32 header = summed_header(p, end, v6), rest = bpf_htons(p->length - header) + bpf_htons(p->protocol);
	const __u32 *words = p->l3;

	if (!header)
		return sum_octets(ctx, p->l3 - (void *)(long)ctx->data, p->length);
	/* The header less the pseudo-header: the addresses are in both. */
	if (v6)
		return fold_words((__u64)words[0] + words[1] + (__u16)~fold(rest));
	/* That of the header, options included, is 0. */
	return (__u16)~fold_words((__u64)words[3] + words[4] + rest);
}

#endif
