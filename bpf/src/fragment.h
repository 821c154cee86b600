/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Fragments of datagrams to or from an address of ours. */
#ifndef SHUNT_FRAGMENT_H
#define SHUNT_FRAGMENT_H

#include "follow.h"

SEC("xdp.frags")
int shunt_fragment(struct xdp_md *ctx)
{
	return finish(ctx, EVENT_PASS_FRAGMENT, 0);
}

#endif
