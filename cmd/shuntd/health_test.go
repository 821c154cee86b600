package main

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// A server is offered once its check has passed, and not once it is gone.
func TestServeChecks(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	cfg := testConfig(t)
	key := cfg.State.Services[0].Key
	addr := netip.MustParseAddrPort(listener.Addr().String())
	cfg.State.Services[0].Servers = []realserver.Server{{Address: netip.AddrPortFrom(addr.Addr(), 80), Method: realserver.Local, Weight: 7}}
	cfg.State.Services[0].Health = director.Health{Checks: []realserver.Check{{
		Kind: realserver.CheckTCP, Port: addr.Port(), Interval: 100 * time.Millisecond, Timeout: 100 * time.Millisecond, Rise: 1, Fall: 1,
	}}}
	d := startDaemon(t, cfg, newPlane())
	offered := func(weight uint32) {
		t.Helper()
		for {
			found, err := d.plane.Found(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if i := found.Service(key); i >= 0 && len(found.Services[i].Servers) == 1 && found.Services[i].Servers[0].Weight == weight {
				return
			}
			select {
			case err := <-d.done:
				t.Fatalf("serve: %v", err)
			case <-time.After(5 * time.Millisecond): // until the test's time is over
			}
		}
	}
	offered(7)
	_ = listener.Close()
	offered(0)
}

func TestRightsForChecks(t *testing.T) {
	with := func(h director.Health) director.State {
		return director.State{Services: []director.Service{{}, {Health: h}}}
	}
	check := func(kind realserver.CheckKind) director.Health {
		return director.Health{Checks: []realserver.Check{{Kind: realserver.CheckTCP}, {Kind: kind}}}
	}
	run := []cap.Value{cap.SETUID, cap.SETGID, cap.KILL}
	for name, c := range map[string]struct {
		state director.State
		want  []cap.Value
	}{
		"nothing": {director.State{}, nil},
		"tcp":     {with(check(realserver.CheckTCP)), nil},
		"icmp":    {with(check(realserver.CheckICMP)), []cap.Value{cap.NET_RAW}},
		"script":  {with(check(realserver.CheckScript)), run},
		"command": {with(director.Health{Notify: director.Notify{QuorumDown: []string{"/bin/true"}}}), run},
		"fifo":    {with(director.Health{Notify: director.Notify{FIFO: "/run/shunt/fifo"}}), nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, neededByChecks(c.state)); diff != "" {
				t.Errorf("rights (-want +got):\n%s", diff)
			}
		})
	}
}
