package xdp

import (
	"net/netip"
	"testing"

	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// mixedRig is a rig with connections of all kinds: under templates and not, by nat
// and local, of one address and of many, TCP and UDP, IPv4 and IPv6.
type mixedRig struct {
	*rig
	sticky, v6, wide director.Service
}

func newMixedRig(t testing.TB, opts Options) *mixedRig {
	t.Helper()
	r := &mixedRig{rig: newRig(t, opts), sticky: newStickyService()}
	r.sticky.Limits.Source = director.SourceLimits{Prefix: 24, Connections: 1000}
	r.v6 = testService(director.RoundRobin, director.SchedulerFlags{})
	r.v6.Key.Address = netip.MustParseAddrPort("[2001:db8::1]:443")
	r.wide = testService(director.RoundRobin, director.SchedulerFlags{})
	r.wide.Key = wideKey(t, "udp://192.0.2.64/28:8000-8999")
	r.must(
		director.AddService{Service: r.sticky},
		director.AddServer{Key: r.sticky.Key, Server: local(1, 1)}, director.AddServer{Key: r.sticky.Key, Server: natServer()},
		director.AddService{Service: r.v6},
		director.AddServer{Key: r.v6.Key, Server: realserver.Server{Address: netip.MustParseAddrPort("[fd00::1]:443"), Method: realserver.Local, Weight: 1}},
		director.AddService{Service: r.wide},
		director.AddServer{Key: r.wide.Key, Server: realserver.Server{Address: netip.AddrPortFrom(reachable, 0), Method: realserver.NAT, Weight: 1}},
	)
	r.eventually("the servers are reachable", func() bool {
		return r.stats(r.sticky.Key).Servers[1].Reachable && r.stats(r.wide.Key).Servers[0].Reachable
	})
	return r
}

// stickyClient is the i-th client of the sticky service: of five networks, of which
// those with even numbers have the local server.
func stickyClient(i byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, i % 5, i}), 4000)
}

// fill makes 60 connections of each service, in several states, and five templates.
func (r *mixedRig) fill() {
	for i := range byte(60) {
		client, virtual := stickyClient(i), r.sticky.Key.Address
		r.send(bpftest.Packet{From: client, To: virtual, Flags: "S"})
		if i%3 != 0 {
			// Of the two servers one is local, whose replies nobody sees.
			r.send(bpftest.Packet{From: natServer().Address, To: client, Flags: "SA", Seq: 1000, Ack: 1})
			r.send(bpftest.Packet{From: client, To: virtual, Flags: "A", Seq: 1, Ack: 1001})
		}
		if i%3 == 2 {
			r.send(bpftest.Packet{From: client, To: virtual, Flags: "FA", Seq: 1, Ack: 1001})
		}
		r.send(bpftest.Packet{
			From: netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 4: 1, 15: i}), 4000), To: r.v6.Key.Address, Flags: "S",
		})
		wide, port := netip.AddrFrom4([4]byte{192, 0, 2, 64 + i%16}), 8000+uint16(i)
		r.send(bpftest.Packet{From: client, To: netip.AddrPortFrom(wide, port), Protocol: bpftest.UDP})
		if i%2 == 0 {
			r.send(bpftest.Packet{From: netip.AddrPortFrom(reachable, port), To: client, Protocol: bpftest.UDP})
		}
	}
}
