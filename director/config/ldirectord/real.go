package ldirectord

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config/translation"
	"github.com/shunt-lb/shunt/realserver"
)

// realLine is what real= may say: an address or a range of them, a port, a method
// and what may follow it.
var realLine = regexp.MustCompile(`^` + hostForm + `(?:->` + hostForm + `)?(?::([A-Za-z0-9_-]+))?\s+(\w+)` +
	`(?:\s+(\d+))?(\s+"[^"]*"[, ]\s*"[^"]*")?(?:\s+"?l:(\d+)"?)?(?:\s+"?u:(\d+)"?)?\s*$`)

const hostForm = `(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*?[A-Za-z0-9])`

// requestReceive is the pair of texts of such a line.
var requestReceive = regexp.MustCompile(`"([^"]*)"[, ]\s*"([^"]*)"`)

// withAddress returns the server at the address.
func withAddress(server realserver.Server, addr netip.Addr, port uint16) realserver.Server {
	server.Address = netip.AddrPortFrom(addr, port)
	return server
}

// real translates a line of servers; problem says why there are none.
func (v *virtual) real(s *translation.Service, d directive) (problem string) {
	parts := realLine.FindStringSubmatch(d.value)
	if parts == nil {
		return `want address:port gate|masq|ipip, and perhaps a weight and "request", "receive": ` + refused
	}
	first, problem := v.address(parts[1])
	if problem != "" {
		return problem
	}
	last := first
	if parts[2] != "" {
		if last, problem = v.address(parts[2]); problem != "" {
			return problem
		}
	}
	var port uint16
	if parts[3] != "" {
		if port, problem = v.portOf(parts[3]); problem != "" {
			return problem
		}
	}
	server, problem := parseServer(parts[4], parts[5], parts[7], parts[8])
	switch {
	case problem != "":
		return problem
	case last != first && v.v6:
		return "ldirectord has no ranges of IPv6 addresses: " + refused
	case last.Less(first):
		return "the range ends before it begins: " + refused
	}
	q := question{request: v.request, receive: v.receive, port: port, addr: first, several: first != last}
	if pair := requestReceive.FindStringSubmatch(parts[6]); pair != nil {
		q.request, q.receive = "/"+strings.TrimPrefix(pair[1], "/"), pair[2]
	}
	asked := v.checksOf(s.Key, d, q)
	if v.off {
		server.Weight = 0
	}
	for addr := first; ; addr = addr.Next() {
		if len(s.Servers) > director.MaxServers {
			return "" // enough for the service to be left out because of them
		}
		server.Address = netip.AddrPortFrom(addr, port)
		as := v.serverOf(s.Key, server, d)
		v.add(s, as, d, server.Address, s.AskedAt(as, asked, server.Address))
		if addr == last {
			return ""
		}
	}
}

// add adds a server, or changes the one that is there: ldirectord edits what it finds
// in the kernel by the address and the port that it was given (ldirectord,
// _restore_service).
func (v *virtual) add(s *translation.Service, server realserver.Server, d directive, given netip.AddrPort, asked []translation.Asked) {
	source := translation.Source{At: d.at, What: d.String(), Asked: asked}
	if v.index == nil {
		v.index = make(map[netip.AddrPort]int)
	}
	address := s.Key.ServerAddress(server.Address)
	i, found := v.index[address]
	switch {
	case !found:
		v.index[address] = len(s.Servers)
		s.AddServer(server, source)
	case given == address || server.Method == realserver.Local:
		v.noteServer(translation.Assumed, d, server.Address, fmt.Sprintf("the server of %s again: ldirectord changes that to what this one says", s.Sources[i].At))
		s.Servers[i], s.Sources[i] = server, source
	default:
		v.noteServer(translation.LeftOut, d, given, fmt.Sprintf("the server of %s again, with another port: ipvsadm refuses to add it", s.Sources[i].At))
	}
}

// parseServer reads the method, the weight and the thresholds.
func parseServer(method, weight, lower, upper string) (server realserver.Server, problem string) {
	switch method {
	case "gate":
		server.Method = realserver.DR
	case "masq":
		server.Method = realserver.NAT
	case "ipip":
		server.Method = realserver.Tunnel
	default:
		return server, fmt.Sprintf("unknown method %q: want gate, masq or ipip; %s", method, refused)
	}
	server.Weight = realserver.DefaultWeight
	for _, number := range []struct {
		text string
		to   *uint32
	}{{weight, &server.Weight}, {lower, &server.Lower}, {upper, &server.Upper}} {
		if number.text == "" {
			continue
		}
		n, err := strconv.ParseUint(number.text, 10, 32)
		if err != nil {
			return server, fmt.Sprintf("%s is too large", number.text)
		}
		*number.to = uint32(n)
	}
	if server.Weight > realserver.MaxWeight {
		return server, fmt.Sprintf("ipvsadm takes no weight above %d: the server would not be there", realserver.MaxWeight)
	}
	return server, ""
}

// serverOf returns the server as the service has it. The port is the service's but
// with masq: ipvsadm makes it so (ipvsadm.c, process_options). With a firewall mark
// it stays as it is.
func (v *virtual) serverOf(key director.ServiceKey, server realserver.Server, d directive) realserver.Server {
	given := server.Address
	local, isLocal := translation.Local(key, server)
	switch {
	case isLocal:
		v.noteServer(translation.Assumed, d, given, translation.IsLocal)
		return local
	case server.Method == realserver.NAT || key.IsMark() || given.Port() == 0 || given.Port() == key.Address.Port():
		return server
	}
	v.noteServer(translation.Assumed, d, given, fmt.Sprintf("the method does not rewrite packets: ipvsadm takes the service's port instead of %d", given.Port()))
	server.Address = netip.AddrPortFrom(given.Addr(), 0)
	return server
}

func (v *virtual) noteServer(kind translation.Kind, d directive, server netip.AddrPort, why string) {
	v.note(kind, d, why)
	v.notes[len(v.notes)-1].Server = server
}
