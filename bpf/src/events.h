/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What becomes of packets, by number: a part of what Go sees (abi.h), whose rules hold here. */
#ifndef SHUNT_EVENTS_H
#define SHUNT_EVENTS_H

/*
 * What became of packets, one counter each. A number is an event's for ever: operators and
 * what is pinned know it. A new one takes the next of its kind (enum event_kinds); one that
 * is no more leaves a gap. Names for people: bpf/events.go.
 */
enum event {
	EVENT_NONE = 0,
	/* passed to the stack, untouched */
	EVENT_PASS_NOT_OURS = 1,
	EVENT_PASS_NO_SERVICE = 2, /* an address that may be ours, but no service */
	EVENT_PASS_MALFORMED = 3,
	EVENT_PASS_ICMP = 4, /* to or from an address that may be ours */
	EVENT_PASS_FRAGMENT = 5,
	EVENT_PASS_PROTOCOL = 6, /* neither TCP nor UDP */
	EVENT_PASS_LOCAL = 7, /* connection served by this host (method local) */
	EVENT_PASS_MIGRATING = 8, /* of a connection that the host's stack may have */
	/* dropped */
	EVENT_DROP_MIGRATION_HELD = 32, /* one of those, while no more are left to the stack (leave_to_stack) */
	EVENT_DROP_MIDSTREAM = 33,
	EVENT_DROP_SERVER_REMOVED = 34,
	EVENT_DROP_SERVICE_REMOVED = 35,
	EVENT_DROP_UNREACHABLE = 36, /* the connection's server has no next hop */
	EVENT_DROP_REPLY_COLLISION = 37,
	EVENT_DROP_TABLE_FULL = 38,
	EVENT_DROP_FTP_DATA = 39,
	EVENT_DROP_MARTIAN = 40, /* a new connection from an address no host has */
	EVENT_DROP_ACCESS_DENIED = 41, /* a new connection from where the service's list lets none in */
	EVENT_DROP_SERVICE_RATE = 42, /* a new connection beyond a limit of the service: so many a second, */
	EVENT_DROP_SERVICE_CONNECTIONS = 43, /* or at one time; */
	EVENT_DROP_SOURCE_RATE = 44, /* or beyond one of its source network */
	EVENT_DROP_SOURCE_CONNECTIONS = 45,
	EVENT_DROP_GUARD_ANSWERED = 46, /* the reset by which a client answers the guard: it ends here */
	EVENT_DROP_NO_ROUTE = 47, /* reply by the route: none, or forwarding is off */
	EVENT_DROP_VLAN = 48, /* the tag could not be changed */
	EVENT_DROP_RATE_LIMITED = 49, /* an answer was due but too many were sent */
	EVENT_DROP_NOT_QUOTABLE = 50, /* an answer was due but the packet could not become one */
	EVENT_DROP_BUSY = 51, /* another CPU is making or removing the connection */
	EVENT_DROP_TOO_BIG = 52, /* longer than the next hop's MTU and may not be told so */
	EVENT_DROP_HEADROOM = 53, /* the frame has no room for outer headers */
	EVENT_DROP_LOCAL_PORTS = 54, /* full NAT: no address and port to stand in for the client's */
	EVENT_DROP_FRAGMENT_UNKNOWN = 55, /* a later fragment, of whose datagram the first was not seen */
	EVENT_DROP_FRAGMENT_TINY = 56, /* one that divides the transport header (RFC 1858, RFC 7112) */
	EVENT_DROP_ECHO = 57, /* an echo request to a virtual address without a server to offer */
	EVENT_DROP_ICMP = 58, /* an ICMP error of a connection that could not be sent on */
	/* answered */
	EVENT_ANSWER_NO_SERVER = 96, /* port unreachable */
	EVENT_ANSWER_TTL = 97, /* time exceeded */
	EVENT_ANSWER_TOO_BIG = 98,
	EVENT_ANSWER_RESET = 99, /* mid-stream without an entry, by setting */
	EVENT_ANSWER_GUARD = 100, /* a first segment: what only a real client reacts to */
	EVENT_ANSWER_KILLED = 101, /* a connection that was killed: its sender is reset */
	EVENT_ANSWER_ECHO = 102, /* an echo request to a virtual address */
	/* worth counting */
	EVENT_NOTE_EVICTED = 128, /* an unproven entry made room, or a template without connections */
	EVENT_NOTE_INSERT_RACE = 129, /* another CPU inserted the same connection first */
	EVENT_NOTE_COLLISION_AVOIDED = 130, /* another server was chosen for the reply key's sake */
	EVENT_NOTE_HOP_CHANGED = 131, /* a client's packets come from another next hop */
	EVENT_NOTE_HOPS_FULL = 132, /* a next hop was not learned: replies go by the route */
	EVENT_NOTE_BY_ROUTE = 133, /* a reply was sent by the route */
	EVENT_NOTE_EXPIRED_HIT = 134, /* a packet met an expired entry the sweep has not removed */
	EVENT_NOTE_STALE_READ = 135, /* a slot was reused while it was read */
	EVENT_NOTE_CURSOR_CONTENDED = 136, /* a pick did not move rr's or wrr's cursor */
	EVENT_NOTE_DESTINATIONS_FULL = 137, /* lblc or lblcr did not remember a pick */
	EVENT_NOTE_TEMPLATE_HEALED = 138, /* a template had counted other connections than the sweep met, twice */
	EVENT_NOTE_STATELESS = 139, /* served by the hash alone: the table is full, or was not long ago */
	EVENT_NOTE_GUARD_ON = 140, /* a service's guard went on by itself, */
	EVENT_NOTE_GUARD_OFF = 141, /* or off */
	EVENT_NOTE_KILLED = 142, /* a connection that was killed: a packet was sent on as a reset */
	EVENT_NOTE_CARRIED = 143, /* a connection came over from the table before this one */
	EVENT_NOTE_CARRY_LOST = 144, /* one that did not: there was no room, or it was there already */
	EVENT_NOTE_NEWS_LOST = 145, /* watchers were not told: they are too slow */
	EVENT_NOTE_ICMP_IN = 146, /* an ICMP error was sent on to a connection's server */
	EVENT_NOTE_ICMP_OUT = 147, /* and one to its client */
	EVENT_NOTE_PATH_MTU = 148, /* a router has told the MTU of a tunnel's path */
	EVENT_NOTE_FRAGMENTS = 149, /* a later fragment followed its first */
	EVENT_NOTE_MSS_CLAMPED = 150, /* a first segment announced larger ones than its service lets through */
	EVENT_NOTE_DROPS_UNLISTED = 151, /* a drop is counted by its event alone: too many kinds */
	EVENT_NOTE_PATH_MTU_REFUSED = 152, /* who tells of a tunnel's path does not quote what went by it */
	EVENT_NOTE_SERVER_SUSPENDED = 153, /* by what packets told of a server it gets no new connections for a while */
	EVENT_NOTE_SUSPENSIONS_LIFTED = 154, /* all servers that could be chosen were suspended: all are tried again */
	/* cannot happen */
	EVENT_FAULT_MAP = 224, /* an array without an element that must be there */
	EVENT_FAULT_SERVER = 225, /* a live connection's server is free */
	EVENTS = 256,
};

/* The first number of each kind. */
enum event_kinds {
	EVENT_DROPS = 32,
	EVENT_ANSWERS = 96,
	EVENT_NOTES = 128,
	EVENT_FAULTS = 224,
};

#endif
