package bpf_test

import (
	"net/netip"
	"testing"

	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// By full NAT errors come to the server from the address that stands in for the
// client's, and find the client by it; both ends' ports are replaced in what they quote.
func testICMPOfFullNAT(t *testing.T, f *bpftest.Fixture) {
	eachFullNAT(t, f, func(t *testing.T, s *scene) {
		s.establish(t)
		request, back := s.request(), s.reply()
		table := entriesOf(f)
		request.Payload, back.Payload = pattern(1200), pattern(1200)
		fromServer, toClient := back, s.toClient(back)
		toServer := s.toServer(request)
		standIn, router := s.standIn.Addr(), routers[s.isV6()]
		for _, e := range icmpErrors[s.isV6()] {
			for _, quoted := range []int{8, 16, 18, 64, 548} {
				in := errorFrom(e, router, toClient, quoted)
				run(t, f, in.Bytes(), sentMessage(quotedAs(in, asQuoted(fromServer, toClient), quoted, bpftest.Message{
					Source: bpftest.DirectorInside, Destination: bpftest.ServerMAC, From: standIn, To: s.server.Addr(),
				})), one("icmp-to-server"))
				for from, as := range map[netip.Addr]netip.Addr{router: router, s.server.Addr(): s.virtual.Addr()} {
					out := errorFrom(e, from, toServer, quoted)
					run(t, f, out.Bytes(), sentMessage(quotedAs(out, asQuoted(request, toServer), quoted, bpftest.Message{
						Source: bpftest.DirectorOutside, Destination: bpftest.ClientMAC, From: as, To: s.client.Addr(),
					})), one("icmp-to-client"))
				}
			}
		}
		table(t)
	})
}

// asQuoted is the packet with the other's time to live: what a router quotes is not
// what was sent in that.
func asQuoted(p, other bpftest.Packet) bpftest.Packet {
	p.TTL = other.TTL
	return p
}
