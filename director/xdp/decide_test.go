package xdp

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/scheduler"
	"github.com/shunt-lb/shunt/realserver"
)

func (r *rig) decide(q director.Question) director.Decision {
	r.t.Helper()
	decision, err := r.Decide(r.t.Context(), q)
	if err != nil {
		r.t.Fatal(err)
	}
	return decision
}

// A decision is what the next packet then gets, whatever the scheduler and the
// history.
func TestDecideForetells(t *testing.T) {
	r := newRig(t, Options{})
	for n, name := range director.Schedulers() {
		if name == director.TwoRandomChoices {
			continue // chance: see below
		}
		t.Run(string(name), func(t *testing.T) {
			r.t = t
			service := testService(name, director.SchedulerFlags{})
			service.Key.Address = netip.AddrPortFrom(service.Key.Address.Addr(), uint16(8000+n))
			if n%2 == 0 {
				service.Persistence = director.Persistence{Timeout: time.Minute, Prefix: 28}
			}
			r.must(director.AddService{Service: service})
			random := rand.New(rand.NewPCG(3, uint64(n)))
			for i := range 5 {
				server := local(i+1, uint32(random.IntN(4)))
				server.Upper = uint32(random.IntN(2) * 7)
				r.must(director.AddServer{Key: service.Key, Server: server})
			}
			for step := range bpftest.Rounds(80) {
				client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(random.IntN(64))}), uint16(1024+random.IntN(3)))
				if random.IntN(8) == 0 {
					server := local(1+random.IntN(5), uint32(random.IntN(4)))
					r.must(director.EditServer{Key: service.Key, Server: server})
				}
				has := len(r.connections(director.ConnectionFilter{Client: only(client).Client, Service: service.Key, Kind: director.KindConnection})) > 0
				decision := r.decide(director.Question{Protocol: conntrack.TCP, Client: client, Virtual: service.Key.Address})
				got, ok := r.syn(client, service.Key.Address)
				if ok != (decision.Event == "") || ok && got != decision.Server || !ok && decision.Event != "no-server" {
					t.Fatalf("step %d, client %s: given %v %v, foretold %+v", step, client, got, ok, decision)
				}
				if (decision.By == director.ByConnection) && !has {
					t.Errorf("step %d: by a connection of %s, which has none", step, client)
				}
				if (decision.Connection != nil) != (decision.By == director.ByConnection || decision.By == director.ByTemplate) {
					t.Errorf("step %d: %s with %+v", step, decision.By, decision.Connection)
				}
			}
		})
	}
}

// What a decision says of the scheduler is what its model makes the same of.
func TestDecideExplains(t *testing.T) {
	r := newRig(t, Options{})
	service := testService(director.WeightedRoundRobin, director.SchedulerFlags{})
	r.must(director.AddService{Service: service})
	limited := local(2, 3)
	limited.Upper = 2
	draining := local(3, 5)
	draining.Draining = true
	for _, server := range []realserver.Server{local(1, 1), limited, draining} {
		r.must(director.AddServer{Key: service.Key, Server: server})
	}
	q := director.Question{Protocol: conntrack.TCP, Client: netip.MustParseAddrPort("198.51.100.9:4000"), Virtual: service.Key.Address}
	base := director.Decision{
		Question: q, Service: service.Key, By: director.ByScheduler, Server: limited.Address, Method: limited.Method,
		Scheduler: director.WeightedRoundRobin, Turn: -1, Slot: -1, CurrentWeight: 1,
	}
	with := func(change func(*director.Decision), candidates ...director.Candidate) director.Decision {
		d := base
		d.Candidates = candidates
		change(&d)
		return d
	}
	off := director.Candidate{Server: draining.Address}
	check := func(when string, got, want director.Decision) {
		t.Helper()
		if diff := cmp.Diff(want, got, plain); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	check("first", r.decide(q), with(func(*director.Decision) {},
		off, director.Candidate{Server: limited.Address, Weight: 3}, director.Candidate{Server: local(1, 1).Address, Weight: 1}))
	for port := range uint16(3) {
		r.syn(netip.AddrPortFrom(q.Client.Addr(), 4001+port), service.Key.Address)
	}
	check("overloaded", r.decide(q), with(
		func(d *director.Decision) { d.Server, d.Turn, d.CurrentWeight = local(1, 1).Address, 1, 3 },
		off, director.Candidate{Server: limited.Address, Weight: 3, Active: 2, Overloaded: true},
		director.Candidate{Server: local(1, 1).Address, Weight: 1, Active: 1},
	))
	r.syn(q.Client, service.Key.Address)
	got := r.decide(q)
	if got.By != director.ByConnection || got.Connection == nil || got.Connection.Client != q.Client || got.Connection.Server != got.Server ||
		got.Connection.State != conntrack.SynRecv || got.Connection.Expires <= 0 || got.Connection.Template {
		t.Errorf("a connection: %+v, %+v", got, got.Connection)
	}
	r.must(director.EditServer{Key: service.Key, Server: local(1, 0)})
	q.Client = netip.MustParseAddrPort("198.51.100.10:4000")
	if got := r.decide(q); got.By != director.ByNothing || got.Event != "no-server" || got.Server.IsValid() || len(got.Candidates) != 3 {
		t.Errorf("no server: %+v", got)
	}
	q.Virtual = netip.MustParseAddrPort("192.0.2.1:81")
	if got := r.decide(q); got.By != director.ByNothing || got.Event != "no-service" || got.Service != (director.ServiceKey{}) || got.Candidates != nil {
		t.Errorf("no service: %+v", got)
	}
	q.Virtual = netip.MustParseAddrPort("203.0.113.1:80")
	if got := r.decide(q); got.Event != "not-ours" {
		t.Errorf("somebody else's address: %+v", got)
	}
}

// A template that decides is shown, and the place in a hash table.
func TestDecideShows(t *testing.T) {
	r := newRig(t, Options{})
	service := newStickyService()
	service.Scheduler, service.Flags = director.SourceHash, director.SchedulerFlags{Port: true}
	r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: local(1, 1)}, director.AddServer{Key: service.Key, Server: local(2, 1)})
	q := director.Question{Protocol: conntrack.TCP, Client: netip.MustParseAddrPort("198.51.100.9:4000"), Virtual: service.Key.Address}
	if got, want := r.decide(q).Slot, int(scheduler.SourceHashBucket(q.Client.Addr(), 4000, 0)); got != want {
		t.Errorf("slot %d, want %d", got, want)
	}
	held, _ := r.syn(netip.MustParseAddrPort("198.51.100.77:99"), service.Key.Address)
	got := r.decide(q)
	if got.By != director.ByTemplate || got.Server != held || got.Connection == nil {
		t.Fatalf("under a template: %+v", got)
	}
	c := *got.Connection
	c.Expires, c.Age, c.Idle = 0, 0, 0
	want := conntrack.Connection{
		Protocol: conntrack.TCP, Client: netip.MustParseAddrPort("198.51.100.0:0"), Virtual: service.Key.Address, Server: held,
		Method: "local", Template: true, Prefix: 24, Controlled: 1,
	}
	if diff := cmp.Diff(want, c, plain); diff != "" {
		t.Errorf("template (-want +got):\n%s", diff)
	}
}

// A client without a port is given one that has no connection.
func TestDecideDrawsPort(t *testing.T) {
	r := newRig(t, Options{})
	service := testService(director.RoundRobin, director.SchedulerFlags{})
	r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: local(1, 1)})
	client := netip.MustParseAddr("198.51.100.9")
	for port := 32768; port < 65536; port += 16 {
		r.send(bpftest.Packet{From: netip.AddrPortFrom(client, uint16(port)), To: service.Key.Address, Flags: "S"})
	}
	for range 50 {
		got := r.decide(director.Question{Protocol: conntrack.TCP, Client: netip.AddrPortFrom(client, 0), Virtual: service.Key.Address})
		if port := got.Client.Port(); got.By != director.ByScheduler || port < 32768 || port%16 == 0 {
			t.Fatalf("port %d: %+v", port, got)
		}
	}
}

// Questions leave every map as it was.
func TestDecideChangesNothing(t *testing.T) {
	r := newRig(t, Options{})
	var keys []director.ServiceKey
	for n, name := range director.Schedulers() {
		service := testService(name, director.SchedulerFlags{})
		service.Key.Address, service.Name = netip.AddrPortFrom(service.Key.Address.Addr(), uint16(8000+n)), string(name)
		service.Persistence = director.Persistence{Timeout: time.Minute, Prefix: 32}
		r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: local(1, 1)}, director.AddServer{Key: service.Key, Server: local(2, 2)})
		keys = append(keys, service.Key)
		r.syn(netip.MustParseAddrPort("198.51.100.9:4000"), service.Key.Address)
	}
	before := r.dump()
	for _, key := range keys {
		for _, client := range []string{"198.51.100.9:4000", "198.51.100.9:4001", "198.51.100.10:0", "127.0.0.1:1"} {
			r.decide(director.Question{Protocol: conntrack.TCP, Client: netip.MustParseAddrPort(client), Virtual: key.Address})
		}
	}
	if diff := cmp.Diff(before, r.dump()); diff != "" {
		t.Errorf("maps changed (-before +after):\n%s", diff)
	}
}

// dump returns a sum of each map's content.
func (r *rig) dump() map[string]string {
	r.t.Helper()
	sums := map[string]string{
		"services": sumArray[bpf.KernelService](r, r.plane.Services), "servers": sumArray[bpf.KernelServer](r, r.plane.Servers),
		"loads": sumArray[bpf.KernelServerLoad](r, r.plane.Loads), "timeouts": sumArray[bpf.KernelTimeoutSet](r, r.plane.Timeouts),
		"words": sumArray[uint32](r, r.plane.Words), "hops": sumArray[bpf.KernelHop](r, r.plane.Hops),
	}
	for name, m := range map[string]*ebpf.Map{
		"connections4": r.plane.Connections4, "traffic": r.plane.ServerTraffic, "events": r.plane.Events, "destinations": r.plane.Destinations,
	} {
		sum := fnv.New64a()
		var key, value []byte
		for all := m.Iterate(); all.Next(&key, &value); {
			sum.Write(key)
			sum.Write(value)
		}
		sums[name] = fmt.Sprintf("%x", sum.Sum64())
	}
	return sums
}

// sumArray sums an array up that user space reads as memory.
func sumArray[T any](r *rig, m *ebpf.Map) string {
	r.t.Helper()
	all, err := bpf.ReadArray[T](m)
	if err != nil {
		r.t.Fatal(err)
	}
	sum := fnv.New64a()
	sum.Write(unsafe.Slice((*byte)(unsafe.Pointer(&all[0])), len(all)*int(unsafe.Sizeof(all[0]))))
	return fmt.Sprintf("%x", sum.Sum64())
}

// What no packet can be is refused.
func TestDecideRefuses(t *testing.T) {
	r := newRig(t, Options{})
	v4, v6 := netip.MustParseAddrPort("192.0.2.1:80"), netip.MustParseAddrPort("[2001:db8::1]:80")
	for name, q := range map[string]director.Question{
		"protocol":       {Protocol: conntrack.SCTP, Client: v4, Virtual: v4},
		"no protocol":    {Client: v4, Virtual: v4},
		"families":       {Protocol: conntrack.TCP, Client: v6, Virtual: v4},
		"no client":      {Protocol: conntrack.TCP, Virtual: v4},
		"no virtual":     {Protocol: conntrack.TCP, Client: v4},
		"port 0 virtual": {Protocol: conntrack.TCP, Client: v4, Virtual: netip.AddrPortFrom(v4.Addr(), 0)},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := r.Decide(t.Context(), q); !errors.Is(err, director.ErrInvalid) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}
