package nexthop

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Sizes of kernel structures (kernel: include/uapi/linux/rtnetlink.h,
// if_link.h, neighbour.h).
const (
	sizeofIfinfomsg = 16 // struct ifinfomsg
	sizeofNdmsg     = 12 // struct ndmsg
	sizeofRtmsg     = 12 // struct rtmsg
	sizeofRtattr    = 4  // struct rtattr

	attributeType = 0x3fff // without NLA_F_NESTED and NLA_F_NET_BYTEORDER

	ndaFlagsExt   = 15     // NDA_FLAGS_EXT
	ntfProxy      = 0x08   // NTF_PROXY
	ntfExtManaged = 1 << 0 // NTF_EXT_MANAGED
	rtmFCloned    = 0x200  // RTM_F_CLONED
)

var errShort = errors.New("message is cut short")

// link is what is needed of a network interface. It is comparable.
type link struct {
	name     string
	mac      [6]byte
	ethernet bool
	mtu      int
	up       bool // set up, and has a carrier
}

// decodeLink reads a struct ifinfomsg with attributes. The index is 0 where the
// message is not about the interface itself but, say, its part in a bridge.
func decodeLink(b []byte) (index int, l link, err error) {
	if len(b) < sizeofIfinfomsg {
		return 0, link{}, fmt.Errorf("decode link: %w", errShort)
	}
	if b[0] != unix.AF_UNSPEC {
		return 0, link{}, nil
	}
	const upAndRunning = unix.IFF_UP | unix.IFF_RUNNING
	l.up = binary.NativeEndian.Uint32(b[8:])&upAndRunning == upAndRunning
	ether := binary.NativeEndian.Uint16(b[2:]) == unix.ARPHRD_ETHER
	err = attributes(b[sizeofIfinfomsg:], func(kind uint16, value []byte) {
		switch {
		case kind == unix.IFLA_IFNAME:
			l.name = unix.ByteSliceToString(value)
		case kind == unix.IFLA_ADDRESS && ether && len(value) == len(l.mac):
			l.ethernet = true
			copy(l.mac[:], value)
		case kind == unix.IFLA_MTU && len(value) == 4:
			l.mtu = int(binary.NativeEndian.Uint32(value))
		}
	})
	if err != nil {
		return 0, link{}, fmt.Errorf("decode link: %w", err)
	}
	return int(int32(binary.NativeEndian.Uint32(b[4:]))), l, nil
}

// decodeNeighbour reads a struct ndmsg with attributes. The key's interface is
// 0 where the entry is none that resolves an IP address: a bridge's, a proxy's.
func decodeNeighbour(b []byte) (key neighbourKey, n neighbour, err error) {
	if len(b) < sizeofNdmsg {
		return neighbourKey{}, neighbour{}, fmt.Errorf("decode neighbour: %w", errShort)
	}
	length := 0
	switch b[0] {
	case unix.AF_INET:
		length = 4
	case unix.AF_INET6:
		length = 16
	}
	if flags := b[10]; length == 0 || flags&ntfProxy != 0 {
		return neighbourKey{}, neighbour{}, nil
	}
	n.state = binary.NativeEndian.Uint16(b[8:])
	err = attributes(b[sizeofNdmsg:], func(kind uint16, value []byte) {
		switch {
		case kind == unix.NDA_DST && len(value) == length:
			key.addr, _ = netip.AddrFromSlice(value)
		case kind == unix.NDA_LLADDR && len(value) == len(n.mac):
			copy(n.mac[:], value)
		case kind == ndaFlagsExt && len(value) == 4:
			n.managed = binary.NativeEndian.Uint32(value)&ntfExtManaged != 0
		}
	})
	if err != nil || !key.addr.IsValid() {
		return neighbourKey{}, neighbour{}, fmt.Errorf("decode neighbour: %w", errors.Join(err, errIf(!key.addr.IsValid(), "it has no address")))
	}
	key.iface = int(int32(binary.NativeEndian.Uint32(b[4:])))
	return key, n, nil
}

// isClone reports whether a struct rtmsg is about the kernel's memory of a
// destination and not about a route.
func isClone(b []byte) bool {
	return len(b) >= sizeofRtmsg && binary.NativeEndian.Uint32(b[8:])&rtmFCloned != 0
}

// attributes calls each for every struct rtattr.
func attributes(b []byte, each func(kind uint16, value []byte)) error {
	for len(b) >= sizeofRtattr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < sizeofRtattr || length > len(b) {
			return fmt.Errorf("attribute of %d bytes where %d are left: %w", length, len(b), errShort)
		}
		each(binary.NativeEndian.Uint16(b[2:])&attributeType, b[sizeofRtattr:length])
		b = b[min((length+3)&^3, len(b)):]
	}
	return nil
}

func errIf(wrong bool, text string) error {
	if wrong {
		return errors.New(text)
	}
	return nil
}
