package xdp

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

// Whatever comes and goes, the filter has the bits of all addresses that are there, and
// all bits as long as a large prefix is.
func TestFilterCounts(t *testing.T) {
	const seed = 3
	random := rand.New(rand.NewPCG(seed, 9))
	f := newFilter()
	var there []netip.Prefix
	for step := range 600 {
		if len(there) > 0 && random.IntN(5) < 2 {
			i := random.IntN(len(there))
			f.virtual.drop(there[i])
			there = append(there[:i], there[i+1:]...)
		} else {
			bits := 20 + random.IntN(13)
			if random.IntN(20) == 0 {
				bits = 8 + random.IntN(12)
			}
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(random.IntN(2)), byte(random.IntN(256)), byte(random.IntN(256))}), bits).Masked()
			f.virtual.add(p)
			there = append(there, p)
		}
		want := newFilter()
		for _, p := range there {
			want.virtual.add(p)
			if !has(f.virtual.words, p) {
				t.Fatalf("seed %d, step %d: %s is not let through", seed, step, p)
			}
		}
		if *want.virtual.words != *f.virtual.words {
			t.Fatalf("seed %d, step %d: the filter is not that of %v", seed, step, there)
		}
	}
	for _, p := range there {
		f.virtual.drop(p)
	}
	if *f.virtual.words != (filterBits{}) || len(f.virtual.uses) != 0 {
		t.Error("bits are left of what is gone")
	}
	if *f.server.words != (filterBits{}) {
		t.Error("the servers' half has bits")
	}
}

func TestFilterOfLargePrefixes(t *testing.T) {
	for text, want := range map[string]bool{
		"10.0.0.0/20": false, "10.0.0.0/19": true, "10.0.0.0/8": true, "10.0.0.1/32": false,
		"2001:db8::/116": false, "2001:db8::/115": true, "2001:db8::/64": true, "2001:db8::1/128": false,
	} {
		p := netip.MustParsePrefix(text)
		if got := isLarge(p); got != want {
			t.Errorf("%s is large: %v, want %v", p, got, want)
		}
		f := newFilter()
		if has(f.virtual.words, p) {
			t.Errorf("%s is let through by an empty filter", p)
		}
		f.virtual.add(p)
		if !has(f.virtual.words, p) || !has(f.virtual.words, host(p.Addr())) {
			t.Errorf("%s is not let through", p)
		}
		if other := host(netip.MustParseAddr("192.0.2.99")); has(f.virtual.words, other) != want {
			t.Errorf("with %s, %s is let through: %v, want %v", p, other, !want, want)
		}
	}
}
