package labtest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// The checks of those that hang cannot find them before three timeouts are over: who is
// out earlier is out by what packets tell.
const evidenceConfiguration = `
services:
  - {name: killed-nat, listen: "tcp://192.0.2.10:81", scheduler: rr, method: nat, servers: [{address: %[1]s}, {address: %[2]s}], check: {%[3]s}, health: {passive: {resets: 1}}}
  - {name: killed-dr, listen: "tcp://192.0.2.10:82", scheduler: rr, method: dr, servers: [{address: %[1]s}, {address: %[2]s}], check: {%[3]s}, health: {passive: {resets: 1}}}
  - {name: hung-nat, listen: "tcp://192.0.2.10:83", scheduler: rr, method: nat, servers: [{address: %[1]s}, {address: %[2]s}], check: {%[4]s}, health: {passive: {unanswered: 3}}}
  - {name: hung-dr, listen: "tcp://192.0.2.10:84", scheduler: rr, method: dr, servers: [{address: %[1]s}, {address: %[2]s}], check: {%[4]s}, health: {passive: {unanswered: 3}}}
`

// ask makes one request over one connection, from the thread's namespace.
func ask(to netip.AddrPort) error {
	conn, err := net.DialTimeout("tcp", to.String(), visitFor)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(visitFor)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "GET /state HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	text, err := io.ReadAll(conn)
	if err == nil && !strings.HasSuffix(string(text), "in service\n") {
		err = fmt.Errorf("answer %q", text)
	}
	return err
}

// isOut waits until the director takes a server out, and returns the first reason, and
// how long after a time that was.
func (d *daemon) isOut(t *testing.T, service netip.AddrPort, server netip.Addr, since time.Time) (string, time.Duration) {
	t.Helper()
	var found *api.Event
	client := d.client(t)
	await(t, fmt.Sprintf("%s is out for %s", server, service), func() bool {
		list, err := client.Events(t.Context(), api.EventQuery{Names: []string{"server-down"}, Limit: 1000})
		ok(t, err)
		for i, e := range list.Events {
			if e.Service == "tcp://"+service.String() && e.Server == netip.AddrPortFrom(server, service.Port()).String() && e.Time.After(since) {
				if found == nil || e.Time.Before(found.Time) {
					found = &list.Events[i]
				}
			}
		}
		return found != nil
	})
	return found.Message, found.Time.Sub(since)
}

// A server whose process is killed, and one that takes no connections any more, are out
// by what the first packets of clients tell before any check says it: real processes,
// clients that do not try again, and the whole director.
func TestEvidenceOfRealClients(t *testing.T) {
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 2})
	nginx(t, lab.Servers[0].Namespace, queue, 81, 82, 83, 84)
	second := lab.Servers[1]
	killed, hung := nginx(t, second.Namespace, queue, 81, 82), nginx(t, second.Namespace, shortQueue, 83, 84)
	check := `http: {path: /state, match: "^in service"}, `
	d := startDaemon(t, lab, "--config", writeFile(t, filepath.Join(t.TempDir(), "shunt.yaml"), fmt.Sprintf(evidenceConfiguration, lab.Servers[0].Addr4, second.Addr4,
		check+"interval: 1s, timeout: 1s, retry: 200ms, fall: 3, rise: 2", check+"interval: 5s, timeout: 5s, fall: 3, rise: 2")))
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(vip4, port) }
	client := d.client(t)
	await(t, "all are up", func() bool {
		report, err := client.Health(t.Context(), "", 0)
		ok(t, err)
		for _, s := range report.Services {
			if len(s.Servers) != 2 || !s.Servers[0].Up || !s.Servers[1].Up {
				return false
			}
		}
		return len(report.Services) == 4
	})
	t.Run("killed", func(t *testing.T) { isKilled(t, lab, d, killed, at(81), at(82)) })
	t.Run("hung", func(t *testing.T) { hangs(t, lab, d, hung, at(83), at(84)) })
}

// isKilled kills a server between two of 500 requests a second by nat, and among 100 a
// second by dr.
func isKilled(t *testing.T, lab *directortest.Lab, d *daemon, p *peer, byNAT, byDR netip.AddrPort) {
	const requests, before = 900, 200
	ctx, cancel := context.WithCancel(t.Context())
	var dr visitors
	var others sync.WaitGroup
	defer others.Wait()
	defer cancel()
	others.Go(func() { dr.run(ctx, lab.Client, pace, visitFor, askHTTP(byDR, 1, nil)) })
	var failed []string
	var began, end time.Time
	start := time.Now()
	err := lab.Client.Do(func() error {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for i := range requests {
			<-tick.C
			if i == before {
				began = time.Now()
				if err := p.kill(); err != nil {
					return err
				}
			}
			if err := ask(byNAT); err != nil {
				failed = append(failed, fmt.Sprintf("%d: %v", i, err))
			}
		}
		return nil
	})
	ok(t, err)
	end = time.Now()
	why, took := d.isOut(t, byNAT, lab.Servers[1].Addr4, began)
	t.Logf("figure: killed by nat, %.0f requests a second: known after %d ms by %q; %d of %d requests failed %v",
		requests/end.Sub(start).Seconds(), took.Milliseconds(), why, len(failed), requests, failed)
	if len(failed) > 1 || len(failed) == 1 && !regexp.MustCompile(`^2\d\d: .*refused`).MatchString(failed[0]) {
		t.Errorf("requests failed: %v, want one after %d at most, refused", failed, before)
	}
	if !strings.Contains(why, "first packets: 1 reset") {
		t.Errorf("out by %q, want the reset", why)
	}
	// Its resets do not pass the director: the checks find it, or, if they come late, that
	// nothing follows on first packets.
	why, took = d.isOut(t, byDR, lab.Servers[1].Addr4, began)
	cancel()
	others.Wait()
	t.Logf("figure: killed by dr, 100 requests a second: out after %d ms by %q; %d requests failed of %d", took.Milliseconds(), why, len(dr.failed), dr.answered+len(dr.failed))
	if !regexp.MustCompile(`http check: failed|first packets: \d+ unanswered`).MatchString(why) {
		t.Errorf("out by %q, want the check's word, or what was not answered", why)
	}
}

// hangs stops a server, whose queue of connections is soon full, under 100 requests a
// second by either method.
func hangs(t *testing.T, lab *directortest.Lab, d *daemon, p *peer, services ...netip.AddrPort) {
	ctx, cancel := context.WithCancel(t.Context())
	var others sync.WaitGroup
	defer others.Wait()
	defer cancel()
	clients := make([]visitors, len(services))
	for i, to := range services {
		// A client's first segment is sent again after a second (RFC 6298 §2).
		others.Go(func() { clients[i].run(ctx, lab.Client, pace, 3*time.Second, askHTTP(to, 1, nil)) })
	}
	await(t, "requests are answered", func() bool { return clients[0].answers() > 10 && clients[1].answers() > 10 })
	began := time.Now()
	ok(t, p.signals(syscall.SIGSTOP)())
	for i, to := range services {
		why, took := d.isOut(t, to, lab.Servers[1].Addr4, began)
		t.Logf("figure: hung, %s, 100 requests a second: out after %d ms by %q; the checks' fall is 15 s", []string{nat, dr}[i], took.Milliseconds(), why)
		if !regexp.MustCompile(`first packets: \d+ unanswered`).MatchString(why) {
			t.Errorf("out by %q, want what was not answered", why)
		}
	}
	out := time.Now()
	answered := clients[0].answers()
	await(t, "the other server answers all", func() bool { return clients[0].answers() > answered+50 })
	cancel()
	others.Wait()
	for i := range clients {
		c := &clients[i]
		t.Logf("figure: hung, %s: %d requests failed of %d", []string{nat, dr}[i], len(c.failed), len(c.failed)+c.answered)
		if n := c.failures(out, time.Now()); n > 0 {
			t.Errorf("%s: %d requests failed that began after it was out", []string{nat, dr}[i], n)
		}
	}
}
