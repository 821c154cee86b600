package xdp

import (
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/director"
)

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// restricted is a service with a list.
func restricted(access director.Access) director.Service {
	service := testService(director.RoundRobin, director.SchedulerFlags{})
	service.Access = access.Normalize()
	return service
}

func (r *rig) entries() []bpf.AccessEntry {
	r.t.Helper()
	entries, err := r.plane.AccessEntries()
	if err != nil {
		r.t.Fatal(err)
	}
	return entries
}

func (r *rig) foundAccess() director.Access {
	r.t.Helper()
	found, err := r.Found(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return found.Services[0].Access
}

// denied sends a client's first segment and says whether the list refused it.
func (r *rig) denied(client, vip netip.AddrPort) bool {
	r.t.Helper()
	return r.send(bpftest.Packet{From: client, To: vip, Flags: "S"}) == bpftest.Drop
}

// Whatever the list, the program decides as director.Access does, Found reads it
// back, and nothing of the list before is left in the trie.
func TestAccessDecidesAsTheDomain(t *testing.T) {
	r := newRig(t, Options{})
	for _, family := range []struct{ vip, base string }{{"192.0.2.1:80", "198.51.100.0"}, {"[2001:db8::1]:80", "2001:db8:c::"}} {
		vip, base := netip.MustParseAddrPort(family.vip), netip.MustParseAddr(family.base)
		service := restricted(director.Access{})
		service.Key.Address = vip
		server := local(1, 1)
		if vip.Addr().Is6() {
			server.Address = netip.MustParseAddrPort("[fd00::1]:80")
		}
		r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: server})
		port := uint16(1024)
		rapid.Check(t, func(t *rapid.T) {
			address := func() netip.Addr {
				b := base.AsSlice()
				b[len(b)-1] = rapid.Byte().Draw(t, "octet")
				b[len(b)-2] ^= rapid.SampledFrom([]byte{0, 0, 1, 128}).Draw(t, "octet before")
				a, _ := netip.AddrFromSlice(b)
				return a
			}
			seen := map[netip.Prefix]bool{}
			list := func(name string) (all []netip.Prefix) {
				for range rapid.IntRange(0, 5).Draw(t, name) {
					bits := rapid.SampledFrom([]int{0, 15, 16, 24, 25, 28, 31, 32}).Draw(t, "bits")
					if vip.Addr().Is6() && bits > 0 {
						bits += 96
					}
					p := netip.PrefixFrom(address(), bits).Masked()
					if !seen[p] {
						all = append(all, p)
					}
					seen[p] = true
				}
				return all
			}
			service := restricted(director.Access{Allow: list("allow"), Deny: list("deny")})
			service.Key.Address = vip
			r.must(director.EditService{Service: service})
			if diff := cmp.Diff(service.Access, r.foundAccess(), plain); diff != "" {
				t.Fatalf("found (-want +got):\n%s", diff)
			}
			if got, want := len(r.entries()), len(service.Access.Allow)+len(service.Access.Deny); got != want {
				t.Fatalf("%d prefixes in the trie, want %d", got, want)
			}
			for range 4 {
				port = max(1024, port+1)
				client := netip.AddrPortFrom(address(), port)
				if got, want := r.denied(client, vip), !service.Access.Allows(client.Addr()); got != want {
					t.Fatalf("%s denied: %v, want %v, by %+v", client, got, want, service.Access)
				}
			}
		})
		r.must(director.RemoveService{Key: service.Key})
		if left := r.entries(); len(left) > 0 {
			t.Errorf("the service is gone, and %d prefixes are left", len(left))
		}
	}
}

// While a list is replaced again and again no client is judged by a part of one.
func TestAccessChangesAtOnce(t *testing.T) {
	r := newRig(t, Options{})
	lists := []director.Access{
		{Allow: prefixes("198.51.100.7/32")},
		{Allow: prefixes("0.0.0.0/0"), Deny: prefixes("203.0.113.0/24")},
		{Deny: prefixes("128.0.0.0/1", "203.0.113.9/32"), Allow: prefixes("198.51.0.0/16")},
		{Deny: prefixes("203.0.113.9/32")},
	}
	service := restricted(lists[0])
	r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: local(1, 1)})
	var stop, failed atomic.Bool
	done := make(chan int)
	go func() {
		n := 0
		for ; !stop.Load(); n++ {
			port := uint16(1024 + n%60000)
			if r.denied(netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), port), service.Key.Address) ||
				!r.denied(netip.AddrPortFrom(netip.MustParseAddr("203.0.113.9"), port), service.Key.Address) {
				failed.Store(true)
			}
		}
		done <- n
	}()
	for i := range 2000 {
		r.must(director.EditService{Service: restricted(lists[i%len(lists)])})
	}
	stop.Store(true)
	if n := <-done; n < 100 {
		t.Errorf("%d packets: there was no race", n)
	}
	if failed.Load() {
		t.Error("a client was judged by a part of a list")
	}
}

// Established connections go on when their client is denied.
func TestAccessKeepsConnections(t *testing.T) {
	r := newRig(t, Options{})
	service := restricted(director.Access{})
	r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: local(1, 1)})
	client := netip.MustParseAddrPort("198.51.100.7:4000")
	if _, ok := r.syn(client, service.Key.Address); !ok {
		t.Fatal("no connection was made")
	}
	r.must(director.EditService{Service: restricted(director.Access{Deny: prefixes("198.51.100.0/24")})})
	if got := r.send(bpftest.Packet{From: client, To: service.Key.Address, Flags: "A"}); got != bpftest.Pass {
		t.Errorf("the connection: %v", got)
	}
	if !r.denied(netip.AddrPortFrom(client.Addr(), 4001), service.Key.Address) {
		t.Error("a new connection was let in")
	}
}

// A list that does not fit is refused, and the one in force stays; what a killed
// daemon left of a list is deleted by the next.
func TestAccessLimitAndRestart(t *testing.T) {
	r := newRig(t, Options{MaxAccessPrefixes: 5})
	first := restricted(director.Access{Allow: prefixes("198.51.100.0/24"), Deny: prefixes("198.51.0.0/16", "203.0.113.0/24")})
	r.must(director.AddService{Service: first})
	err := r.Apply(t.Context(), []director.Operation{director.EditService{Service: restricted(director.Access{Deny: prefixes("10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8")})}})
	var failed *director.OperationError
	if !errors.Is(err, director.ErrFull) || !errors.As(err, &failed) {
		t.Fatalf("six prefixes where five fit: %v", err)
	}
	if diff := cmp.Diff(first.Access, r.foundAccess(), plain); diff != "" {
		t.Errorf("after a failure (-want +got):\n%s", diff)
	}
	if got := len(r.entries()); got != 3 {
		t.Errorf("%d prefixes in the trie, want 3", got)
	}
	// As if killed after a set was written and before it was in force.
	for _, p := range prefixes("10.0.0.0/8", "11.0.0.0/8") {
		if err := r.plane.Access.Put(bpf.AccessKey(2, p), uint32(1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	if diff := cmp.Diff(first.Access, r.foundAccess(), plain); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
	if got := len(r.entries()); got != 3 {
		t.Errorf("%d prefixes in the trie after a restart, want 3", got)
	}
	r.must(director.EditService{Service: restricted(director.Access{Deny: prefixes("10.0.0.0/8", "11.0.0.0/8")})})
	r.must(director.EditService{Service: restricted(director.Access{})})
	if got := r.entries(); len(got) > 0 {
		t.Errorf("no list, but %d prefixes", len(got))
	}
}
