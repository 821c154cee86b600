package bpf_test

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"

	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// FuzzICMP sends messages of every type, about packets that may be of connections,
// with right checksums. Whatever they quote: one that is passed is not changed; one
// that leaves has right checksums, and so has what it quotes if that was right.
func FuzzICMP(f *testing.F) {
	fixture := bpftest.New(f, bpftest.Options{Connections: 64})
	fuzzServices(fixture)
	for _, a := range families {
		fixture.SetEcho(hostPrefix(a.virtual.Addr()), echoAnswered)
		fixture.SetEcho(hostPrefix(a.secondVirtual.Addr()), echoDropped)
		for _, protocol := range protocols {
			s := &scene{family: a, protocol: protocol.number}
			for range 3 { // a server of each method
				s.client = netip.AddrPortFrom(s.client.Addr(), s.client.Port()+1)
				fixture.Run(s.request().Bytes())
			}
			addICMPSeeds(f, s)
		}
	}
	f.Fuzz(func(t *testing.T, quote []byte, kind, code, to, tags uint8, parameter uint32, isV6, isInside bool) {
		if len(quote) > 1400 {
			return
		}
		m := bpftest.Message{
			Source: bpftest.ClientMAC, Destination: bpftest.DirectorOutside, From: routers[isV6],
			Type: kind, Code: code, Parameter: parameter, Body: quote, VLANs: []uint16{100, 7}[:tags%3],
		}
		m.To = fuzzAddresses(isV6)[int(to)%len(fuzzAddresses(isV6))]
		iface := fixture.Outside
		if isInside {
			iface, m.From = fixture.Inside, fuzzAddresses(isV6)[int(to/8)%len(fuzzAddresses(isV6))]
		}
		frame := m.Bytes()
		fixture.T(t).Events()
		got := fixture.RunOn(iface, frame)
		checkEvents(t, got, fixture.Events())
		switch got.Action {
		case bpftest.Pass:
			if !bytes.Equal(frame, got.Packet) {
				t.Errorf("passed, but changed:\n%x\n%x", frame, got.Packet)
			}
		case bpftest.TX, bpftest.Redirect:
			if err := bpftest.Verify(got.Packet); err != nil {
				t.Errorf("%v:\n%x\n%x", err, frame, got.Packet)
			}
			checkQuoted(t, quoteIn(frame), quoteIn(got.Packet))
		case bpftest.Drop:
		default:
			t.Errorf("%v of %x", got.Action, frame)
		}
	})
}

// checkQuoted compares the checksums of the packet that was quoted with those it left
// with, as far as all of it is there.
func checkQuoted(t *testing.T, in, out []byte) {
	t.Helper()
	before, after := bpftest.VerifyPacket(in), bpftest.VerifyPacket(out)
	if before == nil && after != nil {
		t.Errorf("of the packet that is quoted: %v:\n%x\n%x", after, in, out)
	}
	if len(in) != len(out) || errors.Is(before, bpftest.ErrNotChecked) != errors.Is(after, bpftest.ErrNotChecked) {
		t.Errorf("the packet that is quoted is another one: %v, was %v:\n%x\n%x", after, before, in, out)
	}
}

// quoteIn returns what follows the ICMP header of a frame without options or extension
// headers.
func quoteIn(frame []byte) []byte {
	l3 := 14
	for ; frame[l3-2] == 0x81 && frame[l3-1] == 0 || frame[l3-2] == 0x88 && frame[l3-1] == 0xa8; l3 += 4 {
	}
	if frame[l3]>>4 == 6 {
		return frame[l3+40+8:]
	}
	return frame[l3+20+8:]
}

func fuzzAddresses(isV6 bool) []netip.Addr {
	a := families[0]
	if isV6 {
		a = families[1]
	}
	return []netip.Addr{
		a.virtual.Addr(), a.client.Addr(), a.secondVirtual.Addr(), a.server.Addr(), a.secondServer.Addr(), a.other.Addr(), routers[isV6],
	}
}

// addICMPSeeds adds errors of each type about the scene's packets, and an echo request.
func addICMPSeeds(f *testing.F, s *scene) {
	f.Helper()
	back, request := s.reply(), s.request()
	back.From, back.To, request.To = s.virtual, s.client, s.server
	back.Payload, request.Payload = pattern(64), pattern(64)
	extended := back
	if s.isV6() {
		extended.Extensions = []bpftest.Extension{{Header: 0, Length: 8}, {Header: 43, Length: 24}}
	} else {
		extended.Options = 12
	}
	for _, e := range icmpErrors[s.isV6()] {
		for i, quoted := range []int{8, 17, 64, 200} {
			f.Add(bpftest.Quote(back, quoted), e.Type, e.Code, uint8(0), uint8(i), e.Parameter, s.isV6(), false)
			f.Add(bpftest.Quote(extended, quoted), e.Type, e.Code, uint8(0), uint8(i), e.Parameter, s.isV6(), false)
			f.Add(bpftest.Quote(request, quoted), e.Type, e.Code, uint8(1), uint8(i), e.Parameter, s.isV6(), true)
		}
	}
	f.Add([]byte("ping"), echoTypes[s.isV6()][0], uint8(0), uint8(0), uint8(0), uint32(1), s.isV6(), false)
}
