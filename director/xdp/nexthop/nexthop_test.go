package nexthop

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director/directortest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a change may take; no test needs it when all is well.
const patience = 30 * time.Second

// net2 is a director with two links, each to a namespace of its own.
type net2 struct {
	director, left, right *directortest.Namespace
}

var (
	left4     = netip.MustParseAddr("10.0.0.2")
	left6     = netip.MustParseAddr("fd00::2")
	right4    = netip.MustParseAddr("10.0.1.2")
	right6    = netip.MustParseAddr("fd00:1::2")
	beyond4   = netip.MustParseAddr("192.0.2.7")
	beyond6   = netip.MustParseAddr("2001:db8::7")
	beyondNet = map[netip.Addr]netip.Prefix{
		beyond4: netip.MustParsePrefix("192.0.2.0/24"), beyond6: netip.MustParsePrefix("2001:db8::/64"),
	}
)

// newNet2 makes the director's eth0 (10.0.0.1, fd00::1) and eth1 (10.0.1.1,
// fd00:1::1). A neighbour that stops answering fails within a few seconds.
func newNet2(t testing.TB) *net2 {
	t.Helper()
	directortest.Privileged(t)
	n := &net2{director: namespace(t, "director"), left: namespace(t, "left"), right: namespace(t, "right")}
	must(t, n.director.AddVeth("eth0", n.left, "eth0", 0))
	must(t, n.director.AddVeth("eth1", n.right, "eth0", 0))
	for _, a := range []struct {
		ns         *directortest.Namespace
		link, addr string
	}{
		{n.director, "eth0", "10.0.0.1/24"},
		{n.director, "eth0", "fd00::1/64"},
		{n.director, "eth1", "10.0.1.1/24"},
		{n.director, "eth1", "fd00:1::1/64"},
		{n.left, "eth0", "10.0.0.2/24"},
		{n.left, "eth0", "fd00::2/64"},
		{n.right, "eth0", "10.0.1.2/24"},
		{n.right, "eth0", "fd00:1::2/64"},
	} {
		must(t, a.ns.AddAddress(a.link, netip.MustParsePrefix(a.addr)))
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		for _, l := range []string{"eth0", "eth1"} {
			for knob, value := range map[string]string{
				"base_reachable_time_ms": "500", "delay_first_probe_time": "1", "retrans_time_ms": "100",
				"ucast_solicit": "1", "mcast_solicit": "2", "interval_probe_time_ms": "500",
			} {
				must(t, n.director.Sysctl("net/"+family+"/neigh/"+l+"/"+knob, value))
			}
		}
	}
	return n
}

func namespace(t testing.TB, name string) *directortest.Namespace {
	t.Helper()
	n, err := directortest.NewNamespace(name)
	must(t, err)
	t.Cleanup(func() { must(t, n.Close()) })
	return n
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (n *net2) link(t testing.TB, ns *directortest.Namespace, name string) netlink.Link {
	t.Helper()
	l, err := ns.Netlink().LinkByName(name)
	must(t, err)
	return l
}

func mac(l netlink.Link) (mac [6]byte) {
	copy(mac[:], l.Attrs().HardwareAddr)
	return mac
}

// hop is the way out of the director's link to the only link of the peer.
func (n *net2) hop(t testing.TB, name string, peer *directortest.Namespace) Resolution {
	t.Helper()
	l := n.link(t, n.director, name)
	return Resolution{Hop: Hop{
		Interface: l.Attrs().Index, Source: mac(l), Destination: mac(n.link(t, peer, "eth0")), MTU: l.Attrs().MTU,
	}}
}

// watcher is a running Resolver with what Changed said.
type watcher struct {
	*Resolver
	n  *net2
	mu sync.Mutex // held during Watch, as a data plane would
	// said is what was said last of each address; a token in news says that
	// there is more, one is enough.
	said  map[netip.Addr]Resolution
	calls int // of Changed
	news  chan struct{}
	stop  func()
}

// newWatcher makes a Resolver attached to the links, or to both.
func newWatcher(t testing.TB, n *net2, opts Options, links ...string) *watcher {
	t.Helper()
	w := &watcher{n: n, said: map[netip.Addr]Resolution{}, news: make(chan struct{}, 1)}
	if len(links) == 0 {
		links = []string{"eth0", "eth1"}
	}
	for _, name := range links {
		opts.Interfaces = append(opts.Interfaces, n.link(t, n.director, name).Attrs().Index)
	}
	opts.Changed = func(addr netip.Addr, state Resolution) { w.record(addr, state) }
	must(t, n.director.Do(func() (err error) {
		w.Resolver, err = New(opts)
		return err
	}))
	t.Cleanup(func() { must(t, w.Close()) })
	return w
}

// run runs the Resolver until the end of the test or stop.
func (w *watcher) run(t *testing.T) *watcher {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(w.stop)
	return w
}

func (w *watcher) record(addr netip.Addr, state Resolution) {
	w.mu.Lock()
	w.said[addr] = state
	w.calls++
	w.mu.Unlock()
	select {
	case w.news <- struct{}{}:
	default:
	}
}

func (w *watcher) watch(addr netip.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said[addr] = w.Watch(addr)
}

// told returns how often Changed was called.
func (w *watcher) told() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls
}

// wait waits until the address has the resolution.
func (w *watcher) wait(t *testing.T, addr netip.Addr, want Resolution) {
	t.Helper()
	w.waitSince(t, -1, addr, want)
}

// waitSince waits until the address has the resolution and Changed was called
// more often than told.
func (w *watcher) waitSince(t *testing.T, told int, addr netip.Addr, want Resolution) {
	t.Helper()
	deadline := time.After(patience)
	for {
		w.mu.Lock()
		got, calls := w.said[addr], w.calls
		w.mu.Unlock()
		got.Source = netip.Addr{} // see TestSource
		if got == want && calls > told {
			return
		}
		select {
		case <-w.news:
		case <-deadline:
			t.Fatalf("%s after %v (-want +got):\n%s", addr, patience, difference(want, got))
		}
	}
}

func difference(want, got Resolution) string {
	return cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}))
}

// neighbour returns the director's entry for an address, or nil.
func (n *net2) neighbour(t testing.TB, addr netip.Addr) *netlink.Neigh {
	t.Helper()
	for {
		list, err := n.director.Netlink().NeighList(0, 0)
		if errors.Is(err, netlink.ErrDumpInterrupted) {
			continue
		}
		must(t, err)
		for _, entry := range list {
			if entry.IP.Equal(net.IP(addr.AsSlice())) {
				return &entry
			}
		}
		return nil
	}
}

func reason(text string) Resolution {
	return Resolution{Reason: text, Pending: strings.HasPrefix(text, "resolving ")}
}

func prefix(text string) *net.IPNet {
	p := netip.MustParsePrefix(text)
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	n := newNet2(t)
	must(t, n.director.AddRoute(beyondNet[beyond4], right4))
	must(t, n.director.AddRoute(beyondNet[beyond6], right6))
	linkLocal := netip.MustParseAddr("fe80::77%eth1")
	must(t, n.right.AddAddress("eth0", netip.MustParsePrefix("fe80::77/64")))
	viaLinkLocal := netip.MustParseAddr("2001:db8:1::7")
	must(t, n.director.Netlink().RouteAdd(&netlink.Route{
		Dst: prefix("2001:db8:1::/64"), Gw: linkLocal.WithZone("").AsSlice(),
		LinkIndex: n.link(t, n.director, "eth1").Attrs().Index,
	}))
	via6 := netip.MustParseAddr("203.0.113.7")
	must(t, n.director.Netlink().RouteAdd(&netlink.Route{
		Dst: prefix("203.0.113.0/24"), Via: &netlink.Via{AddrFamily: unix.AF_INET6, Addr: right6.AsSlice()},
		LinkIndex: n.link(t, n.director, "eth1").Attrs().Index,
	}))
	small := netip.MustParseAddr("198.51.100.7")
	must(t, n.director.Netlink().RouteAdd(&netlink.Route{Dst: prefix("198.51.100.0/24"), Gw: right4.AsSlice(), MTU: 1300}))
	for kind, dst := range map[int]string{
		unix.RTN_BLACKHOLE: "10.9.1.0/24", unix.RTN_PROHIBIT: "10.9.2.0/24", unix.RTN_UNREACHABLE: "10.9.3.0/24",
	} {
		must(t, n.director.Netlink().RouteAdd(&netlink.Route{Dst: prefix(dst), Type: kind}))
	}

	left, right := n.hop(t, "eth0", n.left), n.hop(t, "eth1", n.right)
	limited := right
	limited.Hop.MTU = 1300
	w := newWatcher(t, n, Options{}).run(t)
	for _, tt := range []struct {
		name string
		addr netip.Addr
		want Resolution
	}{
		{"on the link", left4, left},
		{"on the link, IPv6", left6, left},
		{"mapped", netip.MustParseAddr("::ffff:10.0.1.2"), right},
		{"by a gateway", beyond4, right},
		{"by a gateway, IPv6", beyond6, right},
		{"link-local", linkLocal, right},
		{"by a link-local gateway", viaLinkLocal, right},
		{"IPv4 by an IPv6 gateway", via6, right},
		{"with a smaller MTU", small, limited},
		{"no route", netip.MustParseAddr("100.64.0.1"), reason("no route to 100.64.0.1")},
		{"no route, IPv6", netip.MustParseAddr("2001:db8:2::1"), reason("no route to 2001:db8:2::1")},
		{"blackhole", netip.MustParseAddr("10.9.1.1"), reason("route to 10.9.1.1 is of type blackhole")},
		{"prohibited", netip.MustParseAddr("10.9.2.1"), reason("route to 10.9.2.1 is of type prohibit")},
		{"unreachable", netip.MustParseAddr("10.9.3.1"), reason("no route to 10.9.3.1")},
		{"own", netip.MustParseAddr("10.0.0.1"), reason("10.0.0.1 is an address of this host: use method local")},
		{"own, IPv6", netip.MustParseAddr("fd00::1"), reason("fd00::1 is an address of this host: use method local")},
		{"broadcast", netip.MustParseAddr("10.0.0.255"), reason("10.0.0.255 is a broadcast, multicast or anycast address")},
		{"link-local without zone", linkLocal.WithZone(""), reason("fe80::77 is link-local: its interface must be given, as in fe80::1%eth0")},
		{"silent", netip.MustParseAddr("10.0.0.99"), reason("no answer from 10.0.0.99 on eth0 (neighbour failed)")},
		{"silent, IPv6", netip.MustParseAddr("fd00::99"), reason("no answer from fd00::99 on eth0 (neighbour failed)")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.watch(tt.addr.Unmap())
			w.wait(t, tt.addr.Unmap(), tt.want)
		})
	}
}

func TestWatchSaysAtOnceThatItAsks(t *testing.T) {
	t.Parallel()
	n := newNet2(t)
	w := newWatcher(t, n, Options{})
	// Nobody runs, so that the answer cannot have been seen.
	if got, want := w.Watch(left4), reason("resolving 10.0.0.2 on eth0"); got != want {
		t.Errorf("Watch (-want +got):\n%s", difference(want, got))
	}
	must(t, n.director.AddRoute(beyondNet[beyond4], right4))
	if got, want := w.Watch(beyond4), reason("resolving gateway 10.0.1.2 on eth1"); got != want {
		t.Errorf("Watch (-want +got):\n%s", difference(want, got))
	}
}

func TestRestartKnowsAtOnce(t *testing.T) {
	t.Parallel()
	n := newNet2(t)
	first := newWatcher(t, n, Options{}).run(t)
	first.watch(left4)
	first.wait(t, left4, n.hop(t, "eth0", n.left))
	first.stop()
	must(t, first.Close())

	second := newWatcher(t, n, Options{})
	got := second.Watch(left4)
	got.Source = netip.Addr{} // see TestSource
	if diff := difference(n.hop(t, "eth0", n.left), got); diff != "" {
		t.Errorf("Watch after a restart (-want +got):\n%s", diff)
	}
	if entry := n.neighbour(t, left4); entry == nil || entry.FlagsExt&netlink.NTF_EXT_MANAGED == 0 {
		t.Errorf("neighbour after Close: %+v, want it managed", entry)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	n := newNet2(t)
	for name, opts := range map[string]Options{"no interfaces": {}, "unknown interface": {Interfaces: []int{12345}}} {
		t.Run(name, func(t *testing.T) {
			err := n.director.Do(func() error {
				r, err := New(opts)
				if err == nil {
					return r.Close()
				}
				return err
			})
			if err == nil {
				t.Error("New succeeded")
			}
		})
	}
}

func TestCloseEndsRun(t *testing.T) {
	t.Parallel()
	n := newNet2(t)
	w := newWatcher(t, n, Options{})
	done := make(chan error, 1)
	go func() { done <- w.Run(context.Background()) }()
	w.watch(left4)
	w.wait(t, left4, n.hop(t, "eth0", n.left))
	must(t, w.Close())
	if err := <-done; err != nil {
		t.Errorf("Run after Close: %v", err)
	}
}
