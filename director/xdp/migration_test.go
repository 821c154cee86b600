package xdp

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// event returns how often the packet event was counted.
func (r *rig) event(name string) uint64 {
	r.t.Helper()
	stats, err := r.Stats(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range stats.PacketEvents {
		if e.Name == name {
			return e.Count
		}
	}
	r.t.Fatalf("there is no packet event %s", name)
	return 0
}

func (r *rig) begin(key director.ServiceKey) {
	r.t.Helper()
	if err := r.BeginMigration(r.t.Context(), key); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) end(key director.ServiceKey) {
	r.t.Helper()
	if err := r.EndMigration(r.t.Context(), key); err != nil {
		r.t.Fatal(err)
	}
}

// migrates says by packets, and by what Migrating tells, whether the service's
// unknown connections are left to the stack.
func (r *rig) migrates(key director.ServiceKey, want bool) {
	r.t.Helper()
	before := r.event("migrating")
	action := r.send(bpftest.Packet{From: netip.MustParseAddrPort("203.0.113.99:9"), To: key.Address, Flags: "A"})
	if got := r.event("migrating") == before+1; got != want || want != (action == bpftest.Pass) {
		r.t.Errorf("an unknown segment: %v, left to the stack: %t; want %t", action, got, want)
	}
	if got := slices.Contains(r.Migrating(), key); got != want {
		r.t.Errorf("Migrating tells %t, want %t", got, want)
	}
}

// A migration begins before the service is there, or while it is; edits, and the
// daemon's end, are not its end, removing the service is.
func TestMigration(t *testing.T) {
	r := newRig(t, Options{})
	service := testService(director.RoundRobin, director.SchedulerFlags{})
	other := testService(director.RoundRobin, director.SchedulerFlags{})
	other.Key.Address = netip.MustParseAddrPort("192.0.2.2:80")
	add := func(s director.Service) {
		t.Helper()
		r.must(director.AddService{Service: s}, director.AddServer{Key: s.Key, Server: local(1, 1)}, director.AddServer{Key: s.Key, Server: local(2, 1)})
	}
	for range 2 {
		r.begin(service.Key)
	}
	if got := r.Migrating(); len(got) != 0 {
		t.Errorf("Migrating tells of %v, which is not there", got)
	}
	add(service)
	add(other)
	r.migrates(service.Key, true)
	r.migrates(other.Key, false)

	service.Rules.SloppyTCP = true // lets connections begin in the middle, but these may be the stack's
	service.Name = "edited"
	r.must(director.EditService{Service: service}, director.EditServer{Key: service.Key, Server: local(1, 3)})
	r.migrates(service.Key, true)
	found, err := r.Found(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if i := found.Service(service.Key); i < 0 || found.Services[i].Name != "edited" || found.Services[i].Scheduler != service.Scheduler {
		t.Errorf("found: %+v", found.Services)
	}

	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	r.migrates(service.Key, true)
	r.migrates(other.Key, false)
	for range 2 {
		r.end(service.Key)
	}
	r.end(netip4Key(9)) // that is not there
	if _, ok := r.syn(netip.MustParseAddrPort("203.0.113.98:9"), service.Key.Address); !ok {
		t.Error("no connection after the migration")
	}
	service.Rules.SloppyTCP = false
	r.must(director.EditService{Service: service})
	r.migrates(service.Key, false)

	r.begin(service.Key) // while it is there
	r.migrates(service.Key, true)
	r.must(director.RemoveService{Key: service.Key})
	if got := r.Migrating(); len(got) != 0 {
		t.Errorf("Migrating tells of %v, which is removed", got)
	}
	add(service)
	r.migrates(service.Key, false)
	r.must(director.RemoveService{Key: service.Key})
	r.begin(service.Key) // while its connections remain
	add(service)
	r.migrates(service.Key, true)
	r.end(service.Key)
	r.must(director.RemoveService{Key: service.Key})
	r.begin(service.Key)
	r.end(service.Key)
	add(service)
	r.migrates(service.Key, false)
}

func netip4Key(last byte) director.ServiceKey {
	return director.ServiceKey{Protocol: conntrack.TCP, Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, last}), 80)}
}

// The scheduler goes on where it was, and an application that fails leaves the
// migration to the next one.
func TestMigrationLeavesTheSchedulerAlone(t *testing.T) {
	r := newRig(t, Options{})
	service := testService(director.WeightedRoundRobin, director.SchedulerFlags{})
	r.must(director.AddService{Service: service})
	for i := range 3 {
		r.must(director.AddServer{Key: service.Key, Server: local(i+1, uint32(2*i+1))})
	}
	picks := func(each func()) (got []netip.AddrPort) {
		for n := range byte(18) {
			each()
			server, _ := r.syn(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, n}), 4000), service.Key.Address)
			got = append(got, server)
		}
		if _, err := r.Kill(t.Context(), director.ConnectionFilter{}); err != nil {
			t.Fatal(err)
		}
		return got
	}
	want := picks(func() {})
	begins := true
	got := picks(func() {
		if begins {
			r.begin(service.Key)
		} else {
			r.end(service.Key)
		}
		begins = !begins
	})
	if diff := cmp.Diff(want, got, compareAddresses); diff != "" {
		t.Errorf("with migrations in between (-without +with):\n%s", diff)
	}

	later := testService(director.RoundRobin, director.SchedulerFlags{})
	later.Key.Address = netip.MustParseAddrPort("10.0.0.254:80") // eth0's
	later.VIP = director.VIPManaged
	r.begin(later.Key)
	if err := r.Apply(t.Context(), []director.Operation{director.AddService{Service: later}}); !errors.Is(err, director.ErrExists) {
		t.Errorf("a service of the host's own address: %v", err)
	}
	later.VIP = director.VIPExternal
	r.must(director.AddService{Service: later}, director.AddServer{Key: later.Key, Server: local(1, 1)})
	r.migrates(later.Key, true)
}

// From the first packet to the last: what the stack has is left to it, then loaded,
// then it is ours; nothing is dropped on the way.
func TestMove(t *testing.T) {
	r := newRig(t, Options{})
	service := testService(director.RoundRobin, director.SchedulerFlags{})
	var kernels []conntrack.Connection
	for i := range byte(20) {
		kernels = append(kernels, conntrack.Connection{
			Protocol: conntrack.TCP, Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, i}), 4000), Virtual: service.Key.Address,
			Server: local(int(i%2)+1, 0).Address, Method: "local", State: conntrack.Established, Expires: 10 * time.Minute,
		})
	}
	send := func(each func(conntrack.Connection)) {
		for _, c := range kernels {
			if action := r.send(bpftest.Packet{From: c.Client, To: c.Virtual, Flags: "A"}); action != bpftest.Pass {
				t.Errorf("%s: %v", c.Client, action)
			}
			each(c)
		}
	}
	r.begin(service.Key)
	r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: local(1, 1)}, director.AddServer{Key: service.Key, Server: local(2, 1)})
	send(func(conntrack.Connection) {})
	if got := r.event("migrating"); got != 20 {
		t.Errorf("%d packets were left to the stack, want 20", got)
	}
	r.load(service.Key, kernels[:12], director.LoadReport{Loaded: 12})
	send(func(conntrack.Connection) {})
	if got := r.event("migrating"); got != 28 {
		t.Errorf("%d packets were left to the stack, want 8 more than 20", got)
	}
	r.load(service.Key, kernels, director.LoadReport{Loaded: 8, Known: 12})
	r.end(service.Key)
	send(func(conntrack.Connection) {})
	if got := r.event("migrating"); got != 28 {
		t.Errorf("%d packets were left to the stack, want no more than 28", got)
	}
	for i, c := range r.connections(director.ConnectionFilter{}) {
		if c.Server != kernels[i].Server || c.State != conntrack.Established {
			t.Errorf("%s: %s, %s; it was with %s", c.Client, c.Server, c.State, kernels[i].Server)
		}
	}
	if got := r.event("midstream"); got != 0 {
		t.Errorf("%d packets were dropped", got)
	}
}
