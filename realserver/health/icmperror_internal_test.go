package health

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

// refusingRouter returns a namespace whose router has no way to some networks and says so.
func refusingRouter(t *testing.T) *directortest.Namespace {
	t.Helper()
	directortest.Privileged(t)
	fail := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var all [2]*directortest.Namespace
	for i, name := range []string{"prober", "router"} {
		n, err := directortest.NewNamespace(name)
		fail(err)
		t.Cleanup(func() { n.Close() })
		all[i] = n
	}
	prober, router := all[0], all[1]
	fail(prober.AddVeth("eth0", router, "eth0", 0))
	for _, knob := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		fail(router.Sysctl(knob, "1"))
	}
	// Not by icmp_ratelimit, 0 of which takes what ip_error counts away (kernel: net/ipv4/inetpeer.c).
	for _, knob := range []string{"net/ipv4/icmp_ratemask", "net/ipv6/icmp/ratelimit"} {
		fail(router.Sysctl(knob, "0"))
	}
	for _, net := range []string{"10.0.0.%/24", "fd00::%/64"} {
		fail(prober.AddAddress("eth0", netip.MustParsePrefix(strings.Replace(net, "%", "2", 1))))
		fail(router.AddAddress("eth0", netip.MustParsePrefix(strings.Replace(net, "%", "1", 1))))
	}
	fail(prober.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.0.0.1")))
	fail(prober.AddRoute(netip.MustParsePrefix("::/0"), netip.MustParseAddr("fd00::1")))
	for text, kind := range map[string]int{
		"10.8.0.0/16": unix.RTN_PROHIBIT, "10.9.0.0/16": unix.RTN_UNREACHABLE,
		"fd08::/16": unix.RTN_PROHIBIT, "fd09::/16": unix.RTN_UNREACHABLE,
	} {
		_, net, err := net.ParseCIDR(text)
		fail(err)
		fail(router.Netlink().RouteAdd(&netlink.Route{Dst: net, Type: kind}))
	}
	// The links carry, and the router is known, before anything is asked once only.
	fail(prober.Do(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		e := newEchoes()
		defer e.close()
		return errors.Join(e.ask(ctx, netip.MustParseAddr("10.0.0.1")), e.ask(ctx, netip.MustParseAddr("fd00::1")))
	}))
	return prober
}

// TestICMPErrors has several probes at once of what a router answers for, by both kinds of
// socket: each hears its own error at once, and those with an answer hear none.
func TestICMPErrors(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ask := func(name string, prober *directortest.Namespace, ping bool) {
		e := newEchoes()
		defer e.close()
		// The sockets are made here, in the namespace; the goroutines use them.
		err := prober.Do(func() error {
			if ping {
				if err := withoutRaw(); err != nil {
					return err
				}
			}
			for _, router := range []string{"10.0.0.1", "fd00::1"} {
				if err := e.ask(ctx, netip.MustParseAddr(router)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if e.sockets[0].ping != ping {
			t.Fatalf("%s: a ping socket: %t", name, !ping)
		}
		wants := map[string]string{
			"10.0.0.1": "no error", "10.8.0.%": "administratively prohibited (ICMP, from 10.0.0.1)", "10.9.0.%": "host unreachable (ICMP, from 10.0.0.1)",
			"fd00::1": "no error", "fd08::%": "administratively prohibited (ICMPv6, from fd00::1)", "fd09::%": "no route (ICMPv6, from fd00::1)",
		}
		var group sync.WaitGroup
		for pattern, want := range wants {
			for _, host := range []string{"1", "2"} {
				group.Go(func() {
					addr := netip.MustParseAddr(strings.Replace(pattern, "%", host, 1))
					if err := e.ask(ctx, addr); text(err) != want {
						t.Errorf("%s of %s: %s, want %s", name, addr, text(err), want)
					}
				})
			}
		}
		group.Wait()
	}
	ask("raw socket", refusingRouter(t), false)
	// Another router: one answers a host five times in a row (kernel: net/ipv4/route.c, ip_error).
	prober := refusingRouter(t)
	if err := prober.Sysctl("net/ipv4/ping_group_range", "0 0"); err != nil {
		t.Fatal(err)
	}
	ask("ping socket", prober, true)
}

// TestUDPErrors expects no answer: that the way there is refused is a failure all the same.
func TestUDPErrors(t *testing.T) {
	prober := refusingRouter(t)
	for server, want := range map[string]string{
		"10.9.0.1:9": "no route to host", "[fd09::1]:9": "network is unreachable", "10.0.0.1:9": "connection refused", "[fd00::1]:9": "connection refused",
	} {
		err := prober.Do(func() error {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			udp, err := NewProber(realserver.Check{Kind: realserver.CheckUDP, Exchange: &realserver.ExchangeCheck{Send: []byte("x")}}, Target{Server: netip.MustParseAddrPort(server)}, nil, Env{})
			if err != nil {
				return err
			}
			defer udp.Close()
			if got := udp.Probe(ctx); text(got.Err) != "wait for an answer: "+want {
				t.Errorf("%s: %s, want %s", server, text(got.Err), want)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
