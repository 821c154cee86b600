package doctor

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// xdpFeatures are what an interface's driver can do with XDP.
type xdpFeatures uint64

// kernel: include/uapi/linux/netdev.h, enum netdev_xdp_act
const (
	featureBasic     xdpFeatures = 1 << 0 // NETDEV_XDP_ACT_BASIC: native programs run
	featureTransmit  xdpFeatures = 1 << 2 // NETDEV_XDP_ACT_NDO_XMIT: it sends redirected packets
	featureRXBuffers xdpFeatures = 1 << 5 // NETDEV_XDP_ACT_RX_SG: packets in several buffers
)

// features asks the kernel what an interface's driver can do with XDP. Requires
// Linux 6.3 (generic netlink family netdev); errors wrap unix.EOPNOTSUPP before.
func features(l netlink.Link) (xdpFeatures, error) {
	const (
		commandGet  = 1 // NETDEV_CMD_DEV_GET
		attrIfindex = 1 // NETDEV_A_DEV_IFINDEX
		attrXDP     = 3 // NETDEV_A_DEV_XDP_FEATURES
	)
	name := l.Attrs().Name
	family, err := netlink.GenlFamilyGet("netdev")
	if errors.Is(err, unix.ENOENT) {
		return 0, fmt.Errorf("ask for the XDP features of %s: the kernel has no netdev family: %w", name, unix.EOPNOTSUPP)
	}
	if err != nil {
		return 0, fmt.Errorf("ask for the XDP features of %s: %w", name, err)
	}
	request := nl.NewNetlinkRequest(int(family.ID), 0)
	request.AddData(genlHeader{commandGet, 1})
	request.AddData(nl.NewRtAttr(attrIfindex, nl.Uint32Attr(uint32(l.Attrs().Index))))
	answers, err := request.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return 0, fmt.Errorf("ask for the XDP features of %s: %w", name, err)
	}
	for _, answer := range answers {
		if len(answer) < nl.SizeofGenlmsg {
			continue
		}
		attrs, err := nl.ParseRouteAttr(answer[nl.SizeofGenlmsg:])
		if err != nil {
			return 0, fmt.Errorf("read the XDP features of %s: %w", name, err)
		}
		for _, a := range attrs {
			if a.Attr.Type == attrXDP && len(a.Value) == 8 {
				return xdpFeatures(binary.NativeEndian.Uint64(a.Value)), nil
			}
		}
	}
	return 0, fmt.Errorf("ask for the XDP features of %s: not in the answer: %w", name, unix.EOPNOTSUPP)
}

// genlHeader is struct genlmsghdr. The library's reads two bytes past its own
// end, which the kernel refuses unless they happen to be zero.
type genlHeader struct{ command, version uint8 }

func (h genlHeader) Len() int          { return nl.SizeofGenlmsg }
func (h genlHeader) Serialize() []byte { return []byte{h.command, h.version, 0, 0} }
