package xdp

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// What the features lack is refused as unsupported, whoever asks.
func TestUnsupported(t *testing.T) {
	r := newRig(t, Options{})
	want := director.XDPFeatures()
	want.NoLocal4, want.NoLocal6 = true, true
	if r.Features() != want {
		t.Errorf("features: %+v, want %+v", r.Features(), want)
	}
	service := testService(director.RoundRobin, director.SchedulerFlags{})
	r.must(director.AddService{Service: service})
	with := func(change func(*director.Service)) director.Service {
		s := service
		change(&s)
		return s
	}
	for name, op := range map[string]director.Operation{
		"mark": director.AddService{Service: with(func(s *director.Service) {
			s.Key = director.MarkKey(7, netip.IPv4Unspecified())
		})},
		"sctp": director.AddService{Service: with(func(s *director.Service) { s.Key.Protocol = conntrack.SCTP })},
		"engine": director.EditService{Service: with(func(s *director.Service) {
			s.Persistence = director.Persistence{Timeout: time.Minute, Engine: director.EngineSIP}
		})},
		"sync":   director.StartSync{Daemon: director.SyncDaemon{Role: "master", Interface: "eth0"}},
		"sync's": director.StopSync{Role: "master"},
	} {
		if err := r.Apply(t.Context(), []director.Operation{op}); !errors.Is(err, director.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(r.model.services) != 1 || len(r.model.servers) != 0 {
		t.Errorf("left of what was refused: %d services, %d servers", len(r.model.services), len(r.model.servers))
	}
}

// Flags without a meaning are kept, whatever the scheduler; so they are over a restart.
func TestFlagsAreKept(t *testing.T) {
	r := newRig(t, Options{})
	want := map[director.ServiceKey]director.SchedulerFlags{}
	for i, name := range director.Schedulers() {
		for bits := range 8 {
			if i%4 != bits%4 {
				continue // two of each are enough
			}
			flags := director.SchedulerFlags{Fallback: bits&1 != 0, Port: bits&2 != 0, Third: bits&4 != 0}
			s := testService(name, flags)
			s.Key.Address = netip.AddrPortFrom(s.Key.Address.Addr(), uint16(8000+8*i+bits))
			r.must(director.AddService{Service: s}, director.AddServer{Key: s.Key, Server: local(1, 1)})
			want[s.Key] = flags
		}
	}
	for _, restart := range []bool{false, true} {
		if restart {
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			r.open()
		}
		found, err := r.Found(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := map[director.ServiceKey]director.SchedulerFlags{}
		for _, s := range found.Services {
			got[s.Key] = s.Flags
			if s.Scheduler == "" {
				t.Errorf("%s: its entry is not what its settings make it", s.Key)
			}
		}
		if diff := cmp.Diff(want, got, compareAddresses); diff != "" {
			t.Errorf("restarted: %t: flags (-want +got):\n%s", restart, diff)
		}
	}
}
