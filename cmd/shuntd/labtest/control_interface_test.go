package labtest

import (
	"net/netip"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/cilium/ebpf/link"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// armed is a two-armed lab with the service web over all servers.
func armed(t *testing.T) pair {
	t.Helper()
	lab := directortest.Start(t, directortest.Topology{Servers: 2})
	if _, err := lab.ServeHTTP(80); err != nil {
		t.Fatal(err)
	}
	p := pair{lab: lab, d: startDaemon(t, lab), vip: netip.AddrPortFrom(vip4, 80)}
	p.d.do(t, "service add tcp://192.0.2.10:80 --name web --scheduler rr")
	for i, s := range lab.Servers {
		p.servers[i] = netip.AddrPortFrom(s.Addr4, 80).String()
		p.d.do(t, "server add web "+p.servers[i]+" --method nat")
	}
	return p
}

// attachedAll waits until the daemon says that it is on all interfaces.
func (p pair) attachedAll(t *testing.T) {
	t.Helper()
	await(t, "the fast path is on all interfaces", func() bool {
		for _, i := range read[api.Status](t, p.d, "status").Interfaces {
			if i.Mode != "native" {
				return false
			}
		}
		return true
	})
}

func TestDetachedLinkIsAttachedAgain(t *testing.T) {
	t.Parallel()
	p := armed(t)
	c, last := p.on(t, 0), p.d.lastEvent(t)
	client, err := p.lab.Director.Netlink().LinkByName("eth0")
	ok(t, err)
	p.d.whilePaused(t, func() {
		l, err := link.LoadPinnedLink(filepath.Join(p.d.pins, "link_"+strconv.Itoa(client.Attrs().Index)), nil)
		ok(t, err)
		ok(t, l.Detach())
		ok(t, l.Close())
		refused(t, p.lab.Client, netip.Addr{}, p.vip)
	})
	p.d.tells(t, last, "interface-detached", "eth0")
	p.d.tells(t, last, "interface-attached", "eth0")
	p.attachedAll(t)
	p.serves(t)
	ok(t, c.ask())
	p.d.noFaults(t)
}

// An interface may vanish and come again under its name: a driver is loaded anew,
// a tunnel or a guest's interface is made again.
func TestInterfaceMadeAgain(t *testing.T) {
	t.Parallel()
	p := armed(t)
	c, last, s := p.on(t, 0), p.d.lastEvent(t), p.lab.Servers[1]
	netlink := p.lab.Director.Netlink()
	old, err := netlink.LinkByName("eth2")
	ok(t, err)
	ok(t, netlink.LinkDel(old))
	p.d.tells(t, last, "interface-detached", "eth2")
	p.d.tells(t, last, "server-unreachable", p.servers[1])
	ok(t, c.ask())
	for range 4 {
		if c := mustOpen(t, p.lab.Client, p.vip); c.server != p.lab.Servers[0].Name {
			t.Errorf("a new connection went to %s, which nothing leads to", c.server)
		}
	}
	ok(t, p.lab.Director.AddVeth("eth2", s.Namespace, "eth0", 1500))
	pass, err := s.AttachPass("eth0")
	ok(t, err)
	t.Cleanup(func() { _ = pass.Close() })
	ok(t, s.SetOffload("eth0", directortest.TxChecksum, directortest.Off))
	ok(t, s.AddAddress("eth0", netip.PrefixFrom(s.Addr4, 24)))
	ok(t, p.lab.Director.AddAddress("eth2", netip.MustParsePrefix("10.2.2.1/24")))
	ok(t, s.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.2.2.1")))
	p.d.tells(t, last, "interface-attached", "eth2")
	p.d.tells(t, last, "server-reachable", p.servers[1])
	p.attachedAll(t)
	p.serves(t)
	ok(t, c.ask())
	p.d.noFaults(t, "unreachable")
}
