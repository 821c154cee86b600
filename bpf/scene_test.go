package bpf_test

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// Methods, by the names people use.
const (
	nat     = bpf.KernelMethodMETHOD_NAT
	local   = bpf.KernelMethodMETHOD_LOCAL
	dr      = bpf.KernelMethodMETHOD_DR
	fullNAT = bpf.KernelMethodMETHOD_FULLNAT
)

// family is the addresses of one IP version.
type family struct {
	name                   string
	client, other          netip.AddrPort
	virtual, secondVirtual netip.AddrPort
	server, secondServer   netip.AddrPort
}

var families = []family{
	{
		name:   "v4",
		client: netip.MustParseAddrPort("198.51.100.7:40000"), other: netip.MustParseAddrPort("198.51.100.8:40001"),
		virtual: netip.MustParseAddrPort("192.0.2.1:80"), secondVirtual: netip.MustParseAddrPort("192.0.2.2:80"),
		server: netip.MustParseAddrPort("10.0.0.11:8080"), secondServer: netip.MustParseAddrPort("10.0.0.12:8081"),
	},
	{
		name:   "v6",
		client: netip.MustParseAddrPort("[2001:db8:c::7]:40000"), other: netip.MustParseAddrPort("[2001:db8:c::8]:40001"),
		virtual: netip.MustParseAddrPort("[2001:db8::1]:80"), secondVirtual: netip.MustParseAddrPort("[2001:db8::2]:80"),
		server: netip.MustParseAddrPort("[fd00::11]:8080"), secondServer: netip.MustParseAddrPort("[fd00::12]:8081"),
	},
}

func (a family) isV6() bool { return a.client.Addr().Is6() }

// protocols by name.
var protocols = []struct {
	name   string
	number uint8
}{{"tcp", bpftest.TCP}, {"udp", bpftest.UDP}}

// scene is a fixture with one service, and how packets pass it.
type scene struct {
	*bpftest.Fixture
	family
	protocol uint8
	service  *bpftest.Service
	// standIn is what the first server knows the client by, where it is not the client.
	standIn netip.AddrPort
}

// newScene clears the fixture and gives it a service with servers of these
// methods, all behind one next hop; the first is the first to be chosen. One-armed.
func newScene(t *testing.T, f *bpftest.Fixture, a family, protocol uint8, methods ...bpf.KernelMethod) *scene {
	t.Helper()
	f.T(t).Clear()
	s := &scene{Fixture: f, family: a, protocol: protocol}
	hop := f.AddHop(serverLink(f.Outside))
	addresses := []netip.AddrPort{a.server, a.secondServer}
	s.service = &bpftest.Service{Listen: a.virtual, Protocol: protocol}
	for i, method := range methods {
		server := &bpftest.Server{Address: addresses[i], Method: method, Weight: 1, Hop: hop}
		if method == dr {
			server.Address = netip.AddrPortFrom(server.Address.Addr(), a.virtual.Port())
		}
		s.service.Servers = append(s.service.Servers, server)
	}
	f.Apply(s.service)
	return s
}

func serverLink(iface uint32) bpftest.Link {
	return bpftest.Link{Interface: iface, Source: bpftest.DirectorInside, Destination: bpftest.ServerMAC}
}

// request is a client's packet as it arrives: for TCP a SYN.
func (s *scene) request() bpftest.Packet {
	p := bpftest.Packet{
		Source: bpftest.ClientMAC, Destination: bpftest.DirectorOutside,
		From: s.client, To: s.virtual, Protocol: s.protocol, ID: 4711,
	}
	if s.protocol == bpftest.TCP {
		p.Flags, p.Seq = "S", 1000
	} else {
		p.Payload = []byte("question")
	}
	return p
}

// reply is the first server's answer to request as it arrives.
func (s *scene) reply() bpftest.Packet {
	p := bpftest.Packet{
		Source: bpftest.ServerMAC, Destination: bpftest.DirectorInside,
		From: s.server, To: s.client, Protocol: s.protocol, ID: 815,
	}
	if s.standIn.IsValid() {
		p.To = s.standIn
	}
	if s.protocol == bpftest.TCP {
		p.Flags, p.Seq, p.Ack = "SA", 5000, 1001
	} else {
		p.Payload = []byte("an answer!")
	}
	return p
}

// forwarded is the packet as a NAT server gets it.
func forwarded(p bpftest.Packet, to netip.AddrPort) bpftest.Packet {
	p.To = to
	return routed(p)
}

// routed is the packet as a DR server gets it.
func routed(p bpftest.Packet) bpftest.Packet {
	p.Source, p.Destination = bpftest.DirectorInside, bpftest.ServerMAC
	p.TTL = ttl(p) - 1
	return p
}

// returned is the reply as the client's router gets it.
func returned(p bpftest.Packet, from netip.AddrPort) bpftest.Packet {
	p.From = from
	p.Source, p.Destination = bpftest.DirectorOutside, bpftest.ClientMAC
	p.TTL = ttl(p) - 1
	return p
}

func ttl(p bpftest.Packet) uint8 {
	if p.TTL == 0 {
		return 64
	}
	return p.TTL
}

// establish makes the connection of request, for TCP with its handshake. By NAT a
// packet each way follows a second later: both entries are as they will stay then.
func (s *scene) establish(t *testing.T) {
	t.Helper()
	isNAT := s.service.Servers[0].Method == nat || s.service.Servers[0].Method == fullNAT
	packets := []bpftest.Packet{s.request(), s.reply()}
	if s.protocol == bpftest.TCP {
		handshake := bpftest.Handshake(s.request(), s.reply())
		packets = handshake[:]
		if !isNAT {
			packets = []bpftest.Packet{packets[0], packets[2]}
		}
	} else if !isNAT {
		packets = packets[:1]
	}
	for i, p := range packets {
		s.pass(t, fmt.Sprintf("packet %d of the beginning", i), p)
	}
	if s.protocol == bpftest.TCP && isNAT {
		s.Age(s.Plane.Clock.Ticks(time.Second))
		answer := s.reply()
		answer.Flags, answer.Seq = "A", packets[2].Ack
		s.pass(t, "the client's packet after a second", packets[2])
		s.pass(t, "the server's packet after a second", answer)
	}
	s.Events()
}

// pass runs a packet that must be sent on.
func (s *scene) pass(t *testing.T, what string, p bpftest.Packet) {
	t.Helper()
	if got := s.Run(p.Bytes()); got.Action != bpftest.TX {
		t.Fatalf("%s: %v %v", what, got.Action, s.Events())
	}
}

// run sends a frame in from Outside and compares all that becomes of it: the
// verdict, the frame out, the events, and its checksums recomputed.
func run(t *testing.T, f *bpftest.Fixture, in []byte, want bpftest.Result, events map[string]uint64) {
	t.Helper()
	runOn(t, f, f.Outside, in, want, events)
}

func runOn(t *testing.T, f *bpftest.Fixture, iface uint32, in []byte, want bpftest.Result, events map[string]uint64) {
	t.Helper()
	f.Events()
	got := f.RunOn(iface, in)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	if events == nil {
		events = map[string]uint64{}
	}
	if diff := cmp.Diff(events, f.Events()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if got.Packet == nil || got.Action == bpftest.Pass {
		return
	}
	if err := bpftest.Verify(got.Packet); err != nil && !errors.Is(err, bpftest.ErrNotChecked) {
		t.Error(err)
	}
}

func sent(p bpftest.Packet) bpftest.Result {
	return bpftest.Result{Action: bpftest.TX, Packet: p.Bytes()}
}

func passed(frame []byte) bpftest.Result {
	return bpftest.Result{Action: bpftest.Pass, Packet: frame}
}

var dropped = bpftest.Result{Action: bpftest.Drop}

func one(events ...string) map[string]uint64 {
	m := map[string]uint64{}
	for _, e := range events {
		m[e]++
	}
	return m
}

// diffEntries compares the table with what is wanted; ticks and, where they are
// 0 in want, next hops and what stands in their place are not looked at.
func diffEntries(t *testing.T, f *bpftest.Fixture, want ...bpf.Entry) {
	t.Helper()
	got := f.Entries()
	for i := range got {
		got[i].Seen, got[i].Born = 0, 0
		if i < len(want) && want[i].Hop == 0 {
			got[i].Hop, got[i].Sequence = 0, false
		}
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}
