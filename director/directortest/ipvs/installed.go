package ipvs

import (
	"cmp"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// Installed returns what the kernel holds at the moment, as ipvsadm tells it:
// services without names, whose addresses are somebody else's, in director's
// order, their servers by address; the timeouts and the sync daemons. Programs that set the kernel
// up by themselves are compared by it with what is read of their configuration.
func Installed(t testing.TB) director.State {
	t.Helper()
	var state director.State
	for consistent := false; !consistent; { // programs change it between two readings
		state.Services = nil
		for _, line := range ipvsadm(t, "-S", "-n") {
			words := strings.Fields(line)
			switch words[0] {
			case "-A":
				state.Services = append(state.Services, installedService(t, words[1:]))
			case "-a":
				last := &state.Services[len(state.Services)-1]
				last.Servers = append(last.Servers, installedServer(t, words[1:]))
			default:
				t.Fatalf("ipvsadm -S: unknown line %q", line)
			}
		}
		state = Comparable(state)
		consistent = addThresholds(t, state.Services)
	}
	timeouts := ipvsadm(t, "-L", "--timeout")
	var tcp, fin, udp int
	if _, err := fmt.Sscanf(timeouts[len(timeouts)-1], "Timeout (tcp tcpfin udp): %d %d %d", &tcp, &fin, &udp); err != nil {
		t.Fatalf("ipvsadm -L --timeout: %q: %v", timeouts, err)
	}
	state.Timeouts = conntrack.Timeouts{
		TCP: time.Duration(tcp) * time.Second, TCPFin: time.Duration(fin) * time.Second, UDP: time.Duration(udp) * time.Second,
	}
	state.Sync = installedSync(t)
	return state
}

// installedSync reads the sync daemons.
func installedSync(t testing.TB) []director.SyncDaemon {
	t.Helper()
	var daemons []director.SyncDaemon
	for _, line := range ipvsadm(t, "-L", "--daemon") {
		var d director.SyncDaemon
		var group string
		form := "%s sync daemon (mcast=%s syncid=%d, maxlen=%d, group=%s port=%d, ttl=%d)"
		if _, err := fmt.Sscanf(line, form, &d.Role, &d.Interface, &d.ID, &d.MaxLength, &group, &d.Port, &d.TTL); err != nil {
			t.Fatalf("ipvsadm -L --daemon: %q: %v", line, err)
		}
		d.Interface = strings.TrimSuffix(d.Interface, ",")
		d.Group = netip.MustParseAddr(strings.TrimSuffix(group, ","))
		daemons = append(daemons, d)
	}
	return daemons
}

// Comparable returns the state in the form of Installed's: without what the kernel
// does not know, and with the defaults of the timeouts.
func Comparable(state director.State) director.State {
	state = state.Normalize()
	for i := range state.Services {
		s := &state.Services[i]
		s.Name, s.VIP = "", director.VIPExternal
		slices.SortFunc(s.Servers, func(a, b realserver.Server) int { return a.Address.Compare(b.Address) })
	}
	return director.State{Services: state.Services, Sync: state.Sync, Timeouts: conntrack.DefaultTimeouts().Merge(state.Timeouts)}
}

// ipvsadm returns the lines that it writes.
func ipvsadm(t testing.TB, args ...string) []string {
	t.Helper()
	out, err := exec.Command("/usr/sbin/ipvsadm", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ipvsadm %v: %v: %s", args, err, out)
	}
	text := strings.TrimRight(string(out), "\n")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// installedService reads the words behind -A.
func installedService(t testing.TB, words []string) director.Service {
	t.Helper()
	s := director.Service{Key: installedKey(t, words), VIP: director.VIPExternal}
	netmask := ""
	for i := 2; i < len(words); i++ {
		value := ""
		if i+1 < len(words) {
			value = words[i+1]
		}
		switch words[i] {
		case "-6":
			continue
		case "-o":
			s.OnePacket = true
			continue
		case "-s":
			s.Scheduler = director.Scheduler(value)
		case "-p":
			s.Persistence.Timeout = time.Duration(atoi(t, value)) * time.Second
			s.Persistence.Prefix = s.Key.FullPrefix()
		case "-M":
			netmask = value
		case "--pe":
			s.Persistence.Engine = director.Engine(value)
		case "-b":
			for _, flag := range strings.Split(value, ",") {
				if err := s.Flags.Set(s.Scheduler, flag); err != nil {
					t.Fatal(err)
				}
			}
		default:
			t.Fatalf("ipvsadm -S: unknown option %s of a service", words[i])
		}
		i++
	}
	switch mask, err := netip.ParseAddr(netmask); {
	case netmask == "":
	case err == nil:
		s.Persistence.Prefix = 0
		for _, b := range mask.AsSlice() {
			for ; b != 0; b <<= 1 {
				s.Persistence.Prefix++
			}
		}
	default:
		s.Persistence.Prefix = uint8(atoi(t, netmask))
	}
	return s
}

// installedKey reads -t, -u or --sctp-service with an address, or -f with a mark.
func installedKey(t testing.TB, words []string) director.ServiceKey {
	t.Helper()
	if words[0] == "-f" {
		key := director.ServiceKey{Mark: uint32(atoi(t, words[1])), Address: netip.AddrPortFrom(netip.IPv4Unspecified(), 0)}
		if slices.Contains(words, "-6") {
			key.Address = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
		}
		return key
	}
	key := director.ServiceKey{Address: netip.MustParseAddrPort(words[1])}
	switch words[0] {
	case "-t":
		key.Protocol = conntrack.TCP
	case "-u":
		key.Protocol = conntrack.UDP
	case "--sctp-service":
		key.Protocol = conntrack.SCTP
	default:
		t.Fatalf("ipvsadm -S: unknown kind of service %s", words[0])
	}
	return key
}

// installedServer reads the words behind -a.
func installedServer(t testing.TB, words []string) realserver.Server {
	t.Helper()
	var s realserver.Server
	for i := 2; i < len(words); i++ {
		value := ""
		if i+1 < len(words) {
			value = words[i+1]
		}
		switch words[i] {
		case "-6":
			continue
		case "-m":
			s.Method = realserver.NAT
			continue
		case "-g":
			s.Method = realserver.DR
			continue
		case "-i":
			s.Method = realserver.Tunnel
			continue
		case "--tun-nocsum":
			continue
		case "--tun-csum":
			s.Tunnel.Checksum = realserver.TunnelChecksumOn
			continue
		case "--tun-remcsum":
			s.Tunnel.Checksum = realserver.TunnelRemoteChecksum
			continue
		case "-r":
			s.Address = netip.MustParseAddrPort(value)
		case "-w":
			s.Weight = uint32(atoi(t, value))
		case "--tun-type":
			kind, err := realserver.ParseTunnelType(value)
			if err != nil {
				t.Fatal(err)
			}
			s.Tunnel.Type = kind
		case "--tun-port":
			s.Tunnel.Port = uint16(atoi(t, value))
		default:
			t.Fatalf("ipvsadm -S: unknown option %s of a server", words[i])
		}
		i++
	}
	return s
}

// addThresholds adds what a save file does not have; false if there are other
// services or servers now.
func addThresholds(t testing.TB, services []director.Service) bool {
	t.Helper()
	var service *director.Service
	for _, line := range ipvsadm(t, "-L", "-n", "--thresholds")[2:] {
		words := strings.Fields(line)
		if words[0] == "->" {
			if words[1] == "RemoteAddress:Port" {
				continue
			}
			i := service.Server(service.Key.ServerAddress(netip.MustParseAddrPort(words[1])))
			if i < 0 {
				return false
			}
			service.Servers[i].Upper, service.Servers[i].Lower = uint32(atoi(t, words[2])), uint32(atoi(t, words[3]))
			continue
		}
		option, found := map[string]string{"TCP": "-t", "UDP": "-u", "SCTP": "--sctp-service", "FWM": "-f"}[words[0]]
		if !found {
			t.Fatalf("ipvsadm -L --thresholds: unknown line %q", line)
		}
		if slices.Contains(words, "IPv6") {
			words = append(words, "-6")
		}
		key := installedKey(t, append([]string{option}, words[1:]...))
		i := slices.IndexFunc(services, func(s director.Service) bool { return s.Key == key })
		if i < 0 {
			return false
		}
		service = &services[i]
	}
	return true
}

func atoi(t testing.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(s, "0"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
