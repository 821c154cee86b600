package xdp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

const (
	scaleServices = 1000
	scaleServers  = 10
	scaleHosts    = 100 // addresses the servers are on
)

// scaleOptions are the defaults of a daemon, but for the connection table.
var scaleOptions = Options{MaxServices: 4096, MaxServers: 16384, SchedulerWords: 4 << 20}

// scaleState is services of all schedulers, each with an address of its own.
func scaleState() director.State {
	var state director.State
	names := director.Schedulers()
	for i := range scaleServices {
		s := director.Service{
			Key: director.ServiceKey{
				Protocol: conntrack.TCP,
				Address:  netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, byte(2 + i/250), byte(1 + i%250)}), 80),
			},
			Name: fmt.Sprintf("service-%d", i), Scheduler: names[i%len(names)], VIP: director.VIPManaged,
		}
		for j := range scaleServers {
			host := (i*scaleServers + j) % scaleHosts
			s.Servers = append(s.Servers, realserver.Server{
				Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(host)}), 8080),
				Method:  realserver.NAT, Weight: uint32(1 + j),
			})
		}
		state.Services = append(state.Services, s)
	}
	return state.Normalize()
}

// newScaleRig is a rig in whose network all hosts answer.
func newScaleRig(t testing.TB) *rig {
	t.Helper()
	r := newRig(t, scaleOptions)
	if err := r.ns.AddAddress("eth0", netip.MustParsePrefix("10.0.1.254/24")); err != nil {
		t.Fatal(err)
	}
	for host := range scaleHosts {
		if err := r.peer.AddAddress("eth0", netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(host)}), 24)); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// One thousand services of ten servers each are found as they were applied, by
// this daemon and the next; a failure in their midst is named, and what came
// before it stands.
func TestScale(t *testing.T) {
	r := newScaleRig(t)
	state := scaleState()
	d := director.New(r.Dataplane, new(directortest.Store), director.Options{})
	if err := d.Start(t.Context(), state, director.Request{Who: "test"}); err != nil {
		t.Fatal(err)
	}
	same := func(when string) {
		t.Helper()
		found, err := r.Found(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(state.Services, found.Services, plain); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", when, diff)
		}
	}
	same("applied")
	stats, err := r.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(stats.Services) != scaleServices || len(stats.Services[7].Servers) != scaleServers {
		t.Errorf("stats of %d services", len(stats.Services))
	}
	r.eventually("all servers are reachable", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, s := range r.model.servers {
			if s.hop == 0 {
				return false
			}
		}
		return true
	})
	same("all reachable")
	for _, i := range []int{0, 499, 999} {
		s := state.Services[i]
		if server, ok := r.syn(netip.MustParseAddrPort("198.51.100.9:4000"), s.Key.Address); !ok || s.Server(server) < 0 {
			t.Errorf("%s: paired with %s, %v", s.Key, server, ok)
		}
	}
	last := state.Services[scaleServices-1].Key
	bad := director.AddServer{Key: last, Server: realserver.Server{Address: netip.MustParseAddrPort("10.9.9.9:1"), Method: 4}} // the kernel's bypass
	var ops []director.Operation
	for i := range 10 {
		state.Services[i].Servers[3].Weight = 77
		ops = append(ops, director.EditServer{Key: state.Services[i].Key, Server: state.Services[i].Servers[3]})
	}
	edit := director.EditServer{Key: last, Server: state.Services[scaleServices-1].Servers[0]}
	edit.Server.Weight = 50
	state.Services[scaleServices-1].Servers[0].Weight = 50
	ops = append(ops, edit, bad, director.RemoveService{Key: last})
	err = r.Apply(t.Context(), ops)
	var failed *director.OperationError
	if !errors.As(err, &failed) || failed.Operation.String() != bad.String() {
		t.Errorf("the failure: %v", err)
	}
	same("after a failure")
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	same("after a restart")
}

// BenchmarkScale measures what the issue bounds: all services from nothing, one
// weight until the words have it, and what every change and every scrape reads.
// SHUNT_SCALE=1 go test -run '^$' -bench Scale -benchtime 20x ./director/xdp
func BenchmarkScale(b *testing.B) {
	if os.Getenv("SHUNT_SCALE") == "" {
		b.Skip("takes a minute: set SHUNT_SCALE=1")
	}
	r := newScaleRig(b)
	d := director.New(r.Dataplane, new(directortest.Store), director.Options{})
	ctx := context.Background()
	if err := d.Start(ctx, director.State{}, director.Request{}); err != nil {
		b.Fatal(err)
	}
	state := scaleState()
	median := func(b *testing.B, act func()) {
		b.Helper()
		var all []time.Duration
		for range b.N {
			began := time.Now()
			act()
			all = append(all, time.Since(began))
		}
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "ms-median")
		b.ReportMetric(float64(all[len(all)-1].Microseconds())/1000, "ms-max")
		b.ReportMetric(0, "ns/op")
	}
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	apply := func(state director.State) {
		_, err := d.Apply(ctx, director.Request{Force: true}, state)
		must(err)
	}
	b.Run("ApplyAll", func(b *testing.B) {
		var all []time.Duration
		for range b.N {
			began := time.Now()
			apply(state)
			all = append(all, time.Since(began))
			apply(director.State{})
			must(r.sweep(ctx))
			must(r.sweep(ctx))
		}
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Milliseconds()), "ms-median")
		b.ReportMetric(0, "ns/op")
	})
	apply(state)
	time.Sleep(2 * time.Second) // neighbours answer
	weight := uint32(100)
	for _, i := range []int{0, 1, 2, 3} {
		service := state.Services[i]
		b.Run("Weight/"+string(service.Scheduler), func(b *testing.B) {
			median(b, func() {
				weight++
				_, err := d.EditServer(ctx, director.Request{}, service.Key, service.Servers[3].Address, func(s *realserver.Server) error {
					s.Weight = weight
					return nil
				})
				must(err)
				svc := r.model.byKey[service.Key]
				words := make([]uint32, 2*len(svc.list))
				rd := reading{plane: r.plane}
				list, _ := rd.words(svc.schedule.List, uint32(len(words)))
				if !slices.Contains(list, weight) {
					b.Fatalf("weight %d is not in the list: %v", weight, list)
				}
			})
		})
	}
	b.Run("ApplyOp", func(b *testing.B) {
		server := state.Services[1].Servers[2]
		median(b, func() {
			weight++
			server.Weight = weight
			must(r.Apply(ctx, []director.Operation{director.EditServer{Key: state.Services[1].Key, Server: server}}))
		})
	})
	b.Run("Found", func(b *testing.B) {
		median(b, func() { _, err := r.Found(ctx); must(err) })
	})
	b.Run("Stats", func(b *testing.B) {
		median(b, func() { _, err := r.Stats(ctx); must(err) })
	})
	b.Run("Sweep", func(b *testing.B) {
		median(b, func() { must(r.sweep(ctx)) })
	})
	b.Run("Reconcile", func(b *testing.B) {
		median(b, func() { must(d.Reconcile(ctx)) })
	})
	b.Run("Restart", func(b *testing.B) {
		median(b, func() { must(r.Close()); r.open() })
	})
}
