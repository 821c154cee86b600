package xdp

import (
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
)

// wideRepairRig is a rig with services one within another.
func wideRepairRig(t *testing.T) *repairRig {
	t.Helper()
	r := &repairRig{rig: newRig(t, Options{}), store: new(directortest.Store)}
	var services []director.Service
	for i, text := range []string{
		"tcp://192.0.2.0/24:80", "tcp://192.0.2.16/28:80-90", "tcp://192.0.2.17:70-99", "tcp://192.0.2.17:80",
		"tcp://10.64.0.0/12:443", "tcp://[2001:db8::]:5-6", "tcp://[2001:db8::/64]:5",
	} {
		s := wideService(wideKey(t, text), i+1)
		s.VIP = director.VIPManaged
		services = append(services, s)
	}
	r.director = director.New(r.Dataplane, r.store, director.Options{})
	if err := r.director.Start(t.Context(), director.State{Services: services}, director.Request{}); err != nil {
		t.Fatal(err)
	}
	r.want = r.director.State()
	r.sameWide()
	return r
}

// sameWide holds that all is found, and that packets find it.
func (r *repairRig) sameWide() {
	r.t.Helper()
	if d := cmp.Diff(r.want, r.found(), plain); d != "" {
		r.t.Fatalf("found (-want +got):\n%s", d)
	}
	services := map[director.ServiceKey]director.Service{}
	for _, s := range r.want.Services {
		services[s.Key] = s
	}
	for _, text := range []string{
		"192.0.2.1:80", "192.0.2.16:80", "192.0.2.16:90", "192.0.2.17:80", "192.0.2.17:81", "192.0.2.17:99", "192.0.2.200:80",
		"10.64.0.1:443", "10.79.255.254:443", "[2001:db8::]:5", "[2001:db8::]:6", "[2001:db8::1]:5", "[2001:db8::ffff:0:0:1]:5",
	} {
		to := netip.MustParseAddrPort(text)
		r.clients++
		client := netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), uint16(2000+r.clients))
		if to.Addr().Is6() {
			client = netip.AddrPortFrom(netip.MustParseAddr("2001:db8:c::7"), client.Port())
		}
		want, _ := mostSpecific(services, to)
		if server, ok := r.syn(client, to); !ok || server != want.Servers[0].Address {
			r.t.Errorf("%s goes to %s (%v), want %s's", to, server, ok, want.Key)
		}
	}
}

// wideDamages is what somebody else may do.
func wideDamages(r *repairRig) map[string]func(m *bpf.KernelMaps) {
	key := func(text string) bpf.KernelMatchKey { return bpf.MatchKey(6, netip.MustParsePrefix(text)) }
	matchOf := func(m *bpf.KernelMaps, text string) (match bpf.KernelMatch) {
		r.ok(m.Matches.Lookup(key(text), &match))
		return match
	}
	index := func(text string) uint32 { return r.model.byKey[wideKey(r.t, text)].index }
	return map[string]func(m *bpf.KernelMaps){
		"prefix gone":         func(m *bpf.KernelMaps) { r.ok(m.Matches.Delete(key("192.0.2.16/28"))) },
		"prefix of IPv6 gone": func(m *bpf.KernelMaps) { r.ok(m.Matches.Delete(key("2001:db8::/64"))) },
		"prefix with another's ranges": func(m *bpf.KernelMaps) {
			other := matchOf(m, "10.64.0.0/12")
			r.ok(m.Matches.Put(key("192.0.2.0/24"), &other))
		},
		"fewer ranges": func(m *bpf.KernelMaps) {
			match := matchOf(m, "192.0.2.17/32")
			match.Ranges--
			r.ok(m.Matches.Put(key("192.0.2.17/32"), &match))
		},
		"ranges beyond the words": func(m *bpf.KernelMaps) {
			r.ok(m.Matches.Put(key("192.0.2.0/24"), &bpf.KernelMatch{List: 0xffffff00, Ranges: 0xffffffff}))
		},
		"ports": func(m *bpf.KernelMaps) {
			r.ok(m.Words.Put(matchOf(m, "192.0.2.16/28").List, bpf.PortsWord(1, 2)))
		},
		"service in the words": func(m *bpf.KernelMaps) {
			r.ok(m.Words.Put(matchOf(m, "192.0.2.0/24").List+1, index("tcp://10.64.0.0/12:443")))
		},
		"stray prefix over some addresses": func(m *bpf.KernelMaps) {
			r.ok(m.Matches.Put(key("192.0.2.128/25"), &bpf.KernelMatch{}))
		},
		"stray prefix longer than an address": func(m *bpf.KernelMaps) {
			k := key("192.0.2.1/32")
			k.Bits += 8
			r.ok(m.Matches.Put(k, &bpf.KernelMatch{}))
		},
		"length of the prefix": func(m *bpf.KernelMaps) {
			var k bpf.KernelService
			r.ok(m.Services.Lookup(index("tcp://192.0.2.0/24:80"), &k))
			k.Prefix++
			r.ok(m.Services.Put(index("tcp://192.0.2.0/24:80"), &k))
		},
		"last port": func(m *bpf.KernelMaps) {
			var k bpf.KernelService
			r.ok(m.Services.Lookup(index("tcp://192.0.2.17:70-99"), &k))
			k.LastPort++
			r.ok(m.Services.Put(index("tcp://192.0.2.17:70-99"), &k))
		},
		"mark of the service": func(m *bpf.KernelMaps) {
			var k bpf.KernelService
			r.ok(m.Services.Lookup(index("tcp://192.0.2.17:70-99"), &k))
			schedule(&k).Flags &^= uint16(bpf.KernelServiceFlagsSERVICE_WIDE)
			r.ok(m.Services.Put(index("tcp://192.0.2.17:70-99"), &k))
		},
	}
}

func TestReconcileRepairsWideServices(t *testing.T) {
	r := wideRepairRig(t)
	damages := map[string]func(){
		"filter": func() {
			f := *r.model.filter.words
			f.VirtualAddress[7] = 0
			r.ok(r.plane.SetFilter(&f))
		},
		"local route":         func() { r.removeRoute("192.0.2.16/28") },
		"local route of IPv6": func() { r.removeRoute("2001:db8::/64") },
		"address":             func() { r.removeAddress("192.0.2.17/32") },
	}
	for name, damage := range wideDamages(r) {
		damages[name] = func() { damage(&r.plane.KernelMaps) }
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			r.t = t
			before := r.director.Drift()
			damage()
			if cmp.Diff(r.want, r.found(), plain) == "" {
				t.Fatal("Found does not see it")
			}
			r.ok(r.director.Reconcile(t.Context()))
			if drift := r.director.Drift(); len(drift.Pending) > 0 || drift.Failed > before.Failed || drift.Repaired == before.Repaired {
				t.Fatalf("drift %+v, before %+v", drift, before)
			}
			r.sameWide()
			again := r.director.Drift()
			r.ok(r.director.Reconcile(t.Context()))
			if after := r.director.Drift(); after.Repaired != again.Repaired {
				t.Errorf("repaired %d times more", after.Repaired-again.Repaired)
			}
		})
	}
}

// removeRoute is ip route del local PREFIX dev lo.
func (r *repairRig) removeRoute(prefix string) {
	r.t.Helper()
	r.ok(r.vips.Remove(netip.MustParsePrefix(prefix)))
}

// What was spoilt while no daemon ran is put right by the start.
func TestStartRepairsWideServices(t *testing.T) {
	r := wideRepairRig(t)
	for name, damage := range wideDamages(r) {
		if name == "length of the prefix" || name == "last port" || name == "mark of the service" {
			continue // what the service is stands there alone: it is the director that knows
		}
		t.Run(name, func(t *testing.T) {
			r.t = t
			var maps bpf.KernelMaps
			for to, from := range map[**ebpf.Map]*ebpf.Map{
				&maps.Services: r.plane.Services, &maps.Words: r.plane.Words, &maps.Matches: r.plane.Matches,
			} {
				clone, err := from.Clone()
				r.ok(err)
				defer clone.Close()
				*to = clone
			}
			r.ok(r.Close())
			damage(&maps)
			r.open()
			r.sameWide()
		})
	}
}
