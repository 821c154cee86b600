package translation

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"strings"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// MaskBits returns the length of the prefix that a netmask in dotted form
// stands for; false for a mask with holes, which no prefix is.
func MaskBits(mask netip.Addr) (uint8, bool) {
	if !mask.Is4() {
		return 0, false
	}
	b := mask.As4()
	n := binary.BigEndian.Uint32(b[:])
	ones := bits.LeadingZeros32(^n)
	return uint8(ones), bits.OnesCount32(n) == ones
}

// maxName is the length of the longest name of a service.
const maxName = 63

// Name returns a name that a service can have for what another program calls
// it: other characters than a name's become dashes. Empty if nothing is left.
func Name(text string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_', r == '-':
			return r
		}
		return '-'
	}, text)
	name = strings.TrimLeft(name, "._-")
	return strings.TrimRight(name[:min(len(name), maxName)], "-")
}

// Local returns the server as one that the director itself is, if its address
// says so: the kernel delivers packets there without sending them anywhere,
// whatever the method but NAT (kernel: net/netfilter/ipvs/ip_vs_xmit.c).
func Local(key director.ServiceKey, server realserver.Server) (realserver.Server, bool) {
	if addr := server.Address.Addr(); !addr.IsLoopback() && addr != key.Address.Addr() {
		return server, false
	}
	server.Method, server.Tunnel = realserver.Local, realserver.TunnelOptions{}
	server.Address = netip.AddrPortFrom(server.Address.Addr(), 0)
	return server, true
}

// IsLocal is the reason of a note on such a server.
const IsLocal = "the server is the director itself: method local, which is what the kernel does"
