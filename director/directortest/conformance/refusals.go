package conformance

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// refused runs operations of which the one at the place fails, with that kind, and
// nothing after it is done.
func (b *bench) refused(kind error, at int, ops ...director.Operation) {
	b.Helper()
	err := b.Apply(b.Context(), ops)
	failed := (*director.OperationError)(nil)
	switch {
	case !errors.As(err, &failed):
		b.Errorf("error %v (%T), want that %q fails", err, err, ops[at])
	case failed.Operation.String() != ops[at].String():
		b.Errorf("failed: %q, want %q", failed.Operation, ops[at])
	case !errors.Is(err, kind):
		b.Errorf("error %v, want one that is %v", err, kind)
	}
}

// The operation that fails is named; those before it are done, those after it not.
func testFailures(b *bench) {
	web, dns := b.service(tcp(b.vip4), realserver.NAT), b.service(udp(b.vip4), realserver.DR)
	add := director.AddService{Service: web}
	b.refused(director.ErrNotFound, 1, add, director.AddServer{Key: dns.Key, Server: dns.Servers[0]}, director.AddService{Service: dns})
	empty := web.Clone()
	empty.Servers = nil
	b.holds(empty)
	b.refused(director.ErrNotFound, 0, director.EditService{Service: dns})
	b.refused(director.ErrNotFound, 0, director.EditServer{Key: dns.Key, Server: dns.Servers[0]})
	b.refused(director.ErrNotFound, 0, director.EditServer{Key: web.Key, Server: web.Servers[0]})
	b.holds(empty)
	b.apply(adding(web)...) // the service is there, its servers are not
	b.holds(web)
}

// Timeouts that are zero are left as they are.
func testTimeouts(b *bench) {
	before := b.found().Timeouts
	if before.TCP == 0 || before.TCPFin == 0 || before.UDP == 0 {
		b.Errorf("timeouts %s, want some", before)
	}
	want := conntrack.Timeouts{TCP: 77 * time.Second, TCPFin: 33 * time.Second, UDP: 55 * time.Second}
	for range 2 {
		b.apply(director.SetTimeouts{Timeouts: want})
		b.same("timeouts", want, b.found().Timeouts)
	}
	want.UDP = 44 * time.Second
	b.apply(director.SetTimeouts{Timeouts: conntrack.Timeouts{UDP: want.UDP}})
	b.same("timeouts", want, b.found().Timeouts)
	b.reopen()
	b.same("timeouts after a restart", want, b.found().Timeouts)
	b.apply(director.SetTimeouts{Timeouts: before})
}

// What the features grant works, and what they deny is refused and leaves nothing.
func testFeatures(b *bench) {
	f := b.Features()
	if of, err := director.FeaturesOf(f.Plane); err != nil || of != f {
		b.Errorf("features %+v, want those of the data plane %s: %+v, %v", f, f.Plane, of, err)
	}
	with := func(s director.Service, edit func(*director.Service)) director.Service {
		s = s.Clone()
		edit(&s)
		return s.Normalize()
	}
	web := b.service(tcp(b.vip4), realserver.NAT)
	tunnel := func(o realserver.TunnelOptions) director.Service {
		return with(b.service(tcp(b.vip4), realserver.Tunnel), func(s *director.Service) { s.Servers[0].Tunnel = o })
	}
	for _, test := range []struct {
		name string
		can  bool
		s    director.Service
	}{
		{"marks", f.Marks, director.Service{Key: key("fwmark://7")}.Normalize()},
		{"marks_ipv6", f.Marks, director.Service{Key: key("fwmark6://4294967295")}.Normalize()},
		{"sctp", f.SCTP, b.service("sctp://192.0.2.10:2905", realserver.DR)},
		{"ipip", f.Tunnels, tunnel(realserver.TunnelOptions{})},
		{"gue", f.Tunnels, tunnel(realserver.TunnelOptions{Type: realserver.TunnelGUE, Port: 5555, Checksum: realserver.TunnelRemoteChecksum})},
		{"gre", f.Tunnels, tunnel(realserver.TunnelOptions{Type: realserver.TunnelGRE, Checksum: realserver.TunnelChecksumOn})},
		{"fullnat", f.FullNAT, b.service(tcp(b.vip4), realserver.FullNAT)},
		{"fullnat_ipv6", f.FullNAT, b.service(udp(b.vip6), realserver.FullNAT)},
		{"mss", f.MSS, with(web, func(s *director.Service) { s.MSS = 1400 })},
		{"engine", f.Engines, with(b.service(udp(b.vip4), realserver.NAT), func(s *director.Service) {
			s.Persistence = director.Persistence{Timeout: time.Minute, Prefix: 32, Engine: director.EngineSIP}
		})},
		{"loopback", f.OwnAddresses, with(b.service("tcp://127.0.0.9:80", realserver.NAT), func(s *director.Service) {
			s.VIP = director.VIPExternal
			s.Servers[0].Address = netip.MustParseAddrPort("127.0.0.1:80")
		})},
		{"prefix", f.Ranges, b.service("tcp://198.51.100.0/24:80", realserver.NAT)},
		{"ports", f.Ranges, b.service("tcp://192.0.2.10:8000-8999", realserver.NAT)},
		{"access", f.Access, with(web, func(s *director.Service) { s.Access.Deny = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")} })},
		{"timeouts", f.Timeouts, with(web, func(s *director.Service) { s.Timeouts.TCP = time.Minute })},
		{"sloppy_tcp", f.Rules, with(web, func(s *director.Service) { s.Rules.SloppyTCP = true })},
		{"expire_nodest_conn", f.Rules, with(web, func(s *director.Service) { s.Rules.ExpireNoDestConn = true })},
		{"expire_quiescent_template", f.Rules, with(web, func(s *director.Service) { s.Rules.ExpireQuiescentTemplate = true })},
		{"limit", f.Limits, with(web, func(s *director.Service) { s.Limits.Rate = 1000 })},
		{"source_limit", f.Limits, with(web, func(s *director.Service) { s.Limits.Source = director.SourceLimits{Prefix: 24, Connections: 9} })},
		{"guard", f.Guard, with(web, func(s *director.Service) { s.Guard = director.SourceGuard{Mode: director.GuardOn} })},
		{"guard_auto", f.Guard, with(web, func(s *director.Service) {
			s.Guard = director.SourceGuard{Mode: director.GuardAuto, On: 5000, Off: 1000}
		})},
		{"conn_reuse_mode", f.Rules, with(web, func(s *director.Service) { s.Rules.ConnReuse = director.ReuseNever })},
	} {
		if checked := f.Check(director.State{Services: []director.Service{test.s}}) == nil; checked != test.can {
			b.Errorf("%s: Check allows it: %t, the feature is %t", test.name, checked, test.can)
		}
		if !test.can && test.name == "loopback" {
			continue // taken, and not reachable: it is Check that saves the operator from it
		}
		ops := adding(test.s)
		if test.can {
			b.apply(ops...)
			b.holds(test.s)
			b.apply(director.RemoveService{Key: test.s.Key})
		} else if err := b.Apply(b.Context(), ops); !errors.Is(err, director.ErrUnsupported) {
			b.Errorf("%s: error %v, want one that is %v", test.name, err, director.ErrUnsupported)
		} else if left := b.found().Services; slices.ContainsFunc(left, func(s director.Service) bool { return len(s.Servers) == len(test.s.Servers) }) {
			b.Errorf("%s: refused, and there all the same: %v", test.name, left)
		}
		for _, s := range b.found().Services {
			b.apply(director.RemoveService{Key: s.Key})
		}
	}
	if !f.Sync {
		daemon := director.SyncDaemon{Role: director.SyncMaster}.Normalize()
		b.refused(director.ErrUnsupported, 0, director.StartSync{Daemon: daemon})
	}
	_, err := b.Kill(b.Context(), director.ConnectionFilter{Service: web.Key})
	b.feature("kill", f.Kill, err)
	_, err = b.Decide(b.Context(), director.Question{
		Protocol: conntrack.TCP, Client: netip.MustParseAddrPort("203.0.113.7:1234"), Virtual: netip.AddrPortFrom(b.vip4, port),
	})
	b.feature("decide", f.Decide, err)
}

// feature says whether an attempt went as the feature has it.
func (b *bench) feature(name string, can bool, err error) {
	b.Helper()
	if can && err != nil || !can && !errors.Is(err, director.ErrUnsupported) {
		b.Errorf("%s: error %v, the feature is %t", name, err, can)
	}
}

// Who has given up gets nothing done.
func testCancelled(b *bench) {
	web := b.service(tcp(b.vip4), realserver.NAT)
	ctx, cancel := context.WithCancel(b.Context())
	cancel()
	_, foundErr := b.Found(ctx)
	_, statsErr := b.Stats(ctx)
	for what, err := range map[string]error{
		"apply": b.Apply(ctx, adding(web)), "found": foundErr, "stats": statsErr, "zero": b.Zero(ctx, director.ServiceKey{}),
		"connections": b.walk(ctx, director.ConnectionFilter{}, func(conntrack.Connection) {}),
	} {
		if !errors.Is(err, context.Canceled) {
			b.Errorf("%s: error %v, want %v", what, err, context.Canceled)
		}
	}
	b.holds()
}

// walk calls visit with the connections that match.
func (b *bench) walk(ctx context.Context, filter director.ConnectionFilter, visit func(conntrack.Connection)) error {
	for c, err := range b.Connections(ctx, filter) {
		if err != nil {
			return err
		}
		visit(c)
	}
	return nil
}

// What is closed says so, and closing it again does no harm.
func testClosed(b *bench) {
	b.close()
	if err := b.Close(); err != nil {
		b.Errorf("close again: %v", err)
	}
	_, foundErr := b.Found(b.Context())
	_, statsErr := b.Stats(b.Context())
	for what, err := range map[string]error{
		"apply": b.Apply(b.Context(), adding(b.service(tcp(b.vip4), realserver.NAT))), "found": foundErr, "stats": statsErr,
		"zero":        b.Zero(b.Context(), director.ServiceKey{}),
		"connections": b.walk(b.Context(), director.ConnectionFilter{}, func(conntrack.Connection) {}),
	} {
		if err == nil {
			b.Errorf("%s: no error of a closed data plane", what)
		}
	}
}

// Everything can be asked and done at once.
func testConcurrent(b *bench) {
	services := b.samples()
	ctx := b.Context()
	var all sync.WaitGroup
	do := func(what string, act func() error) {
		all.Go(func() {
			for range 10 {
				if err := act(); err != nil {
					b.Errorf("%s: %v", what, err)
					return
				}
			}
		})
	}
	for _, s := range services {
		ops := append(adding(s), director.EditService{Service: s})
		do("apply", func() error {
			if err := b.Apply(ctx, ops); err != nil {
				return err
			}
			return b.Apply(ctx, []director.Operation{director.RemoveService{Key: s.Key}})
		})
	}
	do("found", func() error { _, err := b.Found(ctx); return err })
	do("stats", func() error { _, err := b.Stats(ctx); return err })
	do("zero", func() error { return b.Zero(ctx, director.ServiceKey{}) })
	do("connections", func() error {
		return b.walk(ctx, director.ConnectionFilter{}, func(conntrack.Connection) {})
	})
	all.Wait()
	b.holds()
	b.apply(adding(services...)...)
	b.holds(services...)
}
