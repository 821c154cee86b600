/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Counting: events by name, a server's traffic, its connections. */
#ifndef SHUNT_COUNT_H
#define SHUNT_COUNT_H

#include "maps.h"

static __always_inline void count(enum event event)
{
	__u32 index = event;
	__u64 *counter = bpf_map_lookup_elem(&events, &index);

	if (counter)
		*counter += 1;
}

/* Maps an event to the XDP action it implies and counts it: the only way out. */
static __always_inline int finish(enum event event)
{
	count(event);
	if (event < EVENT_DROP_MIDSTREAM)
		return XDP_PASS;
	if (event >= EVENT_ANSWER_NO_SERVER && event < EVENT_NOTE_EVICTED)
		return XDP_TX;
	return XDP_DROP;
}

/*
 * IPVS counts a connection as active in these states (kernel:
 * net/netfilter/ipvs/ip_vs_proto_tcp.c, tcp_state_active_table); UDP never.
 */
static __always_inline int is_active(__u32 state)
{
	const __u32 active = 1 << STATE_ESTABLISHED | 1 << STATE_SYN_SENT | 1 << STATE_SYN_RECV | 1 << STATE_SYNACK;

	return active >> state & 1;
}

/* Adds delta connections in state to the server's load. */
static __always_inline void count_connection(__u32 server, __u32 state, __s64 delta)
{
	struct server_load *load = bpf_map_lookup_elem(&loads, &server);

	if (!load)
		count(EVENT_FAULT_MAP);
	else if (is_active(state))
		__sync_fetch_and_add(&load->active, delta);
	else
		__sync_fetch_and_add(&load->inactive, delta);
}

#endif
