package ipvsadm

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	language "github.com/shunt-lb/shunt/director/config/ipvsadm"
	"github.com/shunt-lb/shunt/realserver"
)

// list is a list of services on its way to the output.
type list struct {
	out   io.Writer
	names language.Writer
	given language.Option // what is shown of each, and how
}

// all writes the services of the view, or the one of the key alone if it is not
// zero: that one comes without the line about the whole (ipvsadm.c, list_all and
// list_service).
func (l list) all(v view, key director.ServiceKey) {
	keys := []director.ServiceKey{key}
	if key == (director.ServiceKey{}) {
		fmt.Fprintf(l.out, "IP Virtual Server version %s (size=%d)\n", v.info.Version, v.info.TableSize)
		keys = v.keys()
		if !l.has(language.OptNoSort) {
			language.SortServices(keys, func(key director.ServiceKey) director.ServiceKey { return key })
		}
	}
	fmt.Fprint(l.out, l.title())
	for _, key := range keys {
		l.service(v.services[key])
	}
}

func (l list) has(o language.Option) bool { return l.given&o != 0 }

// title returns the head of the list (ipvsadm.c, print_title): the first mode of
// several counts.
func (l list) title() string {
	const (
		first  = "Prot LocalAddress:Port"
		second = "  -> RemoteAddress:Port"
	)
	switch {
	case l.has(language.OptStats):
		return fmt.Sprintf("%-33s %8s %8s %8s %8s %8s\n%s\n", first, "Conns", "InPkts", "OutPkts", "InBytes", "OutBytes", second)
	case l.has(language.OptRate):
		return fmt.Sprintf("%-33s %8s %8s %8s %8s %8s\n%s\n", first, "CPS", "InPPS", "OutPPS", "InBPS", "OutBPS", second)
	case l.has(language.OptThresholds):
		return fmt.Sprintf("%-33s %-10s %-10s %-10s %-10s\n%s\n", first, "Uthreshold", "Lthreshold", "ActiveConn", "InActConn", second)
	case l.has(language.OptPersistentConn):
		return fmt.Sprintf("%-33s %-9s %-11s %-10s %-10s\n%s\n", first, "Weight", "PersistConn", "ActiveConn", "InActConn", second)
	case l.has(language.OptTunInfo):
		return fmt.Sprintf("%s Scheduler Flags\n%-33s %-7s %-13s %-6s %-10s %s\n", first, second, "Forward", "TunnelInfo", "Weight", "ActiveConn", "InActConn")
	default:
		return fmt.Sprintf("%s Scheduler Flags\n%-33s %-7s %-6s %-10s %s\n", first, second, "Forward", "Weight", "ActiveConn", "InActConn")
	}
}

// service writes a service and its servers (ipvsadm.c, print_service_entry).
func (l list) service(s service) {
	name, c, r := l.name(s.Key), s.counters, s.rates
	switch {
	case l.has(language.OptStats):
		fmt.Fprintf(l.out, "%-33s%s\n", name, l.numbers(c.Connections, c.InPackets, c.OutPackets, c.InBytes, c.OutBytes))
	case l.has(language.OptRate):
		fmt.Fprintf(l.out, "%-33s%s\n", name, l.numbers(r.Connections, r.InPackets, r.OutPackets, r.InBytes, r.OutBytes))
	default:
		fmt.Fprintf(l.out, "%s %s\n", name, settings(s.Service))
	}
	servers := s.servers // last added first, as in the kernel
	if !l.has(language.OptNoSort) {
		servers = slices.Clone(servers)
		language.SortServers(servers, func(s server) netip.AddrPort { return s.Address })
	}
	protocol := s.Key.Protocol // none for a firewall mark: the kernel does not tell one
	for _, server := range servers {
		l.server(server, protocol)
	}
}

// numbers writes counts beside one another.
func (l list) numbers(counts ...uint64) string {
	var line strings.Builder
	for _, n := range counts {
		line.WriteString(number(n, l.has(language.OptExact)))
	}
	return line.String()
}

// name is what a service is called; cut for IPv4, so that the columns keep their
// places. Prefixes and ranges of ports, which ipvsadm does not know, are written
// as Shunt does.
func (l list) name(key director.ServiceKey) string {
	if key.IsMark() {
		name := fmt.Sprintf("FWM  %d", int32(key.Mark)) // %d in ipvsadm too, which has marks from 2³¹ on negative
		if key.Address.Addr().Is6() {
			name += " IPv6"
		}
		return name
	}
	address := l.names.Address(key.Address, key.Protocol)
	if key.Bits != 0 || key.LastPort != 0 {
		_, address, _ = strings.Cut(key.String(), "://")
	}
	name := fmt.Sprintf("%-4s %s", protocolName(key.Protocol), address)
	if key.Address.Addr().Is4() {
		name = name[:min(len(name), 33)]
	}
	return name
}

func protocolName(p conntrack.Protocol) string {
	switch p {
	case conntrack.TCP, conntrack.UDP, conntrack.SCTP:
		return strings.ToUpper(p.String())
	default:
		return "?"
	}
}

// settings are what the default list says of a service behind its name.
func settings(s director.Service) string {
	s.Key.Bits, s.Key.LastPort = 0, 0 // ipvsadm does not know them, and here they do not matter
	known, err := language.FromDirector(s)
	if err != nil {
		return string(s.Scheduler)
	}
	text := known.Scheduler
	if known.Flags != 0 {
		text += " (" + known.FlagNames() + ")"
	}
	if known.Persistent {
		text += fmt.Sprintf(" persistent %d", known.Timeout)
		if mask := known.Mask(); mask != "" {
			text += " mask " + mask
		}
		if known.Engine != "" {
			text += " pe " + known.Engine
		}
	}
	if known.OnePacket {
		text += " ops"
	}
	return text
}

// server writes a server.
func (l list) server(s server, protocol conntrack.Protocol) {
	name := l.names.Address(s.Address, protocol)
	if s.Address.Addr().Is4() {
		name = name[:min(len(name), 28)]
	}
	name = fmt.Sprintf("  -> %-28s", name)
	c, r := s.counters, s.rates
	switch {
	case l.has(language.OptStats):
		fmt.Fprintf(l.out, "%s%s\n", name, l.numbers(c.Connections, c.InPackets, c.OutPackets, c.InBytes, c.OutBytes))
	case l.has(language.OptRate):
		// The first three have all their digits, with --exact or without.
		fmt.Fprintf(l.out, "%s %8d %8d %8d%s\n", name, r.Connections, r.InPackets, r.OutPackets, l.numbers(r.InBytes, r.OutBytes))
	case l.has(language.OptThresholds):
		fmt.Fprintf(l.out, "%s %-10d %-10d %-10d %-10d\n", name, s.Upper, s.Lower, s.active, s.inactive)
	case l.has(language.OptPersistentConn):
		fmt.Fprintf(l.out, "%s %-9d %-11d %-10d %-10d\n", name, s.weight(), s.templates, s.active, s.inactive)
	case l.has(language.OptTunInfo):
		fmt.Fprintf(l.out, "%s %-7s %-13s %-6d %-10d %-10d\n", name, forward(s.Method), tunnelInfo(s.Server), s.weight(), s.active, s.inactive)
	default:
		fmt.Fprintf(l.out, "%s %-7s %-6d %-10d %-10d\n", name, forward(s.Method), s.weight(), s.active, s.inactive)
	}
}

// forward is ipvsadm's word for a method (ipvsadm.c, fwd_name); of one that it does
// not know, one of its kind that fits the column.
func forward(m realserver.Method) string {
	switch m {
	case realserver.NAT:
		return "Masq"
	case realserver.Local:
		return "Local"
	case realserver.Tunnel:
		return "Tunnel"
	case realserver.DR:
		return "Route"
	case realserver.FullNAT:
		return "FullNAT"
	default:
		return "(null)" // what printf makes of ipvsadm's NULL
	}
}

// tunnelInfo says how packets are wrapped (ipvsadm.c, fwd_tun_info), in 15 bytes
// at most.
func tunnelInfo(s realserver.Server) string {
	if s.Method != realserver.Tunnel {
		return "n/a"
	}
	checksum := "-c" // whatever the other bits are (foreign, and not of ipvsadm's making)
	switch {
	case s.Tunnel.Checksum&realserver.TunnelChecksumOn != 0:
		checksum = "+c"
	case s.Tunnel.Checksum&realserver.TunnelRemoteChecksum != 0:
		checksum = "r+c"
	}
	switch t := s.Tunnel; t.Type {
	case realserver.TunnelGUE:
		return fmt.Sprintf("%s:%d:%s", t.Type, t.Port, checksum)
	case realserver.TunnelGRE:
		return fmt.Sprintf("%s:%s", t.Type, checksum)
	default:
		return t.Type.String()
	}
}
