package labtest

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/shunt-lb/shunt/director/directortest"
)

// TestAccess sends real packets from several clients and changes who may
// connect: for new connections, at once.
func TestAccess(t *testing.T) {
	t.Parallel()
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 2, Clients: 4})
	if _, err := lab.ServeHTTP(80); err != nil {
		t.Fatal(err)
	}
	if _, err := lab.ServeUDP(53); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, lab)
	for _, family := range []struct {
		name    string
		vip     netip.Addr
		server  func(*directortest.Server) netip.Addr
		clients []netip.Addr
		pair    string // a prefix of the first two clients: 10.1.0.2 and .3
	}{
		{"IPv4", vip4, func(s *directortest.Server) netip.Addr { return s.Addr4 }, lab.ClientAddrs4, "10.1.0.2/31"},
		{"IPv6", vip6, func(s *directortest.Server) netip.Addr { return s.Addr6 }, lab.ClientAddrs6, "fd00:1::2/127"},
	} {
		t.Run(family.name, func(t *testing.T) {
			web, dns := netip.AddrPortFrom(family.vip, 80), netip.AddrPortFrom(family.vip, 53)
			clients := family.clients
			d.do(t, fmt.Sprintf(`
				service add tcp://%[1]s --name web%[3]s --scheduler rr
				service add udp://%[2]s --name dns%[3]s --scheduler rr
				server add web%[3]s %[4]s --method nat
				server add dns%[3]s %[4]s --method nat
			`, web, dns, family.name, family.server(lab.Servers[0])))
			edit := func(flags string) {
				t.Helper()
				d.do(t, fmt.Sprintf("service edit web%s %s\nservice edit dns%[1]s %[2]s", family.name, flags))
			}
			// are wants just those clients let in, by TCP and UDP.
			are := func(in ...netip.Addr) {
				t.Helper()
				before, out := d.events(t)["access-denied"], uint64(0)
				for _, c := range clients {
					if slices.Contains(in, c) {
						_, err := job{from: netip.AddrPortFrom(c, 0), address: web}.run(lab.Client)
						ok(t, err)
						_, err = lab.Client.QueryUDP(t.Context(), netip.AddrPortFrom(c, 0), dns, 1, limit)
						ok(t, err)
						continue
					}
					if how := refused(t, lab.Client, c, web); how != "nothing" {
						t.Errorf("%s got %s for TCP", c, how)
					}
					if who, err := lab.Client.QueryUDP(t.Context(), netip.AddrPortFrom(c, 0), dns, 1, silence/3); err == nil {
						t.Errorf("%s was answered by %s", c, who)
					} else if timeout, is := err.(interface{ Timeout() bool }); is && !timeout.Timeout() {
						t.Errorf("%s got more than nothing: %v", c, err)
					}
					out += 2 // a packet each, or more when it is sent again
				}
				if after := d.events(t)["access-denied"]; after-before < out || (out == 0) != (after == before) {
					t.Errorf("%d packets were counted as access-denied, want at least %d", after-before, out)
				}
			}
			are(clients...)
			held, err := open(t, lab.Client, netip.AddrPortFrom(clients[1], 0), web)
			ok(t, err)
			ok(t, held.ask())

			edit("--deny " + clients[1].String())
			are(clients[0], clients[2], clients[3])
			ok(t, held.ask()) // established before

			// A longer prefix decides, whichever list it is in.
			edit("--deny " + family.pair + " --allow " + clients[0].String())
			are(clients[0]) // the others: nobody allows them
			ok(t, held.ask())
			edit("--deny none --allow " + family.pair)
			are(clients[0], clients[1])
			edit("--allow none --deny " + netip.PrefixFrom(clients[0], 0).Masked().String())
			are()
			ok(t, held.ask())
			edit("--deny none")
			are(clients...)
			ok(t, held.ask())
		})
	}
	d.noFaults(t, "access-denied")
}

// TestAccessSwitchesAtOnce has one client ask again and again while its prefix is
// denied and let in: each edit counts from when its command has returned, and
// what other services' lists say does not matter.
func TestAccessSwitchesAtOnce(t *testing.T) {
	t.Parallel()
	p := startPair(t, nat)
	p.d.do(t, "service add tcp://192.0.2.10:81 --name other --deny 10.1.0.0/16\nserver add other 10.2.0.11 --method nat")
	for i := range 8 {
		p.d.do(t, "service edit web --deny "+p.lab.ClientAddrs4[0].String())
		from := netip.AddrPortFrom(p.lab.ClientAddrs4[0], uint16(20_000+i))
		before := p.d.events(t)["access-denied"]
		refused(t, p.lab.Client, p.lab.ClientAddrs4[0], p.vip)
		if p.d.events(t)["access-denied"] == before {
			t.Error("a refused connection was not counted")
		}
		p.d.do(t, "service edit web --deny none")
		_, err := job{from: from, address: p.vip}.run(p.lab.Client)
		ok(t, err)
	}
	p.d.noFaults(t, "access-denied")
}
