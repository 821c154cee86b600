package xdp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/shunt-lb/shunt/bpf/decap"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

// probeLab is a lab with a data plane whose servers listen on all their addresses.
type probeLab struct {
	*directortest.Lab
	*Dataplane
	t    testing.TB
	opts Options
}

const probePort = 8080

func newProbeLab(t testing.TB, shape directortest.Shape) *probeLab {
	l := &probeLab{Lab: directortest.Start(t, directortest.Topology{Shape: shape}), t: t}
	l.opts = Options{
		Interfaces: l.DirectorLinks, PinDir: filepath.Join(directortest.Bpffs(t), "pins"),
		MaxConnections: 4096, MaxServers: 256, MaxServices: 32, SchedulerWords: 1 << 16,
		LocalAddresses: []netip.Prefix{netip.MustParsePrefix("198.18.77.1/32")},
	}
	l.open()
	t.Cleanup(func() {
		if err := l.Detach(context.Background()); err != nil {
			t.Error(err)
		}
	})
	for _, s := range l.Servers {
		for _, network := range []string{"tcp", "udp"} {
			l.listen(s, network)
		}
	}
	return l
}

func (l *probeLab) open() {
	l.t.Helper()
	err := l.Director.Do(func() (err error) {
		l.Dataplane, err = Open(context.Background(), l.opts)
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

// listen has the server answer with its name on all its addresses.
func (l *probeLab) listen(s *directortest.Server, network string) {
	l.t.Helper()
	addr := fmt.Sprintf("[::]:%d", probePort)
	err := s.Do(func() error {
		if network == "tcp" {
			listener, err := net.Listen("tcp", addr)
			if err != nil {
				return err
			}
			l.t.Cleanup(func() { listener.Close() })
			go func() {
				for {
					c, err := listener.Accept()
					if err != nil {
						return
					}
					_, _ = io.WriteString(c, s.Name)
					c.Close()
				}
			}()
			return nil
		}
		// One socket for each address: replies come from where the request went.
		for _, a := range append([]netip.Addr{s.Addr4, s.Addr6}, l.Topology.VIPs...) {
			c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, probePort)))
			if err != nil {
				return err
			}
			l.t.Cleanup(func() { c.Close() })
			go func() {
				for buffer := make([]byte, 64); ; {
					_, from, err := c.ReadFromUDPAddrPort(buffer)
					if errors.Is(err, net.ErrClosed) {
						return
					}
					if err == nil {
						_, _ = c.WriteToUDPAddrPort([]byte(s.Name), from)
					}
				}
			}()
		}
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

// add adds a service of all servers, of which only the last has a weight.
func (l *probeLab) add(url string, method realserver.Method, change func(*director.Service)) director.ServiceKey {
	l.t.Helper()
	key, err := director.ParseServiceKey(url)
	if err != nil {
		l.t.Fatal(err)
	}
	service := director.Service{Key: key, Scheduler: director.RoundRobin, VIP: director.VIPExternal}
	if change != nil {
		change(&service)
	}
	ops := []director.Operation{director.AddService{Service: service}}
	for i, s := range l.Servers {
		ops = append(ops, director.AddServer{Key: key, Server: realserver.Server{
			Address: netip.AddrPortFrom(s.Addr(key.Address.Addr()), probePort), Method: method, Weight: uint32(i),
		}})
	}
	if err := l.Apply(l.t.Context(), ops); err != nil {
		l.t.Fatal(err)
	}
	return key
}

// ask connects to the first server and returns what it says.
func (l *probeLab) ask(key director.ServiceKey, within time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(l.t.Context(), within)
	defer cancel()
	server := netip.AddrPortFrom(l.Servers[0].Addr(key.Address.Addr()), probePort)
	c, err := l.DialServer(ctx, key.Protocol.String(), key, server, 0)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(within))
	if key.Protocol == conntrack.UDP {
		if _, err := c.Write([]byte("?")); err != nil {
			return "", err
		}
	}
	said := make([]byte, 64)
	n, err := c.Read(said)
	return string(said[:n]), err
}

func (l *probeLab) wantAnswer(what string, key director.ServiceKey) {
	l.t.Helper()
	said, err := l.ask(key, 10*time.Second)
	if err != nil || said != l.Servers[0].Name {
		l.t.Errorf("%s: %s: said %q, %v; want %q", what, key, said, err, l.Servers[0].Name)
	}
}

func (l *probeLab) wantNone(what string, key director.ServiceKey) {
	l.t.Helper()
	if said, err := l.ask(key, 300*time.Millisecond); err == nil {
		l.t.Errorf("%s: %s: said %q, want an error", what, key, said)
	}
}

// outerLinks are the links to rooms that the director has.
func (l *probeLab) outerLinks() (names []string) {
	l.t.Helper()
	links, err := l.Director.Netlink().LinkList()
	if err != nil {
		l.t.Fatal(err)
	}
	for _, link := range links {
		if strings.HasPrefix(link.Attrs().Name, "shunt-probe") {
			names = append(names, link.Attrs().Name)
		}
	}
	return names
}

// left are the connections that the table has.
func (l *probeLab) left() (all []conntrack.Connection) {
	l.t.Helper()
	for c, err := range l.Connections(l.t.Context(), director.ConnectionFilter{}) {
		if err != nil {
			l.t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

func address(l *probeLab, a netip.Addr, change func(netlink.Link, *netlink.Addr) error) {
	l.t.Helper()
	lo, err := l.Servers[0].Netlink().LinkByName("lo")
	if err != nil {
		l.t.Fatal(err)
	}
	if err := change(lo, &netlink.Addr{IPNet: ipNet(host(a))}); err != nil {
		l.t.Fatal(err)
	}
}

// Each server is asked by itself, with the weight that those have which are down, and
// whatever the rules of new connections are: by the virtual address, be it the host's
// own or only routed to it.
func TestDialServer(t *testing.T) {
	for _, shape := range []directortest.Shape{directortest.OneArmed, directortest.TwoArmed} {
		t.Run(string(shape), func(t *testing.T) {
			l := newProbeLab(t, shape)
			strict := func(s *director.Service) { s.Rules.ExpireNoDestConn = true }
			own := func(s *director.Service) { s.VIP = director.VIPManaged }
			vip4, vip6 := "192.0.2.10:8080", "[2001:db8::10]:8080"
			dr4 := l.add("tcp://"+vip4, realserver.DR, strict)
			dr6 := l.add("tcp://"+vip6, realserver.DR, nil)
			for _, key := range []director.ServiceKey{dr4, dr6, l.add("udp://"+vip4, realserver.DR, nil), l.add("udp://"+vip6, realserver.DR, strict)} {
				l.wantAnswer("only routed", key)
			}
			nat := l.add("tcp://192.0.2.11:8080", realserver.NAT, strict)
			l.wantAnswer("nat", nat)
			l.wantAnswer("nat", l.add("udp://[2001:db8::11]:8080", realserver.NAT, nil))
			if shape == directortest.TwoArmed {
				l.wantAnswer("fullnat", l.add("tcp://192.0.2.12:8080", realserver.FullNAT, nil))
			}

			for _, op := range []director.Operation{director.RemoveService{Key: dr4}, director.RemoveService{Key: dr6}} {
				if err := l.Apply(t.Context(), []director.Operation{op}); err != nil {
					t.Fatal(err)
				}
			}
			dr4, dr6 = l.add("tcp://"+vip4, realserver.DR, own), l.add("tcp://"+vip6, realserver.DR, own)
			l.wantAnswer("the host's own", dr4)
			l.wantAnswer("the host's own", dr6)

			// Its port is open at its own address, which tells nothing.
			address(l, directortest.VIP4, l.Servers[0].Netlink().AddrDel)
			l.wantNone("a server without the virtual address", dr4)
			address(l, directortest.VIP4, l.Servers[0].Netlink().AddrAdd)
			l.wantAnswer("a server with it again", dr4)
		})
	}
}

// A server that takes nothing out of the tunnel fails, and passes when it does.
func TestDialServerByTunnel(t *testing.T) {
	l := newProbeLab(t, directortest.OneArmed)
	four, six := l.add("tcp://192.0.2.10:8080", realserver.Tunnel, nil), l.add("tcp://[2001:db8::10]:8080", realserver.Tunnel, nil)
	l.wantNone("a server that does not decapsulate", four)
	if _, err := l.Decapsulate(decap.Config{}); err != nil {
		t.Fatal(err)
	}
	l.wantAnswer("one that does", four)
	l.wantAnswer("one that does", six)
}

// What is set up lasts as long as it is used: entries go a while after the connection,
// the link with the process or the plane, and a start after that finds nothing.
func TestDialServerLeavesNothing(t *testing.T) {
	l := newProbeLab(t, directortest.OneArmed)
	key := l.add("tcp://192.0.2.10:8080", realserver.DR, nil)
	if links := l.outerLinks(); len(links) > 0 {
		t.Errorf("links before the first connection: %v, want none", links)
	}
	for range 3 {
		l.wantAnswer("first", key)
	}
	if links := l.outerLinks(); len(links) != 1 {
		t.Errorf("links: %v, want one", links)
	}
	for deadline := time.Now().Add(20 * time.Second); len(l.left()) > 0 || l.Probing().Ports > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("left: %v, %+v", l.left(), l.Probing())
		}
	}
	l.wantAnswer("again", key)
	if err := l.Dataplane.Close(); err != nil {
		t.Fatal(err)
	}
	if links := l.outerLinks(); len(links) > 0 {
		t.Errorf("links after the end: %v, want none", links)
	}
	l.open()
	if left := l.left(); len(left) > 0 {
		t.Errorf("after a restart: %v, want no connection", left)
	}
	l.wantAnswer("after a restart", key)
}

// Whoever asks a server that answers is no evidence against it.
func TestDialServerIsNoEvidence(t *testing.T) {
	l := newProbeLab(t, directortest.OneArmed)
	for _, key := range []director.ServiceKey{
		l.add("tcp://192.0.2.10:8080", realserver.DR, nil), l.add("tcp://[2001:db8::10]:8080", realserver.DR, nil), l.add("tcp://192.0.2.11:8080", realserver.NAT, nil),
	} {
		if err := l.SetPassive(t.Context(), key, director.Passive{Unanswered: 1, Resets: 1, Unreachable: 1}); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			l.wantAnswer("asked", key)
		}
	}
	all, err := l.Evidence(t.Context())
	if err != nil || len(all) == 0 {
		t.Fatalf("evidence %+v, %v", all, err)
	}
	for _, e := range all {
		if e.Suspended || e.Unanswered+e.Resets+e.Unreachable > 0 {
			t.Errorf("evidence %+v", e)
		}
	}
}

// A server that answers nothing does not pass by another one that does, however often
// the first segment is repeated, and whatever its service's rules are.
func TestDialServerKeepsToItsServer(t *testing.T) {
	l := newProbeLab(t, directortest.OneArmed)
	key := l.add("tcp://192.0.2.10:8080", realserver.DR, func(s *director.Service) { s.Rules.ExpireNoDestConn = true })
	l.wantAnswer("first", key)
	address(l, directortest.VIP4, l.Servers[0].Netlink().AddrDel)
	if said, err := l.ask(key, 2500*time.Millisecond); err == nil {
		t.Errorf("a server that answers nothing: said %q, want an error", said)
	}
	stats, err := l.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range stats.Services[0].Servers {
		if n := other.Counters.Connections; other.Server.Address.Addr() == l.Servers[1].Addr4 && n != 0 {
			t.Errorf("the other server had %d connections, want none", n)
		}
	}
}

// What cannot be is refused by name and takes no port.
func TestDialServerRefuses(t *testing.T) {
	l := newProbeLab(t, directortest.OneArmed)
	key := l.add("tcp://192.0.2.10:8080", realserver.DR, nil)
	server := netip.AddrPortFrom(l.Servers[0].Addr4, probePort)
	other := key
	other.Protocol = conntrack.UDP
	gone := netip.MustParseAddrPort("10.9.9.9:80")
	for _, refused := range []struct {
		network string
		key     director.ServiceKey
		server  netip.AddrPort
		port    uint16
		want    error
	}{
		{"udp", key, server, 0, director.ErrUnsupported},
		{"tcp", key, server, 81, director.ErrUnsupported},
		{"tcp", key, gone, 0, director.ErrNotFound},
	} {
		if _, err := l.DialServer(t.Context(), refused.network, refused.key, refused.server, refused.port); !errors.Is(err, refused.want) {
			t.Errorf("%s to %s of %s, port %d: %v, want %v", refused.network, refused.server, refused.key, refused.port, err, refused.want)
		}
	}
	if _, err := l.DialServer(t.Context(), "udp", other, server, 0); err == nil || errors.Is(err, director.ErrNotFound) {
		t.Errorf("of a service that is not there: %v, want an error that does not tell of the server", err)
	}
	for range 5000 { // all ports, but one
		port, err := l.probing.take(l.Servers[0].Addr4)
		if errors.Is(err, director.ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if port < 61000 {
			t.Fatalf("port %d is the host's", port)
		}
	}
	if got := l.Probing(); got != (Probing{Ports: 4536, Refused: 1}) {
		t.Errorf("all ports in use: %+v", got)
	}
	if _, err := l.ask(key, 10*time.Second); !errors.Is(err, director.ErrFull) {
		t.Errorf("one more: %v, want %v", err, director.ErrFull)
	}
	l.probing.endNow(61005)
	l.wantAnswer("with one free", key)
	l.probing.endNow(61006)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.DialServer(ctx, "tcp", key, server, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if ports := l.Probing().Ports; ports >= 4536 {
		t.Errorf("a refused connection has a port: %v", ports)
	}
}

// BenchmarkDialServer is a connection to a server by the way of clients, and its end.
func BenchmarkDialServer(b *testing.B) {
	l := newProbeLab(b, directortest.OneArmed)
	key := l.add("udp://192.0.2.10:8080", realserver.DR, nil)
	server := netip.AddrPortFrom(l.Servers[0].Addr4, probePort)
	for b.Loop() {
		c, err := l.DialServer(b.Context(), "udp", key, server, 0)
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}
