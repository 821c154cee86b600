package ipvsadm_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config/ipvsadm"
	"github.com/shunt-lb/shunt/realserver"
)

func key(t testing.TB, url string) director.ServiceKey {
	t.Helper()
	k, err := director.ParseServiceKey(url)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSave(t *testing.T) {
	address := netip.MustParseAddrPort
	services := []director.Service{
		{
			Key: key(t, "tcp://192.0.2.1:80"), Scheduler: "wlc",
			Servers: []realserver.Server{
				{Address: address("10.0.0.2:8080"), Method: realserver.NAT, Weight: 1, Upper: 7},
				{Address: address("10.0.0.1:80"), Method: realserver.DR},
				{Address: address("127.0.0.1:80"), Method: realserver.Local, Weight: 3},
				{Address: address("10.0.0.3:8080"), Method: realserver.FullNAT, Weight: 1},
			},
		},
		{
			Key: key(t, "udp://[2001:db8::1]:53"), Scheduler: "mh", OnePacket: true,
			Flags:       director.SchedulerFlags{Port: true, Fallback: true},
			Persistence: director.Persistence{Timeout: time.Minute, Prefix: 64, Engine: director.EngineSIP},
			Servers: []realserver.Server{
				{Address: address("[fd00::1]:53"), Method: realserver.Tunnel, Weight: 1},
				{Address: address("10.0.0.1:53"), Method: realserver.Tunnel, Weight: 65535, Tunnel: realserver.TunnelOptions{Type: realserver.TunnelGRE, Checksum: realserver.TunnelChecksumOn}},
			},
		},
		{
			Key: key(t, "fwmark6://7"), Scheduler: "rr", Flags: director.SchedulerFlags{Third: true, Fallback: true},
			Persistence: director.Persistence{Timeout: time.Hour, Prefix: 128},
		},
		{
			Key: key(t, "fwmark://4294967295"), Scheduler: "sh", Flags: director.SchedulerFlags{Port: true},
			Persistence: director.Persistence{Timeout: time.Second, Prefix: 24},
			Servers: []realserver.Server{{
				Address: address("10.0.0.1:0"), Method: realserver.Tunnel, Weight: 1,
				Tunnel: realserver.TunnelOptions{Type: realserver.TunnelGUE, Port: 5555, Checksum: realserver.TunnelRemoteChecksum},
			}},
		},
		{Key: key(t, "sctp://192.0.2.1:80"), Scheduler: "sh", Flags: director.SchedulerFlags{Third: true}},
		{Key: key(t, "tcp://192.0.2.0/24:80"), Scheduler: "rr"},
	}
	// ipvsadm takes the mark for negative, and 192.0.2.1 for less than 10.0.0.1.
	const want = `-A -f -1 -s sh -p 1 -M 255.255.255.0 -b sh-port
-a -f -1 -r 10.0.0.1:0 -i -w 1 --tun-type gue --tun-port 5555 --tun-remcsum
-A -t 192.0.2.1:80 -s wlc
-a -t 192.0.2.1:80 -r 10.0.0.1:80 -g -w 0
-a -t 192.0.2.1:80 -r 10.0.0.2:8080 -m -w 1
-a -t 192.0.2.1:80 -r 127.0.0.1:80 -g -w 3
-A --sctp-service 192.0.2.1:80 -s sh -b ` + `
-A -u [2001:db8::1]:53 -s mh -p 60 -M 64 --pe sip -o -b mh-fallback,mh-port
-a -u [2001:db8::1]:53 -r [fd00::1]:53 -i -w 1 --tun-type ipip
-a -u [2001:db8::1]:53 -r 10.0.0.1:53 -i -w 65535 --tun-type gre --tun-csum
-A -f 7 -6 -s rr -p 3600 -b flag-1,flag-3
`
	got, omitted := ipvsadm.Writer{}.Save(services)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var reasons []string
	for _, err := range omitted {
		if !errors.Is(err, director.ErrUnsupported) {
			t.Errorf("%v is not %q", err, director.ErrUnsupported)
		}
		reasons = append(reasons, err.Error())
	}
	if diff := cmp.Diff([]string{
		"service tcp://192.0.2.0/24:80: ipvsadm has no prefixes and no ranges of ports: not supported",
		"server 10.0.0.3:8080 of tcp://192.0.2.1:80: ipvsadm has no method fullnat: not supported",
	}, reasons); diff != "" {
		t.Errorf("omitted (-want +got):\n%s", diff)
	}
	got, _ = ipvsadm.Writer{Names: fewNames{}}.Save(services)
	for _, line := range []string{"-a -t 192.0.2.1:http -r localhost:http -g -w 3", "-a -f -1 -r 10.0.0.1:0 -i -w 1 --tun-type gue --tun-port 5555 --tun-remcsum", "-A --sctp-service 192.0.2.1:80 -s sh -b "} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("with names:\n%swithout %q", got, line)
		}
	}
}

// TestSaveAddress has what the C library writes otherwise than package netip.
func TestSaveAddress(t *testing.T) {
	for _, c := range []struct{ address, want string }{
		{"192.0.2.1:80", "192.0.2.1:80"},
		{"[2001:db8::1]:80", "[2001:db8::1]:80"},
		{"[2001:db8:0:0:1:0:0:1]:80", "[2001:db8::1:0:0:1]:80"},
		{"[::ffff:192.0.2.1]:0", "[::ffff:192.0.2.1]:0"},
		{"[::c000:201]:1", "[::192.0.2.1]:1"},
		{"[::1]:1", "[::1]:1"},
		{"[::]:0", "[::]:0"},
		{"[::2:1]:9", "[::0.2.0.1]:9"},
	} {
		if got := (ipvsadm.Writer{}).Address(netip.MustParseAddrPort(c.address), conntrack.TCP); got != c.want {
			t.Errorf("%s: %s, want %s", c.address, got, c.want)
		}
	}
	long := ipvsadm.Writer{Names: longNames59{}}.Address(netip.MustParseAddrPort("192.0.2.1:80"), conntrack.TCP)
	if want := strings.Repeat("x", 59); long != want {
		t.Errorf("a long name: %q, want 59 bytes of it", long)
	}
}

type longNames59 struct{ fewNames }

func (longNames59) Host(netip.Addr) (string, bool) { return strings.Repeat("x", 80), true }

// drawServices returns services that the kernel takes, and ipvsadm can make, in
// the kernel's schedulers; their servers' addresses are such that ipvsadm's order
// is one.
func drawServices(r *rand.Rand) []director.Service {
	var services []director.Service
	for i := range 6 {
		s := director.Service{VIP: director.VIPExternal, Scheduler: []director.Scheduler{"rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh"}[r.IntN(13)]}
		isIPv6 := r.IntN(2) == 0
		host := netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + r.IntN(3))})
		if isIPv6 {
			host = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(1 + r.IntN(3))})
		}
		port := uint16(80 + i) // so that no two are the same
		switch kind := r.IntN(4); kind {
		case 0:
			s.Key = director.MarkKey(uint32(1+i), host)
		default:
			s.Key = director.ServiceKey{Protocol: []conntrack.Protocol{conntrack.TCP, conntrack.UDP, conntrack.SCTP}[kind-1], Address: netip.AddrPortFrom(host, port)}
		}
		if r.IntN(2) == 0 {
			s.Persistence = director.Persistence{Timeout: time.Duration(1+r.IntN(1000)) * time.Second, Prefix: s.Key.FullPrefix()}
			if r.IntN(2) == 0 {
				s.Persistence.Prefix = uint8(1 + r.IntN(int(s.Key.FullPrefix())))
			}
			if s.Key.Protocol == conntrack.UDP && r.IntN(2) == 0 {
				s.Persistence.Engine = director.EngineSIP
			}
		}
		s.OnePacket = (s.Key.IsMark() || s.Key.Protocol == conntrack.UDP) && r.IntN(3) == 0
		s.Flags = director.SchedulerFlags{Fallback: r.IntN(3) == 0, Port: r.IntN(3) == 0, Third: r.IntN(3) == 0 && !s.Scheduler.HasFlags()}
		for range r.IntN(4) {
			if server := drawServer(r, s.Key, isIPv6); s.Server(server.Address) < 0 {
				s.Servers = append(s.Servers, server)
			}
		}
		services = append(services, s)
	}
	slices.SortFunc(services, func(a, b director.Service) int { return a.Key.Compare(b.Key) })
	return services
}

func drawServer(r *rand.Rand, service director.ServiceKey, isIPv6 bool) realserver.Server {
	server := realserver.Server{Weight: uint32(r.IntN(5) * r.IntN(5))}
	server.Method = []realserver.Method{realserver.NAT, realserver.DR, realserver.Tunnel, realserver.Tunnel}[r.IntN(4)]
	if server.Method == realserver.Tunnel {
		isIPv6 = isIPv6 != (r.IntN(3) == 0)
		server.Tunnel.Type = realserver.TunnelType(r.IntN(3))
		switch server.Tunnel.Type {
		case realserver.TunnelGUE:
			server.Tunnel.Port, server.Tunnel.Checksum = uint16(1+r.IntN(65535)), realserver.TunnelChecksum(r.IntN(3))
		case realserver.TunnelGRE:
			server.Tunnel.Checksum = realserver.TunnelChecksum(r.IntN(2))
		}
	}
	port := service.Address.Port()
	if server.Method == realserver.NAT || service.IsMark() {
		port = uint16(r.IntN(3) + 8080)
	}
	host := netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + r.IntN(9))})
	if isIPv6 {
		host = netip.AddrFrom16([16]byte{0xfd, 15: byte(1 + r.IntN(9))})
	}
	server.Address = netip.AddrPortFrom(host, port)
	return server
}

// obey does to the services what the kernel would do with a command that it
// takes.
func obey(t testing.TB, services []director.Service, c ipvsadm.Command) []director.Service {
	t.Helper()
	at := slices.IndexFunc(services, func(s director.Service) bool { return s.Key == c.Service.Key() })
	switch c.Operation {
	case ipvsadm.AddService, ipvsadm.EditService:
		s, err := c.Service.Director()
		if err != nil {
			t.Fatal(err)
		}
		if c.Operation == ipvsadm.AddService {
			return append(services, s)
		}
		s.Servers, services[at] = services[at].Servers, s
	case ipvsadm.DeleteService:
		return slices.Delete(services, at, at+1)
	case ipvsadm.Flush:
		return nil
	case ipvsadm.AddServer:
		services[at].Servers = append(services[at].Servers, c.Server)
	case ipvsadm.EditServer:
		services[at].Servers[services[at].Server(c.Server.Address)] = c.Server
	case ipvsadm.DeleteServer:
		i := services[at].Server(c.Server.Address)
		services[at].Servers = slices.Delete(services[at].Servers, i, i+1)
	default:
		t.Fatalf("%v: the test knows only what makes and changes services", c.Operation)
	}
	return services
}

// restored is what a save file makes.
func restored(t testing.TB, text string) []director.Service {
	t.Helper()
	lines, err := ipvsadm.Parser{Names: fewNames{}}.ParseSave([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	var services []director.Service
	for _, l := range lines {
		services = obey(t, services, l.Command)
	}
	slices.SortFunc(services, func(a, b director.Service) int { return a.Key.Compare(b.Key) })
	return services
}

// TestSaveRestoreSave: what is saved is what was saved, and restored what was
// there, but for the order of servers.
func TestSaveRestoreSave(t *testing.T) {
	for seed := range uint64(300) {
		want := drawServices(rand.New(rand.NewPCG(seed, 1)))
		text, omitted := ipvsadm.Writer{}.Save(want)
		if len(omitted) > 0 {
			t.Fatal(omitted)
		}
		got := restored(t, text)
		if again, _ := (ipvsadm.Writer{}).Save(got); again != text {
			t.Fatalf("seed %d (-saved +saved again):\n%s", seed, cmp.Diff(text, again))
		}
		for _, services := range [][]director.Service{want, got} {
			for _, s := range services {
				slices.SortFunc(s.Servers, func(a, b realserver.Server) int { return a.Address.Compare(b.Address) })
			}
		}
		if diff := cmp.Diff(fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got)); diff != "" {
			t.Fatalf("seed %d: %s(-saved +restored):\n%s", seed, text, diff)
		}
	}
}

// setHost gives the server another host.
func setHost(server *realserver.Server, host [4]byte) {
	server.Address = netip.AddrPortFrom(netip.AddrFrom4(host), server.Address.Port())
}
