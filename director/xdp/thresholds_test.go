package xdp

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// Thresholds take a server out and give it back as the kernel's do; an index that
// another server had is its own.
func TestThresholds(t *testing.T) {
	r := newRig(t, Options{})
	service := testService(director.WeightedLeastConnection, director.SchedulerFlags{})
	limited := local(1, 100)
	limited.Upper = 4
	r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: limited}, director.AddServer{Key: service.Key, Server: local(2, 1)})
	clients := 0
	open := func(count int) {
		t.Helper()
		for range count {
			clients++
			if _, ok := r.syn(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(clients)}), 4000), service.Key.Address); !ok {
				t.Fatalf("connection %d was refused", clients)
			}
		}
	}
	end := func(count int) {
		t.Helper()
		for _, c := range r.connections(director.ConnectionFilter{Server: limited.Address})[:count] {
			if killed, err := r.Kill(t.Context(), only(c.Client)); err != nil || killed != 1 {
				t.Fatalf("end %s: %d, %v", c.Client, killed, err)
			}
		}
	}
	edit := func(change func()) {
		t.Helper()
		change()
		r.must(director.EditServer{Key: service.Key, Server: limited})
	}
	for _, step := range []struct {
		name           string
		do             func()
		wantActive     uint64
		wantOverloaded bool
	}{
		{"full", func() { open(12) }, 4, true},
		{"another_weight_keeps_it_so", func() { edit(func() { limited.Weight = 90 }) }, 4, true},
		{"a_lower_threshold_too", func() { edit(func() { limited.Upper = 3 }) }, 4, true},
		{"a_higher_one_ends_it", func() { edit(func() { limited.Upper = 5 }) }, 4, false},
		{"full_again", func() { open(3) }, 5, true},
		{"not_three_quarters", func() { end(1) }, 4, true},
		{"less_than_three_quarters", func() { end(1) }, 3, false},
		{"a_lower_threshold_of_two", func() { edit(func() { limited.Lower = 2 }); open(4) }, 5, true},
		{"not_below_it", func() { end(3) }, 2, true},
		{"below_it", func() { end(1) }, 1, false},
		{"no_threshold", func() { open(6); edit(func() { limited.Upper, limited.Lower = 0, 0 }) }, 5, false},
	} {
		t.Run(step.name, func(t *testing.T) {
			r.t = t
			step.do()
			for _, s := range r.stats(service.Key).Servers {
				if s.Server.Address != limited.Address {
					continue
				}
				if s.Server != limited || s.Active != step.wantActive || s.Overloaded != step.wantOverloaded {
					t.Errorf("%+v; want %+v, %d active, overloaded %v", s, limited, step.wantActive, step.wantOverloaded)
				}
			}
		})
	}
	r.t = t
	edit(func() { limited.Upper = 2 })
	open(1)
	if !r.stats(service.Key).Servers[0].Overloaded {
		t.Error("a connection beyond the threshold: not overloaded")
	}
	if _, err := r.Kill(t.Context(), director.ConnectionFilter{Server: limited.Address}); err != nil {
		t.Fatal(err)
	}
	r.must(director.RemoveServer{Key: service.Key, Address: limited.Address})
	r.sweepNow()
	other := local(9, 1)
	r.must(director.AddServer{Key: service.Key, Server: other})
	index := r.model.byKey[service.Key].members[other.Address].index
	var load bpf.KernelServerLoad
	if err := r.plane.Loads.Lookup(index, &load); err != nil {
		t.Fatal(err)
	}
	if index != 1 || load != (bpf.KernelServerLoad{}) {
		t.Errorf("the server with index %d has the load %+v, want that of a new one with index 1", index, load)
	}
}

// A server that comes back while it has connections has its counts, and its flag,
// as from the kernel's trash.
func TestServerComesBack(t *testing.T) {
	r := newRig(t, Options{})
	service := newStickyService()
	server := local(1, 1)
	server.Upper = 2
	r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: server})
	for n := range 2 {
		r.syn(netip.AddrPortFrom(netip.MustParseAddr("198.51.100.9"), uint16(4000+n)), service.Key.Address)
	}
	before := r.stats(service.Key).Servers[0]
	if before.Active != 2 || before.Templates != 1 || !before.Overloaded {
		t.Fatalf("before: %+v", before)
	}
	r.must(director.RemoveServer{Key: service.Key, Address: server.Address})
	r.sweepNow()
	r.must(director.AddServer{Key: service.Key, Server: server})
	if diff := cmp.Diff(before, r.stats(service.Key).Servers[0], plain); diff != "" {
		t.Errorf("come back (-before +after):\n%s", diff)
	}
}

// The kinds of what a server has are counted apart, and its templates healed.
func TestCountsApart(t *testing.T) {
	r := newRig(t, Options{})
	service := newStickyService()
	service.Key.Protocol, service.Key.Address = conntrack.UDP, netip.MustParseAddrPort("192.0.2.1:53")
	r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: local(1, 1)})
	local1 := local(1, 1)
	local1.Address = netip.AddrPortFrom(local1.Address.Addr(), 53)
	for n := range 5 {
		r.send(bpftest.Packet{From: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.9"), uint16(4000+n)), To: service.Key.Address, Protocol: 17})
	}
	s := r.stats(service.Key).Servers[0]
	if s.Inactive != 5 || s.UDP != 0 || s.Templates != 1 {
		t.Errorf("before a sweep: %+v, want 5 inactive, none known to be UDP, 1 template", s)
	}
	if err := r.plane.Correct(bpf.KernelCorrectArgs{Server: 1, Templates: 6}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r.sweepNow()
	}
	s = r.stats(service.Key).Servers[0]
	if s.Inactive != 5 || s.UDP != 5 || s.Templates != 1 {
		t.Errorf("after sweeps: %+v, want 5 inactive, all UDP, 1 template", s)
	}
	if _, err := r.Kill(t.Context(), director.ConnectionFilter{Kind: director.KindConnection}); err != nil {
		t.Fatal(err)
	}
	if s = r.stats(service.Key).Servers[0]; s.Inactive != 0 || s.UDP != 0 {
		t.Errorf("after the end of all: %+v", s)
	}
}

// A flag that wrong counts left set is taken back when they are corrected.
func TestCorrectionEndsOverload(t *testing.T) {
	r := newRig(t, Options{})
	service := testService(director.RoundRobin, director.SchedulerFlags{})
	server := local(1, 1)
	server.Upper = 3
	r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: server})
	if err := r.plane.Correct(bpf.KernelCorrectArgs{Server: 1, Active: 9}); err != nil {
		t.Fatal(err)
	}
	client := netip.MustParseAddrPort("198.51.100.9:4000")
	r.syn(client, service.Key.Address)
	if !r.stats(service.Key).Servers[0].Overloaded {
		t.Fatal("not overloaded")
	}
	for range 2 {
		r.sweepNow()
	}
	if s := r.stats(service.Key).Servers[0]; s.Overloaded || s.Active != 1 {
		t.Errorf("corrected: %+v, want one connection and no overload", s)
	}
}
