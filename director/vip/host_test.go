package vip

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
)

// open returns the addresses of a namespace of their own.
func open(t *testing.T) (*Host, *directortest.Namespace) {
	t.Helper()
	directortest.Privileged(t)
	ns, err := directortest.NewNamespace("director")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	var host *Host
	if err := ns.Do(func() (err error) {
		host, err = Open()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(host.Close)
	return host, ns
}

// has compares what is on the host by our doing; ::1 on lo looks like ours.
func has(t *testing.T, h *Host, want ...string) {
	t.Helper()
	addresses, err := h.Addresses()
	if err != nil {
		t.Fatal(err)
	}
	prefixes, err := h.Prefixes()
	if err != nil {
		t.Fatal(err)
	}
	delete(addresses, netip.MustParsePrefix("::1/128"))
	wanted, got := map[string]bool{}, map[string]bool{}
	for _, p := range want {
		wanted[p] = true
	}
	for _, found := range []map[netip.Prefix]bool{addresses, prefixes} {
		for p := range found {
			got[p.String()] = true
		}
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Errorf("on the host (-want +got):\n%s", diff)
	}
}

func TestAddAndRemove(t *testing.T) {
	h, _ := open(t)
	all := []string{"192.0.2.1/32", "2001:db8::1/128", "198.51.100.0/24", "2001:db8:1::/64"}
	for i, text := range all {
		p := netip.MustParsePrefix(text)
		for try, want := range []bool{true, false} { // what is there stays
			if added, err := h.Add(p); added != want || err != nil {
				t.Errorf("add %s, try %d: %t, %v", p, try, added, err)
			}
			h.Forget()
		}
		has(t, h, all[:i+1]...)
	}
	for i, text := range all {
		for try := range 2 { // what is not there is gone
			if err := h.Remove(netip.MustParsePrefix(text)); err != nil {
				t.Errorf("remove %s, try %d: %v", text, try, err)
			}
		}
		has(t, h, all[i+1:]...)
	}
	// Without a Forget in between: what Add was told by the kernel stands.
	p := netip.MustParsePrefix(all[0])
	for range 2 {
		if added, err := h.Add(p); !added || err != nil {
			t.Errorf("add after remove: %t, %v", added, err)
		}
		if err := h.Remove(p); err != nil {
			t.Error(err)
		}
	}
}

func TestForeignAddressesAreLeftAlone(t *testing.T) {
	h, ns := open(t)
	peer, err := directortest.NewNamespace("peer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := peer.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := ns.AddVeth("eth0", peer, "eth0", 1500); err != nil {
		t.Fatal(err)
	}
	for _, foreign := range []struct{ device, address string }{
		{"lo", "192.0.2.1/32"}, // without our label
		{"lo", "198.51.100.2/24"},
		{"eth0", "203.0.113.3/32"},
		{"eth0", "2001:db8::3/128"},
	} {
		t.Run(foreign.device+" "+foreign.address, func(t *testing.T) {
			theirs := netip.MustParsePrefix(foreign.address)
			if err := ns.AddAddress(foreign.device, theirs); err != nil {
				t.Fatal(err)
			}
			has(t, h)
			h.Forget()
			alone := netip.PrefixFrom(theirs.Addr(), theirs.Addr().BitLen())
			around, _ := theirs.Addr().Prefix(alone.Bits() - 8)
			for _, p := range []netip.Prefix{alone, around} {
				if added, err := h.Add(p); added || !errors.Is(err, director.ErrExists) {
					t.Errorf("add %s: %t, %v", p, added, err)
				}
			}
			if theirs.Addr().Is4() {
				if err := h.Remove(alone); err != nil {
					t.Error(err)
				}
				if added, err := h.Add(alone); added || !errors.Is(err, director.ErrExists) {
					t.Errorf("gone with our own: add %s: %t, %v", alone, added, err)
				}
			}
		})
	}
}

func TestForeignRoutesAreLeftAlone(t *testing.T) {
	h, ns := open(t)
	for _, text := range []string{"192.0.2.0/24", "2001:db8::/64"} {
		p := netip.MustParsePrefix(text)
		theirs := h.hostRoute(p)
		theirs.Protocol = 4 // RTPROT_STATIC
		if err := ns.Netlink().RouteAdd(theirs); err != nil {
			t.Fatal(err)
		}
		has(t, h)
		if added, err := h.Add(p); added || !errors.Is(err, director.ErrExists) {
			t.Errorf("add %s: %t, %v", p, added, err)
		}
		if err := ns.Netlink().RouteDel(theirs); err != nil {
			t.Errorf("the route of somebody else's is gone: %v", err)
		}
	}
}
