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

/*
 * IPVS counts a connection as active in these states (kernel:
 * net/netfilter/ipvs/ip_vs_proto_tcp.c, tcp_state_active_table); UDP never.
 */
static __always_inline int is_active(__u32 state)
{
	const __u32 active = 1 << STATE_ESTABLISHED | 1 << STATE_SYN_SENT | 1 << STATE_SYN_RECV | 1 << STATE_SYNACK;

	return active >> state & 1;
}

static __always_inline struct server_load *load_of(__u32 server)
{
	struct server_load *load = bpf_map_lookup_elem(&loads, &server);

	if (!load)
		count(EVENT_FAULT_MAP);
	return load;
}

/* Adds delta connections in state to the server's load. */
static __always_inline void add_load(struct server_load *load, __u32 state, __s64 delta)
{
	if (state == STATE_TEMPLATE)
		__sync_fetch_and_add(&load->templates, delta);
	else if (is_active(state))
		__sync_fetch_and_add(&load->active, delta);
	else
		__sync_fetch_and_add(&load->inactive, delta);
}

static __always_inline __s64 total_of(const struct server_load *load)
{
	return *(volatile const __s64 *)&load->active + *(volatile const __s64 *)&load->inactive;
}

/* A service's counts change with its connections': atomically. */
static __always_inline struct service_state *state_of_service(__u32 service)
{
	return bpf_map_lookup_elem(&service_states, &service);
}

/*
 * Adds delta connections to those of the server's service. That is always counted:
 * a limit that is set later knows at once how many there are.
 */
static __always_inline void count_in_service(__u32 server_index, __s64 delta)
{
	struct server *server = bpf_map_lookup_elem(&servers, &server_index);
	struct service_state *state;

	if (!server)
		return;
	state = state_of_service(server->service);
	if (state)
		__sync_fetch_and_add(&state->connections, delta);
}

/* Counts a new connection of the server (kernel: ip_vs_conn.c, ip_vs_bind_dest). */
__noinline int bind_connection(__u32 server, __u32 state)
{
	struct server_load *load = load_of(server);

	if (!load)
		return 0;
	add_load(load, state, 1);
	if (state != STATE_TEMPLATE)
		count_in_service(server, 1);
	if (load->upper && total_of(load) >= load->upper)
		__sync_fetch_and_or(&load->unfit, UNFIT_OVERLOADED);
	return 0;
}

/* Takes the flag from a server that has few enough connections again. */
static __always_inline void end_overload(struct server_load *load)
{
	__s64 total;

	if (!(*(volatile __u32 *)&load->unfit & UNFIT_OVERLOADED))
		return;
	total = total_of(load);
	if (load->lower ? total < load->lower : !load->upper || total * 4 < (__s64)load->upper * 3)
		__sync_fetch_and_and(&load->unfit, ~UNFIT_OVERLOADED);
}

/* Counts the end of one (kernel: ip_vs_conn.c, ip_vs_unbind_dest). */
__noinline int unbind_connection(__u32 server, __u32 state)
{
	struct server_load *load = load_of(server);

	if (!load)
		return 0;
	add_load(load, state, -1);
	if (state != STATE_TEMPLATE)
		count_in_service(server, -1);
	end_overload(load);
	return 0;
}

#endif
