package scheduler_test

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/scheduler"
	"github.com/shunt-lb/shunt/realserver"
)

// A drain moves the clients of the servers that drain, and no others; none is
// refused while a server is left; afterwards all are where they were.
func TestDrainMovesNoOtherClient(t *testing.T) {
	for _, name := range []director.Scheduler{director.DestinationHash, director.SourceHash, director.Maglev} {
		t.Run(string(name), func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				service := director.Service{
					Key:       director.ServiceKey{Protocol: 6, Address: netip.MustParseAddrPort("192.0.0.0:80"), Bits: 16},
					Scheduler: name,
				}
				var servers []realserver.Server
				for i, weight := range drawWeights(rt, 5) {
					servers = append(servers, realserver.Server{Address: server(i), Weight: weight + 1})
				}
				service.Servers = servers
				s, err := scheduler.NewSimulation(service, scheduler.Options{})
				if err != nil {
					rt.Fatal(err)
				}
				where := func() map[netip.AddrPort]netip.AddrPort {
					chosen := make(map[netip.AddrPort]netip.AddrPort)
					for i := range 300 {
						client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 4), byte(i * 37)}), uint16(1024+i))
						virtual := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, byte(i), byte(i >> 3)}), 80)
						chosen[client] = s.Open(client, virtual).Server
					}
					s.EndAll()
					return chosen
				}
				before := where()
				drains := make(map[netip.AddrPort]bool)
				for _, v := range servers {
					if v.Draining = rapid.Bool().Draw(rt, "draining"); v.Draining {
						drains[v.Address] = true
						s.EditServer(v)
					}
				}
				for client, now := range where() {
					was := before[client]
					switch {
					case !drains[was] && now != was:
						rt.Fatalf("%s moved from %s to %s though it does not drain", client, was, now)
					case drains[now]:
						rt.Fatalf("%s is with %s, which drains", client, now)
					case len(drains) < len(servers) && !now.IsValid():
						rt.Fatalf("%s is refused: it was with %s", client, was)
					case len(drains) == len(servers) && now.IsValid():
						rt.Fatalf("%s is with %s: all drain", client, now)
					}
				}
				for _, v := range servers {
					s.EditServer(v)
				}
				for client, now := range where() {
					if now != before[client] {
						rt.Fatalf("%s is with %s after the drain, was with %s", client, now, before[client])
					}
				}
			})
		})
	}
}
