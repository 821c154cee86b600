package xdp

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

func (r *rig) hold(key director.ServiceKey) {
	r.t.Helper()
	if err := r.HoldMigration(r.t.Context(), key); err != nil {
		r.t.Fatal(err)
	}
}

// holds says by a packet that nothing knows what becomes of it: it is dropped, and
// counted as held.
func (r *rig) holds(key director.ServiceKey) {
	r.t.Helper()
	before := r.event("migration-held")
	action := r.send(bpftest.Packet{From: netip.MustParseAddrPort("203.0.113.99:9"), To: key.Address, Flags: "A"})
	if got := r.event("migration-held"); action != bpftest.Drop || got != before+1 {
		r.t.Errorf("an unknown segment: %v, held %d times, want dropped once", action, got-before)
	}
}

// A hold is of a migration that has begun; it ends with that, where it begins again,
// and with the daemon, but not by an edit.
func TestHold(t *testing.T) {
	r := newRig(t, Options{})
	service := testService(director.RoundRobin, director.SchedulerFlags{})
	if err := r.HoldMigration(t.Context(), service.Key); !errors.Is(err, director.ErrNotFound) {
		t.Errorf("a service that is not there: %v", err)
	}
	add := func() {
		t.Helper()
		r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: local(1, 1)})
	}
	add()
	if err := r.HoldMigration(t.Context(), service.Key); !errors.Is(err, director.ErrInvalid) {
		t.Errorf("one that does not migrate: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.begin(service.Key)
	if err := r.HoldMigration(ctx, service.Key); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	r.migrates(service.Key, true)
	for range 2 {
		r.hold(service.Key)
		r.holds(service.Key)
	}
	if got := r.Migrating(); len(got) != 1 || got[0] != service.Key {
		t.Errorf("Migrating tells %v", got)
	}
	if _, ok := r.syn(netip.MustParseAddrPort("203.0.113.98:9"), service.Key.Address); !ok {
		t.Error("no new connection during the hold")
	}
	service.Name = "edited"
	r.must(director.EditService{Service: service}, director.EditServer{Key: service.Key, Server: local(1, 3)})
	r.holds(service.Key)
	r.begin(service.Key)
	r.migrates(service.Key, true)
	r.hold(service.Key)
	r.end(service.Key)
	r.migrates(service.Key, false)

	r.begin(service.Key)
	r.hold(service.Key)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	r.migrates(service.Key, true) // the packets of whoever reads them would be lost else
	r.hold(service.Key)
	r.must(director.RemoveService{Key: service.Key})
	add()
	r.migrates(service.Key, false)
}

// Flows that begin while a service moves, until the last moment, stay with the
// server that the kernel has given them.
func TestHoldLosesNoFlow(t *testing.T) {
	r := newRig(t, Options{})
	udp := testService(director.RoundRobin, director.SchedulerFlags{})
	udp.Key.Protocol = conntrack.UDP
	r.begin(udp.Key)
	r.must(director.AddService{Service: udp}, director.AddServer{Key: udp.Key, Server: local(1, 1)}, director.AddServer{Key: udp.Key, Server: local(2, 1)})
	var kernels []conntrack.Connection
	send := func(i byte) {
		client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, i}), 4000)
		if r.send(bpftest.Packet{From: client, To: udp.Key.Address, Protocol: bpftest.UDP}) == bpftest.Pass && int(i) == len(kernels) {
			kernels = append(kernels, conntrack.Connection{
				Protocol: conntrack.UDP, Client: client, Virtual: udp.Key.Address, Method: "local",
				Server: local(int(i/2%2)+1, 0).Address, State: conntrack.UDPNormal, Expires: time.Minute,
			})
		}
	}
	for i := range byte(10) {
		send(i)
	}
	r.load(udp.Key, kernels, director.LoadReport{Loaded: 10})
	for i := range byte(20) {
		send(i) // ten that came during the reading
	}
	r.hold(udp.Key)
	for i := range byte(30) {
		send(i)
	}
	if len(kernels) != 20 || r.event("migration-held") != 20 {
		t.Fatalf("the kernel has %d flows, %d packets were held; want 20 of each", len(kernels), r.event("migration-held"))
	}
	r.load(udp.Key, kernels, director.LoadReport{Loaded: 10, Known: 10})
	had := kernels
	r.end(udp.Key)
	for i := range byte(30) {
		send(i) // local servers: they are passed, too
	}
	found := r.connections(director.ConnectionFilter{})
	if len(found) != 30 {
		t.Fatalf("%d flows are there, want 30", len(found))
	}
	for i, c := range had {
		if found[i].Client != c.Client || found[i].Server != c.Server {
			t.Errorf("%s is with %s now, the kernel had it with %s", found[i].Client, found[i].Server, c.Server)
		}
	}
}

// As long as a server's next hop is not known, new clients are left to the kernel,
// which has the service still.
func TestMigratingWithoutNextHop(t *testing.T) {
	r := newRig(t, Options{})
	service := testService(director.RoundRobin, director.SchedulerFlags{})
	nowhere := natServer()
	nowhere.Address = netip.MustParseAddrPort("10.0.0.77:8080") // nobody answers
	r.begin(service.Key)
	r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: nowhere})
	syn := bpftest.Packet{From: netip.MustParseAddrPort("198.51.100.7:4000"), To: service.Key.Address, Flags: "S"}
	if action := r.send(syn); action != bpftest.Pass || r.event("migrating") != 1 {
		t.Errorf("a first segment: %v, left to the stack %d times", action, r.event("migrating"))
	}
	r.end(service.Key)
	r.send(syn)
	if got := r.event("no-server") + r.event("rate-limited"); got != 1 {
		t.Errorf("after the migration it was refused %d times, want once", got)
	}
}

// More connections than there is room for: those that are not loaded are told, and
// all others are there.
func TestLoadTooMany(t *testing.T) {
	r := newRig(t, Options{})
	udp := testService(director.RoundRobin, director.SchedulerFlags{})
	udp.Key.Protocol = conntrack.UDP
	r.must(director.AddService{Service: udp}, director.AddServer{Key: udp.Key, Server: local(1, 1)})
	const n = 30000
	load := func() director.LoadReport {
		t.Helper()
		report, err := r.Load(t.Context(), udp.Key, func(yield func(conntrack.Connection) bool) {
			for i := range n {
				c := conntrack.Connection{
					Protocol: conntrack.UDP, Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 16), byte(i >> 8)}), uint16(1024+i&255)),
					Virtual: udp.Key.Address, Server: local(1, 0).Address, Method: "local", State: conntrack.UDPNormal, Expires: 4 * time.Minute,
				}
				if !yield(c) {
					return
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	first := load()
	there := uint64(len(r.connections(director.ConnectionFilter{})))
	want := director.LoadReport{Loaded: there, Skipped: map[string]uint64{skipRoom: n - there}}
	if diff := cmp.Diff(want, first); diff != "" {
		t.Errorf("report of more than there is room for (-want +got):\n%s", diff)
	}
	if there < 4096 || there >= n {
		t.Errorf("%d are there of %d", there, n)
	}
	want.Loaded, want.Known = 0, there
	if diff := cmp.Diff(want, load()); diff != "" {
		t.Errorf("report of the same once more (-want +got):\n%s", diff)
	}
}

// Two virtual addresses have one server, and a client has gone from one to the other
// with the same port: the connection that lives is served, whichever comes first.
func TestLoadServesTheLiving(t *testing.T) {
	for _, deadFirst := range []bool{true, false} {
		r := newRig(t, Options{})
		services := []director.Service{testService(director.RoundRobin, director.SchedulerFlags{}), testService(director.RoundRobin, director.SchedulerFlags{})}
		services[1].Key.Address = netip.MustParseAddrPort("192.0.2.2:80")
		for _, s := range services {
			r.begin(s.Key)
			r.must(director.AddService{Service: s}, director.AddServer{Key: s.Key, Server: natServer()})
		}
		r.eventually("reachable", func() bool { return r.stats(services[1].Key).Servers[0].Reachable })
		of := func(s director.Service, state conntrack.State, left time.Duration) conntrack.Connection {
			return conntrack.Connection{
				Protocol: conntrack.TCP, Client: netip.MustParseAddrPort("198.51.100.7:4000"), Virtual: s.Key.Address,
				Server: natServer().Address, Method: "nat", State: state, Expires: left,
			}
		}
		dead, live := of(services[0], conntrack.TimeWait, 30*time.Second), of(services[1], conntrack.Established, 10*time.Minute)
		if deadFirst {
			r.load(services[0].Key, []conntrack.Connection{dead}, director.LoadReport{Loaded: 1})
			r.load(services[1].Key, []conntrack.Connection{live}, director.LoadReport{Loaded: 1})
		} else {
			r.load(services[1].Key, []conntrack.Connection{live}, director.LoadReport{Loaded: 1})
		}
		r.load(services[0].Key, []conntrack.Connection{dead}, director.LoadReport{Known: 1})
		r.load(services[1].Key, []conntrack.Connection{live}, director.LoadReport{Known: 1})
		for _, s := range services {
			r.end(s.Key)
		}
		action := r.send(bpftest.Packet{From: live.Client, To: live.Virtual, Flags: "A"})
		if action == bpftest.Drop || r.event("midstream") != 0 {
			t.Errorf("dead first: %t: a segment of the living one: %v", deadFirst, action)
		}
		if got := r.connections(director.ConnectionFilter{}); len(got) != 1 || got[0].Virtual != live.Virtual {
			t.Errorf("dead first: %t: there is %+v", deadFirst, got)
		}
	}
}

// The last second of a template, which whole seconds show as none, is loaded.
func TestLoadLastSecond(t *testing.T) {
	r := newRig(t, Options{})
	sticky := newStickyService()
	r.must(director.AddService{Service: sticky}, director.AddServer{Key: sticky.Key, Server: local(1, 1)}, director.AddServer{Key: sticky.Key, Server: local(2, 1)})
	client := netip.MustParseAddrPort("198.51.100.7:4000")
	under := conntrack.Connection{
		Protocol: conntrack.TCP, Client: client, Virtual: sticky.Key.Address, Server: local(1, 0).Address, Method: "local",
		State: conntrack.Established, UnderTemplate: true, Expires: time.Minute,
	}
	template := conntrack.Connection{
		Protocol: conntrack.TCP, Client: netip.MustParseAddrPort("198.51.100.0:0"), Virtual: sticky.Key.Address,
		Server: local(1, 0).Address, Method: "local", Template: true, Prefix: 24,
	}
	r.load(sticky.Key, []conntrack.Connection{under, template}, director.LoadReport{Loaded: 2})
	templates := r.connections(director.ConnectionFilter{Kind: director.KindTemplate})
	if len(templates) != 1 || templates[0].Controlled != 1 || templates[0].Expires > time.Second {
		t.Errorf("templates: %+v", templates)
	}
}
