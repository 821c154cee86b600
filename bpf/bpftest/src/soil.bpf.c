//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Test runs have zeros in front of the frame, where outer headers will be: a member
 * that a program forgets to write would look right. Here it is 0xff.
 */
#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_helpers.h>

#define SOILED 208 /* of XDP_PACKET_HEADROOM's 256, of which the kernel keeps struct xdp_frame's */

/* Replaced by the fast path's. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} slots SEC(".maps");

SEC("xdp.frags")
int soiled(struct xdp_md *ctx)
{
	__u64 *word;

	if (bpf_xdp_adjust_head(ctx, -SOILED))
		return XDP_ABORTED;
	word = (void *)(long)ctx->data;
	if ((void *)word + SOILED > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
#pragma unroll
	for (int i = 0; i < SOILED / 8; i++)
		word[i] = ~0ULL;
	if (bpf_xdp_adjust_head(ctx, SOILED))
		return XDP_ABORTED;
	bpf_tail_call(ctx, &slots, 0); /* as shunt_root goes on to SLOT_MAIN */
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
