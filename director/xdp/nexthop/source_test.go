package nexthop

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// What the host would send from is told, and told again when it changes: it is the
// outer source of tunnels.
func TestSource(t *testing.T) {
	t.Parallel()
	n := newNet2(t)
	w := newWatcher(t, n, Options{}).run(t)
	wait := func(addr netip.Addr, want string) {
		t.Helper()
		deadline := time.After(patience)
		for {
			w.mu.Lock()
			got := w.said[addr]
			w.mu.Unlock()
			if got.Reason == "" && got.Source == netip.MustParseAddr(want) {
				return
			}
			select {
			case <-w.news:
			case <-deadline:
				t.Fatalf("%s: %+v, want source %s", addr, got, want)
			}
		}
	}
	w.watch(left4)
	w.watch(left6)
	wait(left4, "10.0.0.1")
	wait(left6, "fd00::1")

	must(t, n.director.AddAddress("eth0", netip.MustParsePrefix("10.0.0.77/32")))
	must(t, n.director.Netlink().RouteReplace(&netlink.Route{
		LinkIndex: n.link(t, n.director, "eth0").Attrs().Index, Scope: netlink.SCOPE_LINK,
		Dst: &net.IPNet{IP: net.IP{10, 0, 0, 0}, Mask: net.CIDRMask(24, 32)}, Src: netip.MustParseAddr("10.0.0.77").AsSlice(), Protocol: 2, // kernel: include/uapi/linux/rtnetlink.h, RTPROT_KERNEL
	}))
	wait(left4, "10.0.0.77")
}
