package api_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/lease"
	"github.com/shunt-lb/shunt/realserver"
)

// pools is a daemon over TLS whose service web takes servers from the pool web.
type pools struct {
	*remote

	t      *testing.T
	leases *lease.Registry
	http   *http.Client
	loads  []string
}

func servePools(t *testing.T) *pools {
	t.Helper()
	p := &pools{t: t}
	p.leases = lease.Open(lease.Options{
		Log: slog.New(slog.DiscardHandler),
		Loaded: func(_ string, server realserver.Server, load lease.Load, _ time.Time, _ time.Duration) {
			p.loads = append(p.loads, fmt.Sprintf("%s %g", server.Address, load.Value))
		},
	})
	fake := directortest.NewFake(director.State{})
	fake.SetStats(director.Stats{Services: []director.ServiceStats{{Key: webKey, Servers: []director.ServerStats{
		{Server: realserver.Server{Address: netip.MustParseAddrPort("10.0.0.21:80")}, Active: 3, Inactive: 9, UDP: 2},
	}}}})
	d := newDirector(t, fake)
	_, err := d.EditService(t.Context(), director.Request{}, webKey, func(s *director.Service) error { s.Health.Pool = "web"; return nil })
	if err != nil {
		t.Fatal(err)
	}
	p.remote = serveTLSBy(t, func(*remote) *api.Handler {
		return api.NewHandler(d, api.Options{Log: slog.New(slog.DiscardHandler), Leases: p.leases})
	})
	p.http = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	t.Cleanup(p.http.CloseIdleConnections)
	return p
}

// send returns the status and the body of an answer to a token.
func (p *pools) send(token, method, path, body string) (int, string) {
	p.t.Helper()
	request, err := http.NewRequestWithContext(p.t.Context(), method, p.url+path, bytes.NewReader([]byte(body)))
	if err != nil {
		p.t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+p.tokens[token])
	}
	answer, err := p.http.Do(request)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

func registers(sequence int, more string) string {
	return fmt.Sprintf(`{"boot":"b1","sequence":%d,"lifetime":"30s","server":{"address":"10.0.0.21","method":"dr","weight":7}%s}`, sequence, more)
}

func TestPools(t *testing.T) {
	p := servePools(t)
	const agent = "/v1/pools/web/members/agent"
	for _, step := range []struct {
		name, token, method, path, body string
		status                          int
		want                            string
	}{
		{"an_agent_registers", "agent", "PUT", agent, registers(1, ""), 200, `{"until":"`},
		{"is_counted_in_the_status", "viewer", "GET", "/v1/status", "", 200, `"servers":1,"leased":1,"unreachable":2`},
		{"and_says_its_load", "agent", "PUT", agent, registers(2, `,"load":{"value":0.4,"cpu":0.3}`), 200, `{"until":"`},
		{"a_replay", "agent", "PUT", agent, registers(2, ""), 409, `"code":"replayed"`},
		{"a_stranger", "", "PUT", agent, registers(3, ""), 401, "no credentials"},
		{"for_another_agent", "agent", "PUT", "/v1/pools/web/members/s2", registers(3, ""), 403, `"code":"not-its-own"`},
		{"in_another_pool", "agent", "PUT", "/v1/pools/dns/members/agent", registers(3, ""), 403, "may speak of the pools web,mail, not of dns"},
		{"a_viewer", "viewer", "PUT", agent, registers(3, ""), 403, "may not speak for agent agent"},
		{"in_a_pool_of_no_service", "agent", "PUT", "/v1/pools/mail/members/agent", registers(3, ""), 404, `"code":"no-pool"`},
		{"the_address_of_another", "operator", "PUT", "/v1/pools/web/members/s2", registers(1, ""), 409, `"code":"address-taken"`},
		{"without_a_lifetime", "agent", "PUT", agent, `{"boot":"b","sequence":3,"server":{"address":"10.0.0.21","method":"dr"}}`, 422, "lifetime 0s is out of range"},
		{"a_word_that_is_unknown", "agent", "PUT", agent, registers(3, `,"wieght":1`), 422, `unknown field`},
		{"another_family", "agent", "PUT", agent, strings.Replace(registers(3, ""), "10.0.0.21", "2001:db8::1", 1), 422, "service tcp://192.0.2.10:80 cannot have it"},
		{"a_weight_that_no_plane_has", "agent", "PUT", agent, strings.Replace(registers(3, ""), `"weight":7`, `"weight":4000000000`, 1), 422, "weight"},
		{"too_large", "agent", "PUT", agent, registers(3, `,"draining":`+strings.Repeat(" ", 20000)+"true"), 413, "larger than 16384"},
		{"no_json", "agent", "PUT", agent, `x`, 400, "want a JSON object"},
		{"its_pool", "agent", "GET", "/v1/pools/web", "", 200, `"agent":"agent","address":"10.0.0.21:0","method":"dr","weight":7`},
		{"another_pool", "agent", "GET", "/v1/pools/dns", "", 403, "a certificate has units shunt-pool-POOL"},
		{"all_pools", "agent", "GET", "/v1/pools", "", 403, "needs a viewer"},
		{"the_services", "agent", "GET", "/v1/services", "", 403, "forbidden"},
		{"a_report", "agent", "POST", agent + "/unreachable", "", 200, `{"reports":1,"wanted":2}`},
		{"a_report_of_nobody", "agent", "POST", "/v1/pools/web/members/s9/unreachable", "", 404, "no-member"},
		{"drains", "agent", "PUT", agent, registers(4, `,"draining":true`), 200, `"connections":5`},
		{"leaves_without_a_boot", "agent", "DELETE", agent, "", 422, "an agent says its boot"},
		{"leaves_by_a_replay", "agent", "DELETE", agent + "?boot=b1&sequence=4", "", 409, "replayed"},
		{"leaves_for_another", "agent", "DELETE", "/v1/pools/web/members/s2?boot=b1&sequence=5", "", 403, "not-its-own"},
		{"leaves", "agent", "DELETE", agent + "?boot=b1&sequence=5", "", 204, ""},
		{"a_replay_after_it_left", "agent", "PUT", agent, registers(5, ""), 409, "replayed"},
		{"a_later_run", "agent", "PUT", agent, strings.Replace(registers(1, ""), "b1", "b2", 1), 200, "until"},
		{"the_run_before", "agent", "PUT", agent, registers(9, ""), 409, `"code":"superseded"`},
		{"an_operator_takes_it_away", "operator", "DELETE", agent, "", 204, ""},
		{"is_gone", "operator", "DELETE", agent, "", 404, "not registered any more"},
		{"is_counted", "viewer", "GET", "/v1/pools", "", 200, `"registered":2,"renewed":2,"left":2,"expired":0,"reports":1,"refused":{"address-taken":1,"invalid":4,"no-member":2,"no-pool":1,"not-its-own":5,"replayed":3,"superseded":1}`},
		{"names_the_services", "viewer", "GET", "/v1/pools/web", "", 200, `"services":["tcp://192.0.2.10:80"],"members":[]`},
	} {
		status, text := p.send(step.token, step.method, step.path, step.body)
		if status != step.status || !strings.Contains(text, step.want) {
			t.Errorf("%s: %d %s\nwant %d with %s", step.name, status, text, step.status, step.want)
		}
		var problem api.Problem
		if status >= 400 && (json.Unmarshal([]byte(text), &problem) != nil || problem.Detail == "" || !problem.Code.Valid()) {
			t.Errorf("%s: no problem: %s", step.name, text)
		}
	}
	if diff := cmp.Diff([]string{"10.0.0.21:0 0.4"}, p.loads); diff != "" {
		t.Errorf("loads (-want +got)\n%s", diff)
	}
}

// A service that comes to the pool later, and cannot have the servers that are there,
// keeps none of them from renewing its lease.
func TestPoolOfServicesThatDiffer(t *testing.T) {
	p := servePools(t)
	const agent = "/v1/pools/web/members/agent"
	for _, step := range [][3]string{
		{"PUT", agent, registers(1, "")},
		{"POST", "/v1/services", `{"listen":"tcp://[2001:db8::1]:80","servers":[{"address":"2001:db8::2","method":"dr"}],"health":{"pool":"web"}}`},
		{"PUT", agent, registers(2, "")},
		{"PUT", agent, strings.Replace(registers(3, ""), "10.0.0.21", "2001:db8::3", 1)},
	} {
		if status, text := p.send("operator", step[0], step[1], step[2]); status >= 300 {
			t.Errorf("%s: %d %s", step, status, text)
		}
	}
	if status, text := p.send("agent", "PUT", agent, strings.Replace(registers(4, ""), "10.0.0.21", "0.0.0.0", 1)); status != 422 || !strings.Contains(text, "is not a unicast address") {
		t.Errorf("what no service can have: %d %s", status, text)
	}
}

// An agent is known by its certificate too: the common name is its name, and units are
// its pools.
func TestAgentsByCertificate(t *testing.T) {
	p := servePools(t)
	for name, test := range map[string]struct {
		common string
		units  []string
		status int
	}{
		"its_own":      {"s1", []string{"shunt-agent", "shunt-pool-web"}, 200},
		"no_pool":      {"s1", []string{"shunt-agent"}, 401},
		"another_pool": {"s1", []string{"shunt-agent", "shunt-pool-dns"}, 403},
		"another_name": {"s3", []string{"shunt-agent", "shunt-pool-web"}, 403},
		"no_agent":     {"s1", []string{"shunt-pool-web"}, 401},

		"in_its_networks":      {"s1", []string{"shunt-agent", "shunt-pool-web", "shunt-servers-2001:db8::/64", "shunt-servers-10.0.0.0/24"}, 200},
		"outside_its_networks": {"s1", []string{"shunt-agent", "shunt-pool-web", "shunt-servers-10.0.1.0/24"}, 403},
		"no_network":           {"s1", []string{"shunt-agent", "shunt-pool-web", "shunt-servers-10.0.0.21/24"}, 401},
		"a_misspelt_unit":      {"s1", []string{"shunt-agent", "shunt-pool-web", "shunt-server-10.0.0.0/24"}, 401},
	} {
		file := p.clients.issue(t, test.common, leaf{units: test.units})
		pair, err := tls.LoadX509KeyPair(file, file)
		if err != nil {
			t.Fatal(err)
		}
		p.http = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}}}}
		registration := strings.Replace(registers(1, ""), "b1", name, 1) // each is a run of its own
		if status, text := p.send("", "PUT", "/v1/pools/web/members/s1", registration); status != test.status {
			t.Errorf("%s: %d %s, want %d", name, status, text, test.status)
		}
		p.http.CloseIdleConnections()
	}
}

// A token that names networks registers no server outside them: a lease that stands when
// the file is changed is not renewed, and whoever has it may still give it up.
func TestNetworksOfAgents(t *testing.T) {
	p := servePools(t)
	p.listener.SetCheck(0)
	const agent, old = "/v1/pools/web/members/s1", "/v1/pools/web/members/old"
	at := func(sequence int, address string) string {
		return strings.Replace(registers(sequence, ""), "10.0.0.21", address, 1)
	}
	write := func(networks ...string) {
		t.Helper()
		p.writeTokens(t, p.newAgentToken(t, "s1", api.AgentTerms{Pools: []string{"web"}, Servers: networks})+"\n"+
			p.newAgentToken(t, "old", api.AgentTerms{Pools: []string{"web"}})+"\n"+
			p.newToken(t, "operator", api.Operator, time.Time{})+"\n")
	}
	send := func(token, method, path, body string, status int, want string) {
		t.Helper()
		if got, text := p.send(token, method, path, body); got != status || !strings.Contains(text, want) {
			t.Errorf("%s %s: %d %s\nwant %d with %s", method, body, got, text, status, want)
		}
	}
	const denied = `"code":"address-denied"`
	write("10.0.0.0/28", "2001:db8::/64", "10.0.0.21")
	send("s1", "PUT", agent, at(1, "10.0.0.22"), 403, "server 10.0.0.22 is outside the networks of token s1: 10.0.0.0/28,2001:db8::/64,10.0.0.21/32")
	send("s1", "PUT", agent, at(1, "10.0.0.16:80"), 403, denied)
	send("s1", "PUT", agent, at(1, "::ffff:10.0.0.21"), 422, "write 10.0.0.21")
	if have := p.leases.Members("web"); len(have) > 0 {
		t.Errorf("a refusal registered %+v", have)
	}
	// A sequence that was refused was not taken.
	send("s1", "PUT", agent, at(1, "10.0.0.15:80"), 200, "until")
	send("s1", "PUT", agent, at(2, "10.0.0.22"), 403, denied)
	send("s1", "PUT", agent, at(2, "10.0.0.21"), 200, "until")
	send("old", "PUT", old, at(1, "10.0.0.22"), 200, "until")
	send("operator", "PUT", "/v1/pools/web/members/s9", at(1, "10.0.0.23"), 200, "until")
	before := p.leases.Members("web")

	write("10.0.0.0/28")
	send("s1", "PUT", agent, registers(3, `,"load":{"value":0.5}`), 403, denied)
	send("s1", "PUT", agent, registers(3, `,"draining":true`), 403, denied)
	if diff := cmp.Diff(before, p.leases.Members("web"), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" || len(p.loads) > 0 {
		t.Errorf("a refused renewal changed (-before +after) %s\nand told the loads %v", diff, p.loads)
	}
	send("old", "PUT", old, at(2, "10.0.0.22"), 200, "until")
	send("s1", "DELETE", agent+"?boot=b1&sequence=3", "", 204, "")
	send("operator", "GET", "/v1/pools", "", 200, `"refused":{"address-denied":5,"invalid":1}`)
}

func TestAgentTokens(t *testing.T) {
	_, hash := api.NewToken()
	create := func(role api.Role, pools, servers []string) (string, error) {
		return api.TokenLine("s1", role, hash, time.Time{}, api.AgentTerms{Pools: pools, Servers: servers})
	}
	pools := []string{"web", "mail"}
	for want, servers := range map[string][]string{
		"s1 agent:web,mail " + hash:                                 nil,
		"s1 agent:web,mail servers:10.1.2.0/24,2001:db8::7 " + hash: {"10.1.2.0/24", "2001:db8::7"},
	} {
		if line, err := create(api.Agent, pools, servers); err != nil || line != want {
			t.Errorf("%q, %v, want %q", line, err, want)
		}
	}
	for want, try := range map[string]func() error{
		"token s1: an agent has pools":            func() error { _, err := create(api.Agent, nil, nil); return err },
		"only an agent has pools, not a viewer":   func() error { _, err := create(api.Viewer, pools, nil); return err },
		"only an agent has servers, not a viewer": func() error { _, err := create(api.Viewer, nil, []string{"10.0.0.1"}); return err },
		`pool "../x": want 1 to 63`:               func() error { _, err := create(api.Agent, []string{"../x"}, nil); return err },
		"servers: 10.1.2.3/24 has bits beyond":    func() error { _, err := create(api.Agent, pools, []string{"10.1.2.3/24"}); return err },
		`servers: "" is not a network`:            func() error { _, err := create(api.Agent, pools, []string{""}); return err },
	} {
		if err := try(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
