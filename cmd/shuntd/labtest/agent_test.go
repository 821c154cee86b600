package labtest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/directortest"
)

// TestAgents has agents register their servers, drain them and leave while clients ask
// all the time and the director restarts: no request fails.
func TestAgents(t *testing.T) {
	const servers = 5
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: servers})
	if _, err := lab.ServeHTTP(80); err != nil {
		t.Fatal(err)
	}
	address := netip.MustParseAddrPort("10.1.0.1:9443")
	ca, folder := newAuthority(t, "lab"), t.TempDir()
	lines := ""
	for i := range lab.Servers {
		name := fmt.Sprintf("s%d", i)
		var made struct{ Token, Line string }
		ok(t, json.Unmarshal([]byte(output(t, ".", filepath.Join(binaries, "shunt"), "token", "create", "--name", name, "--role", "agent", "--pool", "web", "-o", "json")), &made))
		lines += made.Line + "\n"
		writeFile(t, filepath.Join(folder, name+".token"), made.Token)
		writeFile(t, filepath.Join(folder, name+".yaml"), fmt.Sprintf(
			"agent: %s\ndirectors: [\"https://%s\"]\nca: %s\ntoken-file: %s\nlease: 5s\ndrain: 10s\nmembers: [{pool: web, address: 10.2.0.%d, method: nat}]\n",
			name, address, ca.file("ca"), filepath.Join(folder, name+".token"), 11+i))
	}
	writeFile(t, filepath.Join(folder, "tokens"), lines)
	writeFile(t, filepath.Join(folder, "shunt.yaml"), fmt.Sprintf(`
director:
  api: {listen: "%s", certificate: %s, key: %[2]s, tokens: %[3]s}
services:
  - {name: web, listen: "tcp://192.0.2.10:80", scheduler: rr, method: nat, timeouts: {tcp-fin: 1s}, health: {pool: web}, servers: []}
`, address, ca.server(t, address.Addr()), filepath.Join(folder, "tokens")))
	p := pair{lab: lab, vip: netip.AddrPortFrom(vip4, 80), d: startDaemon(t, lab, "--config", filepath.Join(folder, "shunt.yaml"))}

	var agents []*directortest.Cmd
	for i, server := range lab.Servers {
		agent := server.Command(context.Background(), filepath.Join(binaries, "shunt-agent"), "run", "--config", filepath.Join(folder, fmt.Sprintf("s%d.yaml", i)))
		said := newLogText()
		agent.Stdout, agent.Stderr = said, said
		ok(t, agent.Start())
		t.Cleanup(func() {
			if agent.ProcessState == nil {
				_ = agent.Process.Kill()
				_ = agent.Wait()
			}
			if t.Failed() {
				t.Logf("agent %d said:\n%s", i, said)
			}
		})
		select {
		case <-said.contains("msg=registered"):
		case <-time.After(limit):
			t.Fatalf("agent %d does not register:\n%s", i, said)
		}
		agents = append(agents, agent)
	}
	for answers := map[string]int{}; len(answers) < servers; {
		answers = p.requests(t, 20)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	clients.Go(func() {
		for ctx.Err() == nil {
			p.requests(t, 40) // which fails the test where one fails
		}
	})
	p.d.stop(t)
	p.d.start(t)
	for _, agent := range agents[1:] {
		ok(t, agent.Process.Signal(syscall.SIGTERM))
	}
	for i, agent := range agents[1:] {
		if err := agent.Wait(); err != nil {
			t.Errorf("agent %d: %v", i+1, err)
		}
	}
	cancel()
	clients.Wait()
	if answers := p.requests(t, 20); answers[lab.Servers[0].Name] != 20 {
		t.Errorf("answers %v, want all from the one that stays", answers)
	}
	if n := strings.Count(p.d.log.String(), "event=server-left"); n != servers-1 {
		t.Errorf("%d servers left, want %d", n, servers-1)
	}
	p.d.noFaults(t)
}
