package xdp

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

// A real client gets through a guard: it resets what it cannot have asked for, sends
// its first segment again, and is known from then on.
func TestGuardLetsRealClientsIn(t *testing.T) {
	r := newRig(t, Options{})
	// What the driver sends back needs a program at the other end (kernel:
	// drivers/net/veth.c, veth_xdp_xmit).
	pass, err := r.peer.AttachPass("eth0")
	if err != nil {
		t.Fatal(err)
	}
	defer pass.Close()
	for _, family := range []struct{ listen, director, client string }{
		{"192.0.2.1:80", "10.0.0.254/24", "10.0.0.200"},
		{"[2001:db8::1]:80", "fd00::254/64", "fd00::200"},
	} {
		t.Run(family.listen, func(t *testing.T) {
			vip, gateway := netip.MustParseAddrPort(family.listen), netip.MustParsePrefix(family.director)
			client := netip.MustParseAddr(family.client)
			bits := vip.Addr().BitLen()
			for _, err := range []error{
				r.ns.AddAddress("lo", netip.PrefixFrom(vip.Addr(), bits)),
				addUnlessThere(r.ns, gateway),
				addUnlessThere(r.peer, netip.PrefixFrom(client, gateway.Bits())),
				r.peer.AddRoute(netip.PrefixFrom(vip.Addr(), bits), gateway.Addr()),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			web, err := r.ns.Listen(t.Context(), vip)
			if err != nil {
				t.Fatal(err)
			}
			defer web.Close()
			service := director.Service{
				Key: director.ServiceKey{Protocol: conntrack.TCP, Address: vip}, Scheduler: director.RoundRobin,
				VIP: director.VIPExternal, Guard: director.SourceGuard{Mode: director.GuardOn},
			}
			r.must(director.AddService{Service: service}, director.AddServer{
				Key: service.Key, Server: realserver.Server{Address: netip.AddrPortFrom(gateway.Addr(), 80), Method: realserver.Local, Weight: 1},
			})
			for i := range 3 {
				begin := time.Now()
				conn, err := r.peer.Dial(t.Context(), "tcp", netip.AddrPortFrom(client, 0), vip)
				if err != nil {
					t.Fatalf("connection %d: %v", i, err)
				}
				t.Logf("connection %d after %v", i, time.Since(begin))
				defer conn.Close()
				served, err := web.Accept()
				if err != nil {
					t.Fatal(err)
				}
				served.Close()
			}
			if got := r.stats(service.Key).Guard; got.Challenged == 0 || got.Validated != 1 {
				t.Errorf("%+v, want one client that answered", got)
			}
		})
	}
}

func addUnlessThere(ns *directortest.Namespace, prefix netip.Prefix) error {
	if err := ns.AddAddress("eth0", prefix); !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}
