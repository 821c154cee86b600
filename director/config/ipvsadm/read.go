package ipvsadm

import (
	"fmt"
	"math"
	"net/netip"
	"strings"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/realserver"
)

const (
	tcp  = conntrack.TCP
	udp  = conntrack.UDP
	sctp = conntrack.SCTP
)

// What ipvsadm takes where nothing is said, and how much it takes of what is.
const (
	defaultScheduler   = "wlc"          // DEF_SCHED
	defaultInterface   = "eth0"         // DEF_MCAST_IFN
	defaultPersistence = 360            // IPVS_SVC_PERSISTENT_TIMEOUT (libipvs.h)
	maxTimeout         = 2678400        // MAX_TIMEOUT: 31 days
	maxWeight          = math.MaxInt32  // Debian's; upstream's 1.31 ends at 65535
	maxSyncLength      = 65535 - 20 - 8 // what the headers of IPv4 and UDP leave
	schedulerBytes     = 15             // IP_VS_SCHEDNAME_MAXLEN - 1
	engineBytes        = 16             // IP_VS_PENAME_MAXLEN
	interfaceBytes     = 15             // IP_VS_IFNAME_MAXLEN - 1
	flagsBytes         = 127            // sched_flags_arg
	fullMask           = math.MaxUint32
	fullPrefix         = 128
)

func (r *reading) tcp(text *string) error  { return r.virtual(tcp, *text) }
func (r *reading) udp(text *string) error  { return r.virtual(udp, *text) }
func (r *reading) sctp(text *string) error { return r.virtual(sctp, *text) }

func (r *reading) virtual(protocol conntrack.Protocol, text string) error {
	s := &r.command.Service
	s.Protocol = protocol
	host, ok := r.parser.parseHost(text, protocol)
	if !ok {
		return fail("illegal virtual server address[:port] specified")
	}
	s.Address = netip.AddrPortFrom(host.addr, host.port)
	if host.addr.Is6() {
		s.Netmask = fullPrefix // whatever -M said before
	}
	return nil
}

func (r *reading) mark(text *string) error {
	s := &r.command.Service
	number, rest, found := leadingNumber(*text)
	if !found || rest != "" || number <= 0 || number > math.MaxUint32 {
		return fail("invalid fwmark value `%s' specified", *text)
	}
	s.Address, s.Protocol, s.Mark = netip.AddrPortFrom(netip.IPv4Unspecified(), 0), tcp, uint32(number)
	return nil
}

func (r *reading) ipv6(*string) error {
	s := &r.command.Service
	if s.Mark == 0 {
		return fail("-6 used before -f\n") // the empty line is ipvsadm's
	}
	s.Address, s.Netmask = netip.AddrPortFrom(netip.IPv6Unspecified(), 0), fullPrefix
	return nil
}

func (r *reading) scheduler(text *string) error {
	r.command.Service.Scheduler = cut(*text, schedulerBytes)
	return nil
}

func (r *reading) persistent(text *string) error {
	s := &r.command.Service
	s.Persistent, s.Timeout = true, defaultPersistence
	if text == nil {
		return nil
	}
	var err error
	s.Timeout, err = parseTimeout(*text, 1)
	return err
}

// netmask depends on what came before: an IPv6 service wants a prefix.
func (r *reading) netmask(text *string) error {
	s := &r.command.Service
	if addr := s.Address.Addr(); addr.IsValid() && addr.Is6() {
		if s.Netmask = uint32(int32(clampedNumber(*text))); s.Netmask < 1 || s.Netmask > fullPrefix {
			return fail("illegal ipv6 netmask specified")
		}
		return nil
	}
	mask, ok := r.parser.parseIPv4(*text)
	if !ok {
		return fail("illegal virtual server persistent mask specified")
	}
	s.Netmask = bigEndian(mask)
	return nil
}

func (r *reading) server(text *string) error {
	service := r.command.Service
	host, ok := r.parser.parseHost(*text, service.Protocol)
	if !ok {
		return fail("illegal real server address[:port] specified")
	}
	if !host.hasPort {
		host.port = service.Address.Port() // 0 if the service comes later
	}
	r.command.Server.Address = netip.AddrPortFrom(host.addr, host.port)
	return nil
}

func (r *reading) nat(*string) error    { return r.method(realserver.NAT) }
func (r *reading) tunnel(*string) error { return r.method(realserver.Tunnel) }
func (r *reading) dr(*string) error     { return r.method(realserver.DR) }

func (r *reading) method(m realserver.Method) error {
	r.command.Server.Method = m
	return nil
}

func (r *reading) weight(text *string) error {
	return number(&r.command.Server.Weight, *text, 0, maxWeight, "illegal weight specified")
}

func (r *reading) upper(text *string) error {
	return number(&r.command.Server.Upper, *text, 0, math.MaxInt32, "illegal u_threshold specified")
}

func (r *reading) lower(text *string) error {
	return number(&r.command.Server.Lower, *text, 0, math.MaxInt32, "illegal l_threshold specified")
}

func (r *reading) multicastInterface(text *string) error {
	r.command.Daemon.Interface = cut(*text, interfaceBytes)
	return nil
}

func (r *reading) syncID(text *string) error {
	return number(&r.command.Daemon.ID, *text, 0, 255, "illegal syncid specified")
}

func (r *reading) onePacket(*string) error {
	r.command.Service.OnePacket = true
	return nil
}

func (r *reading) engine(text *string) error {
	r.command.Service.Engine = cut(*text, engineBytes)
	return nil
}

func (r *reading) schedulerFlags(text *string) error {
	r.flags = cut(*text, flagsBytes)
	return nil
}

func (r *reading) multicastGroup(text *string) error {
	family, group := "IPv4", netip.Addr{}
	if strings.Contains(*text, ":") {
		family = "IPv6"
	}
	group, err := netip.ParseAddr(*text)
	if err != nil || group.Zone() != "" || !isMulticast(group) {
		return fail("invalid %s mcast-group `%s'", family, *text)
	}
	r.command.Daemon.Group = group
	return nil
}

// isMulticast does not look through an IPv4 address in IPv6 form, as netip does.
func isMulticast(addr netip.Addr) bool { return addr.IsMulticast() && !addr.Is4In6() }

func (r *reading) multicastPort(text *string) error {
	return number(&r.command.Daemon.Port, *text, 1, 65535, "illegal mcast-port specified")
}

func (r *reading) multicastTTL(text *string) error {
	return number(&r.command.Daemon.TTL, *text, 1, 255, "illegal mcast-ttl specified")
}

func (r *reading) maxLength(text *string) error {
	return number(&r.command.Daemon.MaxLength, *text, 1, maxSyncLength, "illegal sync-maxlen specified")
}

func (r *reading) tunnelType(text *string) error {
	for _, t := range []realserver.TunnelType{realserver.TunnelIPIP, realserver.TunnelGUE, realserver.TunnelGRE} {
		if *text == t.String() {
			r.command.Server.Tunnel.Type = t
			return nil
		}
	}
	return fail("illegal tunnel type specified")
}

func (r *reading) tunnelPort(text *string) error {
	return number(&r.command.Server.Tunnel.Port, *text, 1, 65535, "illegal tunnel port specified")
}

func (r *reading) tunnelNoChecksum(*string) error { return r.checksum(realserver.TunnelNoChecksum) }
func (r *reading) tunnelChecksum(*string) error   { return r.checksum(realserver.TunnelChecksumOn) }
func (r *reading) tunnelRemoteChecksum(*string) error {
	return r.checksum(realserver.TunnelRemoteChecksum)
}

// checksum may come after another one: tunnelRules refuse two.
func (r *reading) checksum(c realserver.TunnelChecksum) error {
	r.command.Server.Tunnel.Checksum = c
	return nil
}

// parseFlags reads -b, for the scheduler of -s or the default.
func parseFlags(scheduler, text string) (Flags, error) {
	if scheduler == "" {
		scheduler = defaultScheduler
	}
	words := strings.FieldsFunc(text, func(c rune) bool { return c == ',' })
	if len(words) == 0 {
		// Commas alone: ipvsadm ends by a segmentation fault.
		return 0, fail("invalid scheduler flag `%s'", text)
	}
	var flags Flags
	for _, word := range words {
		flag, found := flagNames[word]
		switch {
		case !found:
			return 0, fail("invalid scheduler flag `%s'", word)
		case flag.scheduler != "" && flag.scheduler != scheduler:
			return 0, fail("incompatible scheduler flag `%s'", word)
		}
		flags |= flag.flag
	}
	return flags, nil
}

// flagNames are the words of -b, with the scheduler that some are for.
var flagNames = map[string]struct {
	flag      Flags
	scheduler string
}{
	"flag-1": {flag: Flag1}, "flag-2": {flag: Flag2}, "flag-3": {flag: Flag3},
	"sh-fallback": {Flag1, "sh"}, "sh-port": {Flag2, "sh"},
	"mh-fallback": {Flag1, "mh"}, "mh-port": {Flag2, "mh"},
}

func parseTimeout(text string, least int64) (uint32, error) {
	var seconds uint32
	err := number(&seconds, text, least, maxTimeout, fmt.Sprintf("invalid timeout value `%s' specified", text))
	return seconds, err
}

// number reads text into value, which must have room for most.
func number[T uint8 | uint16 | uint32](value *T, text string, least, most int64, refusal string) error {
	n, ok := parseNumber(text, least, most)
	if !ok {
		return fail("%s", refusal)
	}
	*value = T(n)
	return nil
}

func cut(text string, bytes int) string { return text[:min(len(text), bytes)] }
