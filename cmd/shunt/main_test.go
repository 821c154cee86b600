package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/config"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/director/lease"
	"github.com/shunt-lb/shunt/realserver"
)

var update = flag.Bool("update", false, "write what the commands print into the scripts")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"shunt": main, "ipvsadm": main, "ipvsadm-save": main, "ipvsadm-restore": main})
}

// TestScripts runs the real command against a real Director and API over a fake
// data plane. A script says `daemon` for an empty one and `daemon seeded` for
// the one below; `daemon ipvs` for the seeded one with what the kernel's IPVS has;
// `stop` ends it and `daemon again` starts it anew with what it
// had. `kernel` does to the data plane what somebody else could do.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: *update,
		Setup: func(e *testscript.Env) error {
			e.Setenv("SHUNT_SOCKET", filepath.Join(e.WorkDir, "run", "shuntd.sock"))
			e.Setenv("TZ", "UTC")
			e.Values[daemonKey{}] = &daemon{stop: func() {}, socket: e.Getenv("SHUNT_SOCKET"), config: filepath.Join(e.WorkDir, "shunt.yaml")}
			e.Defer(func() { e.Values[daemonKey{}].(*daemon).stop() })
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"daemon": func(ts *testscript.TestScript, _ bool, args []string) {
				d := ts.Value(daemonKey{}).(*daemon)
				switch {
				case len(args) == 0:
					d.empty()
				case args[0] == "seeded":
					d.seed()
				case args[0] == "whole":
					d.whole()
				case args[0] == "ipvs":
					d.seedKernel()
				}
				ts.Check(d.start())
			},
			"stop":   func(ts *testscript.TestScript, _ bool, _ []string) { ts.Value(daemonKey{}).(*daemon).stop() },
			"kernel": meddle,
		},
	})
}

type daemonKey struct{}

// daemon is a Director with its API over a fake data plane, in this process.
type daemon struct {
	socket, config string
	plane          string          // its name
	tls            *api.TLSOptions // nil: the socket alone
	fake           *directortest.Fake
	wrap           director.Dataplane // around the fake; nil: none
	store          *directortest.Store
	findings       atomic.Pointer[[]api.Finding] // nil: none
	migration      atomic.Pointer[migration]     // nil: there is no such thing
	director       *director.Director
	initial        director.State
	leases         *lease.Registry
	stop           func()
	address        string // of TLS
}

func (d *daemon) empty() {
	d.fake, d.store, d.plane = directortest.NewFake(director.State{}), &directortest.Store{}, "fake"
}

// whole is empty with all that the XDP plane is made for.
func (d *daemon) whole() {
	d.empty()
	features := director.XDPFeatures()
	features.Tunnels, features.FullNAT, features.MSS = true, true, true
	d.fake.SetFeatures(features)
}

func (d *daemon) seed() {
	d.fake, d.store, d.plane = seeded(), &directortest.Store{}, "fake"
	d.initial, _ = d.fake.Found(context.Background()) // what is desired, so that nothing is foreign
}

// start runs it until stop.
func (d *daemon) start() error {
	ctx, cancel := context.WithCancel(context.Background())
	log := slog.New(slog.DiscardHandler)
	stream := event.NewStream(log, 0)
	var dp director.Dataplane = d.fake
	switch {
	case d.wrap != nil:
		dp = d.wrap
	case d.plane == director.PlaneIPVS:
		dp = directortest.NoTable(d.fake)
	}
	d.director = director.New(dp, d.store, director.Options{Log: log, Events: stream})
	if err := d.director.Start(ctx, d.initial, director.Request{Who: "shuntd"}); err != nil {
		cancel()
		return err
	}
	d.leases = lease.Open(lease.Options{Events: stream, Log: log})
	listeners := []net.Listener{}
	l, err := api.Listen(d.socket, api.ListenOptions{})
	if err != nil {
		cancel()
		return err
	}
	listeners = append(listeners, l)
	if d.tls != nil {
		l, err := api.ListenTLS(*d.tls)
		if err != nil {
			cancel()
			return err
		}
		d.address = l.Addr().String()
		listeners = append(listeners, l)
	}
	handler := api.NewHandler(d.director, api.Options{
		Version: "1.2.3", Dataplane: d.plane, Started: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC),
		Detach: func(context.Context) error { return nil }, Detached: cancel, Log: log, Events: stream,
		Health: checked{d.director}, Leases: d.leases,
		Doctor: func(context.Context) ([]api.Finding, error) {
			if found := d.findings.Load(); found != nil {
				return *found, nil
			}
			return nil, nil
		},
		Reload: func(ctx context.Context, by director.Request) (director.Outcome, error) {
			cfg, err := config.Load(d.config)
			if err != nil {
				return director.Outcome{}, err
			}
			return d.director.Apply(ctx, by, cfg.State)
		},
		Migrate: func(_ context.Context, _ director.Request, m api.Migration) (api.MigrationReport, error) {
			if result := d.migration.Load(); result != nil {
				return result.answer(m)
			}
			return api.MigrationReport{}, director.ErrUnsupported
		},
	})
	var running sync.WaitGroup
	for _, l := range listeners {
		running.Go(func() { _ = handler.Run(ctx, l) })
	}
	running.Go(func() { _ = d.director.RunDrains(ctx) })
	d.stop = func() { cancel(); running.Wait() }
	return nil
}

// register has two agents register servers in the pool.
func (d *daemon) register(pool string) error {
	queue, cpu, connections := 1.5, 0.25, uint64(120)
	for _, g := range []lease.Registration{
		{Agent: "s1", Server: realserver.Server{Address: netip.MustParseAddrPort("10.0.0.21:80"), Weight: 100}, Load: &lease.Load{Value: 0.4, CPU: &cpu, RunQueue: &queue, Connections: &connections}},
		{Agent: "s2", Server: realserver.Server{Address: netip.MustParseAddrPort("10.0.0.3:0"), Weight: 50, Draining: true}},
		{Agent: "s4", Server: realserver.Server{Address: netip.MustParseAddrPort("10.0.0.11:0"), Weight: 9}}, // which is configured
	} {
		g.Pool, g.Boot, g.Sequence, g.Lifetime, g.Server.Method = pool, "b", 1, lease.MaxLifetime, realserver.DR
		if _, err := d.leases.Register(g); err != nil {
			return err
		}
	}
	_, err := d.leases.Register(lease.Registration{Pool: pool, Agent: "s1", Boot: "b", Sequence: 1, Lifetime: time.Minute, Server: realserver.Server{Address: netip.MustParseAddrPort("10.0.0.21:80")}})
	if err == nil {
		return errors.New("a message was taken twice")
	}
	return nil
}

// hasLeft says how many connections, one of them inactive, and templates the
// first server of web has left.
func (d *daemon) hasLeft(connections, templates uint64) {
	stats := director.ServerStats{Server: realserver.Server{Address: filledA}, Templates: templates, Reachable: true}
	if connections > 0 {
		stats.Active, stats.Inactive = connections-1, 1
	}
	d.fake.SetStats(director.Stats{Services: []director.ServiceStats{{Key: filledWeb, Servers: []director.ServerStats{stats}}}})
}

// meddle does what the script says to the fake kernel: makes the operation of a
// number fail, adds a service nobody told Shunt of, drains a server, takes one away, has
// connections left, has templates and overloaded servers, has aged connections, has a fault in its table, fails to read it, decides as named,
// moves services, or finds things on the host.
func meddle(ts *testscript.TestScript, _ bool, args []string) {
	d := ts.Value(daemonKey{}).(*daemon)
	switch args[0] {
	case "fails-at":
		n, err := strconv.Atoi(args[1])
		ts.Check(err)
		d.fake.FailAt(n)
	case "always-fails":
		d.fake.FailIf(func(director.Operation) error { return directortest.ErrInjected })
	case "adds":
		key, err := director.ParseServiceKey(args[1])
		ts.Check(err)
		d.fake.Meddle(func(s *director.State) {
			s.Services = append(s.Services, director.Service{
				Key: key, Scheduler: director.RoundRobin, VIP: director.VIPExternal,
				Servers: []realserver.Server{{Address: netip.MustParseAddrPort("10.9.9.9:80"), Method: realserver.NAT, Weight: 1}},
			})
		})
	case "drains":
		key, err := director.ParseServiceKey(args[1])
		ts.Check(err)
		d.fake.Meddle(func(s *director.State) { s.Services[s.Service(key)].Servers[0].Draining = true })
	case "syncs": // a daemon of the role, that nobody told Shunt of
		d.fake.Meddle(func(s *director.State) {
			s.Sync = append(s.Sync, director.SyncDaemon{Role: director.SyncRole(args[1]), Interface: "eth7", ID: 9, MaxLength: 1400}.Normalize())
		})
	case "loses-servers":
		d.fake.Meddle(func(s *director.State) { s.Services[0].Servers = nil })
	case "reconciles":
		ts.Check(d.director.Reconcile(context.Background()))
	case "fills":
		d.fake.SetStats(filledStats())
		d.fake.SetConnections(filledConnections()...)
	case "has-aged": // connections that have ages and traffic
		d.fake.SetConnections(agedConnections()...)
	case "is-faulty":
		d.fake.SetFaults(director.TableFault{Kind: "reply-missing", What: "tcp 198.51.100.7:40001 to 192.0.2.10:80", Found: "no reply key"})
	case "loses-connections": // when its tables are resized
		d.fake.SetResized(director.ResizeReport{Carried: 9, Lost: 3, Evicted: 1})
	case "evicts": // and loses none
		d.fake.SetResized(director.ResizeReport{Carried: 9, Evicted: 2})
	case "breaks-off": // whatever is asked of the table
		d.fake.FailTable(directortest.ErrInjected)
	case "leases": // servers to agents of a pool: one that is busy, and one that drains
		ts.Check(d.register(args[1]))
	case "has-left": // connections of the first server, and templates
		var left [2]uint64
		for i := range left {
			n, err := strconv.ParseUint(args[1+i], 10, 64)
			ts.Check(err)
			left[i] = n
		}
		d.hasLeft(left[0], left[1])
	case "decides":
		d.fake.SetDecision(decisionBy(args[1]))
	case "moves":
		m := migration(args[1])
		d.migration.Store(&m)
	case "has":
		found := findings(args[1:]...)
		d.findings.Store(&found)
	default:
		ts.Fatalf("unknown: %v", args)
	}
}

// migration is how moves end: well, half way, or refused by a firewall's rule.
type migration string

func (m migration) answer(order api.Migration) (api.MigrationReport, error) {
	report := api.MigrationReport{Bypassed: []string{}, Services: []api.MigratedService{
		{Service: "tcp://192.0.2.10:80", Servers: 2, Moved: !order.DryRun, Connections: 50, Notes: []string{"scheduler rr begins its round anew"}},
		{Service: "tcp://192.0.2.11:80", Servers: 1, Connections: 7, Skipped: map[string]uint64{"no-such-server": 2, "expired": 1}},
	}}
	if m == "by-rules" {
		report.Bypassed = append(report.Bypassed, "packets to web do not come by this rule of ip f in: drop")
	}
	switch {
	case m == "by-rules" && !order.DryRun && !order.Force:
		return api.MigrationReport{}, fmt.Errorf("migrate: %w", &director.BypassedError{Rules: report.Bypassed})
	case m == "half-way":
		return report, errors.New("migrate service tcp://192.0.2.11:80: no room")
	}
	report.Services[1].Moved = !order.DryRun
	return report, nil
}

// findings are what the doctor says: one of each severity named.
func findings(severities ...string) []api.Finding {
	all := []api.Finding{{
		Check: "jit", Title: "BPF JIT", Severity: "ok", Ok: true, What: "the JIT compiler is on",
	}}
	for _, severity := range severities {
		all = append(all, api.Finding{
			Check: "rp-filter", Subject: "eth0", Title: "Reverse path filter", Severity: api.FindingSeverity(severity),
			What: "rp_filter is 1", Why: "replies of dr servers do not come this way", Fix: "sysctl -w net.ipv4.conf.eth0.rp_filter=0",
		})
	}
	return all
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
			{Number: 1, Name: "not-ours", Kind: director.PacketPass, Help: "no service of ours", Count: 4711},
			{Number: 34, Name: "server-removed", Kind: director.PacketDrop, Help: "the connection's server was removed", Count: 3},
			{Number: 96, Name: "no-server", Kind: director.PacketAnswer, Help: "no server can take the connection"},
		},
		Table: []director.TableStats{
			{Family: "ipv4", Limit: 1 << 20, Keys: 4096, Slots: 1 << 21, Bytes: 184549376, Expired: 17, Corrected: 1, Pressure: 4096. / (2 << 20)},
			{Family: "ipv6", Limit: 1 << 16, Keys: 1, Slots: 1 << 17, Bytes: 900},
		},
		Interfaces: []director.InterfaceStats{{Name: "eth0", Mode: "native"}, {Name: "eth1", Mode: "generic"}},
	})
	fake.SetDrops(
		director.Drop{Reason: "server-removed", Number: 34, Kind: director.PacketDrop, Service: web, Interface: "eth0", Packets: 2, Bytes: 120},
		director.Drop{Reason: "server-removed", Number: 34, Kind: director.PacketDrop, Service: web, Interface: "eth1", Packets: 1, Bytes: 60},
		director.Drop{Reason: "midstream", Number: 33, Kind: director.PacketDrop, Service: dns, Removed: true, Interface: "eth0", Packets: 5, Bytes: 500},
		director.Drop{Reason: "vlan", Number: 48, Kind: director.PacketDrop, Interface: "eth1", Packets: 7, Bytes: 700},
	)
	fake.SetCapture(func(_ context.Context, w io.Writer) (director.CaptureReport, error) {
		_, err := io.WriteString(w, "packets\n")
		return director.CaptureReport{Written: 2, Limited: 1, Lost: 3}, err
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
