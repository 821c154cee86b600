//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Shows packets before and after the fast path: in the place of shunt_root while
 * somebody watches. The tail call to the fast path is in a function of its own, so that
 * its verdict comes back here. Which packets are shown is decided as they come, by what
 * their headers say; what has become of them, the verdict says, and the note that
 * finish.h leaves of a packet that ends here. A CPU has one packet at a time.
 *
 * Not by fentry and fexit of shunt_root, which would go with the process by themselves:
 * to find their target takes CAP_SYS_ADMIN (kernel: kernel/bpf/syscall.c,
 * bpf_btf_get_fd_by_id), and hardened kernels refuse tracing programs altogether.
 * A watcher that is killed leaves this in place: then it is one comparison, until the
 * next daemon puts shunt_root back.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "layout.h"

#define NOT_OURS ((__s64)-1)
#define TAGS 2
#define EXTENSION_HEADERS 4
#define IP_OFFSET 0x1fff
#define IP_MORE 0x2000

volatile const __u8 takes_all; /* packets of any service, and of none */
volatile const __u8 points; /* enum capture_point */
volatile const __u32 ranges_used;
volatile const __u32 snaplen;
volatile const __u64 cost; /* of a packet in ns: the generic cell rate algorithm's, as in abi.h */
volatile const __u64 burst;
volatile const __u32 note_offset; /* of the note of drops in the programs' scratch memory */
volatile const __u32 only_event; /* of POINT_DROPPED; 0: any */
volatile const __u32 only_service;
volatile const __u32 only_interface;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct capture_key);
	__type(value, __u32); /* index of the service */
} capture_keys SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CAPTURE_RANGES);
	__type(key, __u32);
	__type(value, struct capture_range);
} capture_ranges SEC(".maps");

/* By the note's key of what ended here, 0 of others: when the next would be on time. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, __u64);
} capture_budgets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct capture_missing);
} capture_losses SEC(".maps");

/* struct capture_record and octets. User space says how large. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} capture_records SEC(".maps");

/* Where a record is made. */
struct capture_buffer {
	struct capture_record record;
	__u8 octets[CAPTURE_OCTETS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct capture_buffer);
} capture_buffers SEC(".maps");

/* The fast path's, from here to capture_current: user space puts them here, with the sizes they have. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct drop_note);
} scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64);
} watched_until SEC(".maps");

/* Of the packet that the CPU has. */
struct current_packet {
	__u64 came;
	__s64 service; /* or NOT_OURS */
	__u32 ifindex;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct current_packet);
} capture_current SEC(".maps");

/* What a packet's headers say. */
struct view {
	__u32 source[4];
	__u32 destination[4];
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 has_ports;
	__u8 is_icmp_error;
	__u8 family;
	__u32 next; /* offset of what follows the transport header's first 8 octets, of ICMP */
};

static __always_inline int load(struct xdp_md *ctx, __u32 at, void *to, const __u32 size)
{
	return !bpf_xdp_load_bytes(ctx, at, to, size);
}

static __always_inline struct drop_note *note(void)
{
	__u32 zero = 0;
	void *slow = bpf_map_lookup_elem(&scratch, &zero);

	return slow ? slow + note_offset : 0;
}

static __always_inline int is_icmp_error(__u8 icmp_type, __u8 family)
{
	if (family == 6)
		return icmp_type < 128; /* RFC 4443 §2.1 */
	return icmp_type == 3 || icmp_type == 4 || icmp_type == 5 || icmp_type == 11 || icmp_type == 12;
}

/* The transport header at at: ports, or what kind of ICMP it is. */
static __always_inline void view_transport(struct xdp_md *ctx, __u32 at, struct view *v)
{
	__be16 ports[2];
	__u8 icmp_type;

	if (v->protocol == IPPROTO_TCP || v->protocol == IPPROTO_UDP) {
		if (!load(ctx, at, ports, sizeof(ports)))
			return;
		v->source_port = ports[0];
		v->destination_port = ports[1];
		v->has_ports = 1;
		return;
	}
	if ((v->protocol == IPPROTO_ICMP || v->protocol == IPPROTO_ICMPV6) && load(ctx, at, &icmp_type, 1)) {
		v->is_icmp_error = is_icmp_error(icmp_type, v->family);
		v->next = at + 8;
	}
}

static __always_inline int view4(struct xdp_md *ctx, __u32 at, struct view *v)
{
	struct iphdr ip;

	if (!load(ctx, at, &ip, sizeof(ip)) || ip.version != 4)
		return 0;
	v->family = 4;
	v->source[0] = ip.saddr;
	v->destination[0] = ip.daddr;
	v->protocol = ip.protocol;
	if (!(ip.frag_off & bpf_htons(IP_OFFSET)))
		view_transport(ctx, at + ip.ihl * 4, v);
	return 1;
}

static __always_inline int view6(struct xdp_md *ctx, __u32 at, struct view *v)
{
	struct ipv6hdr ip6;

	if (!load(ctx, at, &ip6, sizeof(ip6)) || ip6.version != 6)
		return 0;
	v->family = 6;
	__builtin_memcpy(v->source, &ip6.saddr, sizeof(v->source));
	__builtin_memcpy(v->destination, &ip6.daddr, sizeof(v->destination));
	v->protocol = ip6.nexthdr;
	at += sizeof(ip6);
	for (int i = 0; i < EXTENSION_HEADERS; i++) {
		__u8 header[4];

		if (v->protocol != IPPROTO_HOPOPTS && v->protocol != IPPROTO_DSTOPTS &&
		    v->protocol != IPPROTO_ROUTING && v->protocol != IPPROTO_FRAGMENT)
			break;
		if (!load(ctx, at, header, sizeof(header)))
			return 1;
		if (v->protocol == IPPROTO_FRAGMENT && (header[2] || header[3] & 0xf8)) {
			v->protocol = header[0];
			return 1;
		}
		at += v->protocol == IPPROTO_FRAGMENT ? 8 : (header[1] + 1) * 8;
		v->protocol = header[0];
	}
	view_transport(ctx, at, v);
	return 1;
}

/* Which service has the key; NOT_OURS. */
static __always_inline __s64 service_with(struct capture_key *key)
{
	__u32 *service = bpf_map_lookup_elem(&capture_keys, key);

	return service ? *service : NOT_OURS;
}

/* Whose an end of the packet is. */
static __noinline __s64 service_at(struct view *v, __u32 side, __u32 at_source)
{
	struct capture_key key = { .side = side, .family = v->family };
	__s64 service;

	__builtin_memcpy(key.address, at_source ? v->source : v->destination, sizeof(key.address));
	if (!v->has_ports)
		return service_with(&key);
	key.port = at_source ? v->source_port : v->destination_port;
	key.protocol = v->protocol;
	service = service_with(&key);
	if (service != NOT_OURS)
		return service;
	key.port = 0;
	return service_with(&key);
}

static __always_inline int is_in_range(const struct capture_range *r, const struct view *v, __u32 at_source)
{
	const __u32 *address = at_source ? v->source : v->destination;
	__u16 port = bpf_ntohs(at_source ? v->source_port : v->destination_port);

	if (r->family != v->family)
		return 0;
	for (int i = 0; i < 4; i++)
		if ((address[i] & r->mask[i]) != r->address[i])
			return 0;
	return !v->has_ports || (r->protocol == v->protocol && port >= r->first && port <= r->last);
}

static __noinline __s64 service_in_range(struct view *v, __u32 at_source)
{
	for (__u32 i = 0; i < CAPTURE_RANGES && i < ranges_used; i++) {
		__u32 index = i;
		struct capture_range *r = bpf_map_lookup_elem(&capture_ranges, &index);

		if (r && is_in_range(r, v, at_source))
			return r->service;
	}
	return NOT_OURS;
}

/* Whose the packet is; one that an ICMP error quotes went the other way. */
static __noinline __s64 service_of(struct view *v, __u32 is_quoted)
{
	__s64 service = service_at(v, SIDE_DESTINATION, is_quoted);

	if (service == NOT_OURS)
		service = service_at(v, SIDE_SOURCE, !is_quoted);
	if (service == NOT_OURS && ranges_used)
		service = service_in_range(v, is_quoted);
	return service;
}

static __noinline int view_packet(struct xdp_md *ctx, struct view *v, __u32 at, __u32 eth_proto)
{
	return eth_proto == bpf_htons(ETH_P_IP)   ? view4(ctx, at, v) :
	       eth_proto == bpf_htons(ETH_P_IPV6) ? view6(ctx, at, v) :
						    0;
}

/* Whose the frame is, by its own headers or by those that an ICMP error quotes. */
static __noinline __s64 select_service(struct xdp_md *ctx)
{
	__be16 eth_proto;
	__u32 at = ETH_HLEN;
	struct view v = {};

	if (!load(ctx, at - sizeof(eth_proto), &eth_proto, sizeof(eth_proto)))
		return NOT_OURS;
	for (int i = 0; i < TAGS; i++) {
		if (eth_proto != bpf_htons(ETH_P_8021Q) && eth_proto != bpf_htons(ETH_P_8021AD))
			break;
		at += 4;
		if (!load(ctx, at - sizeof(eth_proto), &eth_proto, sizeof(eth_proto)))
			return NOT_OURS;
	}
	if (!view_packet(ctx, &v, at, eth_proto))
		return NOT_OURS;
	if (v.is_icmp_error) {
		struct view quoted = {};
		__s64 service = NOT_OURS;

		if (view_packet(ctx, &quoted, v.next, eth_proto))
			service = service_of(&quoted, 1);
		if (service != NOT_OURS)
			return service;
	}
	return service_of(&v, 0);
}

/* Whether there may be one more now, of what has that key. */
static __noinline int is_on_time(__u64 key, __u64 now)
{
	__u64 *budget, old, next, zero = 0;

	if (!cost)
		return 1;
	budget = bpf_map_lookup_elem(&capture_budgets, &key);
	if (!budget) {
		bpf_map_update_elem(&capture_budgets, &key, &zero, BPF_NOEXIST);
		budget = bpf_map_lookup_elem(&capture_budgets, &key);
		if (!budget)
			return 1;
	}
	old = *(volatile __u64 *)budget;
	next = old > now ? old : now;
	if (next - now > burst)
		return 0;
	/* One that lost against another CPU goes past the limit: it is one. */
	__sync_val_compare_and_swap(budget, old, next + cost);
	return 1;
}

static __always_inline struct capture_missing *missing(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&capture_losses, &zero);
}

static __always_inline struct current_packet *current_packet(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&capture_current, &zero);
}

/* Shows the packet of the CPU at the point. */
static __noinline int show(struct xdp_md *ctx, __u32 point, __u32 action, __u64 drop)
{
	struct current_packet *p = current_packet();
	struct capture_missing *m;
	struct capture_buffer *b;
	__u64 size = bpf_xdp_get_buff_len(ctx), rest;
	__u32 zero = 0;

	b = bpf_map_lookup_elem(&capture_buffers, &zero);
	if (!b || !p)
		return 0;
	b->record.came = p->came;
	b->record.time = bpf_ktime_get_ns();
	b->record.drop = drop;
	b->record.length = size;
	b->record.ifindex = p->ifindex;
	b->record.service = point == POINT_DROPPED ? (__u32)drop >> DROP_SERVICE : (__u32)p->service;
	b->record.action = action;
	b->record.point = point;
	size = size < snaplen ? size : snaplen;
	/* Bounds that the verifier of 6.1 sees: at least one octet, kept from clang's hands. */
	rest = size - 1;
	asm volatile("" : "+r"(rest));
	if (rest < CAPTURE_OCTETS && !bpf_xdp_load_bytes(ctx, 0, b->octets, rest + 1))
		size = rest + 1;
	else
		size = 0;
	b->record.captured = size;
	if (!bpf_ringbuf_output(&capture_records, b, sizeof(b->record) + size, 0))
		return 0;
	m = missing();
	if (m)
		m->lost += 1;
	return 0;
}

static __noinline int has_time(__u64 key, __u64 now)
{
	struct capture_missing *m;

	if (is_on_time(key, now))
		return 1;
	m = missing();
	if (m)
		m->limited += 1;
	return 0;
}

/* The packet as it comes. */
static __noinline int before(struct xdp_md *ctx)
{
	struct current_packet *p = current_packet();
	struct drop_note *n = note();
	__s64 service;

	if (!p || !n)
		return 0;
	n->key = 0;
	p->came = bpf_ktime_get_ns();
	p->ifindex = ctx->ingress_ifindex;
	p->service = NOT_OURS;
	if (points & POINT_DROPPED)
		return 0;
	service = select_service(ctx);
	if (takes_all && service == NOT_OURS)
		service = 0;
	if (service == NOT_OURS || !has_time(0, p->came))
		return 0;
	p->service = service;
	if (points & POINT_BEFORE)
		show(ctx, POINT_BEFORE, 0, 0);
	return 0;
}

/* Whether the packet that ended as the note says is one of those asked for. */
static __always_inline int is_wanted_drop(__u64 key)
{
	return key && (!only_event || (key & 0xff) == only_event) &&
	       (!only_service || ((__u32)key >> DROP_SERVICE) == only_service) &&
	       (!only_interface || key >> DROP_INTERFACE == only_interface);
}

/* And as it leaves. */
static __noinline int after(struct xdp_md *ctx, __u32 action)
{
	struct current_packet *p = current_packet();
	struct drop_note *n = note();

	if (!p || !n)
		return 0;
	if (points & POINT_DROPPED) {
		if (is_wanted_drop(n->key) && has_time(n->key, p->came))
			show(ctx, POINT_DROPPED, action, n->key);
	} else if (p->service != NOT_OURS && points & POINT_AFTER) {
		show(ctx, POINT_AFTER, action, n->key);
	}
	return 0;
}

/* The fast path: its verdict is what this returns. clang must not think that it is always the one below. */
static __noinline int go_on(struct xdp_md *ctx)
{
	int action = XDP_PASS; /* detached: as shunt_root */

	bpf_tail_call(ctx, &slots, SLOT_MAIN);
	asm volatile("" : "+r"(action));
	return action;
}

static __always_inline int is_watched(void)
{
	__u32 zero = 0;
	volatile __u64 *until = bpf_map_lookup_elem(&watched_until, &zero);

	return until && bpf_ktime_get_coarse_ns() < *until;
}

SEC("xdp.frags")
int shunt_watched(struct xdp_md *ctx)
{
	int action;

	if (!is_watched())
		return go_on(ctx);
	before(ctx);
	action = go_on(ctx);
	after(ctx, action);
	return action;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Types that Go names but no map has: kept in the object's type information. */
#define EXPORT(type, name) const type *export_##name __attribute__((unused))
EXPORT(enum capture_point, capture_point);
EXPORT(enum capture_side, capture_side);
EXPORT(enum capture_shape, capture_shape);
EXPORT(struct capture_record, capture_record);
