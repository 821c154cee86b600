package nexthop

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// attribute is a struct rtattr with its padding.
func attribute(kind uint16, value ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(sizeofRtattr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, (4-len(b)%4)%4)...)
}

func ndmsg(family, flags byte, state uint16, attributes ...[]byte) []byte {
	b := binary.NativeEndian.AppendUint32([]byte{family, 0, 0, 0}, 7)
	b = append(binary.NativeEndian.AppendUint16(b, state), flags, 0)
	for _, a := range attributes {
		b = append(b, a...)
	}
	return b
}

func TestDecodeNeighbour(t *testing.T) {
	mac := [6]byte{2, 0, 0, 0, 0, 5}
	dst, lladdr := attribute(unix.NDA_DST, 10, 0, 0, 5), attribute(unix.NDA_LLADDR, mac[:]...)
	managed := attribute(ndaFlagsExt, binary.NativeEndian.AppendUint32(nil, ntfExtManaged)...)
	key := neighbourKey{7, netip.MustParseAddr("10.0.0.5")}
	for _, tt := range []struct {
		name string
		in   []byte
		key  neighbourKey
		want neighbour
		bad  bool
	}{
		{"reachable", ndmsg(unix.AF_INET, 0, unix.NUD_REACHABLE, dst, lladdr), key, neighbour{state: unix.NUD_REACHABLE, mac: mac}, false},
		{"managed", ndmsg(unix.AF_INET, 0, unix.NUD_STALE, lladdr, managed, dst), key, neighbour{state: unix.NUD_STALE, mac: mac, managed: true}, false},
		{"failed", ndmsg(unix.AF_INET, 0, unix.NUD_FAILED, dst), key, neighbour{state: unix.NUD_FAILED}, false},
		{"not Ethernet", ndmsg(unix.AF_INET, 0, unix.NUD_STALE, dst, attribute(unix.NDA_LLADDR, 1, 2, 3, 4)), key, neighbour{state: unix.NUD_STALE}, false},
		{"a bridge's", ndmsg(unix.AF_BRIDGE, 0, unix.NUD_STALE, lladdr), neighbourKey{}, neighbour{}, false},
		{"a proxy's", ndmsg(unix.AF_INET, ntfProxy, 0, dst), neighbourKey{}, neighbour{}, false},
		{"without address", ndmsg(unix.AF_INET, 0, unix.NUD_STALE, lladdr), neighbourKey{}, neighbour{}, true},
		{"address of the other family", ndmsg(unix.AF_INET6, 0, unix.NUD_STALE, dst), neighbourKey{}, neighbour{}, true},
		{"attribute too long", append(ndmsg(unix.AF_INET, 0, unix.NUD_STALE, dst), 9, 9, 9, 9), neighbourKey{}, neighbour{}, true},
		{"short header", make([]byte, sizeofNdmsg-1), neighbourKey{}, neighbour{}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			gotKey, got, err := decodeNeighbour(tt.in)
			if gotKey != tt.key || got != tt.want || (err != nil) != tt.bad {
				t.Errorf("got %+v %+v %v, want %+v %+v, bad %t", gotKey, got, err, tt.key, tt.want, tt.bad)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(ndmsg(unix.AF_INET, 0, unix.NUD_STALE, attribute(unix.NDA_DST, 10, 0, 0, 5)))
	f.Add(append(make([]byte, sizeofIfinfomsg), attribute(unix.IFLA_IFNAME, 'e', 't', 'h', '0', 0)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if key, _, err := decodeNeighbour(b); err == nil && key.iface != 0 && !key.addr.IsValid() {
			t.Errorf("neighbour without address from %x", b)
		}
		if _, _, err := decodeLink(b); err != nil && len(b) >= sizeofIfinfomsg && !errors.Is(err, errShort) {
			t.Errorf("link %x: %v", b, err)
		}
		isClone(b)
	})
}

func TestFailedNeedsAllNeighboursWithTheAddress(t *testing.T) {
	one := neighbourKey{7, netip.MustParseAddr("10.0.0.5")}
	two := neighbourKey{7, netip.MustParseAddr("fe80::5")}
	mac, other := [6]byte{2, 5}, [6]byte{2, 6}
	var table neighbourTable
	check := func(step string, want bool) {
		t.Helper()
		if got := table.failed(7, mac); got != want {
			t.Errorf("%s: failed is %t, want %t", step, got, want)
		}
		if table.failed(8, mac) {
			t.Errorf("%s: failed on another interface", step)
		}
	}
	check("empty", false)
	table.set(one, neighbour{state: unix.NUD_REACHABLE, mac: mac})
	table.set(two, neighbour{state: unix.NUD_STALE, mac: mac})
	check("both good", false)
	table.set(one, neighbour{state: unix.NUD_FAILED})
	check("one failed", false)
	table.set(two, neighbour{state: unix.NUD_FAILED})
	check("both failed", true)
	table.set(two, neighbour{state: unix.NUD_INCOMPLETE})
	check("asked again", true)
	table.set(two, neighbour{state: unix.NUD_REACHABLE, mac: other})
	check("one has another address now", true)
	table.set(one, neighbour{state: unix.NUD_REACHABLE, mac: mac})
	check("reachable again", false)
	table.set(one, neighbour{state: unix.NUD_FAILED})
	check("failed again", true)
	table.remove(one)
	check("forgotten by the kernel", false)
	if len(table.good) != 1 || len(table.bad) != 0 {
		t.Errorf("counts left: %v %v", table.good, table.bad)
	}
}
