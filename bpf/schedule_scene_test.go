package bpf_test

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/director"
)

// eachScheduler runs a test for each of them, in the order of their numbers.
func eachScheduler(t *testing.T, test func(t *testing.T, scheduler director.Scheduler)) {
	t.Helper()
	all := director.Schedulers()
	slices.SortFunc(all, func(a, b director.Scheduler) int { return cmp.Compare(schedulerNumber(t, a), schedulerNumber(t, b)) })
	for _, name := range all {
		t.Run(string(name), func(t *testing.T) { test(t, name) })
	}
}

// schedulerNumber is the program's.
func schedulerNumber(t testing.TB, name director.Scheduler) bpf.KernelScheduler {
	t.Helper()
	number := bpf.SchedulerNumber(string(name))
	if number == 0 {
		t.Fatalf("scheduler %s: no number in bpf.Schedulers", name)
	}
	return number
}

// namesByHash says whether the scheduler may name a server that takes no connections,
// and then refuses instead of taking another.
func namesByHash(scheduler director.Scheduler, flags bpf.KernelServiceFlags) bool {
	switch scheduler {
	case director.DestinationHash:
		return true
	case director.SourceHash, director.Maglev:
		return flags&bpf.KernelServiceFlagsSERVICE_FALLBACK == 0
	}
	return false
}

// selection is a service whose connections say which server they got: its servers
// work by DR, each behind a next hop of its own.
type selection struct {
	*bpftest.Fixture
	t       testing.TB
	service *bpftest.Service
	hops    *[]uint32 // by the number in a server's link address
	clients int       // that visit has made
}

// newSelection resets the fixture. The service has all virtual addresses of
// 192.0.2.0/24 or 2001:db8::/120.
func newSelection(t testing.TB, f *bpftest.Fixture, hops *[]uint32, scheduler director.Scheduler, v6 bool, flags bpf.KernelServiceFlags) *selection {
	t.Helper()
	f.T(t).Reset()
	service := &bpftest.Service{Scheduler: schedulerNumber(t, scheduler), Flags: flags}
	service.Listen, service.Prefix = netip.MustParseAddrPort("192.0.2.0:80"), 24
	if v6 {
		service.Listen, service.Prefix = netip.MustParseAddrPort("[2001:db8::]:80"), 120
	}
	return &selection{Fixture: f, t: t, service: service, hops: hops}
}

// server returns the n-th server, that is not in the list yet.
func (s *selection) server(n int, weight uint32) *bpftest.Server {
	for len(*s.hops) <= n {
		mac := bpftest.ServerMAC
		mac[3], mac[4] = byte(len(*s.hops)>>8), byte(len(*s.hops))
		*s.hops = append(*s.hops, s.AddHop(bpftest.Link{Interface: s.Outside, Source: bpftest.DirectorInside, Destination: mac}))
	}
	address := netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)})
	if s.service.Listen.Addr().Is6() {
		address = netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(n >> 8), 15: byte(n)})
	}
	return &bpftest.Server{Address: netip.AddrPortFrom(address, 8080), Method: dr, Weight: weight, Hop: (*s.hops)[n]}
}

// with puts servers of these weights into the list, the last one first, as if they
// had been added one by one.
func (s *selection) with(weights ...uint32) *selection {
	s.t.Helper()
	for i, weight := range weights {
		s.service.Servers = slices.Insert(s.service.Servers, 0, s.server(i, weight))
	}
	s.Apply(s.service)
	return s
}

// virtual is the service's n-th address.
func (s *selection) virtual(n int) netip.AddrPort {
	b := s.service.Listen.Addr().AsSlice()
	b[len(b)-1] = byte(n)
	address, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(address, s.service.Listen.Port())
}

// client is the n-th of the service's family.
func (s *selection) client(n int) netip.AddrPort {
	address := netip.AddrFrom4([4]byte{198, 51, byte(n >> 8), byte(n)})
	if s.service.Listen.Addr().Is6() {
		address = netip.AddrFrom16([16]byte{0: 0x20, 1: 0x01, 2: 0x0d, 3: 0xb8, 4: 0xc, 14: byte(n >> 8), 15: byte(n)})
	}
	return netip.AddrPortFrom(address, uint16(1024+n))
}

// open is a client's SYN to a virtual address; the server it was sent to, nil if
// there was none.
func (s *selection) open(client, virtual netip.AddrPort) *bpftest.Server {
	s.t.Helper()
	got := s.send(client, virtual, "S")
	if got.Action != bpftest.TX {
		s.t.Fatalf("%v -> %v: %v, %v", client, virtual, got.Action, s.Events())
	}
	if got.Packet[0] != bpftest.ServerMAC[0] || got.Packet[5] != bpftest.ServerMAC[5] {
		if grown := s.Events(); grown["no-server"] == 0 {
			s.t.Fatalf("%v -> %v was answered: %v", client, virtual, grown)
		}
		return nil
	}
	n := int(got.Packet[3])<<8 | int(got.Packet[4])
	i := slices.IndexFunc(s.service.Servers, func(server *bpftest.Server) bool { return server.Hop == (*s.hops)[n] })
	if i < 0 {
		s.t.Fatalf("%v -> %v went to server %d, which is not in the list", client, virtual, n)
	}
	return s.service.Servers[i]
}

func (s *selection) send(client, virtual netip.AddrPort, flags string) bpftest.Result {
	s.t.Helper()
	p := bpftest.Packet{
		Source: bpftest.ClientMAC, Destination: bpftest.DirectorOutside, From: client, To: virtual, Flags: flags,
	}
	return s.Run(p.Bytes())
}

// finish is the client's FIN: the connection is inactive from then on.
func (s *selection) finish(client, virtual netip.AddrPort) {
	s.t.Helper()
	if got := s.send(client, virtual, "FA"); got.Action != bpftest.TX {
		s.t.Fatalf("FIN %v -> %v: %v", client, virtual, got.Action)
	}
}

// visit is a new client's connection to a virtual address, opened and closed: ovf
// has no room for many that stay open.
func (s *selection) visit(virtual netip.AddrPort) *bpftest.Server {
	s.t.Helper()
	client := s.client(s.clients)
	s.clients++
	server := s.open(client, virtual)
	if server != nil {
		s.finish(client, virtual)
	}
	return server
}

// spread is visits to some virtual addresses in turn: how many each server got, and
// how many none.
func (s *selection) spread(visits, virtuals int) (got map[*bpftest.Server]int, refused int) {
	s.t.Helper()
	got = map[*bpftest.Server]int{}
	for n := range visits {
		if server := s.visit(s.virtual(n % virtuals)); server != nil {
			got[server]++
		} else {
			refused++
		}
	}
	return got, refused
}

// name says which server it is in messages.
func name(server *bpftest.Server) string {
	if server == nil {
		return "none"
	}
	return fmt.Sprintf("%v of weight %d", server.Address, server.Weight)
}
