package bpf

import (
	"fmt"
	"iter"

	"github.com/cilium/ebpf"
)

// EventInfo says what an event counter counts (abi.h, enum event).
type EventInfo struct {
	Name string
	Kind string // pass, drop, answer, note or fault
	Help string
}

// Events are the counters' names by their numbers in the ABI, which are theirs for ever.
// Those without a name are not in use: AllEvents leaves them out.
var Events = [KernelEventEVENTS]EventInfo{
	KernelEventEVENT_PASS_NOT_OURS:   {"not-ours", "pass", "neither to a virtual address nor from a server"},
	KernelEventEVENT_PASS_NO_SERVICE: {"no-service", "pass", "to or from an address of ours, but of no service or connection"},
	KernelEventEVENT_PASS_MALFORMED:  {"malformed", "pass", "headers too short or inconsistent"},
	KernelEventEVENT_PASS_ICMP:       {"icmp", "pass", "ICMP to or from an address of ours"},
	KernelEventEVENT_PASS_FRAGMENT:   {"fragment", "pass", "fragments to or from an address of ours"},
	KernelEventEVENT_PASS_PROTOCOL:   {"protocol", "pass", "neither TCP nor UDP, to or from an address of ours"},
	KernelEventEVENT_PASS_LOCAL:      {"local", "pass", "connections served by this host (method local)"},
	KernelEventEVENT_PASS_MIGRATING:  {"migrating", "pass", "connections that the host's stack still has, of services that come from there"},

	KernelEventEVENT_DROP_MIGRATION_HELD:      {"migration-held", "drop", "connections that the host's stack still has, while the last of them are taken over"},
	KernelEventEVENT_DROP_MIDSTREAM:           {"midstream", "drop", "TCP without a connection, and not its first packet"},
	KernelEventEVENT_DROP_SERVER_REMOVED:      {"server-removed", "drop", "the connection's server was removed"},
	KernelEventEVENT_DROP_SERVICE_REMOVED:     {"service-removed", "drop", "the connection's service was removed"},
	KernelEventEVENT_DROP_UNREACHABLE:         {"unreachable", "drop", "the connection's server has no next hop"},
	KernelEventEVENT_DROP_REPLY_COLLISION:     {"reply-collision", "drop", "every server tried has a connection of this client port already"},
	KernelEventEVENT_DROP_TABLE_FULL:          {"table-full", "drop", "no room for a new connection"},
	KernelEventEVENT_DROP_FTP_DATA:            {"ftp-data", "drop", "new connection from port 20, which is never scheduled"},
	KernelEventEVENT_DROP_MARTIAN:             {"martian", "drop", "new connection from an address no other host can have"},
	KernelEventEVENT_DROP_ACCESS_DENIED:       {"access-denied", "drop", "new connection from where the service's access list lets none in"},
	KernelEventEVENT_DROP_SERVICE_RATE:        {"service-rate", "drop", "new connection beyond the service's limit of new ones a second"},
	KernelEventEVENT_DROP_SERVICE_CONNECTIONS: {"service-connections", "drop", "new connection beyond the service's limit of those at one time"},
	KernelEventEVENT_DROP_SOURCE_RATE:         {"source-rate", "drop", "new connection beyond the limit of new ones a second from one source network"},
	KernelEventEVENT_DROP_SOURCE_CONNECTIONS:  {"source-connections", "drop", "new connection beyond the limit of those of one source network at one time"},
	KernelEventEVENT_DROP_GUARD_ANSWERED:      {"guard-answered", "drop", "a client's answer to the guard, by which it has shown to be real"},
	KernelEventEVENT_DROP_NO_ROUTE:            {"no-route", "drop", "no way out: no route, no neighbour, forwarding off or interface not attached"},
	KernelEventEVENT_DROP_VLAN:                {"vlan", "drop", "the VLAN tag could not be changed for the next hop"},
	KernelEventEVENT_DROP_RATE_LIMITED:        {"rate-limited", "drop", "an ICMP error or reset was due but too many were sent"},
	KernelEventEVENT_DROP_NOT_QUOTABLE:        {"not-quotable", "drop", "an ICMP error or reset was due but could not be made of the packet"},
	KernelEventEVENT_DROP_BUSY:                {"busy", "drop", "another CPU was making or removing the connection"},
	KernelEventEVENT_DROP_TOO_BIG:             {"too-big", "drop", "longer than the next hop's MTU, and its sender may not be told"},
	KernelEventEVENT_DROP_HEADROOM:            {"headroom", "drop", "the frame has no room in front for the tunnel's headers"},
	KernelEventEVENT_DROP_LOCAL_PORTS:         {"local-ports", "drop", "full NAT: no address and port left to stand in for the client's"},
	KernelEventEVENT_DROP_FRAGMENT_UNKNOWN:    {"fragment-unknown", "drop", "a later fragment of a datagram whose first was not seen"},
	KernelEventEVENT_DROP_FRAGMENT_TINY:       {"fragment-tiny", "drop", "a fragment that divides the transport header"},
	KernelEventEVENT_DROP_ECHO:                {"echo-dropped", "drop", "echo requests to a virtual address without a server to offer"},
	KernelEventEVENT_DROP_ICMP:                {"icmp-dropped", "drop", "an ICMP error of a connection that could not be sent on"},

	KernelEventEVENT_ANSWER_NO_SERVER: {"no-server", "answer", "no server available: ICMP port unreachable"},
	KernelEventEVENT_ANSWER_TTL:       {"ttl-exceeded", "answer", "time to live used up: ICMP time exceeded"},
	KernelEventEVENT_ANSWER_TOO_BIG:   {"frag-needed", "answer", "longer than the next hop's MTU: ICMP too big"},
	KernelEventEVENT_ANSWER_RESET:     {"reset", "answer", "TCP without a connection, reset by setting"},
	KernelEventEVENT_ANSWER_GUARD:     {"guard", "answer", "a first segment of an unknown source, answered so that a real client shows itself"},
	KernelEventEVENT_ANSWER_KILLED:    {"killed", "answer", "TCP of a connection that was killed: its sender reset"},
	KernelEventEVENT_ANSWER_ECHO:      {"echo", "answer", "echo requests to a virtual address, answered"},

	KernelEventEVENT_NOTE_EVICTED:            {"evicted", "note", "unproven connections given up for new ones"},
	KernelEventEVENT_NOTE_INSERT_RACE:        {"insert-race", "note", "another CPU made the same connection first"},
	KernelEventEVENT_NOTE_COLLISION_AVOIDED:  {"collision-avoided", "note", "another server chosen because a reply key was taken"},
	KernelEventEVENT_NOTE_HOP_CHANGED:        {"hop-changed", "note", "a client's packets came from another next hop"},
	KernelEventEVENT_NOTE_HOPS_FULL:          {"hops-full", "note", "a client's next hop was not learned: replies go by the route"},
	KernelEventEVENT_NOTE_BY_ROUTE:           {"by-route", "note", "replies sent by the route"},
	KernelEventEVENT_NOTE_EXPIRED_HIT:        {"expired-hit", "note", "packets of expired connections the sweep had not removed"},
	KernelEventEVENT_NOTE_STALE_READ:         {"stale-read", "note", "table slots reused while they were read"},
	KernelEventEVENT_NOTE_CURSOR_CONTENDED:   {"cursor-contended", "note", "rr or wrr picks that did not move on"},
	KernelEventEVENT_NOTE_DESTINATIONS_FULL:  {"destinations-full", "note", "lblc or lblcr picks not remembered: no room for another destination"},
	KernelEventEVENT_NOTE_TEMPLATE_HEALED:    {"template-healed", "note", "templates whose count of connections was wrong and was put right"},
	KernelEventEVENT_NOTE_STATELESS:          {"stateless", "note", "packets served by the hash alone, as the table is full or was not long ago"},
	KernelEventEVENT_NOTE_GUARD_ON:           {"guard-on", "note", "a service's guard went on by itself"},
	KernelEventEVENT_NOTE_GUARD_OFF:          {"guard-off", "note", "a service's guard went off by itself"},
	KernelEventEVENT_NOTE_KILLED:             {"killed-forwarded", "note", "packets of a connection that was killed, sent on as a reset of the other side"},
	KernelEventEVENT_NOTE_CARRIED:            {"carried", "note", "connections brought over from the table before"},
	KernelEventEVENT_NOTE_CARRY_LOST:         {"carry-lost", "note", "connections not brought over: no room, or there already"},
	KernelEventEVENT_NOTE_NEWS_LOST:          {"news-lost", "note", "openings and closings that watchers were not told of, being too slow"},
	KernelEventEVENT_NOTE_ICMP_IN:            {"icmp-to-server", "note", "ICMP errors sent on to the server of the connection they quote"},
	KernelEventEVENT_NOTE_ICMP_OUT:           {"icmp-to-client", "note", "ICMP errors sent on to the client of the connection they quote"},
	KernelEventEVENT_NOTE_PATH_MTU:           {"path-mtu", "note", "routers' reports of the MTU of a tunnel's path"},
	KernelEventEVENT_NOTE_FRAGMENTS:          {"fragments", "note", "later fragments that followed the first of their datagram"},
	KernelEventEVENT_NOTE_MSS_CLAMPED:        {"mss-clamped", "note", "first segments whose announced segment size was lowered"},
	KernelEventEVENT_NOTE_DROPS_UNLISTED:     {"drops-unlisted", "note", "drops that are counted by their reason alone, as too many kinds are listed"},
	KernelEventEVENT_NOTE_PATH_MTU_REFUSED:   {"path-mtu-refused", "note", "reports of the MTU of a tunnel's path that quote no connection by it, and are not believed"},
	KernelEventEVENT_NOTE_SERVER_SUSPENDED:   {"server-suspended", "note", "servers that get no new connections for a while, by what packets told of them"},
	KernelEventEVENT_NOTE_SUSPENSIONS_LIFTED: {"suspensions-lifted", "note", "times that all servers of a service were suspended and all were tried again"},

	KernelEventEVENT_FAULT_MAP:    {"fault-map", "fault", "a map without an element that must be there"},
	KernelEventEVENT_FAULT_SERVER: {"fault-server", "fault", "a connection of a server that is free"},
}

// AllEvents returns the events and their numbers, in their order.
func AllEvents() iter.Seq2[KernelEvent, EventInfo] {
	return func(yield func(KernelEvent, EventInfo) bool) {
		for i, info := range Events {
			if info.Name != "" && !yield(KernelEvent(i), info) {
				return
			}
		}
	}
}

// EventCounts reads all event counters, summed over CPUs, by their numbers.
func (p *Plane) EventCounts() ([KernelEventEVENTS]uint64, error) {
	return EventCountsOf(p.KernelMaps.Events, p.KernelMaps.Drops)
}

// EventCountsOf is EventCounts of these maps. What the program counts by reason, service
// and interface it does not count by its event too: that costs a packet in a flood.
func EventCountsOf(events, drops *ebpf.Map) ([KernelEventEVENTS]uint64, error) {
	var counts [KernelEventEVENTS]uint64
	if err := readPerCPU(events, uint32(len(counts)), func(i uint32, n *uint64) { counts[i] += *n }); err != nil {
		return counts, err
	}
	err := eachDropRow(drops, func(_ uint32, r *KernelDropRow) {
		counts[DecodeDrop(r.Key).Event] += r.Packets
	})
	return counts, err
}

// Traffic reads a server's counters, summed over CPUs.
func (p *Plane) Traffic(server uint32) (KernelTraffic, error) {
	var perCPU []KernelTraffic
	var sum KernelTraffic
	if err := p.ServerTraffic.Lookup(server, &perCPU); err != nil {
		return sum, fmt.Errorf("read counters of server %d: %w", server, err)
	}
	for i := range perCPU {
		sum.add(&perCPU[i])
	}
	return sum, nil
}

// AllTraffic reads the counters of the servers with indices below count, summed
// over CPUs.
func (p *Plane) AllTraffic(count uint32) ([]KernelTraffic, error) {
	sums := make([]KernelTraffic, count)
	err := readPerCPU(p.ServerTraffic, count, func(i uint32, t *KernelTraffic) { sums[i].add(t) })
	return sums, err
}

func (t *KernelTraffic) add(o *KernelTraffic) {
	t.Connections += o.Connections
	t.InPackets += o.InPackets
	t.InBytes += o.InBytes
	t.OutPackets += o.OutPackets
	t.OutBytes += o.OutBytes
}
