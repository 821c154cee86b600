package labtest

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// startMany is startPair with as many addresses of the client: 10.1.0.2 and on.
func startMany(t *testing.T, method string, clients int) pair {
	t.Helper()
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 2, Clients: clients})
	if _, err := lab.ServeHTTP(80); err != nil {
		t.Fatal(err)
	}
	p := pair{lab: lab, d: startDaemon(t, lab), vip: netip.AddrPortFrom(vip4, 80)}
	p.d.do(t, fmt.Sprintf("service add tcp://%s --name web --scheduler rr", p.vip))
	for i, s := range lab.Servers {
		p.servers[i] = netip.AddrPortFrom(s.Addr4, 80).String()
		p.d.do(t, fmt.Sprintf("server add web %s --method %s", p.servers[i], method))
	}
	return p
}

// from opens a connection of the client and returns its server's address.
func (p pair) from(t *testing.T, client netip.Addr) (c *call, server string) {
	t.Helper()
	c, err := open(t, p.lab.Client, netip.AddrPortFrom(client, 0), p.vip)
	ok(t, err)
	ok(t, c.ask())
	return c, p.address(t, c)
}

// address is that of the server that answers on the connection.
func (p pair) address(t *testing.T, c *call) string {
	t.Helper()
	i := slices.IndexFunc(p.lab.Servers, func(s *directortest.Server) bool { return s.Name == c.server })
	if i < 0 {
		t.Fatalf("no server is called %q", c.server)
	}
	return p.servers[i]
}

// templates returns those of the service, by their networks' addresses.
func (d *daemon) templates(t *testing.T) map[string]api.Connection {
	t.Helper()
	all := map[string]api.Connection{}
	for _, c := range read[[]api.Connection](t, d, "conn", "list", "--service", "web", "--kind", "template") {
		all[c.Client] = c
	}
	return all
}

// TestPersistence: clients of a network stay on one server, whatever the
// scheduler's turn, until the template has expired.
func TestPersistence(t *testing.T) {
	t.Parallel()
	for _, method := range []string{nat, dr} {
		t.Run(method, func(t *testing.T) {
			p := startMany(t, method, 260)
			p.d.do(t, "service edit web --persistent 1m --prefix 24")
			in := func(n byte) (all []netip.Addr) {
				for _, c := range p.lab.ClientAddrs4 {
					if c.As4()[2] == n && len(all) < 4 {
						all = append(all, c)
					}
				}
				return all
			}
			servers := map[byte]string{}
			for _, n := range []byte{0, 1} {
				var calls []*call
				for i, client := range in(n) {
					if i > 0 { // of whom nothing is known but the network
						decides(t, p.explain(t, client.String()), director.ByTemplate, servers[n])
					}
					c, server := p.from(t, client)
					if calls = append(calls, c); i == 0 {
						servers[n] = server
					}
					if server != servers[n] {
						t.Errorf("client %s got %s, its network %s", client, server, servers[n])
					}
				}
				network := netip.AddrFrom4([4]byte{10, 1, n, 0})
				template, found := p.d.templates(t)[netip.AddrPortFrom(network, 0).String()]
				if !found || template.Server != servers[n] || *template.Prefix != 24 || int(*template.Controlled) != len(calls) ||
					template.Proven != (method == nat) { // by dr, a handshake is half a proof
					t.Errorf("template of %s: %+v, want one of %d connections to %s", network, template, len(calls), servers[n])
				}
			}
			if servers[0] == servers[1] {
				t.Errorf("both networks are on %s: it is not the scheduler that chose", servers[0])
			}
			for _, server := range servers {
				if s := p.d.server(t, "web", server); s.Templates != 1 {
					t.Errorf("%s has %d templates, want 1", server, s.Templates)
				}
			}
			p.d.noFaults(t)
		})
	}
}

// TestTemplateExpires: without connections a template lives as long as the
// service says after the last new one; then the scheduler chooses anew.
func TestTemplateExpires(t *testing.T) {
	t.Parallel()
	p := startMany(t, nat, 1)
	p.d.do(t, "service edit web --persistent 1s")
	client := p.lab.ClientAddrs4[0]
	_, first := p.from(t, client)
	// It outlives its timeout while it has a connection.
	await(t, "the timeout has passed", func() bool { return p.d.templates(t)[client.String()+":0"].Expires <= 0 || t.Failed() })
	decides(t, p.explain(t, client.String()), director.ByTemplate, first)
	p.d.do(t, "conn kill --service web --kind connection --yes")
	await(t, "the template is gone", func() bool { return len(p.d.templates(t)) == 0 })
	if _, next := p.from(t, client); next == first {
		t.Errorf("the client of an expired template got %s again: it was not rr's turn", next)
	}
	p.d.noFaults(t, "midstream")
}

// TestQuiescentTemplate: a template leads to a server of weight 0, unless the
// service says that weight 0 ends persistence too.
func TestQuiescentTemplate(t *testing.T) {
	t.Parallel()
	p := startMany(t, nat, 1)
	p.d.do(t, "service edit web --persistent 5m")
	client := p.lab.ClientAddrs4[0]
	old, first := p.from(t, client)
	other := p.servers[0]
	if first == other {
		other = p.servers[1]
	}
	p.d.do(t, "server edit web "+first+" --weight 0")
	decides(t, p.explain(t, client.String()), director.ByTemplate, first)
	if _, server := p.from(t, client); server != first {
		t.Errorf("by the kernel's default the template leads to %s, want %s", server, first)
	}
	p.d.do(t, "service edit web --expire-quiescent-template")
	decides(t, p.explain(t, client.String()), director.ByScheduler, other)
	if _, server := p.from(t, client); server != other {
		t.Errorf("with expire-quiescent-template the client got %s, want %s", server, other)
	}
	decides(t, p.explain(t, client.String()), director.ByTemplate, other)
	ok(t, old.ask())
	p.d.noFaults(t)
}

// TestExplainAgrees asks, for several clients and every scheduler that draws no
// lots, which server a client would get, and then is that client: without
// persistence, with it, and while a server is being drained.
func TestExplainAgrees(t *testing.T) {
	t.Parallel()
	p := startMany(t, nat, 4)
	p.d.do(t, fmt.Sprintf("server edit web %s --weight 300\nserver edit web %s --weight 100", p.servers[0], p.servers[1]))
	clients := p.lab.ClientAddrs4
	var schedulers []string
	for _, s := range director.Schedulers() {
		if s != director.TwoRandomChoices {
			schedulers = append(schedulers, string(s)+" --flags=")
		}
	}
	schedulers = append(schedulers, "sh --flags sh-port", "sh --flags sh-fallback", "mh --flags mh-port,mh-fallback")
	for k, s := range schedulers {
		t.Run(s, func(t *testing.T) {
			a := &agreement{pair: p, port: uint16(20_000 + 100*k)}
			p.d.do(t, "service edit web --persistent none --scheduler "+s)
			a.agree(t, director.ByScheduler, slices.Concat(clients, clients)...)
			p.d.do(t, "service edit web --persistent 5m")
			a.agree(t, director.ByScheduler, clients...)
			a.agree(t, director.ByTemplate, clients...)
			var drained, kept []netip.Addr
			for _, client := range clients {
				if p.d.templates(t)[client.String()+":0"].Server == p.servers[0] {
					drained = append(drained, client)
				} else {
					kept = append(kept, client)
				}
			}
			p.d.do(t, "server drain web "+p.servers[0])
			a.agree(t, director.ByTemplate, kept...)
			a.agree(t, director.ByScheduler, drained...)
			p.d.do(t, "server drain web "+p.servers[0]+" --cancel\nconn kill --service web --kind template --yes")
		})
	}
	p.d.noFaults(t)
}

// agreement compares what is explained with what becomes of a client's packets.
type agreement struct {
	pair

	port uint16 // the last that a client had
}

// agree wants each client's first packet to be decided by this, and to get the
// server that was told.
func (a *agreement) agree(t *testing.T, by director.DecisionBy, clients ...netip.Addr) {
	t.Helper()
	for _, client := range clients {
		a.port++
		from := netip.AddrPortFrom(client, a.port)
		told := a.explain(t, from.String())
		if told.By != string(by) {
			t.Errorf("%s is decided by %s (%s), want %s", from, told.By, told.Event, by)
		}
		if told.By == string(director.ByNothing) {
			if how := refused(t, a.lab.Client, client, a.vip); how != "reset" || told.Event != "no-server" {
				t.Errorf("%s was to be refused as %s, and was answered by %s", from, told.Event, how)
			}
			continue
		}
		c, err := open(t, a.lab.Client, from, a.vip)
		ok(t, err)
		ok(t, c.ask())
		if got := a.address(t, c); got != told.Server {
			t.Errorf("%s was to get %s by %s, and got %s", from, told.Server, told.By, got)
		}
	}
}
