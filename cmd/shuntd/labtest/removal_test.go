package labtest

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director/directortest"
)

// pair is a one-armed lab with a service of two servers, web, by rr.
type pair struct {
	lab     *directortest.Lab
	d       *daemon
	vip     netip.AddrPort
	servers [2]string // their addresses
}

func startPair(t *testing.T, method string, flags ...string) pair {
	t.Helper()
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 2})
	if _, err := lab.ServeHTTP(80); err != nil {
		t.Fatal(err)
	}
	p := pair{lab: lab, d: startDaemon(t, lab, flags...), vip: netip.AddrPortFrom(vip4, 80)}
	p.d.do(t, fmt.Sprintf("service add tcp://%s --name web --scheduler rr", p.vip))
	for i, s := range lab.Servers {
		p.servers[i] = netip.AddrPortFrom(s.Addr4, 80).String()
		p.d.do(t, fmt.Sprintf("server add web %s --method %s", p.servers[i], method))
	}
	return p
}

// on opens connections until one is on the i-th server: the second by rr at the latest,
// unless other clients come between.
func (p pair) on(t *testing.T, i int) *call {
	t.Helper()
	for range 50 {
		if c := mustOpen(t, p.lab.Client, p.vip); c.server == p.lab.Servers[i].Name {
			return c
		}
	}
	t.Fatalf("no connection went to %s", p.lab.Servers[i].Name)
	return nil
}

// requests sends some over connections of their own.
func (p pair) requests(t *testing.T, count int) map[string]int {
	t.Helper()
	var jobs []job
	for range count {
		jobs = append(jobs, job{service: "web", address: p.vip, size: 100})
	}
	return send(t, p.lab.Client, jobs, 4)["web"]
}

func TestWeightZeroKeepsConnections(t *testing.T) {
	t.Parallel()
	for _, method := range []string{nat, dr} {
		t.Run(method, func(t *testing.T) {
			p := startPair(t, method)
			c := p.on(t, 0)
			p.d.do(t, "server edit web "+p.servers[0]+" --weight 0")
			_, before := p.d.counters(t, "web")
			if answers := p.requests(t, 20); answers[p.lab.Servers[1].Name] != 20 {
				t.Errorf("answers %v, want all from %s", answers, p.lab.Servers[1].Name)
			}
			if err := c.ask(); err != nil {
				t.Error(err)
			}
			_, after := p.d.counters(t, "web")
			old, now := before[p.servers[0]], after[p.servers[0]]
			if now.Connections != old.Connections || now.In.Packets <= old.In.Packets {
				t.Errorf("the server at weight 0 had %+v, now %+v: want packets and no connections", old, now)
			}
			if active := p.d.server(t, "web", p.servers[0]).Active; active == 0 {
				t.Error("its connection is not counted as active")
			}
			p.d.noFaults(t)
		})
	}
}

// whileDropped begins a request on the connection, waits until its packets are
// dropped as named, runs heal and wants the request to be answered then.
func (p pair) whileDropped(t *testing.T, c *call, event string, heal func()) {
	t.Helper()
	answered := make(chan error, 1) // the one answer
	go func() { answered <- c.ask() }()
	await(t, "packets dropped as "+event, func() bool { return p.d.events(t)[event] > 0 })
	select {
	case err := <-answered:
		t.Fatalf("the request was answered all the same: %v", err)
	default:
	}
	heal()
	if err := <-answered; err != nil {
		t.Errorf("after it came back: %v", err)
	}
}

func TestRemovedServer(t *testing.T) {
	t.Parallel()
	for _, method := range []string{nat, dr} {
		t.Run(method, func(t *testing.T) {
			p := startPair(t, method)
			c := p.on(t, 0)
			p.d.do(t, "server remove web "+p.servers[0]+" --yes")
			if answers := p.requests(t, 10); answers[p.lab.Servers[1].Name] != 10 {
				t.Errorf("answers %v, want all from %s", answers, p.lab.Servers[1].Name)
			}
			p.whileDropped(t, c, "server-removed", func() {
				p.d.do(t, "server add web "+p.servers[0]+" --method "+method)
			})
			p.d.noFaults(t, "server-removed")
		})
	}
}

func TestRemovedService(t *testing.T) {
	t.Parallel()
	p := startPair(t, nat)
	c := p.on(t, 0)
	p.d.do(t, "service remove web --yes")
	p.whileDropped(t, c, "service-removed", func() {
		p.d.do(t, fmt.Sprintf("service add tcp://%s --name web --scheduler rr\nserver add web %s --method nat", p.vip, p.servers[0]))
	})
	p.d.noFaults(t, "service-removed", "server-removed") // the service is back before its server
}

// The place of a removed server is free when its connections have gone, and not
// before.
func TestRemovedServerKeepsItsPlaceWhileItHasConnections(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "shunt.yaml")
	if err := os.WriteFile(path, []byte("director: {limits: {servers: 3}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startPair(t, nat, "--config", path)
	c := p.on(t, 0)
	p.d.do(t, "server remove web "+p.servers[0]+" --yes")
	r := p.d.try(t, "server", "add", "web", "10.2.0.77:80", "--method", "nat")
	if r.code != 1 || !strings.Contains(r.stderr, "limits.servers") || !strings.Contains(r.stderr, "removed ones included") {
		t.Fatalf("exit code %d: %s", r.code, r.stderr)
	}
	// It stays open at both ends, idle, until its timeout has passed.
	p.d.do(t, "timeouts --tcp 1s")
	await(t, "the connection is gone", func() bool { return p.d.connections(t, "--server", p.servers[0]) == 0 })
	await(t, "the place is free", func() bool {
		return p.d.try(t, "server", "add", "web", "10.2.0.77:80", "--method", "nat").code == 0
	})
	if err := c.conn.Close(); err != nil {
		t.Error(err)
	}
	p.d.noFaults(t, "midstream")
}
