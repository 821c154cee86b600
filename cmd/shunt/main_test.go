package main

import (
	"context"
	"flag"
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

var update = flag.Bool("update", false, "write what the commands print into the scripts")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"shunt": main})
}

// TestScripts runs the real command against a real Director and API over a fake
// data plane. A script says `daemon` for an empty one and `daemon seeded` for
// the one below; `stop` ends it.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: *update,
		Setup: func(e *testscript.Env) error {
			e.Setenv("SHUNT_SOCKET", filepath.Join(e.WorkDir, "run", "shuntd.sock"))
			e.Values[stopKey{}] = new(func())
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"daemon": startDaemon,
			"stop": func(ts *testscript.TestScript, _ bool, _ []string) {
				(*ts.Value(stopKey{}).(*func()))()
			},
		},
	})
}

type stopKey struct{}

func startDaemon(ts *testscript.TestScript, _ bool, args []string) {
	fake := directortest.NewFake(director.State{})
	if len(args) > 0 {
		fake = seeded()
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := director.New(fake, &directortest.Store{}, director.Options{Log: slog.New(slog.DiscardHandler)})
	initial, err := fake.Found(ctx) // what is desired, so that nothing is foreign
	ts.Check(err)
	ts.Check(d.Start(ctx, initial, director.Request{}))
	l, err := api.Listen(ts.Getenv("SHUNT_SOCKET"), api.ListenOptions{})
	ts.Check(err)
	handler := api.NewHandler(d, api.Options{
		Version: "1.2.3", Dataplane: "fake", Started: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC),
		Detach: func(context.Context) error { return nil }, Detached: cancel, Log: slog.New(slog.DiscardHandler),
	})
	done := make(chan error, 1) // one value, sent once
	go func() { done <- handler.Run(ctx, l) }()
	stop := func() { cancel(); <-done; done <- nil }
	*ts.Value(stopKey{}).(*func()) = stop
	ts.Defer(stop)
}

func seeded() *directortest.Fake {
	web := director.ServiceKey{Protocol: conntrack.TCP, Address: netip.MustParseAddrPort("192.0.2.10:80")}
	dns := director.ServiceKey{Protocol: conntrack.UDP, Address: netip.MustParseAddrPort("[2001:db8::10]:53")}
	a := realserver.Server{Address: netip.MustParseAddrPort("10.0.0.11:8080"), Method: realserver.NAT, Weight: 3}
	b := realserver.Server{Address: netip.MustParseAddrPort("10.0.0.12:80"), Method: realserver.DR, Weight: 1}
	c := realserver.Server{Address: netip.MustParseAddrPort("[2001:db8:1::1]:53"), Method: realserver.DR, Weight: 0}
	fake := directortest.NewFake(director.State{
		Services: []director.Service{
			{
				Key: web, Name: "web", Scheduler: director.WeightedRoundRobin, VIP: director.VIPManaged,
				Servers: []realserver.Server{a, b},
			},
			{
				Key: dns, Scheduler: director.SourceHash, VIP: director.VIPExternal,
				Flags: director.SchedulerFlags{Port: true, Fallback: true}, Servers: []realserver.Server{c},
			},
		},
		Timeouts: conntrack.DefaultTimeouts(),
	})
	fake.SetStats(director.Stats{
		Services: []director.ServiceStats{
			{
				Key:      web,
				Counters: director.Counters{Connections: 12, InPackets: 120, InBytes: 9000, OutPackets: 80, OutBytes: 1234567890123},
				Servers: []director.ServerStats{
					{
						Server: a, Active: 2, Inactive: 5, Reachable: true,
						Counters: director.Counters{Connections: 9, InPackets: 90, InBytes: 7000, OutPackets: 80, OutBytes: 1234567890123},
					},
					{
						Server: b, Active: 1, Reason: "no answer to ARP on eth1",
						Counters: director.Counters{Connections: 3, InPackets: 30, InBytes: 2000},
					},
				},
			},
			{Key: dns, Servers: []director.ServerStats{{Server: c, Inactive: 1, Reachable: true}}},
		},
		PacketEvents: []director.PacketEvent{
			{Name: "not-ours", Kind: director.PacketPass, Help: "no service of ours", Count: 4711},
			{Name: "server-removed", Kind: director.PacketDrop, Help: "the connection's server was removed", Count: 3},
			{Name: "no-server", Kind: director.PacketAnswer, Help: "no server can take the connection"},
		},
		Table: []director.TableStats{
			{Family: "ipv4", Limit: 1 << 20, Keys: 4096, Slots: 1 << 21, Bytes: 184549376, Expired: 17, Corrected: 1},
			{Family: "ipv6", Limit: 1 << 16, Keys: 1, Slots: 1 << 17, Bytes: 900},
		},
		Interfaces: []director.InterfaceStats{{Name: "eth0", Mode: "native"}, {Name: "eth1", Mode: "generic"}},
	})
	conn := func(p conntrack.Protocol, client, virtual, server, method string, s conntrack.State, proven bool, left time.Duration) conntrack.Connection {
		return conntrack.Connection{
			Protocol: p, Client: netip.MustParseAddrPort(client), Virtual: netip.MustParseAddrPort(virtual),
			Server: netip.MustParseAddrPort(server), Method: method, State: s, Proven: proven, Expires: left,
		}
	}
	fake.SetConnections(
		conn(conntrack.TCP, "198.51.100.7:40001", "192.0.2.10:80", "10.0.0.11:8080", "nat", conntrack.Established, true, 899*time.Second),
		conn(conntrack.TCP, "198.51.100.7:4000", "192.0.2.10:80", "10.0.0.12:80", "dr", conntrack.SynRecv, false, 59500*time.Millisecond),
		conn(conntrack.UDP, "[2001:db8:9::1]:5353", "[2001:db8::10]:53", "[2001:db8:1::1]:53", "dr", conntrack.UDPNormal, true, -time.Second),
	)
	return fake
}
