package labtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// fault is a way in which a server fails, and comes back.
type fault struct {
	name string
	why  string // the expression that one of the failures' texts has
	fail func() error
	mend func() error
}

// ailing is a service whose second server fails.
type ailing struct {
	name, protocol string
	port           uint16
	check          string
	ask            asking
	faults         []fault

	visitors visitors
	found    []finding
	halved   finding // while half of what it sent was lost
	lost     int     // packets
	rode     string  // the results meanwhile
}

// finding is when a fault was there and when it was noticed.
type finding struct {
	fault         string
	from, mended  time.Time
	noticed, back time.Duration
}

// checked is a lab of two servers that run programs of all kinds, and a director that
// checks them.
type checked struct {
	*testing.T
	lab      *directortest.Lab
	d        *daemon
	services []*ailing

	mu     sync.Mutex // guards report
	report api.HealthReport
}

// The terms of all checks.
const (
	checkTerms = "interval: 300ms, timeout: 300ms, retry: 100ms, fall: 3, rise: 2"
	fall, rise = 3, 2
)

// second returns what is said of the second server of a service.
func (c *checked) second(service string) (api.ServerHealth, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.report.Services {
		if s.Name == service && len(s.Servers) == 2 && len(s.Servers[1].Checks) == 1 {
			return s.Servers[1], true
		}
	}
	return api.ServerHealth{}, false
}

// watch reads what is offered until the context ends.
func (c *checked) watch(ctx context.Context) {
	client := c.d.client(c.T)
	for ctx.Err() == nil {
		if report, err := client.Health(ctx, "", 0); err == nil {
			c.mu.Lock()
			c.report = report
			c.mu.Unlock()
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// until waits until the second server of a service is so.
func (c *checked) until(service, what string, is func(api.ServerHealth) bool) error {
	for deadline := time.Now().Add(limit); ; <-time.After(10 * time.Millisecond) {
		s, known := c.second(service)
		if known && is(s) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: waited in vain: %s: %+v", service, what, s)
		}
	}
}

func isUp(s api.ServerHealth) bool { return s.Up && s.Checks[0].Up && s.Checks[0].Known }

// notice makes a fault, waits until the server is out because of it, mends it, and waits
// until the server is in again.
func (c *checked) notice(s *ailing, f fault) error {
	if err := c.until(s.name, "up", isUp); err != nil {
		return err
	}
	found := finding{fault: f.name, from: time.Now()}
	if err := f.fail(); err != nil {
		return fmt.Errorf("%s: %s: %w", s.name, f.name, err)
	}
	err := c.until(s.name, "down by "+f.name, func(now api.ServerHealth) bool {
		if now.Since != nil {
			found.noticed = now.Since.Sub(found.from)
		}
		return !now.Up && slices.ContainsFunc(now.Checks[0].Last, func(r api.CheckResult) bool {
			return !r.Passed && regexp.MustCompile(f.why).MatchString(r.Text)
		})
	})
	if err != nil {
		return err
	}
	found.mended = time.Now()
	if err := f.mend(); err != nil {
		return fmt.Errorf("%s: end of %s: %w", s.name, f.name, err)
	}
	err = c.until(s.name, "up after "+f.name, func(now api.ServerHealth) bool {
		if now.Since != nil {
			found.back = now.Since.Sub(found.mended)
		}
		return isUp(now)
	})
	s.found = append(s.found, found)
	return err
}

// follow has half of what the server sends lost, and wants its state to be what the
// results mean, one after the other: it rides that out, or it does not.
func (c *checked) follow(s *ailing) error {
	if err := c.until(s.name, "up", isUp); err != nil {
		return err
	}
	server := c.lab.Servers[1].Namespace
	s.halved.from = time.Now()
	if err := lose(server, s.protocol, s.port)(); err != nil {
		return err
	}
	const before, results = 8, 8 // as many as are remembered; to wait for
	m := model{up: true}
	err := c.until(s.name, fmt.Sprintf("%d results", results), func(now api.ServerHealth) bool {
		up := now.Checks[0].Up
		if missed := m.take(now.Checks[0].Last); missed {
			m.up = up // this process was not asked to run for so long
		}
		if up != m.up {
			c.Errorf("%s: up is %v, want %v after %s", s.name, up, m.up, m.seen.String())
		}
		return m.seen.Len() >= before+results
	})
	s.halved.mended = time.Now()
	err = errors.Join(err, find(server, s.port, &s.lost)())
	s.rode = m.seen.String()[before:]
	if err == nil {
		err = c.until(s.name, "up after losses", isUp)
	}
	return err
}

// model is a server's state as the results tell it.
type model struct {
	up            bool
	passed, fails int // in a row
	last          time.Time
	seen          strings.Builder // + or - for each
}

// take takes in those results, newest first, that are new. It reports whether some
// between them and those before may have been missed.
func (m *model) take(results []api.CheckResult) (missed bool) {
	if n := len(results); n > 0 {
		missed = !m.last.IsZero() && results[n-1].At.After(m.last)
	}
	for _, r := range slices.Backward(results) {
		if !r.At.After(m.last) {
			continue
		}
		m.last = r.At
		if r.Passed {
			m.passed, m.fails = m.passed+1, 0
			m.up = m.up || m.passed >= rise
			m.seen.WriteByte('+')
		} else {
			m.passed, m.fails = 0, m.fails+1
			m.up = m.up && m.fails < fall
			m.seen.WriteByte('-')
		}
	}
	return missed
}

// gone takes the host away from all services at once, and brings it back.
func (c *checked) gone() {
	c.Helper()
	server := c.lab.Servers[1]
	host := sync.OnceValue(func() error { return vanish(server) })
	var all sync.WaitGroup
	var out, in sync.WaitGroup // all have noticed; it is there again
	out.Add(len(c.services))
	in.Add(1)
	for _, s := range c.services {
		all.Go(func() {
			noticed := sync.OnceFunc(out.Done)
			defer noticed()
			err := c.notice(s, fault{"host gone", "in time|route|reach", host, func() error { noticed(); in.Wait(); return nil }})
			if err != nil {
				c.Error(err)
			}
		})
	}
	out.Wait()
	if err := reappear(c.lab, server); err != nil {
		c.Error(err)
	}
	in.Done()
	all.Wait()
}

// configuration has every service with its check.
func (c *checked) configuration() string {
	var text strings.Builder
	text.WriteString("services:\n")
	for _, s := range c.services {
		fmt.Fprintf(&text, "  - name: %s\n    listen: %s://192.0.2.10:%d\n    scheduler: rr\n    method: nat\n    servers: [{address: %s:%[3]d}, {address: %[5]s:%[3]d}]\n    check: {%[6]s, %[7]s}\n",
			s.name, s.protocol, s.port, c.lab.Servers[0].Addr4, c.lab.Servers[1].Addr4, s.check, checkTerms)
	}
	return text.String()
}

// ailments runs the servers, and returns the services with what befalls the second.
func (c *checked) ailments() []*ailing {
	c.Helper()
	a := newAuthority(c.T, "servers")
	certificate := func(name string, until time.Time) *tls.Certificate {
		a.issue(c.T, name, &x509.Certificate{
			Subject: pkix.Name{CommonName: name}, DNSNames: []string{"www.example"},
			NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		})
		pair, err := tls.LoadX509KeyPair(a.file(name), a.file(name))
		ok(c.T, err)
		return &pair
	}
	good, ended := certificate("good", time.Now().Add(time.Hour)), certificate("ended", time.Now().Add(-time.Hour))
	terms := &tls.Config{RootCAs: x509.NewCertPool()}
	text, err := os.ReadFile(a.file("ca"))
	ok(c.T, err)
	terms.RootCAs.AppendCertsFromPEM(text)

	var web, dns, mail *peer
	var clear, secure, rpc *goPeer
	for _, s := range c.lab.Servers { // of which the last is kept
		web, dns, mail = nginx(c.T, s.Namespace, queue, 80), dnsmasq(c.T, s), aiosmtpd(c.T, s)
		clear, secure, rpc = runGo(c.T, s, 8080, serveHTTP2(nil, nil)), runGo(c.T, s, 443, serveHTTP2(good, ended)), runGo(c.T, s, 50051, serveGRPC)
	}
	processes := func(p *peer, refused string) []fault {
		return []fault{
			{"port closed", refused, p.kill, p.start},
			{"hangs", "in time", p.signals(syscall.SIGSTOP), p.signals(syscall.SIGCONT)},
		}
	}
	ofGo := func(p *goPeer, wrongly string) []fault {
		return []fault{
			{"port closed", "refused|reset", p.kill, p.start},
			{"hangs", "in time", p.becomes(hung), p.becomes(fine)},
			{"wrong answer", wrongly, p.becomes(wrong), p.becomes(fine)},
			{"slow", "in time", p.becomes(slow), p.becomes(fine)},
		}
	}
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(vip4, port) }
	again := dns.signals(syscall.SIGHUP)
	return []*ailing{
		{
			name: "nginx", protocol: "tcp", port: 80, check: `http: {path: /state, host: www.example, match: "^in service"}`, ask: askHTTP(at(80), 1, nil),
			faults: append(processes(web, "refused|reset"),
				fault{"wrong body", "not in the body", web.says("state", "maintenance\n"), web.says("state", "in service\n")},
				fault{"404", "404", web.says("state", ""), web.says("state", "in service\n")},
				fault{"slow", "in time", web.says("slow", "8 bytes a second"), web.says("slow", "")}),
		},
		{
			name: "h2c", protocol: "tcp", port: 8080, check: `http: {version: 2, path: /state, match: "^in service"}`, ask: askHTTP(at(8080), 2, nil),
			faults: ofGo(clear, "503"),
		},
		{
			name: "h2", protocol: "tcp", port: 443, check: fmt.Sprintf(`https: {version: 2, path: /state, host: www.example, match: "^in service"}, tls: {ca: %s}`, a.file("ca")),
			ask:    askHTTP(at(443), 2, terms),
			faults: append(ofGo(secure, "503"), fault{"certificate ended", "expired", secure.becomes(expired), secure.becomes(fine)}),
		},
		{
			name: "grpc", protocol: "tcp", port: 50051, check: "grpc: {}", ask: askGRPC(at(50051)),
			faults: ofGo(rpc, "NOT_SERVING"),
		},
		{
			name: "dnsmasq", protocol: "udp", port: 53, check: "dns: {name: up.example, type: A, answer: 198.51.100.53}", ask: askDNS(at(53)),
			faults: append(processes(dns, "refused"),
				fault{"wrong answer", "not among the answer's 1 records", both(dns.says("hosts", wrongHost), again), both(dns.says("hosts", rightHost), again)},
				fault{"slow", "in time", both(dns.says("hosts", otherHost), again), both(dns.says("hosts", rightHost), again)}),
		},
		{
			name: "aiosmtpd", protocol: "tcp", port: 25, check: "smtp: {hello: director.example}", ask: askSMTP(at(25)),
			faults: append(processes(mail, "refused|reset"),
				fault{"wrong answer", "421 busy", mail.says("wrong", "yes"), mail.says("wrong", "")},
				fault{"slow", "in time", mail.says("slow", "yes"), mail.says("slow", "")}),
		},
	}
}

// Servers of all kinds that fail in each way are taken out, for the reason, and come
// back: how long that takes, and what clients meet meanwhile, is printed.
func TestHealthOfRealServers(t *testing.T) {
	c := &checked{T: t, lab: directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 2})}
	c.services = c.ailments()
	c.d = startDaemon(t, c.lab, "--config", writeFile(t, filepath.Join(t.TempDir(), "shunt.yaml"), c.configuration()))
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { c.watch(ctx) })
	defer all.Wait()
	defer cancel()
	var chains sync.WaitGroup
	for _, s := range c.services {
		chains.Go(func() {
			if err := c.until(s.name, "up", isUp); err != nil {
				t.Error(err)
				return
			}
			all.Go(func() { s.visitors.run(ctx, c.lab.Client, visitEvery, visitFor, s.ask) })
			for _, f := range s.faults {
				if err := c.notice(s, f); err != nil {
					t.Error(err)
					return
				}
			}
			if err := c.follow(s); err != nil {
				t.Error(err)
			}
		})
	}
	chains.Wait()
	if t.Failed() {
		return
	}
	c.gone()
	c.obeys()
	cancel()
	all.Wait()
	for _, s := range c.services {
		for _, f := range s.found {
			t.Logf("figure: %-8s %-17s out after %4d ms, in again after %4d ms; %2d clients' requests failed of those begun meanwhile",
				s.name, f.fault, f.noticed.Milliseconds(), f.back.Milliseconds(), s.visitors.failures(f.from, f.mended))
		}
		t.Logf("figure: %-8s half is lost: %d packets; results %s; %d clients' requests failed of those begun meanwhile",
			s.name, s.lost, s.rode, s.visitors.failures(s.halved.from, s.halved.mended))
		if s.visitors.answered == 0 || s.lost == 0 {
			t.Errorf("%s: %d requests were answered, %d packets lost", s.name, s.visitors.answered, s.lost)
		}
	}
}

// obeys: an operator's word is above the checks', and outlives the daemon.
func (c *checked) obeys() {
	c.Helper()
	second := c.lab.Servers[1].Addr4.String()
	c.d.shunt(c.T, "server", "set", "nginx", second, "--state", "down", "--why", "disks")
	down := func(s api.ServerHealth) bool { return !s.Up && strings.Contains(s.Why, "disks") }
	ok(c.T, c.until("nginx", "down by order", down))
	c.d.stop(c.T)
	c.d.start(c.T)
	report, err := c.d.client(c.T).Health(c.Context(), "nginx", 0)
	ok(c.T, err)
	if s := report.Services[0].Servers[1]; !down(s) {
		c.Errorf("after a restart it is %+v, want the operator's word", s)
	}
	c.d.shunt(c.T, "server", "set", "nginx", second, "--state", "auto")
	ok(c.T, c.until("nginx", "up again", isUp))
}
