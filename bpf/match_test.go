package bpf_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// at is an address of the scene's prefix, or one that differs from it in the octet
// before.
func (s *scene) at(octets ...byte) netip.Addr {
	b := s.virtual.Addr().AsSlice()
	copy(b[len(b)-len(octets):], octets)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// bits turns the length of an IPv4 prefix into one that leaves as many addresses.
func (s *scene) bits(v4 int) int { return v4 + s.virtual.Addr().BitLen() - 32 }

// add gives the scene a further service, with one server that has the octet last in
// both its addresses.
func (s *scene) add(service bpftest.Service, last byte, method bpf.KernelMethod, port uint16) *bpftest.Service {
	b := s.server.Addr().AsSlice()
	b[len(b)-1] = last
	address, _ := netip.AddrFromSlice(b)
	service.Protocol = s.protocol
	link := serverLink(s.Outside)
	link.Destination[5] = last
	service.Servers = []*bpftest.Server{{
		Address: netip.AddrPortFrom(address, port), Method: method, Weight: 1, Hop: s.AddHop(link),
	}}
	return s.Apply(&service)
}

// serverOf is the last octet of the server that a client's first packet goes to; 0
// if it is passed. Each call is another client's.
func (s *scene) serverOf(t *testing.T, to netip.AddrPort) byte {
	t.Helper()
	p := s.request()
	s.client = netip.AddrPortFrom(s.client.Addr(), s.client.Port()+1)
	p.To = to
	got := s.Run(p.Bytes())
	switch got.Action {
	case bpftest.Pass:
		return 0
	case bpftest.TX:
		return got.Packet[5]
	}
	t.Fatalf("to %s: %v %v", to, got.Action, s.Events())
	return 0
}

// The longest prefix has a packet, then the narrowest range of ports; one address
// with one port comes before all. Services added and removed change that at once.
func TestMatchMostSpecific(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, method := range []bpf.KernelMethod{nat, dr} {
		t.Run(fmt.Sprint("method ", method), func(t *testing.T) {
			eachScene(t, f, func(t *testing.T, s *scene) { testMostSpecific(t, s, method) })
		})
	}
}

func testMostSpecific(t *testing.T, s *scene, method bpf.KernelMethod) {
	s.RemoveService(s.service)
	port := func(p uint16) uint16 {
		if method == nat {
			return s.server.Port()
		}
		return p
	}
	listen := func(p uint16, octets ...byte) netip.AddrPort { return netip.AddrPortFrom(s.at(octets...), p) }
	// From the most specific one on; a server's last octet is its service's number.
	services := []bpftest.Service{
		{},
		{Listen: listen(80, 1)},
		{Listen: listen(80, 1), LastPort: 90},
		{Listen: listen(0, 1)},
		{Listen: listen(80, 0), Prefix: s.bits(28)},
		{Listen: listen(8000, 0), Prefix: s.bits(28), LastPort: 8009},
		{Listen: listen(7000, 0), Prefix: s.bits(28), LastPort: 8999},
		{Listen: listen(80, 0), Prefix: s.bits(24)},
		{Listen: listen(0, 0), Prefix: s.bits(24)},
		{Listen: listen(80, 0, 0), Prefix: s.bits(16)},
	}
	tests := []struct {
		to   netip.AddrPort
		want []byte // the services that have it, the most specific one first
	}{
		{listen(80, 1), []byte{1, 2, 3, 4, 7, 8, 9}},
		{listen(81, 1), []byte{2, 3, 8}},
		{listen(90, 1), []byte{2, 3, 8}},
		{listen(91, 1), []byte{3, 8}},
		{listen(79, 1), []byte{3, 8}},
		{listen(1, 1), []byte{3, 8}},
		{listen(65535, 1), []byte{3, 8}},
		{listen(8000, 1), []byte{3, 5, 6, 8}},
		{listen(80, 0), []byte{4, 7, 8, 9}},
		{listen(80, 15), []byte{4, 7, 8, 9}},
		{listen(80, 16), []byte{7, 8, 9}},
		{listen(8000, 2), []byte{5, 6, 8}},
		{listen(8009, 2), []byte{5, 6, 8}},
		{listen(8010, 2), []byte{6, 8}},
		{listen(7000, 2), []byte{6, 8}},
		{listen(8999, 2), []byte{6, 8}},
		{listen(9000, 2), []byte{8}},
		{listen(80, 255), []byte{7, 8, 9}},
		{listen(80, 77, 1), []byte{9}},
		{listen(81, 77, 1), nil},
	}
	applied := make([]*bpftest.Service, len(services))
	check := func(step string) {
		t.Helper()
		for _, test := range tests {
			var want byte
			for _, n := range slices.Backward(test.want) {
				if applied[n] != nil {
					want = n
				}
			}
			if got := s.serverOf(t, test.to); got != want {
				t.Errorf("%s: %s goes to service %d, want %d", step, test.to, got, want)
			}
		}
		s.AgeBy(2 * bpftest.Timeouts[bpf.KernelConnStateSTATE_ESTABLISHED])
		s.Sweep()
	}
	order := rand.New(rand.NewPCG(1, uint64(method))).Perm(len(services) - 1)
	for _, i := range order {
		n := byte(i + 1)
		applied[n] = s.add(services[n], n, method, port(services[n].Listen.Port()))
		check(fmt.Sprintf("after adding %d", n))
	}
	for _, i := range order {
		s.RemoveService(applied[i+1])
		applied[i+1] = nil
		check(fmt.Sprintf("after removing %d", i+1))
	}
}

// The program's choice is that of a search through all services, whatever they are.
func TestMatchRandom(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	const seed = 20240817
	random := rand.New(rand.NewPCG(seed, 1))
	eachScene(t, f, func(t *testing.T, s *scene) {
		s.RemoveService(s.service)
		taken := map[string]bool{}
		var all []*bpftest.Service
		for len(all) < 40 {
			service := bpftest.Service{Listen: netip.AddrPortFrom(s.at(byte(random.IntN(256))), uint16(random.IntN(20)))}
			if random.IntN(3) > 0 {
				bits := s.bits(24 + random.IntN(8))
				prefix := netip.PrefixFrom(service.Listen.Addr(), bits).Masked()
				service.Listen, service.Prefix = netip.AddrPortFrom(prefix.Addr(), service.Listen.Port()), bits
			}
			if port := service.Listen.Port(); port != 0 && random.IntN(2) == 0 {
				service.LastPort = port + 1 + uint16(random.IntN(20))
			}
			key := fmt.Sprint(service.Listen, service.Prefix, service.LastPort)
			if !taken[key] {
				taken[key] = true
				all = append(all, s.add(service, byte(len(all)+1), dr, service.Listen.Port()))
			}
		}
		for range 400 {
			to := netip.AddrPortFrom(s.at(byte(random.IntN(256))), uint16(1+random.IntN(40)))
			if got, want := s.serverOf(t, to), mostSpecific(all, to); got != want {
				t.Fatalf("seed %d: %s goes to service %d, want %d", seed, to, got, want)
			}
		}
	})
}

// mostSpecific is the number of the service, from 1 on, that has the address; 0: none.
func mostSpecific(all []*bpftest.Service, to netip.AddrPort) byte {
	var best []int
	for i, s := range all {
		bits, first, last := s.Prefix, s.Listen.Port(), s.LastPort
		if bits == 0 {
			bits = to.Addr().BitLen()
		}
		if first == 0 {
			last = 65535
		} else if last == 0 {
			last = first
		}
		if to.Port() < first || to.Port() > last || !netip.PrefixFrom(s.Listen.Addr(), bits).Contains(to.Addr()) {
			continue
		}
		rank := []int{-bits, int(last - first), int(first), i + 1}
		if best == nil || slices.Compare(rank, best) < 0 {
			best = rank
		}
	}
	if best == nil {
		return 0
	}
	return byte(best[3])
}

// The first address and port of a wide service are not taken for a service by
// themselves, whatever was found there before.
func TestWideServiceIsNotHinted(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	eachScene(t, f, func(t *testing.T, s *scene) {
		s.RemoveService(s.service)
		first := netip.AddrPortFrom(s.at(0), 80)
		exact := s.add(bpftest.Service{Listen: first}, 1, dr, 80)
		if got := s.serverOf(t, first); got != 1 {
			t.Fatalf("went to %d", got)
		}
		s.RemoveService(exact)
		s.add(bpftest.Service{Listen: first, Prefix: s.bits(24)}, 2, dr, 80)
		if got := s.serverOf(t, first); got != 2 {
			t.Errorf("went to %d, want 2: the prefix's", got)
		}
		s.add(bpftest.Service{Listen: first, Prefix: s.bits(32) - 1}, 3, dr, 80)
		if got := s.serverOf(t, first); got != 3 {
			t.Errorf("went to %d, want 3: the longer prefix's", got)
		}
		// An index that was an exact service's may be a wide one's by now.
		wide := s.add(bpftest.Service{Listen: first, Prefix: s.bits(22)}, 5, dr, 80)
		var hint uint32
		for slot := range f.Plane.ServiceHints.MaxEntries() {
			if err := f.Plane.ServiceHints.Lookup(slot, &hint); err != nil {
				t.Fatal(err)
			}
			if hint == exact.Index {
				if err := f.Plane.ServiceHints.Put(slot, wide.Index); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got := s.serverOf(t, first); got != 3 {
			t.Errorf("went to %d, want 3: a hint names what is less specific", got)
		}
		s.add(bpftest.Service{Listen: first}, 4, dr, 80)
		for range 2 {
			if got := s.serverOf(t, first); got != 4 {
				t.Errorf("went to %d, want 4: the exact service's", got)
			}
		}
	})
}
