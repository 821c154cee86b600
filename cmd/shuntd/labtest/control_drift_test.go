package labtest

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// pinned opens a map of the daemon's as bpftool would.
func (d *daemon) pinned(t *testing.T, name string) *ebpf.Map {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(filepath.Join(d.pins, name), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// ok ends the test after an error.
func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// spoil changes one element of a map behind the daemon's back.
func spoil[K, V any](t *testing.T, m *ebpf.Map, key K, edit func(*V)) {
	t.Helper()
	var v V
	if err := m.Lookup(key, &v); err != nil {
		t.Fatal(err)
	}
	edit(&v)
	if err := m.Put(key, &v); err != nil {
		t.Fatal(err)
	}
}

// readPinnedHash reads a map that has keys.
func readPinnedHash[K comparable, V any](t *testing.T, m *ebpf.Map) map[K]V {
	t.Helper()
	all := map[K]V{}
	var k K
	var v V
	entries := m.Iterate()
	for entries.Next(&k, &v) {
		all[k] = v
	}
	ok(t, entries.Err())
	return all
}

// indexed returns the service's key in the kernel and its place.
func (d *daemon) indexed(t *testing.T, vip netip.AddrPort) (bpf.KernelServiceKey, uint32) {
	t.Helper()
	for i, s := range readPinned[bpf.KernelService](t, filepath.Join(d.pins, "services")) {
		is := netip.AddrPortFrom(bpf.ParseAddress(s.Key.Address, s.Key.Family == 6), bpf.Port(s.Key.Port))
		if is == vip && s.Life == uint8(bpf.KernelLifecycleLIFE_LIVE) {
			return s.Key, uint32(i)
		}
	}
	t.Fatalf("the kernel has no service %s", vip)
	return bpf.KernelServiceKey{}, 0
}

// removeAddress is ip address del ADDRESS dev lo.
func removeAddress(t *testing.T, ns *directortest.Namespace, addr netip.Addr) {
	t.Helper()
	lo, err := ns.Netlink().LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	a, err := netlink.ParseAddr(netip.PrefixFrom(addr, addr.BitLen()).String())
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Netlink().AddrDel(lo, a); err != nil {
		t.Fatal(err)
	}
}

// meddled is what the drift tests begin with: clients 10.1.0.0/30 are let in.
const meddled = often + `
services:
  - name: web
    listen: tcp://192.0.2.10:80
    scheduler: rr
    access: {allow: [10.1.0.0/30], deny: [10.1.0.0/16]}
    method: nat
    servers: [{address: 10.2.0.11, weight: 2}, {address: 10.2.0.12}]
  - name: six
    listen: tcp://[2001:db8::10]:80
    scheduler: rr
    method: nat
    servers: [{address: "[fd00:2::b]:8081"}, {address: "[fd00:2::c]:8081"}]
`

// TestDrift has somebody damage the kernel's side while the daemon is stopped,
// so that the damage can be seen, and lets it go on: everything is repaired, told
// and counted, and traffic flows as before.
func TestDrift(t *testing.T) {
	t.Parallel()
	p, _ := newPair(t, 2, meddled, 80, 8081)
	d, six := p.d, netip.AddrPortFrom(vip6, 80)
	held := []*call{p.on(t, 0), p.on(t, 1), mustOpen(t, p.lab.Client, six)}
	outsider := p.lab.ClientAddrs4[2] // 10.1.0.4
	want := inKernel(t, d.pins)
	key, web := d.indexed(t, p.vip)
	access := d.pinned(t, "access")
	set := func() uint32 { // a repair makes another
		set, _ := bpf.ParseAccessWord(readPinned[bpf.KernelService](t, filepath.Join(d.pins, "services"))[web].Access)
		return set
	}
	server := func(t *testing.T, edit func(*bpf.KernelServer)) {
		for i, s := range readPinned[bpf.KernelServer](t, filepath.Join(d.pins, "servers")) {
			if s.Service == web && s.Life == uint8(bpf.KernelLifecycleLIFE_LIVE) {
				spoil(t, d.pinned(t, "servers"), uint32(i), edit)
				return
			}
		}
		t.Fatal("the kernel has no server of web")
	}
	webDead := func(t *testing.T) { refused(t, p.lab.Client, netip.Addr{}, p.vip) }
	sixDead := func(t *testing.T) { refused(t, p.lab.Client, netip.Addr{}, six) }
	for _, damage := range []struct {
		name  string
		do    func(*testing.T)
		shows func(*testing.T) // while nobody repairs it; nil: packets do not
		says  string           // of the event drift
	}{
		// The fast path may still find it by its hint.
		{"service_taken_out_of_the_index", func(t *testing.T) { ok(t, d.pinned(t, "service_index").Delete(key)) }, nil, "add service tcp://192.0.2.10:80"},
		{"service_cleared", func(t *testing.T) {
			spoil(t, d.pinned(t, "services"), web, func(s *bpf.KernelService) { *s = bpf.KernelService{} })
		}, webDead, "add service tcp://192.0.2.10:80"},
		{"weight_of_a_server", func(t *testing.T) { server(t, func(s *bpf.KernelServer) { s.Weight = 77 }) }, nil, "weight 77 → "},
		{"method_of_a_server", func(t *testing.T) {
			server(t, func(s *bpf.KernelServer) { s.Method = uint8(bpf.KernelMethodMETHOD_LOCAL) })
		}, nil, "method local → nat"},
		{"filter_zeroed", func(t *testing.T) {
			spoil(t, d.pinned(t, "filter"), uint32(0), func(f *bpf.KernelFilter) { *f = bpf.KernelFilter{} })
		}, func(t *testing.T) { webDead(t); sixDead(t) }, "add service tcp://[2001:db8::10]:80"},
		{"prefix_taken_from_the_access_list", func(t *testing.T) {
			ok(t, access.Delete(bpf.AccessKey(set(), netip.MustParsePrefix("10.1.0.0/30"))))
		}, webDead, "allow "},
		{"prefix_added_to_the_access_list", func(t *testing.T) {
			ok(t, access.Put(bpf.AccessKey(set(), netip.MustParsePrefix("10.1.0.4/32")), uint32(bpf.KernelAccessVerdictACCESS_ALLOW)))
		}, func(t *testing.T) {
			_, err := job{from: netip.AddrPortFrom(outsider, 0), address: p.vip}.run(p.lab.Client)
			ok(t, err)
		}, "allow 10.1.0.0/30,10.1.0.4/32 → 10.1.0.0/30"},
		{"virtual_address_taken_off_the_host", func(t *testing.T) { removeAddress(t, p.lab.Director, vip4) }, nil, "vip external → managed"},
		{"virtual_IPv6_address_taken_off_the_host", func(t *testing.T) { removeAddress(t, p.lab.Director, vip6) }, nil, "vip external → managed"},
	} {
		t.Run(damage.name, func(t *testing.T) {
			before, last := d.drift(t), d.lastEvent(t)
			d.whilePaused(t, func() {
				damage.do(t)
				if damage.shows != nil {
					damage.shows(t)
				}
			})
			await(t, "it is repaired", func() bool { return d.drift(t).Repaired > before.Repaired })
			d.compared(t, 1)
			after := d.drift(t)
			if after.Found-before.Found != after.Repaired-before.Repaired || len(after.Pending)+len(after.Foreign) > 0 || after.Failed > 0 {
				t.Errorf("drift %+v, before %+v", after, before)
			}
			d.tells(t, last, "drift", damage.says)
			d.tells(t, last, "repaired", damage.says)
			if diff := cmp.Diff(want, inKernel(t, d.pins)); diff != "" {
				t.Errorf("the kernel (-before the damage +after the repair):\n%s", diff)
			}
			p.serves(t, six)
			if how := refused(t, p.lab.Client, outsider, p.vip); how != "nothing" {
				t.Errorf("a client that is kept out got %s", how)
			}
			for _, vip := range []netip.Addr{vip4, vip6} {
				if !hasAddress(t, p.lab.Director, "lo", vip) {
					t.Errorf("%s is not on lo", vip)
				}
			}
			for _, c := range held {
				ok(t, c.ask())
			}
		})
	}
	s := read[api.Status](t, d, "status").Drift
	if s.Found < 9 || s.Repaired != s.Found || s.Failed > 0 || len(s.Pending) > 0 {
		t.Errorf("status has drift %+v", s)
	}
	if text := d.shunt(t, "status"); !strings.Contains(text, fmt.Sprintf("%d found, %d repaired", s.Found, s.Repaired)) {
		t.Errorf("status prints:\n%s", text)
	}
	d.noFaults(t, "access-denied")
}

// serves wants both servers of web to answer in turn, and those of the other.
func (p pair) serves(t *testing.T, others ...netip.AddrPort) {
	t.Helper()
	for _, to := range append(others, p.vip) {
		var jobs []job
		for range 6 {
			jobs = append(jobs, job{service: to.String(), address: to, size: 100})
		}
		answers := send(t, p.lab.Client, jobs, 1)[to.String()]
		if answers[p.lab.Servers[0].Name] != 3 || answers[p.lab.Servers[1].Name] != 3 {
			t.Errorf("%s is answered by %v, want both servers in turn", to, answers)
		}
	}
}
