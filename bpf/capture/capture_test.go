package capture_test

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/bpf/capture"
)

// open opens a session over the fixture's plane.
func open(t *testing.T, f *bpftest.Fixture, opts capture.Options) *capture.Session {
	t.Helper()
	s, err := capture.Open(f.Plane, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// run sends a frame through the watching program and returns what is shown of it.
func run(t *testing.T, f *bpftest.Fixture, s *capture.Session, frame []byte) (shown []capture.Packet) {
	t.Helper()
	f.Do(func() {
		if _, err := bpftest.Run(s.Watcher(), f.Outside, frame); err != nil {
			t.Error(err)
		}
	})
	s.SetDeadline(time.Now().Add(-time.Second)) // what is shown is there by now
	for {
		var p capture.Packet
		err := s.Read(&p)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return shown
		}
		if err != nil {
			t.Fatal(err)
		}
		p.Data = append([]byte(nil), p.Data...)
		shown = append(shown, p)
	}
}

var (
	virtual = netip.MustParseAddrPort("192.0.2.1:80")
	server  = netip.MustParseAddrPort("10.0.0.11:8080")
	client  = netip.MustParseAddrPort("198.51.100.7:40000")

	virtual6 = netip.MustParseAddrPort("[2001:db8:1::99]:8443") // of a service of 2001:db8:1::/64, ports 8000 to 8999
	client6  = netip.MustParseAddrPort("[2001:db8:c::7]:40000")
)

const (
	web  = 7 // indices of services
	wide = 8
)

// icmpError is an error from a router to to, about the packet of the frame.
func icmpError(to netip.Addr, frame []byte) []byte {
	quoted := frame[14:42]
	b := append([]byte{}, frame[:14]...)
	b = append(b, 0x45, 0, 0, byte(28+len(quoted)), 0, 0, 0, 0, 64, 1, 0, 0, 203, 0, 113, 1)
	b = append(b, to.AsSlice()...)
	b = append(b, 3, 4, 0, 0, 0, 0, 5, 0)
	return append(b, quoted...)
}

func edited(frame []byte, edit func(b []byte)) []byte {
	b := append([]byte(nil), frame...)
	edit(b)
	return b
}

func TestPacketsAreChosenByTheirHeaders(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	s := open(t, f, capture.Options{
		Points: capture.Before,
		Keys: []capture.Key{
			{Address: virtual, Protocol: bpftest.TCP, Side: capture.Destination, Service: web},
			{Address: server, Protocol: bpftest.TCP, Side: capture.Source, Service: web},
			{Address: netip.AddrPortFrom(client6.Addr(), 0), Protocol: bpftest.UDP, Side: capture.Source, Service: web},
		},
		Ranges: []capture.Range{{Prefix: netip.MustParsePrefix("2001:db8:1::/64"), First: 8000, Last: 8999, Protocol: bpftest.TCP, Service: wide}},
	})
	request := bpftest.Packet{From: client, To: virtual}
	request6 := bpftest.Packet{From: client6, To: virtual6}
	with := func(p bpftest.Packet, edit func(p *bpftest.Packet)) []byte {
		edit(&p)
		return p.Bytes()
	}
	plain := request.Bytes()
	later := func(b []byte) { binary.BigEndian.PutUint16(b[20:], 100) } // an offset
	const none = 0
	for _, test := range []struct {
		name  string
		frame []byte
		want  uint32
	}{
		{"to the service", plain, web},
		{"to another port", with(request, func(p *bpftest.Packet) { p.To = netip.AddrPortFrom(virtual.Addr(), 81) }), none},
		{"of another protocol", with(request, func(p *bpftest.Packet) { p.Protocol = bpftest.UDP }), none},
		{"to another address", with(request, func(p *bpftest.Packet) { p.To = netip.MustParseAddrPort("192.0.2.2:80") }), none},
		{"from the virtual address", with(request, func(p *bpftest.Packet) { p.From, p.To = virtual, client }), none},
		{"from the server", with(request, func(p *bpftest.Packet) { p.From, p.To = server, client }), web},
		{"from another port of it", with(request, func(p *bpftest.Packet) { p.From, p.To = netip.AddrPortFrom(server.Addr(), 1), client }), none},
		{"with a tag", with(request, func(p *bpftest.Packet) { p.VLANs = []uint16{5} }), web},
		{"with two tags", with(request, func(p *bpftest.Packet) { p.VLANs = []uint16{5, 6} }), web},
		{"with options", with(request, func(p *bpftest.Packet) { p.Options = 8 }), web},
		{"a later fragment, whatever stands where ports would", edited(with(request, func(p *bpftest.Packet) { p.To = netip.AddrPortFrom(virtual.Addr(), 81) }), later), web},
		{"a later fragment to another address", edited(with(request, func(p *bpftest.Packet) { p.To = netip.MustParseAddrPort("192.0.2.2:80") }), later), none},
		{"an ICMP error about a reply", icmpError(virtual.Addr(), with(request, func(p *bpftest.Packet) { p.From, p.To = virtual, client })), web},
		{"an ICMP error about a request on the way to the server", icmpError(netip.MustParseAddr("203.0.113.9"), with(request, func(p *bpftest.Packet) { p.To = server })), web},
		{"an ICMP error about others", icmpError(netip.MustParseAddr("203.0.113.9"), with(request, func(p *bpftest.Packet) { p.To = client })), none},
		{"a ping to the address", edited(icmpError(virtual.Addr(), plain), func(b []byte) { b[34] = 8 }), web},
		{"to a prefix and a range", request6.Bytes(), wide},
		{"beyond the range", with(request6, func(p *bpftest.Packet) { p.To = netip.AddrPortFrom(virtual6.Addr(), 9000) }), none},
		{"beyond the prefix", with(request6, func(p *bpftest.Packet) { p.To = netip.MustParseAddrPort("[2001:db8:2::99]:8443") }), none},
		{"with extension headers", with(request6, func(p *bpftest.Packet) {
			p.Extensions = []bpftest.Extension{{Header: 0, Length: 8}, {Header: 60, Length: 16}}
		}), wide},
		{"from any port of an address", with(request6, func(p *bpftest.Packet) {
			p.Protocol, p.To = bpftest.UDP, netip.MustParseAddrPort("[2001:db8:2::99]:1")
		}), web},
		{"no IP", edited(plain, func(b []byte) { b[12], b[13] = 8, 6 }), none},
	} {
		t.Run(test.name, func(t *testing.T) {
			shown := run(t, f, s, test.frame)
			if test.want == none {
				if len(shown) != 0 {
					t.Errorf("shown: %+v", shown)
				}
				return
			}
			if len(shown) != 1 || shown[0].Service != test.want || shown[0].Point != capture.Before || shown[0].Interface != f.Outside {
				t.Fatalf("shown: %+v", shown)
			}
			if diff := cmp.Diff(test.frame, shown[0].Data); diff != "" || shown[0].Length != len(test.frame) {
				t.Errorf("%d octets (-sent +shown):\n%s", shown[0].Length, diff)
			}
		})
	}
	t.Run("frames cut anywhere", func(t *testing.T) {
		for n := 14; n < len(plain); n++ {
			shown := run(t, f, s, plain[:n])
			if len(shown) > 1 || len(shown) == 1 && n < 14+20 {
				t.Errorf("%d octets: %+v", n, shown)
			}
		}
	})
}

// A packet is shown with what has become of it, as long as it is asked for, and no more
// often.
func TestPacketsAreShownAsAsked(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	hop := f.AddHop(bpftest.Link{Interface: f.Outside, Source: bpftest.DirectorInside, Destination: bpftest.ServerMAC})
	service := f.Apply(&bpftest.Service{Listen: virtual, Protocol: bpftest.TCP, Servers: []*bpftest.Server{{Address: server, Method: bpf.KernelMethodMETHOD_NAT, Weight: 1, Hop: hop}}})
	stray := bpftest.Packet{From: client, To: virtual, Flags: "A", Payload: make([]byte, 300)}.Bytes()
	foreign := bpftest.Packet{From: client, To: client}.Bytes()
	midstream := &bpf.Drop{Event: bpf.KernelEventEVENT_DROP_MIDSTREAM, Service: service.Index, Interface: f.Outside}
	type shown struct {
		Point  capture.Point
		Action uint32
		Drop   *bpf.Drop
		Octets int
	}
	for _, test := range []struct {
		name string
		opts capture.Options
		want []shown // of a packet that is dropped, and one that is passed
	}{
		{"all, both", capture.Options{All: true}, []shown{
			{capture.Before, 0, nil, len(stray)},
			{capture.After, uint32(bpftest.Drop), midstream, len(stray)},
			{capture.Before, 0, nil, len(foreign)},
			{capture.After, uint32(bpftest.Pass), nil, len(foreign)},
		}},
		{"all, after, cut", capture.Options{All: true, Points: capture.After, Snaplen: 20}, []shown{
			{capture.After, uint32(bpftest.Drop), midstream, 20}, {capture.After, uint32(bpftest.Pass), nil, 20},
		}},
		{"nothing chosen", capture.Options{}, nil},
		{"drops", capture.Options{Points: capture.Dropped}, []shown{{capture.Dropped, uint32(bpftest.Drop), midstream, len(stray)}}},
		{"drops of another reason", capture.Options{Points: capture.Dropped, Event: bpf.KernelEventEVENT_DROP_VLAN}, nil},
		{"drops of another service", capture.Options{Points: capture.Dropped, Service: service.Index + 1}, nil},
		{"drops of another interface", capture.Options{Points: capture.Dropped, Interface: f.Inside}, nil},
		{"drops of all that", capture.Options{Points: capture.Dropped, Event: midstream.Event, Service: midstream.Service, Interface: f.Outside}, []shown{
			{capture.Dropped, uint32(bpftest.Drop), midstream, len(stray)},
		}},
		{"one a second", capture.Options{All: true, Points: capture.Before, Rate: 1}, []shown{{capture.Before, 0, nil, len(stray)}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := capture.Open(f.Plane, test.opts)
			if err != nil {
				t.Fatal(err)
			}
			var got []shown
			for _, frame := range [][]byte{stray, foreign} {
				for _, p := range run(t, f, s, frame) {
					if p.Length != len(frame) {
						t.Errorf("length %d of %d", p.Length, len(frame))
					}
					got = append(got, shown{p.Point, p.Action, p.Drop, len(p.Data)})
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("shown (-want +got):\n%s", diff)
			}
			limited, lost, err := s.Missing()
			if err != nil || lost != 0 || limited != 0 && test.opts.Rate == 0 || limited != 1 && test.opts.Rate == 1 {
				t.Errorf("%d beyond the rate, %d lost, %v", limited, lost, err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Without room packets are lost and counted, and go their way.
func TestPacketsAreLostWithoutRoom(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	s := open(t, f, capture.Options{All: true, Points: capture.Before, Buffer: os.Getpagesize()})
	frame := bpftest.Packet{From: client, To: virtual, Payload: make([]byte, 1400)}.Bytes()
	f.Do(func() {
		for range 20 {
			if got, err := bpftest.Run(s.Watcher(), f.Outside, frame); err != nil || got.Action != bpftest.Pass {
				t.Errorf("%v %v", got.Action, err)
			}
		}
	})
	shown := run(t, f, s, frame)
	if _, lost, err := s.Missing(); err != nil || lost == 0 || int(lost)+len(shown) != 21 {
		t.Errorf("%d shown, %d lost, %v", len(shown), lost, err)
	}
}

// What a process leaves that has died shows nothing.
func TestNothingIsShownWhenTheTimeIsOver(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	s := open(t, f, capture.Options{All: true})
	frame := bpftest.Packet{From: client, To: virtual}.Bytes()
	if err := f.Plane.Watch(s.Watcher(), -time.Second); err != nil {
		t.Fatal(err)
	}
	if shown := run(t, f, s, frame); len(shown) != 0 {
		t.Errorf("shown: %+v", shown)
	}
	if err := s.Extend(); err != nil {
		t.Fatal(err)
	}
	if shown := run(t, f, s, frame); len(shown) != 2 {
		t.Errorf("shown after Extend: %+v", shown)
	}
}

func TestVerifierBudget(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	s := open(t, f, capture.Options{All: true, Ranges: []capture.Range{{Prefix: netip.MustParsePrefix("2001:db8:1::/64")}}})
	info, err := s.Watcher().Info()
	if err != nil {
		t.Fatal(err)
	}
	const most = 80_000 // as bpf's
	if n, ok := info.VerifiedInstructions(); !ok || n > most {
		t.Errorf("the verifier walked %d instructions, at most %d", n, most)
	} else {
		t.Logf("the verifier walked %d instructions", n)
	}
}
