package bpf_test

import (
	"net/netip"
	"testing"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// localAddress is what stands in for clients of the scene.
func (a family) localAddress() netip.Addr {
	if a.isV6() {
		return netip.MustParseAddr("fd00::1:1")
	}
	return netip.MustParseAddr("10.0.1.1")
}

// newFullNATScene is a scene with full NAT and one local address with all ports from
// 1024 on: the client's own port stands in for it.
func newFullNATScene(t *testing.T, f *bpftest.Fixture, a family, protocol uint8) *scene {
	t.Helper()
	s := newScene(t, f, a, protocol, fullNAT)
	f.SetLocals(1024, 65535, a.localAddress())
	s.standIn = netip.AddrPortFrom(a.localAddress(), a.client.Port())
	return s
}

// eachFullNAT runs a test by full NAT for every family and protocol, of a service of
// one address and port and of one of many.
func eachFullNAT(t *testing.T, f *bpftest.Fixture, test func(*testing.T, *scene)) {
	t.Helper()
	for _, a := range families {
		for _, protocol := range protocols {
			t.Run(a.name+"/"+protocol.name, func(t *testing.T) { test(t, newFullNATScene(t, f, a, protocol.number)) })
			t.Run(a.name+"/"+protocol.name+"/wide", func(t *testing.T) {
				s := newFullNATScene(t, f, a, protocol.number)
				wideScene(t, s, 0)
				s.service.Servers[0].Method = fullNAT
				f.Apply(s.service)
				test(t, s)
			})
		}
	}
}

// fullBoth is the table's entries of the scene's connection.
func (s *scene) fullBoth(state uint8, proven bool) []bpf.Entry {
	entries := s.wideBoth(state, proven)
	for i := range entries {
		entries[i].Method = uint8(fullNAT)
	}
	entries[0].Local = bpf.MakeLocal(bpf.FirstLocal(s.isV6()), s.standIn.Port())
	entries[1].Destination = s.standIn
	return entries
}

// toServer is the client's packet as the server gets it, toClient the server's as the client does.
func (s *scene) toServer(p bpftest.Packet) bpftest.Packet {
	p.From = s.standIn
	return forwarded(p, s.server)
}

func (s *scene) toClient(p bpftest.Packet) bpftest.Packet {
	p.To = s.client
	return returned(p, s.virtual)
}

// Packets both ways, in full: the server sees nothing of the client, nor the client of
// the server.
func TestFullNAT(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	eachFullNAT(t, f, func(t *testing.T, s *scene) {
		request, reply := s.request(), s.reply()
		run(t, f, request.Bytes(), sent(s.toServer(request)), nil)
		diffEntries(t, f, s.fullBoth(firstState(s.protocol), false)...)
		run(t, f, reply.Bytes(), sent(s.toClient(reply)), nil)
		if s.protocol == bpftest.TCP {
			request.Flags, request.Ack, reply.Flags = "A", reply.Seq+1, "A"
		}
		for i := range 6 {
			request.Payload, reply.Payload = pattern(i), pattern(2*i+1)
			request.TTL, reply.TTL = uint8(2+i), uint8(255-i)
			run(t, f, request.Bytes(), sent(s.toServer(request)), nil)
			run(t, f, reply.Bytes(), sent(s.toClient(reply)), nil)
		}
		state := stateUDP
		if s.protocol == bpftest.TCP {
			state = established
		}
		want := s.fullBoth(state, true)
		want[0].ByReply, want[1].ByReply = state == stateUDP, state == stateUDP
		diffEntries(t, f, want...)
		diffLoads(t, f, s.service.Servers...)
		if traffic := s.Traffic(s.service.Servers[0]); traffic.Connections != 1 || traffic.InPackets != 7 || traffic.OutPackets != 7 {
			t.Errorf("counted %+v", traffic)
		}
		if s.protocol == bpftest.UDP && !s.isV6() {
			reply.NoChecksum, request.NoChecksum = true, true
			run(t, f, request.Bytes(), sent(s.toServer(request)), nil)
			run(t, f, reply.Bytes(), sent(s.toClient(reply)), nil)
		}
		for _, vlans := range [][]uint16{{100}, {100, 7}} {
			request.VLANs = vlans
			out := s.toServer(request)
			out.VLANs = nil
			run(t, f, request.Bytes(), sent(out), one("hop-changed"))
			back := s.toClient(reply)
			back.VLANs = vlans
			run(t, f, reply.Bytes(), sent(back), nil)
		}
	})
}
