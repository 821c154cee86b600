package nexthop

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func isManaged(entry *netlink.Neigh) bool {
	return entry != nil && entry.FlagsExt&netlink.NTF_EXT_MANAGED != 0
}

func TestUnwatchGivesTheNeighbourBack(t *testing.T) {
	t.Parallel()
	n := newNet2(t)
	must(t, n.director.AddRoute(beyondNet[beyond4], left4))
	silent := netip.MustParseAddr("10.0.0.99")
	w := newWatcher(t, n, Options{}).run(t)
	// The neighbour has two users, one of them counted twice.
	for _, addr := range []netip.Addr{left4, left4, beyond4, silent} {
		w.watch(addr)
	}
	good := n.hop(t, "eth0", n.left)
	w.wait(t, left4, good)
	w.wait(t, beyond4, good)
	w.wait(t, silent, reason("no answer from 10.0.0.99 on eth0 (neighbour failed)"))

	for _, addr := range []netip.Addr{left4, beyond4} {
		w.Unwatch(addr)
		if !isManaged(n.neighbour(t, left4)) {
			t.Fatalf("neighbour is not managed although %s is watched", left4)
		}
	}
	w.Unwatch(left4)
	entry := n.neighbour(t, left4)
	if isManaged(entry) || entry == nil || entry.Flags&netlink.NTF_EXT_LEARNED != 0 || !bytes.Equal(entry.HardwareAddr, good.Hop.Destination[:]) {
		t.Errorf("neighbour after the last Unwatch: %+v, want an ordinary one", entry)
	}
	w.Unwatch(silent)
	if entry := n.neighbour(t, silent); isManaged(entry) {
		t.Errorf("neighbour that never answered, after Unwatch: %+v", entry)
	}
	w.Unwatch(silent) // once too often
}

func TestPermanentNeighbourIsLeftAlone(t *testing.T) {
	t.Parallel()
	n := newNet2(t)
	addr := netip.MustParseAddr("10.0.0.50")
	static := netlink.Neigh{
		LinkIndex: n.link(t, n.director, "eth0").Attrs().Index, IP: addr.AsSlice(),
		State: netlink.NUD_PERMANENT, HardwareAddr: []byte{2, 0, 0, 0, 0, 50},
	}
	must(t, n.director.Netlink().NeighSet(&static))
	w := newWatcher(t, n, Options{}).run(t)
	want := n.hop(t, "eth0", n.left)
	copy(want.Hop.Destination[:], static.HardwareAddr)
	w.watch(addr)
	w.wait(t, addr, want)
	w.Unwatch(addr)
	if entry := n.neighbour(t, addr); entry == nil || entry.State != netlink.NUD_PERMANENT {
		t.Errorf("neighbour after Watch and Unwatch: %+v, want it permanent", entry)
	}
}

func TestRemovedNeighbourIsAskedForAgain(t *testing.T) {
	t.Parallel()
	n := newNet2(t)
	w := newWatcher(t, n, Options{}).run(t)
	w.watch(left4)
	good := n.hop(t, "eth0", n.left)
	w.wait(t, left4, good)

	events := newEvents(t, n)
	entry := n.neighbour(t, left4)
	told := w.told()
	must(t, n.director.Netlink().NeighDel(entry))
	events.waitManaged(t, left4)
	w.waitSince(t, told, left4, good)

	// The same without the flag: an operator's "ip neigh replace".
	changed := *entry
	changed.Flags, changed.FlagsExt, changed.State = 0, 0, netlink.NUD_STALE
	must(t, n.director.Netlink().NeighSet(&changed))
	events.waitManaged(t, left4)
}

// events is what the director's kernel says, besides the Resolver.
type events struct{ *eventSocket }

func newEvents(t *testing.T, n *net2) (e events) {
	t.Helper()
	must(t, n.director.Do(func() (err error) {
		e.eventSocket, err = openEvents(1 << 20)
		return err
	}))
	t.Cleanup(func() { must(t, e.close()) })
	must(t, e.setDeadline(time.Now().Add(patience)))
	return e
}

// waitManaged waits until a neighbour that was not managed is.
func (e events) waitManaged(t *testing.T, addr netip.Addr) {
	t.Helper()
	for lost := false; ; {
		messages, err := e.receive()
		must(t, err)
		if len(messages) == 0 {
			t.Fatalf("%s is not managed again after %v", addr, patience)
		}
		for _, m := range messages {
			if m.Header.Type != unix.RTM_NEWNEIGH && m.Header.Type != unix.RTM_DELNEIGH {
				continue
			}
			key, entry, err := decodeNeighbour(m.Data)
			must(t, err)
			if key.addr != addr {
				continue
			}
			lost = lost || !entry.managed || m.Header.Type == unix.RTM_DELNEIGH
			if lost && entry.managed && m.Header.Type == unix.RTM_NEWNEIGH {
				return
			}
		}
	}
}

func TestKernelWithoutManagedNeighbours(t *testing.T) {
	t.Parallel()
	n := newNet2(t)
	w := newWatcher(t, n, Options{})
	w.managed = false // as after the refusal
	w.run(t)
	w.watch(left4)
	good := n.hop(t, "eth0", n.left)
	w.wait(t, left4, good)
	if entry := n.neighbour(t, left4); isManaged(entry) {
		t.Errorf("neighbour is managed: %+v", entry)
	}
	host := netip.PrefixFrom(left4, 24)
	must(t, n.left.Netlink().AddrDel(n.link(t, n.left, "eth0"), &netlink.Addr{IPNet: prefixOf(host)}))
	w.wait(t, left4, reason("no answer from 10.0.0.2 on eth0 (neighbour failed)"))
	must(t, n.left.AddAddress("eth0", host))
	w.wait(t, left4, good)
}

func TestLostEventsAreReadAnew(t *testing.T) {
	t.Parallel()
	n := newNet2(t)
	var log bytes.Buffer
	must(t, n.director.AddRoute(beyondNet[beyond4], left4))
	w := newWatcher(t, n, Options{receiveBuffer: 1, Log: slog.New(slog.NewTextHandler(&log, nil))})
	w.watch(left4)
	w.watch(beyond4)

	// Nobody reads: the events of these routes, and what follows them, are lost.
	for range 100 {
		must(t, n.director.AddRoute(netip.MustParsePrefix("10.77.0.0/16"), left4))
		must(t, n.director.AddRoute(netip.MustParsePrefix("10.77.0.0/16"), right4))
	}
	must(t, n.director.AddRoute(beyondNet[beyond4], right4))
	must(t, n.director.Netlink().LinkSetMTU(n.link(t, n.director, "eth0"), 1400))
	w.run(t)
	w.wait(t, left4, n.hop(t, "eth0", n.left))
	w.wait(t, beyond4, n.hop(t, "eth1", n.right))
	w.stop()
	if !strings.Contains(log.String(), "receive buffer full") {
		t.Errorf("the loss was not logged: %q", log.String())
	}
}

func TestManyAddresses(t *testing.T) {
	t.Parallel()
	const count = 10_000
	n := newNet2(t)
	wide := netip.MustParsePrefix("10.200.0.0/16")
	must(t, n.director.AddRoute(wide, left4))
	w := newWatcher(t, n, Options{}).run(t)
	addrs := make([]netip.Addr, 0, count)
	for addr := wide.Addr(); len(addrs) < count; addr = addr.Next() {
		addrs = append(addrs, addr)
		w.watch(addr)
	}
	for i, way := range []struct {
		gateway netip.Addr
		want    Resolution
	}{{left4, n.hop(t, "eth0", n.left)}, {right4, n.hop(t, "eth1", n.right)}} {
		if i > 0 {
			must(t, n.director.AddRoute(wide, way.gateway))
		}
		for _, addr := range addrs {
			w.wait(t, addr, way.want)
		}
	}
	if len(w.holds) != 1 {
		t.Errorf("%d neighbours are held for one gateway", len(w.holds))
	}
}

// BenchmarkWatch is the cost of watching one of many addresses behind a gateway.
func BenchmarkWatch(b *testing.B) {
	r, addr := benchmarkResolver(b)
	for b.Loop() {
		r.Watch(addr)
		r.Unwatch(addr)
	}
}

// BenchmarkRound is the cost of asking for a route again, of each address.
func BenchmarkRound(b *testing.B) {
	r, addr := benchmarkResolver(b)
	r.Watch(addr)
	for b.Loop() {
		r.askRoutes([]netip.Addr{addr})
	}
}

func benchmarkResolver(b *testing.B) (*Resolver, netip.Addr) {
	b.Helper()
	n := newNet2(b)
	must(b, n.director.AddRoute(beyondNet[beyond4], left4))
	w := newWatcher(b, n, Options{})
	w.Watch(left4) // the gateway's own user
	return w.Resolver, beyond4
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	n := newNet2(t)
	w := newWatcher(t, n, Options{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := w.Run(ctx); err != nil {
		t.Errorf("Run: %v", err)
	}
}

// A permanent neighbour of which the event has not been read yet stays one: managed, it
// would be an ordinary one, and asked for.
func TestPermanentNeighbourUnheardOf(t *testing.T) {
	t.Parallel()
	n := newNet2(t)
	w := newWatcher(t, n, Options{}) // nobody reads events
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	link, err := n.director.Netlink().LinkByName("eth0")
	must(t, err)
	must(t, n.director.Netlink().NeighSet(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: left4.AsSlice(), HardwareAddr: mac,
	}))
	w.Watch(left4)
	if entry := n.neighbour(t, left4); entry == nil || entry.State != netlink.NUD_PERMANENT {
		t.Fatalf("the neighbour is %+v, want a permanent one", entry)
	}
	w.run(t)
	want := n.hop(t, "eth0", n.left)
	want.Hop.Destination = [6]byte(mac)
	w.wait(t, left4, want)
	if entry := n.neighbour(t, left4); entry == nil || entry.State != netlink.NUD_PERMANENT {
		t.Errorf("afterwards the neighbour is %+v, want a permanent one", entry)
	}
}
