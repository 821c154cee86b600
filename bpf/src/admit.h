/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* A packet of ours without a connection: find its service, and refuse it by name or let it begin one. */
#ifndef SHUNT_ADMIT_H
#define SHUNT_ADMIT_H

#include "guard.h"
#include "limits.h"
#include "full.h"
#include "service.h"
#include "template.h"

#define FTP_DATA_PORT 20 /* kernel: ip_vs_core.c, ip_vs_schedule, "Not scheduling FTPDATA" */

/*
 * What becomes of a packet that the host's stack may know what to do with, by the
 * flags of its service, which migrates. No branch: the verifier walks each.
 */
static __always_inline enum event leave_to_stack(__u32 flags)
{
	return EVENT_PASS_MIGRATING + !!(flags & SERVICE_HELD) * (EVENT_DROP_MIGRATION_HELD - EVENT_PASS_MIGRATING);
}

/*
 * Whether no other host can be the source: 0/8, 127/8, multicast and broadcast;
 * ::, ::1, ff00::/8 (RFC 1812 §5.3.7, RFC 4291 §2.5), or the virtual address itself.
 */
static __always_inline int is_martian(const struct key *key, const int v6)
{
	const __u32 *source = key->source, *destination = key->destination;
	__u8 first = source[0];

	if (!v6)
		return first == 0 || first == 127 || first >= 224 || source[0] == destination[0];
	if (first == 0xff || !(source[0] | source[1] | source[2] | (source[3] & ~bpf_htonl(1))))
		return 1;
	return !((source[0] ^ destination[0]) | (source[1] ^ destination[1]) | (source[2] ^ destination[2]) |
		 (source[3] ^ destination[3]));
}

/* EVENT_NONE if the packet, which is for the service and has no connection, may begin one, or why not. */
static __always_inline enum event judge(struct slow *c, const struct service *service, const int v6)
{
	const __u8 flags = c->tcp_flags;

	if (is_martian(&c->key, v6))
		return EVENT_DROP_MARTIAN;
	/* Only a first segment cannot be of a connection that the stack has; see persist.h for what it may be under. */
	if (c->pick.flags & SERVICE_MIGRATING && (flags & (TCP_SYN | TCP_RST)) != TCP_SYN)
		return leave_to_stack(c->pick.flags);
	if (service->access && !is_let_in(c))
		return EVENT_DROP_ACCESS_DENIED;
	/* Kernel: ip_vs_proto_tcp.c, tcp_conn_schedule. */
	if ((__u8)(c->key.id >> ID_PROTOCOL) == IPPROTO_TCP &&
	    (flags & TCP_RST || !(flags & TCP_SYN || c->pick.flags & SERVICE_SLOPPY_TCP))) {
		c->is_stateless = last_full(v6) && is_hashed(in_force(service)->scheduler, c->pick.flags);
		if (!c->is_stateless)
			return EVENT_DROP_MIDSTREAM;
	}
	if ((__u16)c->key.id == bpf_htons(FTP_DATA_PORT))
		return EVENT_DROP_FTP_DATA;
	return EVENT_NONE;
}

/* The service's guard, then its limits, of which what the guard answers has used up nothing. */
static __always_inline enum event restrain(struct slow *c)
{
	enum event event = EVENT_NONE;

	if (c->pick.flags & SERVICE_GUARDED)
		event = ask_guard(c);
	if (event == EVENT_NONE && c->pick.flags & SERVICE_LIMITED)
		event = limit(c);
	return event;
}

/* EVENT_NONE if the packet may begin a connection of the service that is in c then, or what becomes of it. */
static __always_inline enum event admit(struct slow *c, const int v6)
{
	struct service *service = find_service(c, v6);
	enum event event;

	if (!service)
		return EVENT_PASS_NO_SERVICE;
	c->is_stateless = 0;
	c->is_validated = 0;
	c->is_counted = 0;
	/* Before anything else is made of a reset: a service that migrates would leave it to the stack. */
	if (c->pick.flags & SERVICE_GUARDED && (c->tcp_flags & (TCP_SYN | TCP_RST | TCP_ACK)) == TCP_RST &&
	    (v6 ? answers_guard6(c) : answers_guard4(c)))
		return EVENT_DROP_GUARD_ANSWERED;
	event = judge(c, service, v6);
	/* What begins no connection is nobody's to limit. */
	if (event == EVENT_NONE && !c->is_stateless)
		event = restrain(c);
	return event;
}

__noinline int admit4(struct slow *c)
{
	return c ? admit(c, 0) : EVENT_FAULT_MAP;
}

__noinline int admit6(struct slow *c)
{
	return c ? admit(c, 1) : EVENT_FAULT_MAP;
}

#endif
