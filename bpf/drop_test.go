package bpf_test

import (
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// What refuses a packet has a name, and leaves no trace in the table.
func TestDrops(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	t.Run("server removed", func(t *testing.T) {
		eachScene(t, f, func(t *testing.T, s *scene) {
			s.establish(t)
			gone := s.service.Servers[0]
			s.service.Servers = []*bpftest.Server{{Address: s.secondServer, Weight: 1, Hop: gone.Hop}}
			f.Apply(s.service)
			again := s.request()
			again.Flags = "A"
			run(t, f, again.Bytes(), dropped, one("server-removed"))
			run(t, f, s.reply().Bytes(), dropped, one("server-removed"))
			another := s.request()
			another.From = s.other
			run(t, f, another.Bytes(), sent(forwarded(another, s.secondServer)), nil)
		})
	})
	t.Run("service removed", func(t *testing.T) {
		eachScene(t, f, func(t *testing.T, s *scene) {
			s.establish(t)
			f.RemoveService(s.service)
			again := s.request()
			again.Flags = "A"
			run(t, f, again.Bytes(), dropped, one("service-removed"))
			run(t, f, s.reply().Bytes(), dropped, one("service-removed"))
			another := s.request()
			another.From = s.other
			run(t, f, another.Bytes(), passed(another.Bytes()), one("no-service"))
		})
	})
	t.Run("unreachable", func(t *testing.T) {
		eachScene(t, f, func(t *testing.T, s *scene) {
			s.establish(t)
			f.SetHop(s.service.Servers[0].Hop, bpftest.Link{})
			again := s.request()
			again.Flags = "A"
			run(t, f, again.Bytes(), dropped, one("unreachable"))
		})
	})
	t.Run("weight 0 keeps connections", func(t *testing.T) {
		eachScene(t, f, func(t *testing.T, s *scene) {
			s.establish(t)
			s.service.Servers[0].Weight = 0
			f.Apply(s.service)
			again := s.request()
			again.Flags = "A"
			run(t, f, again.Bytes(), sent(forwarded(again, s.server)), nil)
			another := s.request()
			another.From = s.other
			run(t, f, another.Bytes(), s.icmp(portUnreachable, another), one("no-server"))
		})
	})
	t.Run("source port 20", func(t *testing.T) {
		eachScene(t, f, func(t *testing.T, s *scene) {
			p := s.request()
			p.From = netip.AddrPortFrom(s.client.Addr(), 20)
			run(t, f, p.Bytes(), dropped, one("ftp-data"))
			diffEntries(t, f)
		})
	})
}

// One client port, two virtual addresses, one server: the replies could not be
// told apart.
func TestReplyCollision(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	second := func(s *scene, servers ...netip.AddrPort) *bpftest.Service {
		service := &bpftest.Service{Listen: s.secondVirtual, Protocol: s.protocol}
		for _, address := range servers {
			service.Servers = append(service.Servers,
				&bpftest.Server{Address: address, Weight: 1, Hop: s.service.Servers[0].Hop})
		}
		return f.Apply(service)
	}
	t.Run("another server is chosen", func(t *testing.T) {
		eachScene(t, f, func(t *testing.T, s *scene) {
			run(t, f, s.request().Bytes(), sent(forwarded(s.request(), s.server)), nil)
			service := second(s, s.server, s.secondServer)
			p := s.request()
			p.To = s.secondVirtual
			run(t, f, p.Bytes(), sent(forwarded(p, s.secondServer)), one("collision-avoided"))
			back := s.reply()
			back.From = s.secondServer
			run(t, f, back.Bytes(), sent(returned(back, s.secondVirtual)), nil)
			run(t, f, s.reply().Bytes(), sent(returned(s.reply(), s.virtual)), nil)
			diffLoads(t, f, s.service.Servers[0], service.Servers[0], service.Servers[1])
		})
	})
	t.Run("dropped where there is one server", func(t *testing.T) {
		eachScene(t, f, func(t *testing.T, s *scene) {
			run(t, f, s.request().Bytes(), sent(forwarded(s.request(), s.server)), nil)
			service := second(s, s.server)
			p := s.request()
			p.To = s.secondVirtual
			run(t, f, p.Bytes(), dropped, one("reply-collision"))
			diffEntries(t, f, s.both(firstState(s.protocol), false)...)
			diffLoads(t, f, s.service.Servers[0], service.Servers[0])
		})
	})
	t.Run("hashed clients find another server too", func(t *testing.T) {
		for _, scheduler := range []bpf.KernelScheduler{
			bpf.KernelSchedulerSCHEDULER_SH, bpf.KernelSchedulerSCHEDULER_MH,
		} {
			s := newScene(t, f, families[0], bpftest.TCP, nat)
			run(t, f, s.request().Bytes(), sent(forwarded(s.request(), s.server)), nil)
			// The server of the collision has nearly all of the table.
			service := second(s, s.server, s.secondServer)
			service.Scheduler, service.Servers[0].Weight = scheduler, 1
			service.Servers[1].Weight = 1
			f.Apply(service)
			p := s.request()
			p.To = s.secondVirtual
			if got := f.Run(p.Bytes()); !cmp.Equal(got, sent(forwarded(p, s.secondServer))) {
				t.Errorf("scheduler %d: %v %v", scheduler, got.Action, f.Events())
			}
		}
	})
}

// diffLoads compares the servers' counts with what is in the table.
func diffLoads(t *testing.T, f *bpftest.Fixture, servers ...*bpftest.Server) {
	t.Helper()
	want, got := map[uint32][2]int64{}, map[uint32][2]int64{}
	for _, server := range servers {
		load := f.Load(server)
		got[server.Index] = [2]int64{load.Active, load.Inactive}
		want[server.Index] = [2]int64{}
	}
	for _, e := range f.Entries() {
		n := want[e.Server]
		switch {
		case e.Reply, e.Template:
		case bpftest.IsActive(e.State):
			n[0]++
		default:
			n[1]++
		}
		want[e.Server] = n
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("active and inactive by server (-in the table +counted):\n%s", diff)
	}
}

// Replies leave by the next hop that the client's packets come from.
func TestClientHop(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	second := f.Plane.Clock.Ticks(1e9)
	t.Run("followed when it changes", func(t *testing.T) {
		eachScene(t, f, func(t *testing.T, s *scene) {
			s.establish(t)
			moved := s.request()
			moved.Source, moved.Flags = bpftest.OtherRouterMAC, "A"
			f.Age(second)
			run(t, f, moved.Bytes(), sent(forwarded(moved, s.server)), one("hop-changed"))
			back := s.reply()
			want := returned(back, s.virtual)
			want.Destination = bpftest.OtherRouterMAC
			run(t, f, back.Bytes(), sent(want), nil)
		})
	})
	t.Run("by the route when it failed", func(t *testing.T) {
		eachScene(t, f, func(t *testing.T, s *scene) {
			s.establish(t)
			reference := s.Entries()[0].Hop
			f.ChangeLearnedHop(reference, func(h *bpf.KernelHop) { h.Failed = 1 })
			run(t, f, s.reply().Bytes(), dropped, one("no-route"))
			// The client's next packet says that it is alive.
			f.Age(second)
			p := s.request()
			p.Flags = "A"
			run(t, f, p.Bytes(), sent(forwarded(p, s.server)), nil)
			run(t, f, s.reply().Bytes(), sent(returned(s.reply(), s.virtual)), nil)
			// Freed: the reference is void.
			f.ChangeLearnedHop(reference, func(h *bpf.KernelHop) { h.Generation++ })
			run(t, f, s.reply().Bytes(), dropped, one("no-route"))
		})
	})
	t.Run("by the route there is", func(t *testing.T) {
		var err error
		f.Do(func() { err = addRoutes() })
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range families {
			t.Run(a.name, func(t *testing.T) {
				s := newScene(t, f, a, bpftest.TCP, nat)
				s.establish(t)
				f.ChangeLearnedHop(s.Entries()[0].Hop, func(h *bpf.KernelHop) { h.Failed = 1 })
				want := returned(s.reply(), s.virtual)
				want.Source, want.Destination = bpftest.DirectorInside, bpftest.OtherRouterMAC
				result := bpftest.Result{Action: bpftest.Redirect, Packet: want.Bytes()}
				run(t, f, s.reply().Bytes(), result, one("by-route"))
				runOn(t, f, f.Inside, s.reply().Bytes(), sent(want), one("by-route"))
			})
		}
	})
}

// addRoutes gives the namespace a route to the clients, by a neighbour inside.
func addRoutes() error {
	link, err := netlink.LinkByName("inside")
	if err != nil {
		return err
	}
	for _, setting := range []string{"ipv4/conf/all/forwarding", "ipv6/conf/all/forwarding"} {
		if err := os.WriteFile("/proc/sys/net/"+setting, []byte("1"), 0); err != nil {
			return err
		}
	}
	for _, r := range []struct{ address, network, gateway string }{
		{"203.0.113.1/24", "198.51.100.0/24", "203.0.113.9"},
		{"2001:db8:f::1/64", "2001:db8:c::/64", "2001:db8:f::9"},
	} {
		address, err := netlink.ParseAddr(r.address)
		if err != nil {
			return err
		}
		_, network, err := net.ParseCIDR(r.network)
		if err != nil {
			return err
		}
		gateway := net.ParseIP(r.gateway)
		address.Flags = 2 // IFA_F_NODAD
		if err := netlink.AddrAdd(link, address); err != nil {
			return err
		}
		if err := netlink.NeighSet(&netlink.Neigh{
			LinkIndex: link.Attrs().Index, IP: gateway, HardwareAddr: bpftest.OtherRouterMAC[:],
			State: netlink.NUD_PERMANENT,
		}); err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: network, Gw: gateway}); err != nil {
			return err
		}
	}
	return nil
}
