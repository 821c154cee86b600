package xdp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sync/errgroup"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

const largeService = 1000

// newLargeRig has a service of as many servers as may be asked for at once, which
// schedules every packet. The first server has weight 0.
func newLargeRig(t testing.TB, name director.Scheduler) (*rig, *director.Director, director.Service) {
	t.Helper()
	r := newRig(t, Options{MaxServers: 2048, MaxServices: 32, SchedulerWords: 1 << 20})
	service := testService(name, director.SchedulerFlags{})
	service.Key.Protocol, service.Key.Address, service.OnePacket = conntrack.UDP, netip.MustParseAddrPort("192.0.2.1:53"), true
	for i := range largeService {
		service.Servers = append(service.Servers, realserver.Server{
			Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 53),
			Method:  realserver.Local, Weight: uint32(min(i, 7)),
		})
	}
	d := director.New(r.Dataplane, new(directortest.Store), director.Options{})
	if err := d.Start(t.Context(), director.State{Services: []director.Service{service}}, director.Request{}); err != nil {
		t.Fatal(err)
	}
	return r, d, service
}

// setWeight is what an operator does.
func setWeight(ctx context.Context, d *director.Director, key director.ServiceKey, server netip.AddrPort, weight uint32) error {
	_, err := d.EditServer(ctx, director.Request{}, key, server, func(s *realserver.Server) error {
		s.Weight = weight
		return nil
	})
	return err
}

// While weights change in a large service, every packet gets a server, and none the
// one of weight 0.
func TestWeightsChangeUnderPicks(t *testing.T) {
	for _, name := range []director.Scheduler{director.RoundRobin, director.WeightedRoundRobin, director.WeightedLeastConnection, director.Maglev} {
		t.Run(string(name), func(t *testing.T) {
			r, d, service := newLargeRig(t, name)
			if name == director.Maglev {
				// Its table has the last weights: a server of weight 0 refuses its clients.
				if err := setWeight(t.Context(), d, service.Key, service.Servers[0].Address, 1); err != nil {
					t.Fatal(err)
				}
			}
			var done atomic.Bool
			var sent atomic.Uint64
			var group errgroup.Group
			for hammer := range 2 {
				group.Go(func() error {
					out := make([]byte, 2048)
					for n := 0; !done.Load(); n++ {
						client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(n >> 8), byte(n)}), uint16(1024+hammer))
						packet := bpftest.Packet{From: client, To: service.Key.Address, Protocol: uint8(conntrack.UDP)}
						action, err := r.plane.ShuntRoot.Run(&ebpf.RunOptions{Data: packet.Bytes(), DataOut: out})
						if err != nil {
							return err
						}
						if sent.Add(1); bpftest.Action(action) != bpftest.Pass {
							return fmt.Errorf("packet %d of %s: %s", n, client, bpftest.Action(action))
						}
					}
					return nil
				})
			}
			for change := range 40 {
				server := service.Servers[1+(change*37)%(largeService-1)]
				if err := setWeight(t.Context(), d, service.Key, server.Address, uint32(1+change%9)); err != nil {
					t.Error(err)
				}
				if sent.Load() == 0 {
					time.Sleep(time.Millisecond) // let them begin
				}
			}
			done.Store(true)
			if err := group.Wait(); err != nil {
				t.Error(err)
			}
			counts, err := r.plane.EventCounts()
			if err != nil {
				t.Fatal(err)
			}
			if n := counts[bpf.KernelEventEVENT_ANSWER_NO_SERVER]; n != 0 {
				t.Errorf("%d packets got no server", n)
			}
			stats := r.stats(service.Key)
			if got := stats.Counters.Connections; got != sent.Load() || got == 0 {
				t.Errorf("%d picks counted, %d packets sent", got, sent.Load())
			}
			if got := stats.Servers[0]; name != director.Maglev && got.Counters.Connections != 0 {
				t.Errorf("the server of weight 0 got %d packets", got.Counters.Connections)
			}
			t.Logf("%d packets", sent.Load())
		})
	}
}

// While a service's scheduler, its flags and its persistence change, every packet gets
// a server, and no template is of another network than its clients have.
func TestSettingsChangeUnderPicks(t *testing.T) {
	r := newRig(t, Options{})
	service := testService(director.RoundRobin, director.SchedulerFlags{})
	service.Key.Protocol, service.Key.Address, service.OnePacket = conntrack.UDP, netip.MustParseAddrPort("192.0.2.1:53"), true
	r.must(director.AddService{Service: service})
	for i := range 4 {
		r.must(director.AddServer{Key: service.Key, Server: local(i+1, 1)})
	}
	const runs = 2000 // packets in a row
	client := netip.MustParseAddr("198.51.100.9")
	var done atomic.Bool
	var sent atomic.Uint64
	var group errgroup.Group
	for hammer := range 2 {
		group.Go(func() error {
			packet := bpftest.Packet{
				From: netip.AddrPortFrom(client, uint16(1024+hammer)), To: service.Key.Address, Protocol: uint8(conntrack.UDP),
			}
			for out := make([]byte, 2048); !done.Load(); sent.Add(runs) {
				if _, err := r.plane.ShuntRoot.Run(&ebpf.RunOptions{Data: packet.Bytes(), DataOut: out, Repeat: runs}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	changes := []func(*director.Service){
		func(s *director.Service) { s.Scheduler = director.WeightedRoundRobin },
		func(s *director.Service) { s.Scheduler = director.RoundRobin },
		func(s *director.Service) {
			s.Scheduler, s.Flags = director.Maglev, director.SchedulerFlags{Port: true, Fallback: true}
		},
		func(s *director.Service) { s.Persistence = director.Persistence{Timeout: time.Hour, Prefix: 24} },
		func(s *director.Service) {
			s.Persistence, s.Scheduler, s.Flags = director.Persistence{}, director.LeastConnection, director.SchedulerFlags{}
		},
	}
	for n := 0; n < 1000 || sent.Load() == 0; n++ {
		changes[n%len(changes)](&service)
		if err := r.Apply(t.Context(), []director.Operation{director.EditService{Service: service}}); err != nil {
			t.Fatal(err)
		}
	}
	done.Store(true)
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	counts, err := r.plane.EventCounts()
	if err != nil {
		t.Fatal(err)
	}
	if n := counts[bpf.KernelEventEVENT_ANSWER_NO_SERVER] + counts[bpf.KernelEventEVENT_DROP_RATE_LIMITED]; n != 0 {
		t.Errorf("%d packets of %d got no server", n, sent.Load())
	}
	for _, c := range r.connections(director.ConnectionFilter{Kind: director.KindTemplate}) {
		if want := netip.MustParseAddr("198.51.100.0"); c.Client.Addr() != want {
			t.Errorf("a template of network %s, want %s", c.Client.Addr(), want)
		}
	}
	t.Logf("%d packets", sent.Load())
}

// BenchmarkWeight is one weight of a service of a thousand servers, from the call to
// the words that packets read: go test -run '^$' -bench Weight -benchtime 50x ./director/xdp
func BenchmarkWeight(b *testing.B) {
	for _, name := range []director.Scheduler{director.WeightedRoundRobin, director.WeightedLeastConnection, director.SourceHash, director.Maglev} {
		b.Run(string(name), func(b *testing.B) {
			_, d, service := newLargeRig(b, name)
			times := make([]time.Duration, 0, b.N)
			for n := range b.N {
				began := time.Now()
				if err := setWeight(b.Context(), d, service.Key, service.Servers[1+n%(largeService-1)].Address, uint32(8+n%2)); err != nil {
					b.Fatal(err)
				}
				times = append(times, time.Since(began))
			}
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, "ms-median")
			b.ReportMetric(float64(times[len(times)-1].Microseconds())/1000, "ms-max")
			b.ReportMetric(0, "ns/op")
		})
	}
}
