package labtest

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/shunt-lb/shunt/director/directortest"
)

// impatient makes the kernel doubt and give up neighbours within a second.
func impatient(t *testing.T, ns *directortest.Namespace, links []string) {
	t.Helper()
	for _, link := range links {
		for _, family := range []string{"ipv4", "ipv6"} {
			for knob, value := range map[string]string{
				"base_reachable_time_ms": "500", "delay_first_probe_time": "0", "retrans_time_ms": "100", "ucast_solicit": "2", "mcast_solicit": "2",
			} {
				if err := ns.Sysctl("net/"+family+"/neigh/"+link+"/"+knob, value); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

func setLink(t *testing.T, ns *directortest.Namespace, name string, change func(*netlink.Handle, netlink.Link) error) {
	t.Helper()
	l, err := ns.Netlink().LinkByName(name)
	if err == nil {
		err = change(ns.Netlink(), l)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func down(h *netlink.Handle, l netlink.Link) error { return h.LinkSetDown(l) }
func up(h *netlink.Handle, l netlink.Link) error   { return h.LinkSetUp(l) }

// A server that does not answer is shown with the reason and gets no new
// connections until it is back.
func TestUnreachableServer(t *testing.T) {
	t.Parallel()
	for shape, reason := range map[directortest.Shape]string{
		directortest.TwoArmed: "interface eth1 is down",
		directortest.OneArmed: "no answer from 10.2.0.11 on eth0 (neighbour failed)",
	} {
		t.Run(string(shape), func(t *testing.T) {
			lab := directortest.Start(t, directortest.Topology{Shape: shape, Servers: 2})
			if _, err := lab.ServeHTTP(80); err != nil {
				t.Fatal(err)
			}
			impatient(t, lab.Director, lab.DirectorLinks)
			d := startDaemon(t, lab)
			d.do(t, "service add tcp://192.0.2.10:80 --name web --scheduler rr")
			var addresses []string
			for _, s := range lab.Servers {
				addresses = append(addresses, netip.AddrPortFrom(s.Addr4, 80).String())
				d.do(t, "server add web "+addresses[len(addresses)-1]+" --method nat")
			}
			p := pair{lab: lab, d: d, vip: netip.AddrPortFrom(vip4, 80), servers: [2]string(addresses)}
			p.requests(t, 10)

			setLink(t, lab.Servers[0].Namespace, "eth0", down)
			await(t, "the server is shown as unreachable", func() bool { return !d.server(t, "web", addresses[0]).Reachable })
			if got := d.server(t, "web", addresses[0]).Reason; got != reason {
				t.Errorf("reason %q, want %q", got, reason)
			}
			if out := d.shunt(t, "status"); !strings.Contains(out, "2, 1 unreachable") {
				t.Errorf("status:\n%s", out)
			}
			if answers := p.requests(t, 20); answers[lab.Servers[1].Name] != 20 {
				t.Errorf("answers %v, want all from %s", answers, lab.Servers[1].Name)
			}

			setLink(t, lab.Servers[0].Namespace, "eth0", up)
			// The kernel has forgotten what was on the link that went down.
			gateway := netip.MustParseAddr("10.2.1.1")
			if shape == directortest.OneArmed {
				gateway = netip.MustParseAddr("10.2.0.1")
			}
			if err := lab.Servers[0].AddRoute(netip.MustParsePrefix("0.0.0.0/0"), gateway); err != nil {
				t.Fatal(err)
			}
			await(t, "the server is back", func() bool { return d.server(t, "web", addresses[0]).Reachable })
			if answers := p.requests(t, 20); answers[lab.Servers[0].Name] != 10 {
				t.Errorf("answers %v, want half from %s", answers, lab.Servers[0].Name)
			}
			d.noFaults(t, "unreachable")
		})
	}
}

// A server whose Ethernet address changes keeps its connections.
func TestServerChangesItsMAC(t *testing.T) {
	t.Parallel()
	p := startPair(t, nat)
	impatient(t, p.lab.Director, p.lab.DirectorLinks)
	c := p.on(t, 0)
	if err := p.lab.Servers[0].Sysctl("net/ipv4/conf/all/arp_notify", "1"); err != nil {
		t.Fatal(err)
	}
	setMAC(t, p.lab.Servers[0].Namespace, "eth0", "02:00:00:00:00:77")
	if err := c.ask(); err != nil {
		t.Error(err)
	}
	await(t, "new connections go there", func() bool { return p.requests(t, 4)[p.lab.Servers[0].Name] > 0 })
}

func setMAC(t *testing.T, ns *directortest.Namespace, link, mac string) {
	t.Helper()
	setLink(t, ns, link, func(h *netlink.Handle, l netlink.Link) error {
		address, err := net.ParseMAC(mac)
		if err != nil {
			return err
		}
		return h.LinkSetHardwareAddr(l, address)
	})
}

// Clients behind a router that is replaced, as VRRP does: replies go to the
// router the client's packets come from. The director has no route to these
// clients: replies can only follow what was learned.
func TestRouterOfClientsChanges(t *testing.T) {
	t.Parallel()
	lab := directortest.Start(t, directortest.Topology{Servers: 1})
	if _, err := lab.ServeHTTP(80); err != nil {
		t.Fatal(err)
	}
	far, router := namespace(t, "far"), namespace(t, "router")
	for _, err := range []error{
		lab.Director.AddVeth("eth9", router, "eth0", 0),
		router.AddVeth("eth1", far, "eth0", 0),
		lab.Director.AddAddress("eth9", netip.MustParsePrefix("10.9.0.1/24")),
		router.AddAddress("eth0", netip.MustParsePrefix("10.9.0.2/24")),
		router.AddAddress("eth1", netip.MustParsePrefix("10.8.0.1/24")),
		far.AddAddress("eth0", netip.MustParsePrefix("10.8.0.2/24")),
		far.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.8.0.1")),
		router.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.9.0.1")),
		router.Sysctl("net/ipv4/ip_forward", "1"),
		far.SetOffload("eth0", directortest.TxChecksum, directortest.Off),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	pass, err := router.AttachPass("eth0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pass.Close() })
	d := newDaemon(t, lab.Director, append(lab.DirectorLinks, "eth9"))
	d.start(t)
	d.do(t, fmt.Sprintf("service add tcp://192.0.2.10:80 --name web\nserver add web %s --method nat", lab.Servers[0].Addr4))
	c := mustOpen(t, far, netip.AddrPortFrom(vip4, 80))
	for i, mac := range []string{"02:00:00:00:00:01", "02:00:00:00:00:02"} {
		setMAC(t, router, "eth0", mac)
		if err := c.ask(); err != nil {
			t.Fatalf("%v\n%s", err, d.shunt(t, "drops"))
		}
		if got := d.events(t)["hop-changed"]; got < uint64(i+1) {
			t.Errorf("hop-changed counted %d times after %d changes", got, i+1)
		}
	}
	mustOpen(t, far, netip.AddrPortFrom(vip4, 80))
	if total, _ := d.counters(t, "web"); total.Connections != 2 || total.Out.Packets == 0 {
		t.Errorf("the director counted %+v, want 2 connections and replies", total)
	}
	d.noFaults(t)
}

func namespace(t *testing.T, name string) *directortest.Namespace {
	t.Helper()
	n, err := directortest.NewNamespace(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}
