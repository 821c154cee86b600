package conntrack

import (
	"fmt"
	"strings"
)

// Protocol is an IP protocol number as carried in the IPv4 protocol or the last
// IPv6 next-header field. The zero value is no protocol.
type Protocol uint8

// The protocols a service can have.
const (
	TCP  Protocol = 6   // IPPROTO_TCP
	UDP  Protocol = 17  // IPPROTO_UDP
	SCTP Protocol = 132 // IPPROTO_SCTP
)

// String returns the lower-case name used in service URLs, or the number.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	default:
		return fmt.Sprintf("proto-%d", uint8(p))
	}
}

// ParseProtocol reads a name as String prints it, in any case.
func ParseProtocol(s string) (Protocol, error) {
	switch strings.ToLower(s) {
	case "tcp":
		return TCP, nil
	case "udp":
		return UDP, nil
	case "sctp":
		return SCTP, nil
	default:
		return 0, fmt.Errorf("unknown protocol %q: want tcp, udp or sctp", s)
	}
}
