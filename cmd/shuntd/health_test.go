package main

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config"
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

// Only what is root's by name, or by the script user, has the helper become root.
func TestRunsAsRoot(t *testing.T) {
	script := func(user string) director.State {
		check := realserver.Check{Kind: realserver.CheckScript, Script: &realserver.ScriptCheck{Command: []string{"/bin/true"}, User: user}}
		return director.State{Services: []director.Service{{}, {Health: director.Health{Checks: []realserver.Check{{Kind: realserver.CheckTCP}, check}}}}}
	}
	for _, c := range []struct {
		user  string
		state director.State
		want  bool
	}{
		{"", director.State{}, false},
		{"", script(""), false},
		{"", script("nobody"), false},
		{"", script("no-such-user"), false},
		{"", script("root"), true},
		{"root", director.State{}, true},
		{"nobody", script("0"), true},
	} {
		if got := runsAsRoot(config.Settings{ScriptUser: c.user}, c.state); got != c.want {
			t.Errorf("script user %q, %+v: %t", c.user, c.state, got)
		}
	}
}
