package ipvsadm

import (
	"bufio"
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/shunt-lb/shunt/conntrack"
)

// Names looks up the names of hosts and ports. The second result is whether
// there is one.
type Names interface {
	// Address returns a host's IPv4 address: ipvsadm asks for no other.
	Address(host string) (netip.Addr, bool)
	// Host returns an address's name.
	Host(addr netip.Addr) (string, bool)
	// Port returns a service's port.
	Port(service string, protocol conntrack.Protocol) (uint16, bool)
	// Service returns a port's name.
	Service(port uint16, protocol conntrack.Protocol) (string, bool)
}

var _ Names = System{}

// System are the names of this host: its resolver's and those of /etc/services.
type System struct {
	// ServicesFile is read in the place of /etc/services.
	ServicesFile string
}

// Address asks for the host's IPv4 addresses and returns the first. Text of
// digits and dots that is no address is no name either (glibc: nss/digits_dots.c).
func (System) Address(host string) (netip.Addr, bool) {
	if host == "" || strings.Trim(host, "0123456789.") == "" && !strings.HasSuffix(host, ".") {
		return netip.Addr{}, false
	}
	addrs, err := net.DefaultResolver.LookupNetIP(context.Background(), "ip4", host)
	if err != nil || len(addrs) == 0 {
		return netip.Addr{}, false
	}
	return addrs[0].Unmap(), true
}

// Host asks for the names of the address and returns the first.
func (System) Host(addr netip.Addr) (string, bool) {
	names, err := net.DefaultResolver.LookupAddr(context.Background(), addr.String())
	if err != nil || len(names) == 0 {
		return "", false
	}
	return strings.TrimSuffix(names[0], "."), true
}

// Port looks for the name, or an alias, in the file of services.
func (s System) Port(service string, protocol conntrack.Protocol) (uint16, bool) {
	entry, found := s.find(protocol, func(e portEntry) bool { return slices.Contains(e.names, service) })
	return entry.port, found
}

// Service looks for the port in the file of services.
func (s System) Service(port uint16, protocol conntrack.Protocol) (string, bool) {
	entry, found := s.find(protocol, func(e portEntry) bool { return e.port == port })
	if !found {
		return "", false
	}
	return entry.names[0], true
}

// portEntry is a line of the file of services.
type portEntry struct {
	names    []string // aliases follow the name
	port     uint16
	protocol string
}

// find returns the first entry of the protocol that matches. Package net cannot
// be asked: it takes names in any case, adds some of its own, and knows no SCTP.
func (s System) find(protocol conntrack.Protocol, matches func(portEntry) bool) (portEntry, bool) {
	path := s.ServicesFile
	if path == "" {
		path = "/etc/services"
	}
	file, err := os.Open(path)
	if err != nil {
		return portEntry{}, false // as if it were empty
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if entry, ok := parsePortEntry(lines.Text()); ok && entry.protocol == protocol.String() && matches(entry) {
			return entry, true
		}
	}
	return portEntry{}, false
}

// parsePortEntry reads "name port/protocol alias...", where # begins a comment.
func parsePortEntry(line string) (portEntry, bool) {
	line, _, _ = strings.Cut(line, "#")
	words := strings.Fields(line)
	if len(words) < 2 {
		return portEntry{}, false
	}
	number, protocol, _ := strings.Cut(words[1], "/")
	port, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return portEntry{}, false
	}
	return portEntry{names: append(words[:1:1], words[2:]...), port: uint16(port), protocol: protocol}, true
}
