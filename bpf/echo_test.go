package bpf_test

import (
	"net/netip"
	"testing"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

const (
	echoPassed   = bpf.KernelEchoECHO_PASSED
	echoAnswered = bpf.KernelEchoECHO_ANSWERED
	echoDropped  = bpf.KernelEchoECHO_DROPPED
)

// echoTypes are a request's and a reply's, IPv4 and IPv6.
var echoTypes = map[bool][2]uint8{false: {8, 0}, true: {128, 129}}

// echoRequest is a client's, of so many octets.
func (s *scene) echoRequest(octets int) bpftest.Message {
	return bpftest.Message{
		Source: bpftest.ClientMAC, Destination: bpftest.DirectorOutside, From: s.client.Addr(), To: s.virtual.Addr(),
		Type: echoTypes[s.isV6()][0], Parameter: 0x12340001, Body: pattern(octets), TTL: 61, TOS: 0x48,
	}
}

// echoReply is the answer to it.
func (s *scene) echoReply(m bpftest.Message) bpftest.Message {
	m.Source, m.Destination, m.From, m.To = m.Destination, m.Source, m.To, m.From
	m.Type, m.TTL = echoTypes[s.isV6()][1], 64
	return m
}

func hostPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// Echo requests to virtual addresses are answered as they came, whatever their length
// and form.
func testEcho(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.TCP, nat)
			f.SetEcho(hostPrefix(a.virtual.Addr()), echoAnswered)
			for _, octets := range []int{0, 1, 2, 3, 56, 1472, 5000, 8900} {
				for _, change := range []func(*bpftest.Message){
					func(*bpftest.Message) {},
					func(m *bpftest.Message) { m.VLANs = []uint16{100} },
					func(m *bpftest.Message) { m.VLANs = []uint16{100, 7} },
					func(m *bpftest.Message) { m.TTL = 1 }, // it ends here: nothing is forwarded
					func(m *bpftest.Message) { m.Parameter, m.Code = 0xffffffff, 1 },
					func(m *bpftest.Message) {
						if s.isV6() {
							m.Extensions = []bpftest.Extension{{Header: 0, Length: 8}, {Header: 60, Length: 16}}
						} else {
							m.Options = 12
						}
					},
				} {
					m := s.echoRequest(octets)
					change(&m)
					run(t, f, m.Bytes(), sentMessage(s.echoReply(m)), one("echo"))
				}
			}
			diffEntries(t, f)
		})
	}
}

// What is not to be answered is not: the most specific prefix decides, and nothing
// outside of all.
func testEchoIsNotAnswered(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.TCP, nat)
			m := s.echoRequest(56)
			// No key: not ours to answer, even of an address that a service has.
			run(t, f, m.Bytes(), passed(m.Bytes()), one("icmp"))
			f.SetEcho(hostPrefix(a.virtual.Addr()), echoPassed)
			run(t, f, m.Bytes(), passed(m.Bytes()), one("icmp"))
			f.SetEcho(hostPrefix(a.virtual.Addr()), echoDropped)
			run(t, f, m.Bytes(), dropped, one("echo-dropped"))
			f.SetEcho(hostPrefix(a.virtual.Addr()), echoAnswered)

			wide := netip.PrefixFrom(a.virtual.Addr(), a.virtual.Addr().BitLen()-8).Masked()
			f.SetEcho(wide, echoDropped)
			run(t, f, m.Bytes(), sentMessage(s.echoReply(m)), one("echo"))
			inside := m
			inside.To = a.secondVirtual.Addr()
			f.AddVirtualAddress(inside.To)
			run(t, f, inside.Bytes(), dropped, one("echo-dropped"))
			// One that shares the filter's bit, or is in no prefix: the address of another host.
			outside := m
			outside.To = a.other.Addr()
			f.AddVirtualAddress(outside.To)
			run(t, f, outside.Bytes(), passed(outside.Bytes()), one("icmp"))
			outside.To = a.server.Addr()
			run(t, f, outside.Bytes(), passed(outside.Bytes()), one("not-ours"))

			// The same trie has both families: an IPv4 key is none of IPv6.
			for _, source := range map[bool][]string{
				false: {"0.1.2.3", "127.0.0.1", "224.0.0.1", "255.255.255.255", "192.0.2.1", "192.0.2.2"},
				true:  {"::", "::1", "ff02::1", "2001:db8::1", "2001:db8::2"},
			}[a.isV6()] {
				martian := m
				martian.From = netip.MustParseAddr(source)
				run(t, f, martian.Bytes(), dropped, one("martian"))
			}
			// To a group, by the link.
			group := m
			group.Destination = bpftest.MAC{0x33, 0x33, 0, 0, 0, 1}
			run(t, f, group.Bytes(), passed(group.Bytes()), one("not-ours"))
			for _, kind := range map[bool][]uint8{
				// Replies, redirects, requests of other kinds, neighbour discovery, listeners.
				false: {0, 4, 5, 9, 10, 13, 15, 17, 30, 255}, true: {0, 127, 129, 130, 131, 132, 133, 134, 135, 136, 137, 143, 255},
			}[a.isV6()] {
				other := m
				other.Type = kind
				run(t, f, other.Bytes(), passed(other.Bytes()), one("icmp"))
			}
			short := m.Bytes()[:14+20+4]
			run(t, f, short, passed(short), one("malformed"))
		})
	}
}
