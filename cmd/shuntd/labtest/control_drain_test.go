package labtest

import (
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
)

// drains returns what the CLI shows of drains.
func (d *daemon) drains(t *testing.T) []api.DrainStatus {
	t.Helper()
	return read[[]api.DrainStatus](t, d, "drains")
}

// drain returns the only drain, which must be of the server.
func (d *daemon) drain(t *testing.T, server string) api.DrainStatus {
	t.Helper()
	all := d.drains(t)
	if len(all) != 1 || all[0].Server != server {
		t.Fatalf("drains %+v, want one of %s", all, server)
	}
	return all[0]
}

// each opens connections until there is one on either server.
func (p pair) each(t *testing.T) (first, second *call) {
	t.Helper()
	return p.on(t, 0), p.on(t, 1)
}

// TestDrain takes a server out while clients hold connections, follows it to its
// end, and removes the server without cutting anything.
func TestDrain(t *testing.T) {
	t.Parallel()
	for _, method := range []string{nat, dr} {
		t.Run(method, func(t *testing.T) {
			p := startPair(t, method)
			c, other := p.each(t)
			began := p.d.lastEvent(t)
			held := p.d.connections(t, "--server", p.servers[0])
			out := p.d.shunt(t, "server", "drain", "web", p.servers[0], "--why", "kernel update")
			if want := " left ("; held == 0 || !strings.Contains(out, want) || !strings.Contains(out, "shunt drains --watch") {
				t.Errorf("with %d connections it says %q", held, out)
			}
			p.d.tells(t, began, "drain-started", "begun")
			if answers := p.requests(t, 20); answers[p.lab.Servers[1].Name] != 20 {
				t.Errorf("answers %v, want all from %s", answers, p.lab.Servers[1].Name)
			}
			for i := range 4 {
				from := netip.AddrPortFrom(p.lab.ClientAddrs4[0], uint16(20_000+i))
				decides(t, p.explain(t, from.String()), director.ByScheduler, p.servers[1])
			}
			for _, one := range []*call{c, other} {
				ok(t, one.ask())
			}
			if d := p.d.drain(t, p.servers[0]); d.Phase != string(director.PhaseDraining) || d.Active+d.Inactive != held || d.Name != "web" || d.Deadline != nil || d.Kill {
				t.Errorf("of %d connections: %+v", held, d)
			}
			if s := p.d.server(t, "web", p.servers[0]); !s.Draining || s.Weight != 1 || s.Drain == nil {
				t.Errorf("server %+v", s)
			}
			p.keepsNothingOfDrains(t)
			// The clients of the drained server are through: their entries end by
			// their timeout, as those of clients that close do.
			p.d.do(t, "service edit web --timeout-tcp 1s")
			if out := p.d.shunt(t, "server", "drain", "web", p.servers[0], "--wait"); !strings.HasSuffix(out, "drained: no connection is left\n") {
				t.Errorf("it waits for %q", out)
			}
			p.d.tells(t, began, "drain-finished", "no connection is left")
			if out := p.d.shunt(t, "server", "remove", "web", p.servers[0]); out != "" {
				t.Errorf("removing what is drained says %q", out)
			}
			if all := p.d.drains(t); len(all) != 0 {
				t.Errorf("of a server that is gone: %+v", all)
			}
			p.d.noFaults(t)
		})
	}
}

// keepsNothingOfDrains exports the configuration, whose comments alone name the
// drained server, and applies it again, which does not end the drain.
func (p pair) keepsNothingOfDrains(t *testing.T) {
	t.Helper()
	text := p.d.shunt(t, "export")
	_, settings, _ := strings.Cut(text, "\n\n") // behind the comments
	if strings.Contains(settings, "drain") || !strings.Contains(text, "#   "+p.servers[0]+" of ") {
		t.Errorf("exported:\n%s", text)
	}
	file := writeFile(t, t.TempDir()+"/shunt.yaml", text)
	head := p.d.head(t)
	if out := p.d.shunt(t, "diff", "-f", file); out != "no difference\n" {
		t.Errorf("diff says %q", out)
	}
	p.d.shunt(t, "apply", "-f", file)
	if now := p.d.head(t); now != head || len(p.d.drains(t)) != 1 {
		t.Errorf("applied: revision %d, was %d; drains %+v", now, head, p.d.drains(t))
	}
}

// TestDrainKills: a deadline outlives the daemon; what is left then is cut, and
// nothing of another server.
func TestDrainKills(t *testing.T) {
	t.Parallel()
	for _, method := range []string{nat, dr} {
		t.Run(method, func(t *testing.T) {
			p := startPair(t, method)
			c, other := p.each(t)
			p.d.do(t, "server drain web "+p.servers[0]+" --deadline 1h --kill")
			terms := p.d.drain(t, p.servers[0])
			p.d.kill()
			ok(t, c.ask())
			if answers := p.requests(t, 10); answers[p.lab.Servers[1].Name] != 10 {
				t.Errorf("without a daemon answers %v, want all from %s", answers, p.lab.Servers[1].Name)
			}
			// Orders have whole seconds: one of this second could be the new daemon's.
			<-time.After(time.Until(terms.Since.Add(time.Second)))
			p.d.start(t)
			p.d.tells(t, 0, "drain-started", "resumed")
			if d := p.d.drain(t, p.servers[0]); !d.Since.Equal(terms.Since) || d.Deadline == nil || !d.Deadline.Equal(*terms.Deadline) || !d.Kill || d.Active == 0 {
				t.Errorf("before %+v, after the restart %+v", terms, d)
			}
			ok(t, c.ask())

			// The deadline passes while there is no daemon, or while it starts.
			p.d.do(t, "server drain web "+p.servers[0]+" --deadline 1s --kill")
			deadline := *p.d.drain(t, p.servers[0]).Deadline
			p.d.kill()
			<-time.After(time.Until(deadline))
			p.d.start(t)
			if out := p.d.shunt(t, "server", "drain", "web", p.servers[0], "--wait"); !strings.HasSuffix(out, "drained: no connection is left\n") {
				t.Errorf("it waits for %q", out)
			}
			if n := p.d.connections(t, "--server", p.servers[0]); n != 0 {
				t.Errorf("%d connections are left", n)
			}
			for _, e := range p.d.told(t, 0, "drain-killed") {
				if e.Time.Before(deadline) {
					t.Errorf("cut at %s, before %s", e.Time, deadline)
				}
			}
			if _, err := io.WriteString(c.conn, "GET / HTTP/1.1\r\n"); err != nil {
				t.Error(err)
			}
			await(t, "packets of what was cut are dropped", func() bool { return p.d.events(t)["midstream"] > 0 })
			ok(t, other.ask())
			p.d.noFaults(t, "midstream")
		})
	}
}

// TestDrainOverdue: a deadline that kills nothing tells what is left; the server
// can be given back at any time.
func TestDrainOverdue(t *testing.T) {
	t.Parallel()
	p := startPair(t, nat)
	c, _ := p.each(t)
	began := p.d.lastEvent(t)
	if r := p.d.try(t, "server", "drain", "web", p.servers[0], "--deadline", "1s", "--wait"); r.code != 1 || !strings.Contains(r.stdout, "  overdue: ") || r.stderr != "" {
		t.Errorf("exit code %d: %s%s", r.code, r.stdout, r.stderr)
	}
	p.d.tells(t, began, "drain-overdue", "left at the deadline")
	ok(t, c.ask())
	p.d.do(t, "server drain web "+p.servers[0]+" --cancel")
	p.d.tells(t, began, "drain-cancelled", "cancelled with")
	if answers := p.requests(t, 20); answers[p.lab.Servers[0].Name] != 10 {
		t.Errorf("answers %v of the server that is back, want half", answers)
	}
	ok(t, c.ask())

	// At once, and only if that is meant.
	if r := p.d.try(t, "server", "drain", "web", p.servers[0], "--kill"); r.code != 1 || !strings.Contains(r.stderr, "would cut") || len(p.d.drains(t)) != 0 {
		t.Errorf("exit code %d: %s", r.code, r.stderr)
	}
	p.d.do(t, "server drain web "+p.servers[0]+" --kill --yes")
	await(t, "all is cut", func() bool { return p.d.drain(t, p.servers[0]).Phase == string(director.PhaseDrained) })
	p.d.tells(t, began, "drain-killed", "removed")
	p.d.noFaults(t, "midstream")
}

// TestDrainMovesPersistentClients: a client of a template gets another server for
// its new connections, while its old one goes on.
func TestDrainMovesPersistentClients(t *testing.T) {
	t.Parallel()
	for _, method := range []string{nat, dr} {
		t.Run(method, func(t *testing.T) {
			p := startPair(t, method)
			p.d.do(t, "service edit web --persistent 5m")
			c := mustOpen(t, p.lab.Client, p.vip)
			has, next := p.servers[0], p.servers[1]
			if c.server != p.lab.Servers[0].Name {
				has, next = next, has
			}
			client := p.lab.ClientAddrs4[0].String()
			decides(t, p.explain(t, client), director.ByTemplate, has)
			p.d.do(t, "server drain web "+has)
			if d := p.d.drain(t, has); d.Templates != 1 || d.Active != 1 {
				t.Errorf("%+v, want a connection and a template", d)
			}
			decides(t, p.explain(t, client), director.ByScheduler, next)
			moved := mustOpen(t, p.lab.Client, p.vip)
			if moved.server == c.server {
				t.Errorf("a new connection went to %s, which is being drained", moved.server)
			}
			decides(t, p.explain(t, client), director.ByTemplate, next)
			for _, one := range []*call{c, moved} {
				ok(t, one.ask())
			}
			// Who has moved stays.
			p.d.do(t, "server drain web "+has+" --cancel")
			if answers := p.requests(t, 4); answers[moved.server] != 4 {
				t.Errorf("answers %v, want all from %s", answers, moved.server)
			}
			p.d.noFaults(t)
		})
	}
}

// TestDrainShowsUDPApart: what has no end but its timeout is told apart.
func TestDrainShowsUDPApart(t *testing.T) {
	t.Parallel()
	p := startPair(t, nat)
	if _, err := p.lab.ServeUDP(53); err != nil {
		t.Fatal(err)
	}
	server := netip.AddrPortFrom(p.lab.Servers[0].Addr4, 53)
	p.d.do(t, "service add udp://192.0.2.10:53 --name dns\nserver add dns "+server.String()+" --method nat")
	from := netip.AddrPortFrom(p.lab.ClientAddrs4[0], 5300)
	_, err := p.lab.Client.QueryUDP(t.Context(), from, netip.AddrPortFrom(vip4, 53), 1, limit)
	ok(t, err)
	p.d.do(t, "server drain dns "+server.Addr().String())
	await(t, "the connection is known as UDP's", func() bool {
		d := p.d.drain(t, server.String())
		if d.Active+d.Inactive+d.UDP != 1 {
			t.Fatalf("%+v", d)
		}
		return d.UDP == 1
	})
	if refused := p.d.explainOf(t, "udp://192.0.2.10:53"); refused.By != string(director.ByNothing) || refused.Event != "no-server" {
		t.Errorf("the only server is drained: %+v", refused)
	}
	p.d.do(t, "timeouts --udp 1s\nserver drain dns "+server.Addr().String()+" --wait")
	p.d.noFaults(t)
}

// explainOf asks which server a client gets that has no connection.
func (d *daemon) explainOf(t *testing.T, service string) api.Decision {
	t.Helper()
	return read[api.Decision](t, d, "conn", "explain", service, "--from", "198.51.100.77:40000")
}
