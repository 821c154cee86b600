/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Takes packets for virtual addresses out of the tunnels that directors send them
 * by, on a real server without tunnel devices: they reach the stack as if they had
 * come without. Everything else is passed as it came.
 */
#include "inner.h"

/* The inner packet at u->next, to the stack. Global: verified once, not for each way to get here. */
__noinline int unwrap(struct xdp_md *ctx, struct unwrap *u)
{
	enum decap_event event;

	if (!u)
		return DECAP_FAULT_MAP;
	event = u->is_inner_v6 ? read_inner6(ctx, u) : read_inner4(ctx, u);
	if (event == DECAP_NONE)
		event = check_sums(ctx, u);
	if (event == DECAP_NONE)
		event = u->is_inner_v6 ? take_ecn6(ctx, u) : take_ecn4(ctx, u);
	return event == DECAP_NONE ? strip(ctx, u) : event;
}

SEC("xdp.frags")
int shunt_decap(struct xdp_md *ctx)
{
	__u32 first = 0;
	struct unwrap *u = bpf_map_lookup_elem(&decap_scratch, &first);
	enum decap_event event;

	if (!u)
		return finish(u, DECAP_FAULT_MAP);
	u->frame = bpf_xdp_get_buff_len(ctx);
	event = read_link(ctx, u);
	if (event == DECAP_NONE)
		event = u->is_v6 ? read_outer6(ctx, u) : read_outer4(ctx, u);
	if (event == DECAP_NONE)
		event = read_tunnel(ctx, u);
	if (event == DECAP_NONE)
		event = unwrap(ctx, u);
	return finish(u, event);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Types that Go names but no map has: kept in the object's type information. */
#define EXPORT(type, name) const type *export_##name __attribute__((unused))
EXPORT(enum decap_version, version);
EXPORT(enum decap_type, decap_type);
EXPORT(enum decap_shape, shape);
EXPORT(enum decap_role, role);
EXPORT(enum decap_event, decap_event);
