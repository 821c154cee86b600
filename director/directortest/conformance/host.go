package conformance

import (
	"net/netip"

	"github.com/vishvananda/netlink"
)

// onHost says whether the director has the address on lo.
func (b *bench) onHost(a netip.Addr) bool {
	b.Helper()
	found := false
	for _, have := range b.addresses() {
		if ip, ok := netip.AddrFromSlice(have.IP); ok && ip.Unmap() == a {
			found = true
		}
	}
	return found
}

// takeOff takes the address off lo, as somebody else would.
func (b *bench) takeOff(a netip.Addr) {
	b.Helper()
	for _, have := range b.addresses() {
		if ip, ok := netip.AddrFromSlice(have.IP); !ok || ip.Unmap() != a {
			continue
		}
		if err := b.lab.Director.Netlink().AddrDel(b.loopback(), &have); err != nil {
			b.Fatalf("take %s off lo: %v", a, err)
		}
	}
}

func (b *bench) addresses() []netlink.Addr {
	b.Helper()
	all, err := b.lab.Director.Netlink().AddrList(b.loopback(), netlink.FAMILY_ALL)
	if err != nil {
		b.Fatal(err)
	}
	return all
}

func (b *bench) loopback() netlink.Link {
	b.Helper()
	lo, err := b.lab.Director.Netlink().LinkByName("lo")
	if err != nil {
		b.Fatal(err)
	}
	return lo
}
