/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the control programs are given and give back, and what the sweep leaves in
 * a map: a part of what Go sees (abi.h), of which the packet programs see nothing.
 */
#ifndef SHUNT_ARGUMENTS_H
#define SHUNT_ARGUMENTS_H

#include "abi.h"

/* Two readings of the clocks, to learn the kernel's HZ. */
struct clock_args {
	__u64 jiffies;
	__u64 nanoseconds; /* CLOCK_MONOTONIC */
};

/*
 * shunt_sweep4/6: one slice of a table, from a set of a group on. Packets wait for it
 * on its CPU, so that it ends at the next set when it has taken its time.
 */
struct sweep_args {
	__u32 first_group;
	__u32 groups; /* at most */
	__u32 live_keys; /* out, each in this slice */
	__u32 removed; /* out: connections */
	__u32 orphans; /* out: reply keys removed for want of their connection; a fault */
	__u32 next_group; /* out: the first it has not gone through to the end */
	__u32 templates; /* enum sweep_templates */
	__u32 first_set; /* of first_group */
	__u32 next_set; /* out: of next_group */
	__u32 limit; /* nanoseconds; 0: none */
	__u32 taken; /* out: nanoseconds */
};

/*
 * Whether a sweep counts the connections under each template. It takes two sweeps,
 * the slots before the template's and those behind it, and for each connection of a
 * template a look in the table: too much for every sweep.
 */
enum sweep_templates {
	TEMPLATES_COUNTED, /* compared with what was met since the template was, and counted on */
	TEMPLATES_BEGUN, /* counted from here on */
	TEMPLATES_LEFT, /* only ended when their time is over */
};

/* shunt_switch: writes a service anew and puts a new schedule in force. */
struct switch_args {
	struct schedule schedule; /* the new one */
	struct service_key key;
	__u32 service;
	__u32 positions; /* first word of the map old position -> new position + 1, 0: head */
	__u32 old_servers; /* its length */
	__u32 steps; /* wrr: first word of the schedules gone through: pairs of max_weight, gcd */
	__u32 step_count; /* the last is the new one's; 0: no server changed, or not wrr */
	__s32 result; /* out: 0 or -ENOENT */
	__u8 life;
	__u8 restart; /* another scheduler: its state begins anew */
	__u8 prefix;
	__u8 client_prefix;
	__u16 last_port;
	__u16 mss;
	__u32 access;
	__u32 seconds[3];
	__u32 persistence;
	__u8 name[64];
};

/* shunt_set_server: changes a server, each member in one write. */
struct server_args {
	__u32 server;
	__u16 hop;
	__u16 tunnel;
	__u32 weight;
	__u32 last_weight;
	__u32 offered_weight;
	__u32 upper;
	__u32 lower;
	__u8 life;
	__u8 method;
	__u8 flags;
	__u8 pad;
	__s32 result; /* out: 0 or -ENOENT */
};

/* shunt_absolve */
struct absolve_args {
	__u32 server;
	__s32 result; /* out: 0 or -ENOENT */
};

/* What decides on a packet's server. */
enum decider {
	DECIDED_BY_NOTHING, /* it gets none: the event says why */
	DECIDED_BY_CONNECTION,
	DECIDED_BY_TEMPLATE,
	DECIDED_BY_SCHEDULER,
};

/*
 * shunt_explain4/6: what would become of a packet, by the way that packets go, with
 * nothing changed.
 */
struct explain_args {
	__u32 source[4];
	__u32 destination[4];
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 tcp_flags; /* as in the segment; of a first one: 2, SYN */
	__u8 pad[2];
	__u32 event; /* out: enum event; EVENT_NONE: it goes to the server, or to the client if it is a reply */
	__u32 decided_by; /* out: enum decider */
	__u32 service; /* out: index; 0: of none */
	__u32 server; /* out: index; 0: none */
	__u64 recipe; /* out: that the packet would follow; 0: none */
	__u64 met; /* out: recipe of the connection or template that decided; 0: none did */
	__u32 met_seen; /* out: tick */
	__u32 met_hop; /* out: a template's counts, see template_layout */
};

/*
 * shunt_remove4/6: removes one connection by its client-to-server key, or a template
 * (its network, its service's index, no ports, PROTOCOL_TEMPLATE).
 */
struct remove_args {
	__u32 client[4];
	__u32 virtual_address[4];
	__be16 client_port;
	__be16 virtual_port;
	__u8 protocol;
	__u8 with_resets; /* TCP: both ends are told first (kill.h) */
	__u8 pad[2];
	__s32 result; /* out: 0, -ENOENT, or -EAGAIN: others were changing it */
};

/* Connections that shunt_load4/6 take at a time: what fits the page that is their packet. */
enum load_shape {
	LOAD_BATCH = 48,
};

enum load_flags {
	LOAD_PROVEN = 1,
	LOAD_CONTROLLED = 2, /* a template has it */
	LOAD_BOUND = 4, /* it is to find out about its server: no packet has it scheduled anew */
};

/* What became of one. */
enum load_result {
	LOAD_NOT_TRIED,
	LOAD_DONE,
	LOAD_KNOWN, /* its key has an entry */
	LOAD_OVER, /* it had ended, and another connection has the reply key */
	LOAD_NO_SERVER, /* the server is not live */
	LOAD_COLLISION, /* the reply key is another connection's */
	LOAD_NO_ROOM,
	LOAD_FAULT,
};

/* A connection, or a template, that exists elsewhere. */
struct load_entry {
	__u32 client[4]; /* of a template: the client's network */
	__u32 virtual_address[4]; /* of a template: the service's index in the first word */
	__be16 client_port; /* of a template: 0 */
	__be16 virtual_port; /* of a template: 0 */
	__u32 server; /* index */
	__u32 left; /* ticks until it dies; its timeout here if that is shorter */
	__u32 age; /* ticks since it began, BORN_OLDEST at most */
	__u32 local; /* of METHOD_FULLNAT: what stands in for the client (local_layout) */
	__u8 protocol; /* PROTOCOL_TEMPLATE */
	__u8 state;
	__u8 method; /* enum method */
	__u8 flags; /* enum load_flags */
	__u32 result; /* out: enum load_result */
};

/* shunt_load4/6: inserts connections, of one family. */
struct load_args {
	__u32 count;
	struct load_entry entries[LOAD_BATCH];
};

/*
 * shunt_bring4/6: brings over what is in a slice of the table before this one. Packets
 * wait for it on its CPU, so that it ends when it has taken its time.
 */
struct carry_args {
	__u32 first_slot; /* counted through all groups */
	__u32 slots; /* at most */
	__u32 limit; /* nanoseconds */
	__u32 what; /* enum carry_what */
	__u32 next_slot; /* out */
	__u32 carried; /* out: connections and templates */
	__u32 lost; /* out */
	__u32 expired; /* out: dropped, their time being over */
	__u32 left; /* out: of those looked at */
	__u32 pad;
};

enum carry_what {
	CARRY_TEMPLATES, /* first, so that those they have can be counted off */
	CARRY_ALL,
};

/* shunt_add_event */
struct event_args {
	__u64 count;
	__u32 event;
	__u32 pad;
};

/* shunt_correct: heals a server's load, or how many connections a service counts. */
struct correct_args {
	__s64 active; /* to be added */
	__s64 inactive;
	__s64 templates;
	__s64 connections; /* to be added to the service's */
	__u32 server; /* 0: none */
	__u32 service; /* 0: none */
};

/* Per server, filled by a sweep: what the table holds. */
struct recount {
	__u64 active;
	__u64 inactive;
	__u64 keys;
	__u64 udp; /* of inactive */
	__u64 templates;
};

#endif
