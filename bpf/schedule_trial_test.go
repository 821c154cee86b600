package bpf_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/director"
)

// trial asks which server a client's SYN to a virtual address would get; nil: none.
func (s *selection) trial(client, virtual netip.AddrPort) *bpftest.Server {
	s.t.Helper()
	const syn = 2
	args := bpf.KernelExplainArgs{
		Source: bpf.Address(client.Addr()), SourcePort: bpf.Port(client.Port()),
		Destination: bpf.Address(virtual.Addr()), DestinationPort: bpf.Port(virtual.Port()),
		Protocol: bpftest.TCP, TcpFlags: syn,
	}
	if err := s.Plane.Explain(client.Addr().Is6(), &args); err != nil {
		s.t.Fatal(err)
	}
	if args.Server == 0 {
		return nil
	}
	return s.Server(args.Server)
}

// schedulerState is all that a pick may change but loads.
type schedulerState struct {
	Cursor       uint64
	Destinations []bpf.DestinationEntry
}

func (s *selection) state() schedulerState {
	s.t.Helper()
	var k bpf.KernelService
	if err := s.Plane.Services.Lookup(s.service.Index, &k); err != nil {
		s.t.Fatal(err)
	}
	entries, err := s.Plane.DestinationEntries()
	if err != nil {
		s.t.Fatal(err)
	}
	return schedulerState{k.Cursor, entries}
}

// A trial chooses what the next packet gets, however often it is made, and leaves
// the scheduler as it was: also where a pick would add to a set of lblcr's, take from
// it, or find nobody.
func TestTrialsChangeNothing(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	var hops []uint32
	eachScheduler(t, func(t *testing.T, scheduler director.Scheduler) {
		s := newSelection(t, f, &hops, scheduler, false, bpf.KernelServiceFlagsSERVICE_FALLBACK).with(2, 3, 2, 1)
		f.Events()
		for n := range 12 {
			switch n {
			case 4: // what was chosen is busy, the others are idle
				for _, server := range s.service.Servers {
					if load := f.Load(server); load.Active > 0 {
						s.SetLoad(server, 9, 0, false)
					} else {
						s.SetLoad(server, 0, 0, false)
					}
				}
			case 6: // sets are old
				for range 2 {
					s.AgeDestinations(13*time.Hour, 48*time.Hour)
				}
			case 10:
				for _, server := range s.service.Servers {
					s.SetLoad(server, 9, 0, true)
					server.Weight = 0
				}
				s.Apply(s.service)
			}
			client, virtual := s.client(n), s.virtual(n%2)
			before := s.state()
			tried := s.trial(client, virtual)
			if again := s.trial(client, virtual); again != tried && scheduler != director.TwoRandomChoices {
				t.Errorf("pick %d: tried twice, %s and %s", n, name(tried), name(again))
			}
			if diff := cmp.Diff(before, s.state()); diff != "" {
				t.Errorf("pick %d: a trial changed (-before +after):\n%s", n, diff)
			}
			if events := f.Events(); len(events) != 0 {
				t.Errorf("pick %d: a trial counted %v", n, events)
			}
			if got := s.open(client, virtual); got != tried && scheduler != director.TwoRandomChoices {
				t.Errorf("pick %d: %s was chosen, tried was %s", n, name(got), name(tried))
			}
			f.Events()
		}
	})
}
