package xdp

import (
	"context"
	"fmt"
	"iter"
	"net/netip"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// Why a connection is not loaded.
const (
	skipExpired     = "expired"            // no time is left
	skipOther       = "of-another-service" // its protocol, address or port
	skipState       = "state-unknown"      // not one that the protocol has here
	skipMethod      = "method-unsupported" // none of those there are
	skipServer      = "no-such-server"     // the service has none at that address
	skipPersistence = "other-persistence"  // a template of a service that has no such ones
	skipCollision   = "reply-collision"    // another connection of the server has the client's port
	skipLocal       = "no-such-local"      // fullnat: what stands in for the client is no address of the pool
	skipRoom        = "table-full"         // among proven ones
	skipFault       = "fault"              // cannot happen
)

// Load takes over connections that exist elsewhere, in the kernel's IPVS, and
// templates. Those that were loaded before have the state of now, unless packets have
// moved it on here. One that has ended makes way for another of the same server and
// client port, and counts as known. What the table has no room for is skipped: only
// what is older than the load is given up for it, as for new connections. They have the time left that they come with, or the timeout of their
// state here if that is shorter. Where their clients' packets come from is not known:
// until each has sent one, replies go by the route. They are not counted as new.
//
// The program inserts them in batches, in the order they come in; connections under
// a template follow when all others are there. An error leaves those before it, and
// the report is of these.
func (d *Dataplane) Load(ctx context.Context, key director.ServiceKey, connections iter.Seq[conntrack.Connection]) (director.LoadReport, error) {
	l := loader{Dataplane: d, key: key, isProven: isProven, report: director.LoadReport{Skipped: map[string]uint64{}}}
	var under []conntrack.Connection
	err := l.load(ctx, func(yield func(conntrack.Connection) bool) {
		for c := range connections {
			if c.UnderTemplate && !c.Template {
				under = append(under, c)
			} else if !yield(c) {
				return
			}
		}
	})
	if err == nil {
		err = l.load(ctx, func(yield func(conntrack.Connection) bool) {
			for i := range under {
				if !yield(under[i]) {
					return
				}
			}
		})
	}
	if err != nil {
		return l.report, fmt.Errorf("load connections of %s: %w", key, err)
	}
	return l.report, nil
}

// loader is one run of Load.
type loader struct {
	*Dataplane
	key director.ServiceKey
	// isProven says whether the connection's client has shown to be real.
	isProven func(*conntrack.Connection) bool
	// isBound: their servers are never others.
	isBound bool
	report  director.LoadReport
}

// load loads the connections in batches. An empty one is loaded too: is there such
// a service?
func (l *loader) load(ctx context.Context, connections iter.Seq[conntrack.Connection]) error {
	batch := make([]conntrack.Connection, 0, bpf.LoadBatch)
	for c := range connections {
		if batch = append(batch, c); len(batch) < bpf.LoadBatch {
			continue
		}
		if err := l.flush(ctx, batch); err != nil {
			return err
		}
		batch = batch[:0]
	}
	return l.flush(ctx, batch)
}

// flush loads one batch: the servers that it names are the same from here until the
// program has run.
func (l *loader) flush(ctx context.Context, batch []conntrack.Connection) error {
	leave, err := l.gate.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.check(ctx); err != nil {
		return err
	}
	svc, err := l.model.live(l.key)
	if err != nil {
		return err
	}
	entries := make([]bpf.KernelLoadEntry, 0, len(batch))
	for i := range batch {
		entry, reason := l.loadEntry(svc, &batch[i])
		if reason != "" {
			l.report.Skipped[reason]++
			continue
		}
		if l.isProven(&batch[i]) {
			entry.Flags |= uint8(bpf.KernelLoadFlagsLOAD_PROVEN)
		}
		if l.isBound {
			entry.Flags |= uint8(bpf.KernelLoadFlagsLOAD_BOUND)
		}
		entries = append(entries, entry)
	}
	if err := l.plane.Load(l.key.Address.Addr().Is6(), entries); err != nil {
		return err
	}
	for i := range entries {
		l.count(bpf.KernelLoadResult(entries[i].Result))
	}
	return nil
}

func (l *loader) count(result bpf.KernelLoadResult) {
	switch result {
	case bpf.KernelLoadResultLOAD_DONE:
		l.report.Loaded++
	case bpf.KernelLoadResultLOAD_KNOWN, bpf.KernelLoadResultLOAD_OVER:
		l.report.Known++
	case bpf.KernelLoadResultLOAD_NO_SERVER:
		l.report.Skipped[skipServer]++
	case bpf.KernelLoadResultLOAD_COLLISION:
		l.report.Skipped[skipCollision]++
	case bpf.KernelLoadResultLOAD_NO_ROOM:
		l.report.Skipped[skipRoom]++
	default:
		l.report.Skipped[skipFault]++
	}
}

// loadEntry is the connection or template as the program takes it, or the reason
// why the service cannot have it.
func (l *loader) loadEntry(svc *service, c *conntrack.Connection) (bpf.KernelLoadEntry, string) {
	clock := l.plane.Clock
	var none bpf.KernelLoadEntry
	method, err := realserver.ParseMethod(c.Method)
	if err != nil || !isSupported(method) {
		return none, skipMethod
	}
	if c.Expires < 0 {
		return none, skipExpired
	}
	left := c.Expires
	if left == 0 {
		// The last second's rest in whole seconds (kernel: ip_vs_conn.c, ip_vs_conn_seq_show):
		// a template that has connections lives on after it (ip_vs_conn_expire).
		left = time.Second
	}
	entry := bpf.KernelLoadEntry{Left: clock.Ticks(left), Age: clock.BornTicks(c.Age), Method: uint8(method)}
	reason := ""
	if c.Template {
		reason = addTemplate(&entry, svc, c)
	} else {
		reason = addConnection(&entry, svc, c)
	}
	if method == realserver.FullNAT && !c.Template && reason == "" {
		reason = l.addLocal(&entry, c)
	}
	if reason != "" {
		return none, reason
	}
	s := memberOf(svc, c)
	if s == nil || s.removed {
		return none, skipServer
	}
	if method == realserver.Tunnel && s.method != method {
		return none, skipMethod // how to wrap its packets, only a server of that method says
	}
	entry.Server = s.index
	return entry, ""
}

// addLocal gives the entry what stands in for the client of a connection by full NAT:
// its server knows it by that.
func (l *loader) addLocal(entry *bpf.KernelLoadEntry, c *conntrack.Connection) string {
	index, ok := l.locals.index[c.Local.Addr()]
	if !ok || c.Local.Port() == 0 {
		return skipLocal
	}
	entry.Local = bpf.MakeLocal(index, c.Local.Port())
	return ""
}

// addConnection gives the entry what a connection has.
func addConnection(entry *bpf.KernelLoadEntry, svc *service, c *conntrack.Connection) string {
	is6 := svc.key.Address.Addr().Is6()
	if c.Protocol != svc.key.Protocol || !svc.key.Contains(c.Virtual) || c.Client.Addr().Is6() != is6 ||
		c.Client.Port() == 0 || c.Virtual.Port() == 0 {
		return skipOther
	}
	if !hasState(c.Protocol, c.State) {
		return skipState
	}
	entry.Client, entry.ClientPort = bpf.Address(c.Client.Addr()), bpf.Port(c.Client.Port())
	entry.VirtualAddress, entry.VirtualPort = bpf.Address(c.Virtual.Addr()), bpf.Port(c.Virtual.Port())
	entry.Protocol, entry.State = uint8(c.Protocol), uint8(c.State)
	if c.UnderTemplate {
		entry.Flags |= uint8(bpf.KernelLoadFlagsLOAD_CONTROLLED)
	}
	return ""
}

// addTemplate gives the entry what a template has. The kernel keeps the address
// that clients of it ask for, and the port if the service has one: a service's
// templates here are those of the service.
func addTemplate(entry *bpf.KernelLoadEntry, svc *service, c *conntrack.Connection) string {
	client := c.Client.Addr()
	if c.Mark != 0 || c.Protocol != svc.key.Protocol || client.Is6() != svc.key.Address.Addr().Is6() ||
		!svc.key.Prefix().Contains(c.Virtual.Addr()) {
		return skipOther
	}
	if svc.persistence.Timeout == 0 || c.Prefix != svc.persistence.Prefix || c.Engine != "" {
		return skipPersistence
	}
	network := netip.PrefixFrom(client, int(c.Prefix)).Masked()
	entry.Client, entry.VirtualAddress = bpf.Address(network.Addr()), [4]uint32{svc.index}
	entry.Protocol = uint8(bpf.KernelTemplateLayoutPROTOCOL_TEMPLATE)
	entry.State = uint8(bpf.KernelConnStateSTATE_TEMPLATE)
	return ""
}

// memberOf returns the connection's server; one of a service of several ports may
// have the client's.
func memberOf(svc *service, c *conntrack.Connection) *server {
	if s := svc.members[c.Server]; s != nil {
		return s
	}
	if port := c.Server.Port(); port != 0 && port != c.Virtual.Port() {
		return nil
	}
	return svc.members[netip.AddrPortFrom(c.Server.Addr(), 0)]
}

// isProven says whether the client of the kernel's connection has shown to be real:
// TCP's handshake alone leads to these states (kernel: ip_vs_proto_tcp.c, tcp_states).
func isProven(c *conntrack.Connection) bool {
	if c.Proven || c.Template {
		return c.Proven || c.State == conntrack.Assured
	}
	return c.State == conntrack.Established || c.State == conntrack.FinWait || c.State == conntrack.CloseWait
}

// hasState says whether connections of the protocol can be in the state.
func hasState(protocol conntrack.Protocol, state conntrack.State) bool {
	if protocol == conntrack.UDP {
		return state == conntrack.UDPNormal
	}
	return state < conntrack.UDPNormal
}
