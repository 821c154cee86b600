package xdp

import (
	"math"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/director"
)

func limitedService() director.Service {
	return testService(director.RoundRobin, director.SchedulerFlags{})
}

// client is a client's address and port in network n.
func limitClient(network, host byte, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, network, host}), port)
}

// foundLimits returns what is found of the only service.
func (r *rig) foundLimits() (director.Limits, director.SourceGuard) {
	r.t.Helper()
	state, err := r.Found(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	if len(state.Services) != 1 || state.Services[0].Scheduler == "" {
		r.t.Fatalf("found %+v", state.Services)
	}
	return state.Services[0].Limits, state.Services[0].Guard
}

// sources is how many source networks are remembered.
func (r *rig) sources() (n int) {
	r.t.Helper()
	err := r.plane.ForgetSources(func(uint32) bool { n++; return false })
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// Limits and guards are read back as they were written, over their full ranges, and
// hold from then on.
func TestLimits(t *testing.T) {
	r := newRig(t, Options{})
	service := limitedService()
	key, vip := service.Key, service.Key.Address
	server := local(1, 1)
	r.must(director.AddService{Service: service}, director.AddServer{Key: key, Server: server})
	for _, edit := range []struct {
		limits director.Limits
		guard  director.SourceGuard
	}{
		{},
		{limits: director.Limits{Rate: 1}},
		{limits: director.Limits{Rate: math.MaxUint32, Connections: math.MaxUint32}},
		{limits: director.Limits{Source: director.SourceLimits{Prefix: 32, Rate: math.MaxUint32, Connections: math.MaxUint32}}},
		{limits: director.Limits{Source: director.SourceLimits{Prefix: 1, Connections: 1}}, guard: director.SourceGuard{Mode: director.GuardOn}},
		{guard: director.SourceGuard{Mode: director.GuardAuto, On: math.MaxUint32, Off: math.MaxUint32}},
		{guard: director.SourceGuard{Mode: director.GuardAuto, On: 1, Off: 1}},
		{},
	} {
		service.Limits, service.Guard = edit.limits, edit.guard
		r.must(director.EditService{Service: service})
		limits, guard := r.foundLimits()
		if diff := cmp.Diff(edit.limits, limits) + cmp.Diff(edit.guard, guard); diff != "" {
			t.Errorf("found (-want +got):\n%s", diff)
		}
	}

	service.Limits = director.Limits{Connections: 5, Source: director.SourceLimits{Prefix: 24, Connections: 2}}
	r.must(director.EditService{Service: service})
	connected := func(network, host byte, port uint16, want bool) {
		t.Helper()
		if _, ok := r.syn(limitClient(network, host, port), vip); ok != want {
			t.Errorf("client %d.%d:%d: connected %v, want %v", network, host, port, ok, want)
		}
	}
	connected(1, 1, 1000, true)
	connected(1, 2, 1000, true)
	connected(1, 3, 1000, false)
	connected(2, 1, 1000, true)
	connected(2, 1, 1001, true)
	connected(3, 1, 1000, true)
	connected(4, 1, 1000, false)
	want := map[string]uint64{
		"service-rate": 0, "service-connections": 1, "source-rate": 0, "source-connections": 1, "table-full": 0,
	}
	if diff := cmp.Diff(want, r.stats(key).Refused); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}

	// A daemon that comes later finds all as it was.
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	if limits, _ := r.foundLimits(); limits != service.Limits {
		t.Errorf("after a restart: %+v, want %+v", limits, service.Limits)
	}
	if diff := cmp.Diff(want, r.stats(key).Refused); diff != "" {
		t.Errorf("refused after a restart (-want +got):\n%s", diff)
	}
	connected(4, 1, 1000, false)
	if got := r.sources(); got != 3 {
		t.Errorf("%d source networks are remembered, want 3", got)
	}
	if _, err := r.Kill(t.Context(), director.ConnectionFilter{Client: netip.MustParsePrefix("198.51.1.1/32")}); err != nil {
		t.Fatal(err)
	}
	connected(1, 3, 1000, true)
	connected(1, 4, 1000, false)

	// Other networks than before begin anew.
	service.Limits.Source.Prefix = 32
	r.must(director.EditService{Service: service})
	if got := r.sources(); got != 0 {
		t.Errorf("%d networks of another prefix are remembered", got)
	}
	connected(1, 4, 1000, false) // the service's limit holds
	service.Limits.Connections = 6
	r.must(director.EditService{Service: service})
	connected(1, 4, 1000, true)

	// What is removed leaves nothing, and comes back with what it is given.
	index := r.model.byKey[key].index
	r.must(director.RemoveService{Key: key})
	var k bpf.KernelServiceLimits
	if err := r.plane.KernelMaps.Limits.Lookup(index, &k); err != nil || k != (bpf.KernelServiceLimits{}) {
		t.Errorf("left: %+v, %v", k, err)
	}
	if got := r.sources(); got != 0 {
		t.Errorf("%d source networks of a removed service are remembered", got)
	}
	service.Limits = director.Limits{}
	r.must(director.AddService{Service: service}, director.AddServer{Key: key, Server: server})
	connected(9, 1, 1000, true)
	if _, err := r.Kill(t.Context(), director.ConnectionFilter{}); err != nil {
		t.Fatal(err)
	}
	if got := r.connectionsCounted(index); got != 0 {
		t.Errorf("%d connections are counted when all are gone", got)
	}
}

func (r *rig) connectionsCounted(service uint32) int64 {
	r.t.Helper()
	var state bpf.KernelServiceState
	if err := r.plane.ServiceStates.Lookup(service, &state); err != nil {
		r.t.Fatal(err)
	}
	return state.Connections
}

// A count that does not agree with the servers' is put right by the sweep, which says
// so and does not touch theirs.
func TestSweepHealsServicesCounts(t *testing.T) {
	r := newRig(t, Options{})
	service := limitedService()
	r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: local(1, 1)})
	index := r.model.byKey[service.Key].index
	for i := range 3 {
		r.syn(limitClient(1, 1, uint16(1000+i)), service.Key.Address)
	}
	for _, by := range []int64{7, -5} {
		if err := r.plane.Correct(bpf.KernelCorrectArgs{Service: index, Connections: by}); err != nil {
			t.Fatal(err)
		}
		r.sweepNow()
		if got := r.connectionsCounted(index); got != 3+by {
			t.Errorf("after one sweep: %d, want %d still", got, 3+by)
		}
		r.sweepNow()
		if got := r.connectionsCounted(index); got != 3 {
			t.Errorf("after two sweeps: %d, want 3", got)
		}
	}
	if s := r.stats(service.Key).Servers[0]; s.Active != 3 {
		t.Errorf("the server has %d connections, want 3", s.Active)
	}
}

// What a guard does is told, also when it went on by itself.
func TestGuardStats(t *testing.T) {
	r := newRig(t, Options{})
	service := limitedService()
	service.Guard = director.SourceGuard{Mode: director.GuardOn}
	r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: local(1, 1)})
	client := limitClient(1, 1, 1000)
	if got := r.send(bpftest.Packet{From: client, To: service.Key.Address, Flags: "S"}); got != bpftest.TX {
		t.Fatalf("a first segment: %v", got)
	}
	want := director.GuardStats{On: true, Challenged: 1}
	if got := r.stats(service.Key).Guard; got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	service.Guard = director.SourceGuard{Mode: director.GuardAuto, On: 10, Off: 2}
	r.must(director.EditService{Service: service})
	if got := r.stats(service.Key).Guard; got.On {
		t.Errorf("on by itself: %+v", got)
	}
	tick, err := r.plane.Now()
	if err != nil {
		t.Fatal(err)
	}
	state := bpf.KernelServiceState{GuardUntil: tick + 30}
	if err := r.plane.ServiceStates.Put(r.model.byKey[service.Key].index, &state); err != nil {
		t.Fatal(err)
	}
	if got := r.stats(service.Key).Guard; !got.On {
		t.Errorf("not on: %+v", got)
	}
}
