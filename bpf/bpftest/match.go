package bpftest

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/shunt-lb/shunt/bpf"
)

// isWide says whether the service has several addresses or ports.
func (s *Service) isWide() bool { return s.Prefix != 0 || s.LastPort != 0 || s.Listen.Port() == 0 }

// addresses is the prefix of the service's virtual addresses.
func (s *Service) addresses() netip.Prefix {
	bits := s.Prefix
	if bits == 0 {
		bits = s.Listen.Addr().BitLen()
	}
	return netip.PrefixFrom(s.Listen.Addr(), bits)
}

// ports are the service's first and last.
func (s *Service) ports() (first, last uint16) {
	switch first = s.Listen.Port(); {
	case first == 0:
		return 0, 65535
	case s.LastPort == 0:
		return first, first
	}
	return first, s.LastPort
}

// addWide lets packets find the service, and through the filter: a prefix of many
// addresses lets everything through.
func (f *Fixture) addWide(s *Service) {
	f.t.Helper()
	f.wide = append(f.wide, s)
	f.writeMatches()
	p := s.addresses()
	if p.Addr().BitLen()-p.Bits() > 12 {
		for i := range f.filter.VirtualAddress {
			f.filter.VirtualAddress[i] = ^uint32(0)
		}
		f.must(f.Plane.SetFilter(&f.filter))
		return
	}
	for a := p.Masked().Addr(); p.Contains(a); a = a.Next() {
		f.AddVirtualAddress(a)
	}
}

func (f *Fixture) removeWide(s *Service) {
	f.t.Helper()
	f.wide = slices.DeleteFunc(f.wide, func(w *Service) bool { return w == s })
	f.must(f.deleteMatch(s))
	f.writeMatches()
}

func (f *Fixture) deleteMatch(s *Service) error {
	return f.Plane.Matches.Delete(bpf.MatchKey(s.Protocol, s.addresses()))
}

// writeMatches writes for the prefix of each service what those have that it lies
// in: longest prefixes first, then the fewest ports.
func (f *Fixture) writeMatches() {
	f.t.Helper()
	for _, s := range f.wide {
		var around []*Service
		for _, o := range f.wide {
			if p := o.addresses(); o.Protocol == s.Protocol && p.Bits() <= s.addresses().Bits() && p.Contains(s.Listen.Addr()) {
				around = append(around, o)
			}
		}
		slices.SortFunc(around, func(a, b *Service) int {
			firstA, lastA := a.ports()
			firstB, lastB := b.ports()
			return cmp.Or(b.addresses().Bits()-a.addresses().Bits(), cmp.Compare(lastA-firstA, lastB-firstB), cmp.Compare(firstA, firstB))
		})
		var words []uint32
		for _, o := range around {
			words = append(words, bpf.PortsWord(o.ports()), o.Index)
		}
		match := bpf.KernelMatch{List: f.putWords(words), Ranges: uint32(len(around))}
		f.must(f.Plane.Matches.Put(bpf.MatchKey(s.Protocol, s.addresses()), &match))
	}
}
