/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Everything that Go sees: map values, map keys, program arguments, names of
 * events. The only definition of each; Go uses the types bpf2go makes of them.
 *
 * Byte order: members named __be* and addresses are as on the wire; all other
 * members are the host's. Addresses are four 32-bit words; an IPv4 address
 * stands in the first and the rest are zero.
 */
#ifndef SHUNT_ABI_H
#define SHUNT_ABI_H

#include <linux/bpf.h>
#include <linux/types.h>

#include "entry.h"
#include "events.h"

#ifndef LAYOUT_NEXT /* layout_next.h has its own */
/* Raised by every change of a pinned map's layout; stored in settings. See layouts.h. */
enum abi_version {
	ABI_VERSION = 6,
};
#endif

/* --- services and servers ----------------------------------------------- */

struct service_key {
	__u32 address[4];
	__be16 port;
	__u8 protocol;
	__u8 family; /* 4 or 6 */
};

enum scheduler {
	SCHEDULER_RR = 1,
	SCHEDULER_WRR = 2,
	SCHEDULER_SH = 3,
	SCHEDULER_MH = 4,
	SCHEDULER_LC = 5,
	SCHEDULER_WLC = 6,
	SCHEDULER_SED = 7,
	SCHEDULER_NQ = 8,
	SCHEDULER_FO = 9,
	SCHEDULER_OVF = 10,
	SCHEDULER_TWOS = 11,
	SCHEDULER_DH = 12,
	SCHEDULER_LBLC = 13,
	SCHEDULER_LBLCR = 14,
};

enum service_flags {
	SERVICE_HASH_PORT = 1, /* sh-port, mh-port */
	SERVICE_FALLBACK = 2, /* sh-fallback, mh-fallback */
	SERVICE_VIP_MANAGED = 4, /* user space only: Shunt added the address */
	SERVICE_PERSISTENT = 8,
	SERVICE_ONE_PACKET = 16, /* UDP: each packet is scheduled, no entry is made */
	SERVICE_SLOPPY_TCP = 32, /* a connection may begin in the middle */
	SERVICE_EXPIRE_NODEST = 64, /* expire_nodest_conn */
	SERVICE_EXPIRE_QUIESCENT = 128, /* expire_quiescent_template */
	SERVICE_REUSE_NEVER = 256, /* conn_reuse_mode 0 */
	SERVICE_REUSE_FIN_WAIT = 512, /* conn_reuse_mode 3; neither bit: 1 */
	SERVICE_WIDE = 1024, /* of several addresses or ports */
	SERVICE_FLAG_3 = 2048, /* user space only: ipvsadm's flag-3, which no scheduler has */
	SERVICE_MIGRATING = 4096, /* the host's stack has connections of it that the tables do not know */
	SERVICE_HELD = 8192, /* with SERVICE_MIGRATING: their packets are dropped while the last of them are loaded */
	SERVICE_LIMITED = 16384, /* struct service_limits has something to say */
	SERVICE_GUARDED = 32768, /* its guard is on or may be */
};

enum server_flags {
	SERVER_DRAINING = 1, /* templates are not followed to it, and a SYN leaves it */
	SERVER_OWN_TIMEOUTS = 2, /* its service has a set of timeouts */
};

enum lifecycle {
	LIFE_FREE = 0,
	LIFE_LIVE = 1,
	LIFE_SERVER_REMOVED = 2, /* connections may still refer to it */
	LIFE_SERVICE_REMOVED = 3,
};

/*
 * What a service chooses servers by: where the schedule lies in the words array, and
 * the settings that go with it. Two of them per service; a bit of the cursor says
 * which one is in force, so that one write switches all.
 */
struct schedule {
	__u32 list; /* first word of the server list: pairs of server index, weight */
	__u32 servers; /* length of the list; kernel order: last added first */
	__u32 table; /* first word of the hash table (sh, mh): server indices, 0: none */
	__u32 slots; /* length of the hash table: 256 or 4093 */
	__u32 max_weight; /* wrr: greatest weight - (gcd - 1) */
	__u32 gcd; /* wrr */
	__u16 flags; /* enum service_flags */
	__u8 scheduler;
	__u8 pad;
	__u32 client_mask[4]; /* SERVICE_PERSISTENT: which bits of a client's address make its network */
};

struct service {
	__u64 cursor; /* CURSOR_*; only changed by compare-and-swap */
	struct schedule schedule[2];
	struct service_key key;
	__u32 access; /* ACCESS_*; 0: every client is let in */
	__u32 seconds[3]; /* user space only: its own timeouts TCP, TCP-FIN, UDP; 0: as all services */
	__u32 persistence; /* user space only: seconds */
	__u16 last_port; /* user space only, host order: of a range that begins with the key's; 0: no range */
	__u8 prefix; /* user space only: length of the prefix the key's address begins; 0: one address */
	__u8 client_prefix; /* user space only: what client_mask was made from */
	__u8 life;
	__u8 pad;
	__u16 mss; /* host order; TCP segments announced larger are clamped to it; 0: not */
	__u8 name[64]; /* user space only; zero-terminated unless full */
};

enum cursor_layout {
	CURSOR_WEIGHT = 0, /* bits 0-31: wrr's current weight */
	CURSOR_POSITION = 32, /* bits 32-47: position in the list + 1; 0: its head */
	CURSOR_HALF = 48, /* which schedule is in force */
};

struct server {
	__u16 hop; /* next hop; 0: unreachable, then its weight in the list is 0 */
	__u16 tunnel; /* how its packets are wrapped, of method tunnel; 0: they are not */
	__u32 service; /* index */
	__u8 life; /* enum lifecycle */
	__u8 method; /* of new connections */
	__be16 port;
	__be16 virtual_port;
	__u16 delta_l4; /* one's complement sum that virtual -> server adds, addresses and ports */
	__u16 delta_ip; /* the same for the addresses alone */
	__u8 flags; /* enum server_flags */
	__u8 family; /* user space only: of address; 0, from an earlier version: the service's */
	__u32 weight; /* user space only: as configured */
	__u32 last_weight; /* user space only: the last weight that was not 0 (mh) */
	__u32 offered_weight; /* as scheduled: 0 while the server is unreachable */
	__u32 address[4];
	__u32 virtual_address[4];
};

_Static_assert(sizeof(struct server) == 64, "ABI: one cache line");

/* --- tunnels ---------------------------------------------------------------- */

/* The kernel's numbers (kernel: include/uapi/linux/ip_vs.h, IP_VS_CONN_F_TUNNEL_TYPE_*). */
enum tunnel_type {
	TUNNEL_IPIP = 0,
	TUNNEL_GUE = 1,
	TUNNEL_GRE = 2,
};

/* The kernel's numbers (kernel: include/uapi/linux/ip_vs.h, IP_VS_TUNNEL_ENCAP_FLAG_*). */
enum tunnel_checksum {
	TUNNEL_NO_CHECKSUM = 0,
	TUNNEL_CHECKSUM = 1,
	TUNNEL_REMOTE_CHECKSUM = 2, /* of packets that arrive with a checksum: none, as the kernel's */
};

/*
 * How packets are wrapped for a server. Servers of one address and the same options
 * have one: what is learned of the path is known to all.
 */
struct tunnel {
	__u32 address[4]; /* the server's */
	__u32 source[4]; /* of the outer header */
	__u32 spread; /* which bits of the source's last word differ from connection to connection, as on the wire */
	__u8 family; /* of the outer header: 4 or 6; 0: not in use */
	__u8 type; /* enum tunnel_type */
	__u8 checksum; /* enum tunnel_checksum */
	__u8 overhead; /* octets of the outer headers */
	__be16 port; /* gue's; 0 of other types */
	__u16 mtu; /* of the path, as a router has told; 0: none has */
	__u32 mtu_tick; /* when it did */
	__u32 next; /* another of the same key; 0: none */
	__u32 pad[3];
};

_Static_assert(sizeof(struct tunnel) == 64, "ABI: one cache line");

/* By what a router's error quotes of a wrapped packet: the index of its tunnel. */
struct tunnel_key {
	__u32 address[4];
	__be16 port; /* gue's */
	__u8 type;
	__u8 family;
};

/* --- full NAT ----------------------------------------------------------------- */

/* An address of this host that stands in for clients', see fullnat.h. */
struct local_address {
	__u32 address[4];
	__u32 offered; /* not 0: new connections may have it */
	__u32 uses; /* connections that have it, as a sweep counts them */
	/*
	 * Of the element's place, whatever is in it: the n-th offered address of the family
	 * is so many elements behind the n-th. New connections choose by place, and so among
	 * what is offered alone.
	 */
	__u32 skip;
	__u32 pad;
};

/*
 * Elements of locals, IPv4 first. The hop word of a forward entry with RECIPE_FULLNAT
 * names one and a port.
 */
enum local_layout {
	LOCAL_PORT = 0, /* bits 0-15: as on the wire */
	LOCAL_INDEX = 16, /* bits 16-31 */
	LOCALS6 = 2048, /* the first of IPv6 */
	LOCALS = 4096,
	LOCAL_NONE = 0xffff, /* an index that none has */
};

/* --- limits and the guard --------------------------------------------------- */

enum guard_mode {
	GUARD_OFF,
	GUARD_AUTO, /* goes on and off by the rate of connections that do not prove themselves */
	GUARD_ON,
};

/*
 * What a service lets begin; by its index. Times are in 1/65536 jiffies: a rate is
 * the time that one connection takes, a burst how far ahead of now they may be
 * (the generic cell rate algorithm, ITU-T I.371 annex A).
 */
struct service_limits {
	__u64 cost; /* of a new connection of the service; 0: no limit */
	__u64 burst;
	__u64 source_cost; /* of one from the same source network */
	__u64 source_burst;
	__u32 connections; /* at one time; 0: no limit */
	__u32 source_connections;
	__u32 source_mask[4]; /* which bits of a client's address make its source network */
	__u32 guard; /* enum guard_mode */
	__u32 guard_on; /* connections begun and not proven a second from which GUARD_AUTO is on, */
	__u32 guard_off; /* and below which it goes off */
	__u32 rate; /* user space only, and all below: what the above was made from */
	__u32 source_rate;
	__u32 source_prefix;
	__u32 pad[12];
};

_Static_assert(sizeof(struct service_limits) == 128, "ABI: two cache lines");

/* What becomes of a service's limits; by its index. Changed atomically. */
struct service_state {
	__s64 connections; /* of all its servers, as loads have them */
	__u64 rate_time; /* of the algorithm: when the next connection would be on time */
	__u64 begun; /* TCP connections begun, ever */
	__u64 proven; /* of those */
	__u64 challenged; /* first segments that the guard answered */
	__u64 validated; /* clients that answered it */
	__u64 window_begun; /* begun - proven, or challenged - validated, when the window began */
	__u32 window; /* tick at which it began */
	__u32 guard_until; /* tick; GUARD_AUTO is on before it */
	__u64 refused_rate; /* new connections refused: by the service's limits, */
	__u64 refused_connections;
	__u64 refused_source_rate; /* and by their source network's */
	__u64 refused_source_connections;
	__u64 full; /* refused, or served without state, for want of room */
	__u32 suspended_tick; /* at which its suspended servers were last looked at; 0: it has none */
	__u32 pad2;
	__u64 pad[2];
};

_Static_assert(sizeof(struct service_state) == 128, "ABI: two cache lines");

struct source_key {
	__u32 service; /* index */
	__u32 network[4];
};

/* A source network of a service with limits by source. */
struct source {
	__u64 rate_time;
	__s64 connections; /* those with RECIPE_COUNTED */
};

/* A client's address that has answered the guard: the tick at which it did. */
struct client_key {
	__u32 address[4];
};

/* --- tables ------------------------------------------------------------------- */

/* Of each table, IPv4 and IPv6. */
struct table_state {
	__u32 full_tick; /* when a new connection last found no room; 0: never */
	__u32 pad;
	__u64 full; /* how many did */
};

/* Of a slot, in tables with counters for each connection: packets with its entry's key. */
struct slot_traffic {
	__u64 packets;
	__u64 bytes; /* of the IP packets */
};

/* Of the slots of a group. */
struct group_traffic {
	struct slot_traffic slots[SLOTS];
};

/* What watchers are told of a connection. */
enum news_kind {
	NEWS_OPENED = 1,
	NEWS_ESTABLISHED, /* proven */
	NEWS_CLOSED, /* its entry is gone */
};

struct connection_news {
	__u64 id; /* of the forward entry */
	__u64 recipe;
	__u32 source[4];
	__u32 destination[4];
	__u32 tick;
	__u8 kind; /* enum news_kind */
	__u8 family; /* 4 or 6 */
	__u16 pad;
	__u32 local; /* by full NAT, what stands in for the client (local_layout) */
	__u32 pad2;
	__u64 in_packets; /* NEWS_CLOSED, of tables with counters */
	__u64 in_bytes;
	__u64 out_packets;
	__u64 out_bytes;
};

/* --- access ---------------------------------------------------------------- */

/*
 * A service's word says which set of prefixes its clients are looked up in and
 * what becomes of those in none: one write changes both.
 */
enum access_layout {
	ACCESS_SET = 0, /* bits 0-30: number of the set, from 1 */
	ACCESS_DENY_REST = 31,
	ACCESS_SET_MASK = 0x7fffffff,
	ACCESS_SET_BITS = 32, /* of a key, before the address's */
	ACCESS_KEY_BITS = 160,
};

/* Key of the trie; the longest prefix decides. A set's prefixes are of one family. */
struct access_key {
	__u32 bits; /* ACCESS_SET_BITS, and the length of the prefix */
	__u32 set;
	__u32 address[4];
};

enum access_verdict {
	ACCESS_ALLOW = 1,
	ACCESS_DENY = 2,
};

/*
 * Why a server gets no new connections although it has a weight. UNFIT_SUSPENDED is the
 * bit by which a list says that it is not looked at (schedulers/request.h).
 */
enum unfit {
	UNFIT_OVERLOADED = 1, /* IP_VS_DEST_F_OVERLOAD */
	UNFIT_SUSPENDED = 1U << 31, /* by what packets told of it (witness.h) */
};

/*
 * Connections of a server, as IPVS counts them, and its thresholds. Counts and unfit
 * are changed atomically.
 */
struct server_load {
	__s64 active;
	__s64 inactive;
	__s64 templates;
	__u32 upper; /* 0: none */
	__u32 lower; /* 0: three quarters of upper */
	__u32 unfit; /* enum unfit */
	__u32 pad[7];
};

_Static_assert(sizeof(struct server_load) == 64, "ABI: one cache line");

/* What a packet may tell of a server (witness.h). */
enum evidence_kind {
	EVIDENCE_UNANSWERED, /* a client's SYN came again a second later, and its server had not answered */
	EVIDENCE_RESET, /* a SYN was answered by a reset, or a UDP packet by ICMP port unreachable */
	EVIDENCE_UNREACHABLE, /* any other ICMP error by which a server cannot be reached */
	EVIDENCES,
	EVIDENCE_MASK = 3, /* of arrays by kind */
};

/* What packets told of a server since it was added; by its index. */
struct testimony {
	__u64 told[EVIDENCE_MASK + 1]; /* by kind */
	__u64 suspensions;
	__u32 recent[EVIDENCE_MASK + 1]; /* by kind, since the window began */
	__u32 window; /* tick at which it did */
	__u32 until; /* tick at which UNFIT_SUSPENDED ends */
};

_Static_assert(sizeof(struct testimony) == 64, "ABI: one cache line");

/* How much evidence suspends a server of a service; by the service's index. */
struct passive_limits {
	__u32 most[EVIDENCE_MASK + 1]; /* by kind: so much; 0: none does. All 0: nothing is counted */
	__u32 within; /* ticks */
	__u32 suspend; /* ticks */
	__u32 pad[2];
};

_Static_assert(sizeof(struct passive_limits) == 32, "ABI");

/* Timeouts of one service in place of settings.timeout; by the service's index. */
struct timeout_set {
	__u32 ticks[STATES];
};

/*
 * lblc's and lblcr's cache of destinations: which servers a virtual address of the
 * service has.
 */
enum destination_shape {
	DESTINATION_SERVERS = 32, /* members of lblcr's set; the oldest leaves for one more */
};

struct destination_key {
	__u32 service; /* index */
	__u32 address[4];
};

struct destination {
	struct bpf_spin_lock lock; /* of the set; zero when read from user space */
	__u32 used; /* tick of the last pick */
	__u32 changed; /* tick of the last change of the set */
	__u32 count; /* members, newest first; lblc has one */
	__u32 servers[DESTINATION_SERVERS]; /* indices */
};

/*
 * Services of a prefix of addresses or a range of ports. Key of the trie: the
 * longest prefix decides, and names a run of words with the ranges of its services
 * and then those of the prefixes around it, most specific first.
 */
struct match_key {
	__u32 bits; /* MATCH_HEAD_BITS, and the length of the prefix */
	__u32 head; /* protocol, and the family (4 or 6) in bits 8-15 */
	__u32 address[4];
};

struct match {
	__u32 list; /* first word: pairs of ports (first in the low half, host order) and service index */
	__u32 ranges;
};

enum match_layout {
	MATCH_HEAD_BITS = 32,
	MATCH_KEY_BITS = 160,
	MATCH_RANGES = 1024, /* at most, of one prefix and those around it */
};

/* Per CPU. Bytes are those of the IP packet. */
struct traffic {
	__u64 connections;
	__u64 in_packets;
	__u64 in_bytes;
	__u64 out_packets;
	__u64 out_bytes;
};

/* --- next hops ------------------------------------------------------------ */

/*
 * A next hop. Indices below LEARNED_HOPS are user space's (servers and
 * gateways); above, the program learns the hops its clients' packets came from.
 */
struct hop {
	__u8 destination_mac[6];
	__u8 source_mac[6];
	__be16 outer_vlan; /* VLAN id and bit VLAN_PRESENT (packet.h); 0: no tag */
	__be16 inner_vlan;
	__u32 ifindex; /* 0: not in use */
	__u16 generation; /* of a learned hop; a reference with another one is void */
	__u16 mtu; /* 0: not known */
	__u32 failed; /* user space says: send by the route instead */
	__u32 claim; /* taken while the program fills the slot in */
};

_Static_assert(sizeof(struct hop) == 32, "ABI");

#include "abi_odd.h"

enum hop_layout {
	HOP_INDEX_BITS = 16, /* a reference: index below, generation above */
	STATIC_HOPS = 32768,
	LEARNED_HOPS = 32768, /* the first learned index; as many may be learned */
	HOPS = 65536,
};

/* --- settings --------------------------------------------------------------- */

enum midstream {
	MIDSTREAM_DROP = 0,
	MIDSTREAM_RESET = 1,
};

/* Written by user space at any time; the program reads it on slow paths. */
struct settings {
	__u32 abi_version;
	__u32 midstream; /* enum midstream */
	__u32 icmp_per_tick; /* ICMP errors and resets one CPU may send a tick */
	__u32 slot_set; /* user space only: which set of slots the program in force uses, 0 or 1 */
	__u64 seed[12]; /* user space only: of the tables' hash; fixed when they are made */
	__u32 timeout[STATES]; /* ticks, by enum conn_state */
	__u32 seconds[3]; /* user space only: what the timeouts were set from: TCP, TCP-FIN, UDP */
	__u32 hz; /* user space only: jiffies a second, of which the tables' ticks are made */
	__u32 main_id; /* user space only: the kernel's number of the program that slot_set is of */
	__u32 watching; /* not 0: connection_news go to the ring */
};

/* What user space may change at any time, and no hit asks for. */
struct packet_options {
	__u32 locals4; /* addresses in locals that are offered, of IPv4 */
	__u32 locals6; /* and of IPv6 */
	__u16 local_first; /* ports that stand in for clients', host order */
	__u16 local_last;
	__u32 fragment_ticks; /* how long a first fragment is remembered */
	__u32 path_ticks; /* how long a path's MTU is believed */
	__u32 pad[11];
};

_Static_assert(sizeof(struct packet_options) == 64, "ABI");

/* Bitmaps: a packet with neither bit set is not ours; set bits may be others'. */
enum filter_shape {
	FILTER_BITS = 65536,
	FILTER_WORDS = FILTER_BITS / 32,
};

struct filter {
	__u32 virtual_address[FILTER_WORDS]; /* destinations */
	__u32 server_address[FILTER_WORDS]; /* sources: servers reached by NAT */
};

/*
 * Elements of slots: what shunt_root goes on to, then twice what that goes on
 * to: an upgrade fills the other set and then changes SLOT_MAIN.
 */
enum slot {
	SLOT_MAIN,
	SLOT_SETS, /* the first set begins here */
	SLOT_SETTLE = 0, /* in a set */
	SLOT_ADMIT,
	SLOT_CREATE,
	SLOT_ODD,
	SLOT_CARRY,
	SLOT_ICMP,
	SLOT_FRAGMENT,
	SLOTS_IN_SET,
	PROGRAM_SLOTS = SLOT_SETS + 2 * SLOTS_IN_SET,
};

#endif
