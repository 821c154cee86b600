package xdp

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// Every setting of a service is in its entry and is read back from there.
func TestServiceEntry(t *testing.T) {
	seconds := rapid.Custom(func(t *rapid.T) time.Duration {
		return time.Duration(rapid.IntRange(0, 31*24*3600).Draw(t, "seconds")) * time.Second
	})
	rapid.Check(t, func(t *rapid.T) {
		flag := func(what string) bool { return rapid.Bool().Draw(t, what) }
		want := settings{
			name:        rapid.StringMatching(`[a-z][a-z0-9]{0,62}`).Draw(t, "name"),
			scheduler:   rapid.SampledFrom(director.Schedulers()).Draw(t, "scheduler"),
			flags:       director.SchedulerFlags{Port: flag("port"), Fallback: flag("fallback"), Third: flag("flag-3")},
			vip:         rapid.SampledFrom([]director.VIPOwner{director.VIPManaged, director.VIPExternal}).Draw(t, "vip"),
			persistence: director.Persistence{Timeout: seconds.Draw(t, "persistence"), Prefix: uint8(rapid.IntRange(0, 32).Draw(t, "prefix"))},
			onePacket:   flag("one-packet"),
			mss:         rapid.Uint16().Draw(t, "mss"),
			timeouts:    conntrack.Timeouts{TCP: seconds.Draw(t, "tcp"), TCPFin: seconds.Draw(t, "tcp-fin"), UDP: seconds.Draw(t, "udp")},
			rules: director.Rules{
				SloppyTCP: flag("sloppy"), ExpireNoDestConn: flag("nodest"), ExpireQuiescentTemplate: flag("quiescent"),
				ConnReuse: rapid.SampledFrom([]director.ReuseMode{director.ReuseClosed, director.ReuseNever, director.ReuseFinWait}).Draw(t, "reuse"),
			},
		}
		key := director.ServiceKey{
			Protocol: conntrack.UDP, Address: netip.MustParseAddrPort("192.0.2.0:8000"),
			Bits: uint8(rapid.IntRange(0, 31).Draw(t, "bits")), LastPort: uint16(rapid.SampledFrom([]int{0, 8999}).Draw(t, "last port")),
		}
		svc := &service{index: 7, key: key, settings: want, removed: flag("removed"), migration: rapid.SampledFrom([]migration{settled, begun, held}).Draw(t, "migration")}
		k := kernelService(svc)
		got := parseService(7, &k)
		if got.settings != want || got.key != key || got.removed != svc.removed || (got.migration == begun) != (svc.migration != settled) {
			t.Errorf("read back %+v of %v, removed %v; written %+v of %v", got.settings, got.key, got.removed, want, key)
		}
		if persistent := schedule(&k).Flags&uint16(bpf.KernelServiceFlagsSERVICE_PERSISTENT) != 0; persistent != (want.persistence.Timeout != 0) {
			t.Errorf("flag of persistence: %v, timeout %v", persistent, want.persistence.Timeout)
		}
	})
}

// The mask is of the bits as they lie in memory.
func TestClientMask(t *testing.T) {
	for _, test := range []struct {
		address string
		prefix  uint8
		want    string
	}{
		{"198.51.100.77", 32, "198.51.100.77"},
		{"198.51.100.77", 24, "198.51.100.0"},
		{"198.51.100.77", 0, "0.0.0.0"},
		{"2001:db8:1:2:3:4:5:6", 128, "2001:db8:1:2:3:4:5:6"},
		{"2001:db8:1:2:3:4:5:6", 52, "2001:db8:1::"},
		{"2001:db8:1:2:3:4:5:6", 56, "2001:db8:1::"},
		{"2001:db8:1:2:3:4:5:6", 63, "2001:db8:1:2::"},
	} {
		addr := netip.MustParseAddr(test.address)
		words, mask := bpf.Address(addr), clientMask(addr.Is6(), test.prefix)
		for i := range words {
			words[i] &= mask[i]
		}
		if got := bpf.ParseAddress(words, addr.Is6()); got.String() != test.want {
			t.Errorf("%s/%d: the network is %s, want %s", test.address, test.prefix, got, test.want)
		}
	}
}

// Own timeouts stand in the place of the director's where there are any, a
// template's is the persistence's.
func TestTimeoutSet(t *testing.T) {
	r := newRig(t, Options{})
	clock := r.plane.Clock
	all := conntrack.Timeouts{TCP: 100 * time.Second, TCPFin: 10 * time.Second, UDP: 20 * time.Second}
	s := settings{
		timeouts:    conntrack.Timeouts{TCPFin: 7 * time.Second},
		persistence: director.Persistence{Timeout: 300 * time.Second, Prefix: 32},
	}
	got := timeoutSet(&s, clock, all)
	want := bpf.KernelTimeoutSet{}
	for _, state := range conntrack.States() {
		want.Ticks[state] = clock.Ticks(all.Of(state))
	}
	want.Ticks[bpf.KernelConnStateSTATE_FIN_WAIT] = clock.Ticks(7 * time.Second)
	want.Ticks[bpf.KernelConnStateSTATE_TEMPLATE] = clock.Ticks(300 * time.Second)
	if diff := cmp.Diff(want.Ticks, got.Ticks); diff != "" {
		t.Errorf("set (-want +got):\n%s", diff)
	}
}
