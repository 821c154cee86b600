package labtest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// fleet is many agents, each of an address of its own in a few namespaces, and a director
// that they register at while clients ask it.
type fleet struct {
	*testing.T
	lab    *directortest.Lab
	d      *daemon
	api    netip.AddrPort
	terms  *tls.Config // to ask the API
	agents []*member
	taps   []*tap

	mu      sync.Mutex // guards what follows
	answers map[netip.Addr]int
	failed  []error
}

// member is an agent with its server.
type member struct {
	name    string
	pool    string
	address netip.Addr
	token   string
	command []string
	ns      *directortest.Namespace
	process *directortest.Cmd
	said    *logText
}

// The services of the fleet's pools.
var fleetPools = map[string]netip.AddrPort{"web": netip.AddrPortFrom(vip4, 80), "doomed": netip.AddrPortFrom(vip4, 81)}

// startFleet starts the director and the first agent, and prepares the others; their
// pools are given. Those of taps reach it through one.
func startFleet(t *testing.T, pools []string, taps ...int) *fleet {
	t.Helper()
	f := &fleet{
		T: t, lab: directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed}), api: netip.MustParseAddrPort("10.1.0.1:9443"),
		answers: map[netip.Addr]int{}, terms: &tls.Config{RootCAs: x509.NewCertPool()},
	}
	for _, service := range fleetPools {
		_, err := f.lab.ServeHTTP(service.Port())
		ok(t, err)
	}
	ca, folder, lines := newAuthority(t, "lab"), t.TempDir(), ""
	certificate := ca.server(t, f.api.Addr())
	text, err := os.ReadFile(ca.file("ca"))
	ok(t, err)
	f.terms.RootCAs.AppendCertsFromPEM(text)
	for i, pool := range pools {
		m := &member{name: fmt.Sprintf("s%d", i), pool: pool, address: netip.AddrFrom4([4]byte{10, 2, 0, byte(100 + i)})}
		token, hash := api.NewToken()
		line, err := api.TokenLine(m.name, api.Agent, hash, time.Time{}, api.AgentTerms{Pools: []string{pool}, Servers: []string{"10.2.0.0/24"}})
		ok(t, err)
		lines += line + "\n"
		m.token = token
		f.agents = append(f.agents, m)
	}
	writeFile(t, filepath.Join(folder, "tokens"), lines)
	f.d = startDaemon(t, f.lab, "--config", writeFile(t, filepath.Join(folder, "shunt.yaml"), fmt.Sprintf(`
director:
  api: {listen: "%s", certificate: %s, key: %[2]s, tokens: %[3]s}
services:
  - {name: web, listen: "tcp://192.0.2.10:80", scheduler: rr, method: nat, timeouts: {tcp-fin: 1s}, health: {pool: web}, servers: []}
  - {name: doomed, listen: "tcp://192.0.2.10:81", scheduler: rr, method: nat, health: {pool: doomed}, servers: []}
`, f.api, certificate, filepath.Join(folder, "tokens"))))
	where := map[int]netip.AddrPort{}
	for n, i := range taps {
		where[i] = f.tap(ca, netip.AddrPortFrom(f.lab.Servers[0].Addr4, uint16(9443+n)))
	}
	for i, m := range f.agents {
		m.ns = f.lab.Servers[i%len(f.lab.Servers)].Namespace
		ok(t, m.ns.AddAddress("eth0", netip.PrefixFrom(m.address, 24)))
		director, tapped := where[i]
		if !tapped {
			director = f.api
		}
		m.prepare(f, director, filepath.Join(folder, m.name), ca.file("ca"))
	}
	f.begin(f.agents[:1])
	return f
}

// prepare writes the agent's files.
func (m *member) prepare(f *fleet, director netip.AddrPort, files, ca string) {
	writeFile(f.T, files+".token", m.token)
	settings := writeFile(f.T, files+".yaml", fmt.Sprintf(
		"agent: %s\ndirectors: [\"https://%s\"]\nca: %s\ntoken-file: %s.token\nlease: 5s\ndrain: 10s\nmembers: [{pool: %s, address: %s, method: nat}]\n",
		m.name, director, ca, files, m.pool, m.address))
	m.command = []string{filepath.Join(binaries, "shunt-agent"), "run", "--config", settings}
}

// run starts the agent.
func (m *member) run(f *fleet) {
	m.said = newLogText()
	m.process = m.ns.Command(context.Background(), m.command[0], m.command[1:]...)
	m.process.Stdout, m.process.Stderr = m.said, m.said
	ok(f.T, m.process.Start())
	f.Cleanup(func() {
		if m.process.ProcessState == nil {
			m.kill()
		}
		if f.Failed() {
			f.Logf("agent %s said:\n%s", m.name, m.said)
		}
	})
}

// kill ends the agent as kill -9 does; its server stays.
func (m *member) kill() {
	_ = m.process.Process.Kill() // it may have ended
	_ = m.process.Wait()         // a killed process always "fails"
}

// begin starts agents, and waits until they have said that they are registered.
func (f *fleet) begin(agents []*member) {
	f.Helper()
	for _, m := range agents {
		m.run(f)
	}
	for _, m := range agents {
		select {
		case <-m.said.contains("msg=registered"):
		case <-time.After(limit):
			f.Fatalf("agent %s does not register:\n%s", m.name, m.said)
		}
	}
}

// leave has the agents end as systemd does, and waits until they have.
func (f *fleet) leave(agents []*member) {
	f.Helper()
	for _, m := range agents {
		ok(f.T, m.process.Process.Signal(syscall.SIGTERM))
	}
	for _, m := range agents {
		if err := m.process.Wait(); err != nil {
			f.Errorf("agent %s: %v", m.name, err)
		}
	}
}

// load has clients ask the pool web's servers, some at a time, until the context ends.
func (f *fleet) load(ctx context.Context, clients int) {
	var all sync.WaitGroup
	defer all.Wait()
	for range clients {
		all.Go(func() {
			for ; ctx.Err() == nil; <-time.After(3 * time.Millisecond) {
				header, err := job{service: "web", address: fleetPools["web"], size: 100}.do(f.lab.Client)
				f.note(header.Get(directortest.HeaderLocal), err)
			}
		})
	}
}

func (f *fleet) note(local string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, parsed := netip.ParseAddrPort(local)
	if err = errors.Join(err, parsed); err != nil {
		f.failed = append(f.failed, fmt.Errorf("%s: %w", time.Now().UTC().Format(time.TimeOnly), err))
		return
	}
	f.answers[at.Addr()]++
}

// since forgets who answered, and returns how many did so far.
func (f *fleet) since() (total int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.answers {
		total += n
	}
	clear(f.answers)
	return total
}

// answer waits until all of the agents' servers answer, and no other does, of as many
// requests as go round three times.
func (f *fleet) answer(agents []*member) (total int) {
	f.Helper()
	await(f.T, fmt.Sprintf("%d servers answer", len(agents)), func() bool {
		total += f.since()
		var answers map[netip.Addr]int
		await(f.T, "requests", func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			n := 0
			for _, count := range f.answers {
				n += count
			}
			answers = f.answers
			return n >= 3*len(agents) || len(f.failed) > 0
		})
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, m := range agents {
			if answers[m.address] == 0 {
				return false
			}
		}
		return len(answers) == len(agents)
	})
	return total + f.since()
}

// told counts the events of a name by the agent that their messages name.
func told(logs []*logText, name string) map[string]int {
	counts := map[string]int{}
	line := regexp.MustCompile(`msg="agent (\S+) of pool \S+: .* event=` + name + `\b`)
	for _, l := range logs {
		for _, found := range line.FindAllStringSubmatch(l.String(), -1) {
			counts[found[1]]++
		}
	}
	return counts
}

// names is what told returns if there is one event of each.
func names(agents []*member) map[string]int {
	counts := map[string]int{}
	for _, m := range agents {
		counts[m.name] = 1
	}
	return counts
}

// message is what an agent sends.
type message struct {
	method, path, token string
	body                []byte
}

// tap is a proxy between an agent and the director, that keeps the last registration.
type tap struct {
	mu   sync.Mutex // guards last
	last message
}

// tap starts one in the first server's namespace and returns its address.
func (f *fleet) tap(ca *authority, at netip.AddrPort) netip.AddrPort {
	f.Helper()
	p := &tap{}
	f.taps = append(f.taps, p)
	name := fmt.Sprintf("tap%d", at.Port())
	ca.issue(f.T, name, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{at.Addr().AsSlice()}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	listener, err := f.lab.Servers[0].Listen(f.Context(), at)
	ok(f.T, err)
	server := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		m := message{r.Method, r.URL.RequestURI(), r.Header.Get("Authorization"), body}
		if r.Method == http.MethodPut {
			p.mu.Lock()
			p.last = m
			p.mu.Unlock()
		}
		status, _, text, errSend := f.send(m)
		if err := errors.Join(err, errSend); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.WriteHeader(status)
		_, _ = w.Write(text) // the agent asks again
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ServeTLS(listener, ca.file(name), ca.file(name)) // until Close
	}()
	f.Cleanup(func() { _ = server.Close(); <-done })
	return at
}

// captured is the last registration that the tap saw.
func (p *tap) captured() message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// send says a message to the director, by a connection of its own.
func (f *fleet) send(m message) (status int, kind string, text []byte, err error) {
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: f.terms, DialContext: dialFrom(f.lab.Servers[0].Namespace, "tcp", f.api)}
	request, err := http.NewRequest(m.method, "https://"+f.api.String()+m.path, bytes.NewReader(m.body))
	if err != nil {
		return 0, "", nil, err
	}
	request.Header.Set("Authorization", m.token)
	request.Header.Set("Content-Type", "application/json")
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return 0, "", nil, err
	}
	defer answer.Body.Close()
	text, err = io.ReadAll(answer.Body)
	return answer.StatusCode, answer.Header.Get("Content-Type"), text, err
}

// refuses wants the director to refuse a message by a problem of the code.
func (f *fleet) refuses(what string, m message, status int, code string) {
	f.Helper()
	got, kind, text, err := f.send(m)
	ok(f.T, err)
	var problem api.Problem
	if err := json.Unmarshal(text, &problem); err != nil || got != status || kind != "application/problem+json" || string(problem.Code) != code || problem.Detail == "" {
		f.Errorf("%s: %d %s %s %v, want %d with the problem %s", what, got, kind, text, err, status, code)
	}
}

// members are those that the director knows of a pool.
func (f *fleet) members(pool string) []api.Member {
	f.Helper()
	for _, p := range f.pools().Pools {
		if p.Name == pool {
			return p.Members
		}
	}
	f.Fatalf("there is no pool %s", pool)
	return nil
}

// pools reads what the director knows of its pools.
func (f *fleet) pools() (list api.PoolList) {
	f.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", f.d.socket)
	}}
	request, err := http.NewRequestWithContext(f.Context(), http.MethodGet, "http://shunt/v1/pools", nil)
	ok(f.T, err)
	answer, err := transport.RoundTrip(request)
	ok(f.T, err)
	defer answer.Body.Close()
	ok(f.T, json.NewDecoder(answer.Body).Decode(&list))
	return list
}
