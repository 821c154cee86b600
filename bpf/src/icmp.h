/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* ICMP and ICMPv6 messages. */
#ifndef SHUNT_ICMP_H
#define SHUNT_ICMP_H

#include "follow.h"

static __always_inline int meet_icmp(struct xdp_md *ctx, struct packet *p, const int v6)
{
	if (!parse_addresses(p, (void *)(long)ctx->data_end, v6))
		return finish(ctx, EVENT_PASS_MALFORMED, 0);
	if (!may_be_virtual(p, v6) && !may_be_server(p, v6))
		return finish(ctx, EVENT_PASS_NOT_OURS, 0);
	return finish(ctx, EVENT_PASS_ICMP, 0);
}

SEC("xdp.frags")
int shunt_icmp(struct xdp_md *ctx)
{
	struct slow *s = slow_scratch();
	struct packet p;

	if (!s)
		return finish(ctx, EVENT_FAULT_MAP, 0);
	if (!parse_tagged_link(&p, &s->parsed, (void *)(long)ctx->data, (void *)(long)ctx->data_end))
		return finish(ctx, EVENT_PASS_MALFORMED, 0);
	return p.eth_proto == bpf_htons(ETH_P_IPV6) ? meet_icmp(ctx, &p, 1) : meet_icmp(ctx, &p, 0);
}

#endif
