package labtest

import (
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
)

// explain asks which server a packet from the client to the service web would get.
func (p pair) explain(t *testing.T, from string) api.Decision {
	t.Helper()
	return read[api.Decision](t, p.d, "conn", "explain", "web", "--from", from)
}

// decides fails the test unless the decision is by this, and for this server.
func decides(t *testing.T, got api.Decision, by director.DecisionBy, server string) {
	t.Helper()
	if got.By != string(by) || got.Server != server {
		t.Errorf("%s is decided by %q for %q, want %q for %q: %+v", got.Client, got.By, got.Server, by, server, got)
	}
}

// TestExplain: what is explained is what happens next, and explaining makes none
// of it happen.
func TestExplain(t *testing.T) {
	t.Parallel()
	p := startPair(t, nat)
	for k, scheduler := range []string{"rr", "wrr", "wlc", "sed", "mh"} {
		t.Run(scheduler, func(t *testing.T) {
			p.d.do(t, "service edit web --scheduler "+scheduler)
			for i := range 4 {
				before, _ := p.d.counters(t, "web")
				from := netip.AddrPortFrom(p.lab.ClientAddrs4[0], uint16(20_000+10*k+i))
				told := p.explain(t, from.String())
				again := p.explain(t, from.String())
				decides(t, again, director.ByScheduler, told.Server)
				if told.Scheduler != scheduler || len(told.Candidates) != 2 {
					t.Errorf("%+v", told)
				}
				if after, _ := p.d.counters(t, "web"); after != before {
					t.Errorf("explaining counted: %+v, then %+v", before, after)
				}
				c, err := open(t, p.lab.Client, from, p.vip)
				if err != nil {
					t.Fatal(err)
				}
				if err := c.ask(); err != nil {
					t.Fatal(err)
				}
				decides(t, p.explain(t, from.String()), director.ByConnection, told.Server)
				list := read[[]api.Connection](t, p.d, "conn", "list", "--service", "web", "--client", from.Addr().String())
				found := false
				for _, one := range list {
					if one.Client == from.String() {
						found = one.Server == told.Server
					}
				}
				if !found {
					t.Errorf("%s was to get %s, and has %+v", from, told.Server, list)
				}
			}
		})
	}
	t.Run("a_client_that_is_denied", func(t *testing.T) {
		p.d.do(t, "service edit web --deny 198.51.100.0/24")
		got := p.explain(t, "198.51.100.7:40000")
		if got.By != string(director.ByNothing) || got.Event == "" || got.Help == "" {
			t.Errorf("%+v", got)
		}
	})
	t.Run("an_address_of_nobody", func(t *testing.T) {
		got := read[api.Decision](t, p.d, "conn", "explain", "tcp://192.0.2.99:80", "--from", "198.51.100.7")
		if got.By != string(director.ByNothing) || got.Service != "" {
			t.Errorf("%+v", got)
		}
	})
	p.d.noFaults(t)
}

// TestKill: what is killed is gone from the table, and nothing else is; a client
// of a template goes where it leads until that is killed too.
func TestKill(t *testing.T) {
	t.Parallel()
	p := startPair(t, nat)
	p.d.do(t, "service edit web --persistent 5m")
	one := mustOpen(t, p.lab.Client, p.vip)
	has, other := p.servers[0], p.servers[1]
	if one.server != p.lab.Servers[0].Name {
		has, other = other, has
	}
	client := p.lab.ClientAddrs4[0]
	if host, err := netip.ParseAddrPort(one.local()); err == nil {
		client = host.Addr()
	}
	count := func(kind string) string {
		t.Helper()
		return strings.TrimSpace(p.d.shunt(t, "conn", "count", "--service", "web", "--kind", kind))
	}
	if connections, templates := count("connection"), count("template"); connections != "1" || templates != "1" {
		t.Fatalf("%s connections, %s templates:\n%s", connections, templates, p.d.shunt(t, "conn", "list"))
	}
	decides(t, p.explain(t, client.String()), director.ByTemplate, has)
	if r := p.d.try(t, "server", "remove", "web", has); r.code != 1 || !strings.Contains(r.stderr, "1 connection and 1 template, which this would cut") {
		t.Errorf("exit code %d: %s%s", r.code, r.stdout, r.stderr)
	}
	if err := one.ask(); err != nil {
		t.Errorf("after a removal that was refused: %v", err)
	}
	if out := p.d.shunt(t, "conn", "kill", "--server", other); !strings.HasPrefix(out, "0 connections killed") {
		t.Error(out)
	}
	if out := p.d.shunt(t, "conn", "kill", "--client", client.String(), "--kind", "connection"); out != "1 connection killed\n" {
		t.Error(out)
	}
	if _, err := io.WriteString(one.conn, "GET / HTTP/1.1\r\n"); err != nil {
		t.Fatal(err)
	}
	await(t, "packets of no connection", func() bool { return p.d.events(t)["midstream"] > 0 })
	decides(t, p.explain(t, client.String()), director.ByTemplate, has)
	if out := p.d.shunt(t, "conn", "kill", "--service", "web", "--kind", "template"); out != "1 template killed\n" {
		t.Error(out)
	}
	if got := p.explain(t, client.String()); got.By != string(director.ByScheduler) {
		t.Errorf("%+v", got)
	}
	p.d.noFaults(t, "midstream")
}
