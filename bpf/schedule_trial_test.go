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

// A trial that must look for another server than its template's, whose reply key is
// taken, begins where packets would, whatever was asked before it.
func TestTrialsDoNotGoOnFromOthers(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	eachScheduler(t, func(t *testing.T, scheduler director.Scheduler) {
		for _, a := range families {
			s := newPersistentScene(t, f, a, bpftest.TCP, nat)
			s.RemoveService(s.service)
			sized := func(prefix netip.AddrPort, servers byte) *bpftest.Service {
				service := &bpftest.Service{
					Listen: prefix, Prefix: s.bits(24), Scheduler: schedulerNumber(t, scheduler),
					Timeouts: map[bpf.KernelConnState]time.Duration{bpf.KernelConnStateSTATE_TEMPLATE: persistence},
				}
				address := s.server.Addr().AsSlice()
				for n := range servers {
					address[len(address)-1] = 100 + n
					addr, _ := netip.AddrFromSlice(address)
					service.Servers = append(service.Servers, &bpftest.Server{
						Address: netip.AddrPortFrom(addr, prefix.Port()), Weight: 1, Hop: s.service.Servers[0].Hop,
					})
				}
				return service
			}
			service := sized(netip.AddrPortFrom(s.at(0), 80), 4)
			service.Flags, service.ClientPrefix = bpf.KernelServiceFlagsSERVICE_PERSISTENT, s.client.Addr().BitLen()
			f.Apply(service)
			other := f.Apply(sized(netip.AddrPortFrom(s.at(0), 81), 7))
			p := s.request()
			ask := func(to byte) uint32 {
				p.To = netip.AddrPortFrom(s.at(to), service.Listen.Port())
				return explain(t, f, p).Server
			}
			for n := range 6 {
				p.From = netip.AddrPortFrom(s.client.Addr(), uint16(4000+n))
				ask(1)
				s.connectionOf(t, p)
				first := ask(2)
				for range 1 + n%3 {
					q := p
					q.To = netip.AddrPortFrom(s.at(1), other.Listen.Port())
					explain(t, f, q)
				}
				second := ask(2)
				f.Run(p.Bytes())
				var got uint32
				for _, e := range f.Entries() {
					if e.Source == p.From && e.Destination == p.To && !e.Reply {
						got = e.Server
					}
				}
				if scheduler != director.TwoRandomChoices && (first != got || second != got) {
					t.Errorf("%s, client %d: explained as server %d's and %d's; %d has it", a.name, n, first, second, got)
				}
			}
			f.RemoveService(service)
			f.RemoveService(other)
		}
	})
}
