package bpf_test

import (
	"testing"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// The kernel's thresholds with their hysteresis (kernel 6.1: ip_vs_bind_dest,
// ip_vs_unbind_dest, __ip_vs_update_dest).
func TestThresholds(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	type step struct {
		do         string // open, close; or upper, lower: an edit to value
		value      uint32
		overloaded uint32
	}
	for _, tt := range []struct {
		name         string
		upper, lower uint32
		steps        []step
	}{
		{"default lower", 4, 0, []step{
			{"open", 0, 0}, {"open", 0, 0}, {"open", 0, 0}, {"open", 0, 1}, {"close", 0, 1}, {"close", 0, 0},
		}},
		{"lower", 3, 2, []step{
			{"open", 0, 0}, {"open", 0, 0}, {"open", 0, 1}, {"close", 0, 1}, {"close", 0, 0}, {"open", 0, 0}, {"open", 0, 1},
		}},
		{"none", 0, 0, []step{{"open", 0, 0}, {"open", 0, 0}, {"close", 0, 0}}},
		{"raised", 2, 0, []step{
			{"open", 0, 0}, {"open", 0, 1}, {"upper", 3, 0}, {"open", 0, 1}, {"upper", 3, 1}, {"upper", 2, 1}, {"upper", 0, 0}, {"open", 0, 0},
		}},
		{"set below what there is", 0, 0, []step{
			{"open", 0, 0}, {"open", 0, 0}, {"open", 0, 0}, {"upper", 2, 0}, {"open", 0, 1}, {"close", 0, 1}, {"close", 0, 1}, {"close", 0, 0},
		}},
		{"lower edited", 4, 4, []step{
			{"open", 0, 0}, {"open", 0, 0}, {"open", 0, 0}, {"open", 0, 1}, {"lower", 1, 1}, {"close", 0, 1}, {"close", 0, 1}, {"close", 0, 1}, {"close", 0, 0},
		}},
	} {
		for _, protocol := range protocols {
			t.Run(tt.name+"/"+protocol.name, func(t *testing.T) {
				s := newScene(t, f, families[0], protocol.number, nat)
				server := s.service.Servers[0]
				server.Upper, server.Lower = tt.upper, tt.lower
				f.Apply(s.service)
				var open []bpftest.Packet
				for i, step := range tt.steps {
					switch step.do {
					case "open":
						p := s.requestOf(i)
						open = append(open, p)
						// A client that comes again gets no second connection counted.
						for range 2 {
							if got := f.Run(p.Bytes()); got.Action != bpftest.TX {
								t.Fatalf("step %d: %v %v", i, got.Action, f.Events())
							}
						}
					case "close":
						s.remove(t, open[0])
						open = open[1:]
					case "upper":
						server.Upper = step.value
						f.Apply(s.service)
					case "lower":
						server.Lower = step.value
						f.Apply(s.service)
					}
					load := f.Load(server)
					if load.Unfit != step.overloaded {
						t.Fatalf("step %d, %s: overloaded %d with %d connections, want %d",
							i, step.do, load.Unfit, len(open), step.overloaded)
					}
					if got := load.Active + load.Inactive; got != int64(len(open)) {
						t.Fatalf("step %d, %s: %d connections counted, want %d", i, step.do, got, len(open))
					}
					if load.Unfit == 1 {
						f.Events()
						if f.Run(s.requestOf(1000).Bytes()); f.Events()["no-server"] != 1 {
							t.Fatalf("step %d, %s: an overloaded server got a connection", i, step.do)
						}
					}
				}
			})
		}
	}
}

// A service's own timeouts hold for its connections, those of its neighbours do not.
func TestOwnTimeouts(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	eachScene(t, f, func(t *testing.T, s *scene) {
		state := bpf.KernelConnStateSTATE_ESTABLISHED
		if s.protocol == bpftest.UDP {
			state = bpf.KernelConnStateSTATE_UDP
		}
		other := &bpftest.Service{Listen: s.secondVirtual, Protocol: s.protocol, Servers: []*bpftest.Server{
			{Address: s.secondServer, Weight: 1, Hop: s.service.Servers[0].Hop},
		}}
		f.Apply(other)
		open := func() {
			s.establish(t)
			for _, flags := range []string{"S", "A"} {
				p := s.request()
				p.To = s.secondVirtual
				if s.protocol == bpftest.TCP {
					p.Flags = flags
				}
				f.Run(p.Bytes())
			}
		}
		left := func() (own, others bool) {
			for _, e := range f.Entries() {
				own = own || e.Destination == s.virtual
				others = others || e.Destination == s.secondVirtual
			}
			return own, others
		}
		open()
		s.service.Timeouts = map[bpf.KernelConnState]time.Duration{state: 10 * time.Second}
		f.Apply(s.service)
		f.AgeBy(9 * time.Second)
		if removed := f.Sweep(); removed != 0 {
			t.Errorf("%d removed before their time", removed)
		}
		f.AgeBy(2 * time.Second)
		f.Sweep()
		if own, others := left(); own || !others {
			t.Errorf("after 11 s: its own connection is there: %v, want false; the other's: %v, want true", own, others)
		}
		// By a packet, and longer than all others'.
		s.service.Timeouts[state] = time.Hour
		f.Apply(s.service)
		s.establish(t)
		f.AgeBy(59 * time.Minute)
		f.Sweep()
		if own, others := left(); !own || others {
			t.Errorf("after 59 min: its own connection is there: %v, want true; the other's: %v, want false", own, others)
		}
		f.AgeBy(2 * time.Minute)
		f.Events()
		f.Run(s.request().Bytes())
		if events := f.Events(); events["expired-hit"] != 1 {
			t.Errorf("events %v", events)
		}
	})
}
