package keepalived

import (
	"fmt"
	"strconv"

	"github.com/shunt-lb/shunt/realserver"
)

// method is a forwarding method with its options, if one was set.
type method struct {
	set    bool
	method realserver.Method
	tunnel realserver.TunnelOptions
}

// parse reads what stands behind lvs_method. problem says what keepalived does
// not take; like it, the method may have been set then, and the options have not
// (keepalived: check_parser.c, svr_forwarding_handler).
func (m *method) parse(words []string) (problem string) {
	if len(words) == 0 {
		return "want NAT, DR or TUN"
	}
	switch words[0] {
	case "NAT":
		m.method = realserver.NAT
	case "DR":
		m.method = realserver.DR
	case "TUN":
		m.method = realserver.Tunnel
	default:
		return fmt.Sprintf("unknown method %q: want NAT, DR or TUN", words[0])
	}
	m.set = true
	tunnel, problem := parseTunnel(words[1:])
	if problem == "" {
		m.tunnel = tunnel
	}
	return problem
}

// parseTunnel reads type ipip, type gue port N, type gre, and nocsum, csum or
// remcsum.
func parseTunnel(words []string) (tunnel realserver.TunnelOptions, problem string) {
	for len(words) > 0 {
		option := words[0]
		words = words[1:]
		switch option {
		case "nocsum":
			tunnel.Checksum = realserver.TunnelNoChecksum
			continue
		case "csum":
			tunnel.Checksum = realserver.TunnelChecksumOn
			continue
		case "remcsum":
			tunnel.Checksum = realserver.TunnelRemoteChecksum
			continue
		case "type", "port":
		default:
			return tunnel, fmt.Sprintf("unknown option %q of a tunnel", option)
		}
		if len(words) == 0 {
			return tunnel, fmt.Sprintf("%s has no value", option)
		}
		if problem := setTunnel(&tunnel, option, words[0]); problem != "" {
			return tunnel, problem
		}
		words = words[1:]
	}
	switch {
	case (tunnel.Type == realserver.TunnelGUE) != (tunnel.Port != 0):
		return tunnel, "gue wants a port, and other types have none"
	case tunnel.Type == realserver.TunnelIPIP && tunnel.Checksum != realserver.TunnelNoChecksum:
		return tunnel, "ipip has no checksum"
	case tunnel.Type == realserver.TunnelGRE && tunnel.Checksum == realserver.TunnelRemoteChecksum:
		return tunnel, "gre has no remote checksum"
	}
	return tunnel, ""
}

func setTunnel(tunnel *realserver.TunnelOptions, option, value string) (problem string) {
	if option == "port" {
		port, err := strconv.ParseUint(value, 10, 16)
		if err != nil || port == 0 {
			return fmt.Sprintf("%q is not a port: want 1 to 65535", value)
		}
		tunnel.Port = uint16(port)
		return ""
	}
	switch value {
	case "ipip":
		tunnel.Type = realserver.TunnelIPIP
	case "gue":
		tunnel.Type = realserver.TunnelGUE
	case "gre":
		tunnel.Type = realserver.TunnelGRE
	default:
		return fmt.Sprintf("unknown type %q of a tunnel: want ipip, gue or gre", value)
	}
	return ""
}
