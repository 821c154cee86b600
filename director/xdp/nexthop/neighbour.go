package nexthop

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// neighbourKey names a neighbour. The address has no zone.
type neighbourKey struct {
	iface int
	addr  netip.Addr
}

func (k neighbourKey) family() int {
	if k.addr.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// neighbour is an entry of the kernel's ARP or neighbour discovery table. The
// zero value is one that the kernel does not have.
type neighbour struct {
	state   uint16 // NUD_...
	managed bool
	// mac is the present address, or the last one while there is none.
	mac [6]byte
	// failed: it did not answer the last time it was asked to the end. The
	// kernel asks again and again, which alone is no news.
	failed bool
}

const (
	nudStatic = unix.NUD_PERMANENT | unix.NUD_NOARP
	nudUsable = nudStatic | unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE
)

// usable reports whether packets can be sent to it now.
func (n neighbour) usable() bool { return n.state&nudUsable != 0 && n.mac != [6]byte{} }

// isStatic reports whether it needs no resolving.
func (n neighbour) isStatic() bool { return n.state&nudStatic != 0 }

// after adds what the kernel does not say again of a former state.
func (n neighbour) after(old neighbour) neighbour {
	if n.mac == [6]byte{} {
		n.mac = old.mac
	}
	n.failed = n.state == unix.NUD_FAILED || n.state == unix.NUD_INCOMPLETE && old.failed
	return n
}

// macKey names a link-layer address on an interface.
type macKey struct {
	iface int
	mac   [6]byte
}

// neighbourTable is a copy of the kernel's neighbours with, for each link-layer
// address, how many of them are usable and how many failed. The zero value is
// empty.
type neighbourTable struct {
	entries map[neighbourKey]neighbour
	good    map[macKey]int
	bad     map[macKey]int
}

func (t *neighbourTable) get(key neighbourKey) neighbour { return t.entries[key] }

// set replaces an entry by what the kernel says of it.
func (t *neighbourTable) set(key neighbourKey, n neighbour) {
	if t.entries == nil {
		t.entries, t.good, t.bad = map[neighbourKey]neighbour{}, map[macKey]int{}, map[macKey]int{}
	}
	n = n.after(t.entries[key])
	t.remove(key)
	t.entries[key] = n
	t.count(key, n, 1)
}

func (t *neighbourTable) remove(key neighbourKey) {
	n, found := t.entries[key]
	if !found {
		return
	}
	delete(t.entries, key)
	t.count(key, n, -1)
}

// removeInterface forgets the neighbours of an interface that is gone.
func (t *neighbourTable) removeInterface(iface int) {
	for key := range t.entries {
		if key.iface == iface {
			t.remove(key)
		}
	}
}

func (t *neighbourTable) count(key neighbourKey, n neighbour, by int) {
	counts := t.good
	switch {
	case n.usable():
	case n.failed && n.mac != [6]byte{}:
		counts = t.bad
	default:
		return
	}
	mac := macKey{key.iface, n.mac}
	if counts[mac] += by; counts[mac] == 0 {
		delete(counts, mac)
	}
}

func (t *neighbourTable) failed(iface int, mac [6]byte) bool {
	key := macKey{iface, mac}
	return t.bad[key] > 0 && t.good[key] == 0
}
