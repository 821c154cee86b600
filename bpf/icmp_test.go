package bpf_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// routers are those between, which send errors.
var routers = map[bool]netip.Addr{false: netip.MustParseAddr("203.0.113.9"), true: netip.MustParseAddr("2001:db8:f::9")}

// icmpErrors are those that are sent on, IPv4 then IPv6 (RFC 792, RFC 4443).
var icmpErrors = map[bool][]bpftest.Message{
	false: {
		{Type: 3, Code: 1}, {Type: 3, Code: 4, Parameter: 1400}, {Type: 3, Code: 4}, // of an old router: no MTU (RFC 1191 §5)
		{Type: 3, Code: 13, Parameter: 32 << 16}, // with RFC 4884's length
		{Type: 11}, {Type: 11, Code: 1}, {Type: 12, Parameter: 20 << 24},
	},
	true: {{Type: 1}, {Type: 1, Code: 4}, {Type: 2, Parameter: 1300}, {Type: 3}, {Type: 4, Code: 1, Parameter: 6}},
}

// errorFrom is the error of a router, or of a server, to the packet's sender.
func errorFrom(e bpftest.Message, from netip.Addr, p bpftest.Packet, quoted int) bpftest.Message {
	e.From, e.To, e.Body = from, p.From.Addr(), bpftest.Quote(p, quoted)
	e.Source, e.Destination = bpftest.ClientMAC, bpftest.DirectorOutside
	return e
}

// quotedAs is the error after its way through: to this host, about the packet as that
// host knows it.
func quotedAs(e bpftest.Message, p bpftest.Packet, quoted int, to bpftest.Message) bpftest.Message {
	e.From, e.To, e.Body = to.From, to.To, bpftest.Quote(p, quoted)
	e.Source, e.Destination, e.VLANs = to.Source, to.Destination, to.VLANs
	e.TTL = lifetime(e) - 1
	return e
}

func lifetime(e bpftest.Message) uint8 {
	if e.TTL == 0 {
		return 64
	}
	return e.TTL
}

func sentMessage(m bpftest.Message) bpftest.Result {
	return bpftest.Result{Action: bpftest.TX, Packet: m.Bytes()}
}

// odd are forms that the quoted packet and the error may have.
var odd = []struct {
	name   string
	change func(e *bpftest.Message, quoted *bpftest.Packet)
}{
	{"plain", func(*bpftest.Message, *bpftest.Packet) {}},
	{"a tag", func(e *bpftest.Message, _ *bpftest.Packet) { e.VLANs = []uint16{100} }},
	{"two tags", func(e *bpftest.Message, _ *bpftest.Packet) { e.VLANs = []uint16{100, 7} }},
	{"options", func(e *bpftest.Message, q *bpftest.Packet) {
		e.Options, e.Extensions = 8, []bpftest.Extension{{Header: 0, Length: 8}}
		q.Options, q.Extensions = 40, []bpftest.Extension{{Header: 60, Length: 16}, {Header: 43, Length: 24}}
	}},
	{"without checksum", func(_ *bpftest.Message, q *bpftest.Packet) { q.NoChecksum = q.Protocol == bpftest.UDP }},
}

// ICMP, all over one fixture: loading one takes longer than most of these.
func TestICMP(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, tt := range []struct {
		name string
		test func(*testing.T, *bpftest.Fixture)
	}{
		{"to the server", testICMPToServer},
		{"to the client", testICMPToClient},
		{"of a wide service", testICMPOfWideService},
		{"of full NAT", testICMPOfFullNAT},
		{"about a first fragment", testICMPAboutFirstFragment},
		{"passed untouched", testICMPPassesUntouched},
		{"dropped by name", testICMPDrops},
		{"to a server behind a tunnel", testICMPThroughTunnel},
		{"path MTU", testPathMTU},
		{"path MTU of one-packet services", testPathMTUOfOnePackets},
		{"echo", testEcho},
		{"echo not answered", testEchoIsNotAnswered},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, f) })
	}
}

// Errors about packets to a client go to the one server of the connection they quote.
func testICMPToServer(t *testing.T, f *bpftest.Fixture) {
	for name, method := range map[string]bpf.KernelMethod{"nat": nat, "dr": dr} {
		for _, a := range families {
			for _, protocol := range protocols {
				t.Run(name+"/"+a.name+"/"+protocol.name, func(t *testing.T) {
					s := newScene(t, f, a, protocol.number, method)
					s.establish(t)
					diff := entriesOf(f)
					for _, e := range icmpErrors[a.isV6()] {
						for _, o := range odd {
							for _, quoted := range []int{8, 16, 18, 28, 64, 548} {
								s.icmpToServer(t, e, quoted, o.change, method == nat)
							}
						}
					}
					diff(t)
				})
			}
		}
	}
}

// icmpToServer sends one error in, about what the client would get from the server.
func (s *scene) icmpToServer(t *testing.T, e bpftest.Message, quoted int, change func(*bpftest.Message, *bpftest.Packet), isNAT bool) {
	t.Helper()
	before := s.reply()
	before.Flags, before.Payload, before.DF = "A", pattern(1400), true
	after := before
	before.From = s.virtual
	to := bpftest.Message{
		Source: bpftest.DirectorInside, Destination: bpftest.ServerMAC, From: routers[s.isV6()], To: s.server.Addr(),
	}
	if !isNAT {
		after.From, to.To = s.virtual, s.virtual.Addr()
	}
	change(&e, &before)
	change(&bpftest.Message{}, &after)
	if s.isV6() {
		e.Options, before.Options, after.Options = 0, 0, 0
	} else {
		e.Extensions, before.Extensions, after.Extensions = nil, nil, nil
	}
	in := errorFrom(e, routers[s.isV6()], before, quoted)
	want := sentMessage(quotedAs(in, after, quoted, to))
	run(t, s.Fixture, in.Bytes(), want, one("icmp-to-server"))
	if t.Failed() {
		t.Fatalf("type %d, code %d, %d octets quoted, %d tags, %d octets of options", e.Type, e.Code, quoted, len(e.VLANs), e.Options)
	}
}

// Errors about packets to a server go to the client of the connection they quote. A
// router keeps its address, be it of no filter; a server has the virtual one.
func testICMPToClient(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		for _, protocol := range protocols {
			t.Run(a.name+"/"+protocol.name, func(t *testing.T) {
				s := newScene(t, f, a, protocol.number, nat)
				s.establish(t)
				diff := entriesOf(f)
				for _, e := range icmpErrors[a.isV6()] {
					for _, o := range odd {
						for _, quoted := range []int{8, 16, 18, 28, 64, 548} {
							s.icmpToClient(t, e, quoted, routers[a.isV6()], routers[a.isV6()], o.change)
							s.icmpToClient(t, e, quoted, s.server.Addr(), s.virtual.Addr(), o.change)
						}
					}
				}
				diff(t)
			})
		}
	}
}

func (s *scene) icmpToClient(t *testing.T, e bpftest.Message, quoted int, from, as netip.Addr, change func(*bpftest.Message, *bpftest.Packet)) {
	t.Helper()
	before := s.request()
	before.Flags, before.Payload, before.DF = "A", pattern(1400), true
	after := before
	before.To = s.server
	change(&e, &before)
	change(&bpftest.Message{}, &after)
	if s.isV6() {
		e.Options, before.Options, after.Options = 0, 0, 0
	} else {
		e.Extensions, before.Extensions, after.Extensions = nil, nil, nil
	}
	if from != s.server.Addr() {
		e.Extensions = nil // of addresses that are not ours no packet is looked at behind these
	}
	in := errorFrom(e, from, before, quoted)
	in.Source, in.Destination = bpftest.ServerMAC, bpftest.DirectorInside
	want := sentMessage(quotedAs(in, after, quoted, bpftest.Message{
		Source: bpftest.DirectorOutside, Destination: bpftest.ClientMAC, From: as, To: s.client.Addr(),
	}))
	run(t, s.Fixture, in.Bytes(), want, one("icmp-to-client"))
	if t.Failed() {
		t.Fatalf("type %d, code %d, %d octets quoted, %d tags, %d octets of options", e.Type, e.Code, quoted, len(e.VLANs), e.Options)
	}
}

// entriesOf notes the table, and returns what compares it with that: no error changes it.
func entriesOf(f *bpftest.Fixture) func(t *testing.T) {
	before := fmt.Sprint(f.Entries())
	return func(t *testing.T) {
		t.Helper()
		if after := fmt.Sprint(f.Entries()); after != before {
			t.Errorf("the table was\n%s\nand is\n%s", before, after)
		}
	}
}
