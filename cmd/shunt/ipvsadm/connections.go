package ipvsadm

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director/api"
	language "github.com/shunt-lb/shunt/director/config/ipvsadm"
)

// connections carries out -L -c (ipvsadm.c, list_conn). The lines come in the
// order of the data plane's table, as they come in that of the kernel's.
func (s *session) connections(client *api.Client, c language.Command) error {
	engines := c.Has(language.OptPersistentConn)
	isHeaded := false
	head := func() {
		if isHeaded {
			return
		}
		isHeaded = true
		const format = "pro expire %-11s %-18s %-18s "
		fmt.Fprint(s.out, "IPVS connection entries\n")
		fmt.Fprintf(s.out, format, "state", "source", "virtual")
		if engines {
			fmt.Fprintf(s.out, "%-18s %-16s %s\n", "destination", "pe name", "pe_data")
		} else {
			fmt.Fprint(s.out, "destination\n")
		}
	}
	var broken error // after the first line: a list is not begun twice
	err := s.patiently(func() error {
		for connection, err := range client.Connections(s.ctx, api.ConnectionQuery{}) {
			if err != nil && !isHeaded {
				return err
			}
			line := ""
			if err == nil {
				line, err = connectionLine(connection, s.writer(c), engines)
			}
			if err != nil {
				broken = err
				return nil
			}
			head()
			fmt.Fprint(s.out, line)
		}
		return nil
	})
	if err == nil {
		err = broken
	}
	if err == nil {
		head()
	}
	return err
}

// connectionLine is a line of -L -c (ipvsadm.c, print_conn); with engines the
// persistence engine and its data follow, where there is one.
func connectionLine(c api.Connection, names language.Writer, engines bool) (string, error) {
	var addresses [3]netip.AddrPort
	for i, text := range []string{c.Client, c.Virtual, c.Server} {
		var err error
		if addresses[i], err = netip.ParseAddrPort(text); err != nil {
			return "", fmt.Errorf("read the daemon's answer: connection: %w", err)
		}
	}
	protocol, name := conntrack.Protocol(0), "IP" // a template of a firewall mark
	if c.Mark == 0 {
		var err error
		if protocol, err = conntrack.ParseProtocol(c.Protocol); err != nil {
			return "", fmt.Errorf("read the daemon's answer: connection: %w", err)
		}
		name = protocolName(protocol)
	} else {
		addresses[1] = netip.AddrPortFrom(markAddress(c.Mark, addresses[0].Addr()), 0)
	}
	addresses[2] = reached(addresses[2], addresses[1], c.Template)
	seconds := max(0, int64(time.Duration(c.Expires)/time.Second))
	line := fmt.Sprintf("%-3s %-6s %-11s %-18s %-18s ", name, fmt.Sprintf("%02d:%02d", seconds/60, seconds%60), stateName(c),
		names.Address(addresses[0], protocol), names.Address(addresses[1], protocol))
	server := names.Address(addresses[2], protocol)
	data := strings.Fields(c.EngineData)
	if !engines || c.Engine == "" || len(data) == 0 {
		return line + server + "\n", nil
	}
	return line + fmt.Sprintf("%-16s %-18s %s\n", server, c.Engine, data[0]), nil
}

// reached returns where a connection's packets go: to the client's port at a server
// without one, which the daemon names by its address alone. A template of all ports
// is for none (kernel: ip_vs_core.c, ip_vs_sched_persist).
func reached(server, virtual netip.AddrPort, isTemplate bool) netip.AddrPort {
	if isTemplate && virtual.Port() == 0 || !isTemplate && server.Port() == 0 {
		return netip.AddrPortFrom(server.Addr(), virtual.Port())
	}
	return server
}

// stateName is a template's state for what the XDP plane has by another name:
// that one which a proven connection has had is safe from being dropped (kernel:
// ip_vs_proto.c, ip_vs_state_name).
func stateName(c api.Connection) string {
	if c.Template && c.Proven {
		return conntrack.Assured.String()
	}
	return c.State
}

// markAddress is where the kernel keeps the mark of a template, in the place of
// the virtual address: in its first word (kernel: ip_vs_core.c,
// ip_vs_sched_persist).
func markAddress(mark uint32, family netip.Addr) netip.Addr {
	var bytes [16]byte
	binary.BigEndian.PutUint32(bytes[:], mark)
	if family.Is4() {
		return netip.AddrFrom4([4]byte(bytes[:4]))
	}
	return netip.AddrFrom16(bytes)
}
