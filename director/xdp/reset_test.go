package xdp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/xdp"
	"github.com/shunt-lb/shunt/realserver"
)

// resetPair is the two ends of a connection.
type resetPair struct {
	name           string
	client, server net.Conn
	speaks         func() net.Conn // who speaks first
}

// Both ends of connections that are reset read that they were, whoever speaks first
// and whichever way the server's packets go.
func TestResetReachesBothEnds(t *testing.T) {
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 1})
	listener, err := lab.Servers[0].Listen(t.Context(), netip.MustParseAddrPort("[::]:8080"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	d := openLab(t, lab)
	var pairs []*resetPair
	for _, vip := range []netip.Addr{directortest.VIP4, directortest.VIP6} {
		for port, method := range map[uint16]realserver.Method{80: realserver.NAT, 8080: realserver.DR} {
			key := director.ServiceKey{Protocol: conntrack.TCP, Address: netip.AddrPortFrom(vip, port)}
			server := realserver.Server{Address: netip.AddrPortFrom(lab.Servers[0].Addr(vip), 8080), Method: method, Weight: 1}
			if err := d.Apply(t.Context(), []director.Operation{
				director.AddService{Service: director.Service{Key: key, Scheduler: director.RoundRobin, VIP: director.VIPExternal}},
				director.AddServer{Key: key, Server: server},
			}); err != nil {
				t.Fatal(err)
			}
			for _, first := range []string{"client", "server"} {
				p := connectPair(t, lab, listener, key.Address)
				p.name = fmt.Sprintf("%s %s, %s first", key.Address, method, first)
				p.speaks = func() net.Conn { return map[string]net.Conn{"client": p.client, "server": p.server}[first] }
				pairs = append(pairs, p)
			}
		}
	}
	if n, err := d.Reset(t.Context(), director.ConnectionFilter{}); err != nil || n != uint64(len(pairs)) {
		t.Fatalf("%d of %d connections reset, %v", n, len(pairs), err)
	}
	if n, err := d.Reset(t.Context(), director.ConnectionFilter{}); err != nil || n != 0 {
		t.Errorf("%d connections reset again, %v", n, err)
	}
	for _, p := range pairs {
		if _, err := p.speaks().Write([]byte("hello?")); err != nil {
			t.Errorf("%s: %v", p.name, err)
		}
	}
	deadline := time.Now().Add(8 * time.Second) // the state's timeout is 10
	for _, p := range pairs {
		for side, conn := range map[string]net.Conn{"client": p.client, "server": p.server} {
			if err := conn.SetReadDeadline(deadline); err != nil {
				t.Fatal(err)
			}
			// What had arrived with method dr before the reset is read first.
			if _, err := io.Copy(io.Discard, conn); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%s: the %s reads %v, want %v", p.name, side, err, syscall.ECONNRESET)
			}
		}
	}
}

// openLab opens the data plane in the lab's director and runs it until the test ends.
func openLab(t *testing.T, lab *directortest.Lab) (d *xdp.Dataplane) {
	t.Helper()
	pins := filepath.Join(directortest.Bpffs(t), "pins")
	err := lab.Director.Do(func() (err error) {
		d, err = xdp.Open(t.Context(), xdp.Options{
			Interfaces: lab.DirectorLinks, PinDir: pins, MaxConnections: 1024,
			MaxServers: 64, MaxServices: 64, SchedulerWords: 1 << 14, ICMPRate: 100,
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := d.Detach(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return d
}

// connectPair connects the lab's client to the address; both ends are closed with the test.
func connectPair(t *testing.T, lab *directortest.Lab, listener net.Listener, to netip.AddrPort) *resetPair {
	t.Helper()
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			close(accepted)
			return
		}
		accepted <- conn
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client, err := lab.Client.Dial(ctx, "tcp", netip.AddrPort{}, to)
	if err != nil {
		listener.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	server, ok := <-accepted
	if !ok {
		t.Fatalf("the server did not accept the connection to %s", to)
	}
	t.Cleanup(func() { server.Close() })
	return &resetPair{client: client, server: server}
}
