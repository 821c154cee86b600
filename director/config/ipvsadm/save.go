package ipvsadm

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// Writer writes addresses and save files as ipvsadm does.
type Writer struct {
	// Names are looked up for hosts and ports; nil: numbers alone, as with -n.
	Names Names
}

// Save returns what ipvsadm -S writes of the services, a line each with those of
// its servers after it, in ipvsadm's order. It loses what ipvsadm's loses:
// thresholds above all, and marks from 2³¹ on, which it writes as negative
// numbers. Omitted are the services and servers that ipvsadm has no words for: an
// error each, which wraps ErrUnsupported.
func (w Writer) Save(services []director.Service) (text string, omitted []error) {
	services = slices.Clone(services)
	SortServices(services, func(s director.Service) director.ServiceKey { return s.Key })
	var lines strings.Builder
	for _, service := range services {
		s, err := FromDirector(service)
		if err != nil {
			omitted = append(omitted, err)
			continue
		}
		lines.WriteString(w.serviceLine(s))
		servers := slices.Clone(service.Servers)
		slices.Reverse(servers) // the kernel's order
		SortServers(servers, func(s realserver.Server) netip.AddrPort { return s.Address })
		for _, server := range servers {
			if server.Method == realserver.FullNAT {
				omitted = append(omitted, fmt.Errorf("server %s of %s: ipvsadm has no method %s: %w", server.Address, service.Key, server.Method, director.ErrUnsupported))
				continue
			}
			lines.WriteString(w.serverLine(s, server))
		}
	}
	return lines.String(), omitted
}

// serviceLine is ipvsadm.c's print_service_entry.
func (w Writer) serviceLine(s Service) string {
	line := fmt.Sprintf("-A %s -s %s", w.service(s), s.Scheduler)
	if s.Persistent {
		line += fmt.Sprintf(" -p %d", s.Timeout)
		if mask := s.Mask(); mask != "" {
			line += " -M " + mask
		}
	}
	if s.Engine != "" {
		line += " --pe " + s.Engine
	}
	if s.OnePacket {
		line += " -o"
	}
	if s.Flags != 0 {
		line += " -b " + s.FlagNames()
	}
	return line + "\n"
}

// serverLine is ipvsadm.c's print_service_entry and print_tunnel_rule.
func (w Writer) serverLine(s Service, server realserver.Server) string {
	protocol := s.Protocol
	if s.Mark != 0 {
		protocol = 0 // the kernel does not tell one
	}
	line := fmt.Sprintf("-a %s -r %s %s -w %d", w.service(s), w.Address(server.Address, protocol), methodOption(server.Method), int32(server.Weight))
	if server.Method == realserver.Tunnel {
		line += tunnelOptionsOf(server.Tunnel)
	}
	return line + "\n"
}

// service is the service's option.
func (w Writer) service(s Service) string {
	switch {
	case s.Mark != 0 && s.Address.Addr().Is6():
		return fmt.Sprintf("-f %d -6", int32(s.Mark))
	case s.Mark != 0:
		return fmt.Sprintf("-f %d", int32(s.Mark))
	}
	option := "--xxx-service"
	switch s.Protocol {
	case tcp:
		option = "-t"
	case udp:
		option = "-u"
	case sctp:
		option = "--sctp-service"
	}
	return option + " " + w.Address(s.Address, s.Protocol)
}

// Address returns an address with its port, by their names if the writer has
// any; at most 59 bytes (ipvsadm.c, addrport_to_anyname).
func (w Writer) Address(address netip.AddrPort, protocol conntrack.Protocol) string {
	host, port := numeric(address.Addr()), strconv.Itoa(int(address.Port()))
	if w.Names != nil {
		if name, found := w.Names.Host(address.Addr()); found {
			host = name
		}
		if name, found := w.Names.Service(address.Port(), protocol); found {
			port = name
		}
	}
	if address.Addr().Is6() {
		host = "[" + host + "]"
	}
	return cut(host+":"+port, 59)
}

// numeric writes an address as the C library does: package netip writes the last
// two words of ::/96 as hexadecimal numbers (glibc: resolv/inet_ntop.c).
func numeric(addr netip.Addr) string {
	bytes := addr.As16()
	if addr.Is6() && [12]byte(bytes[:12]) == [12]byte{} && (bytes[12] != 0 || bytes[13] != 0) {
		return "::" + netip.AddrFrom4([4]byte(bytes[12:])).String()
	}
	return addr.String()
}

// Mask returns the netmask of a persistent service as ipvsadm writes it; nothing
// for one that is not, and for the default.
func (s Service) Mask() string {
	isIPv6 := s.Address.Addr().Is6()
	switch {
	case !s.Persistent, isIPv6 && s.Netmask == fullPrefix, !isIPv6 && s.Netmask == fullMask:
		return ""
	case isIPv6:
		return strconv.Itoa(int(s.Netmask))
	default:
		return dotted(s.Netmask)
	}
}

// FlagNames returns the names of the service's flags, as for -b. A flag that its
// scheduler has no name for is left out, as in ipvsadm.
func (s Service) FlagNames() string {
	names := [...]string{"flag-1", "flag-2", "flag-3"}
	if s.Scheduler == "sh" || s.Scheduler == "mh" {
		names = [...]string{s.Scheduler + "-fallback", s.Scheduler + "-port", ""}
	}
	var set []string
	for i, name := range names {
		if s.Flags&(Flag1<<i) != 0 && name != "" {
			set = append(set, name)
		}
	}
	return strings.Join(set, ",")
}

func methodOption(m realserver.Method) string {
	switch m {
	case realserver.NAT:
		return "-m"
	case realserver.Tunnel:
		return "-i"
	default: // a server on the host itself is told by its address
		return "-g"
	}
}

func tunnelOptionsOf(t realserver.TunnelOptions) string {
	line := " --tun-type " + t.Type.String()
	if t.Type == realserver.TunnelIPIP {
		return line
	}
	if t.Type == realserver.TunnelGUE {
		line += fmt.Sprintf(" --tun-port %d", t.Port)
	}
	switch t.Checksum {
	case realserver.TunnelChecksumOn:
		return line + " --tun-csum"
	case realserver.TunnelRemoteChecksum:
		return line + " --tun-remcsum"
	default:
		return line + " --tun-nocsum"
	}
}

// dotted writes an IPv4 mask.
func dotted(mask uint32) string {
	return fmt.Sprintf("%d.%d.%d.%d", mask>>24, mask>>16&0xff, mask>>8&0xff, mask&0xff)
}
