package api_test

import (
	"encoding/json"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/lease"
	"github.com/shunt-lb/shunt/realserver"
)

// withLeases is a handler whose service web takes servers from a pool that has one for
// it, one whose address is configured, and one of another family.
func withLeases(t *testing.T) *api.Handler {
	t.Helper()
	fake := directortest.NewFake(director.State{})
	fake.SetStats(director.Stats{Services: []director.ServiceStats{{Key: webKey, Servers: []director.ServerStats{
		{Server: realserver.Server{Address: netip.MustParseAddrPort("10.0.0.21:80")}, Active: 3, Inactive: 1, Reachable: true},
	}}}})
	d := newDirector(t, fake)
	_, err := d.EditService(t.Context(), director.Request{}, webKey, func(s *director.Service) error {
		s.Health.Pool, s.Health.Sorry = "web", []realserver.Server{{Address: netip.MustParseAddrPort("10.0.0.22:80"), Method: realserver.DR, Weight: 1}}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	leases := lease.Open(lease.Options{Log: slog.New(slog.DiscardHandler)})
	for agent, server := range map[string]realserver.Server{
		"s1": {Address: netip.MustParseAddrPort("10.0.0.21:0"), Method: realserver.DR, Weight: 7},
		"s2": {Address: netip.MustParseAddrPort("10.0.0.11:8080"), Method: realserver.NAT, Weight: 9},
		"s3": {Address: netip.MustParseAddrPort("[2001:db8::7]:0"), Method: realserver.DR, Weight: 1},
	} {
		_, err := leases.Register(lease.Registration{Pool: "web", Agent: agent, Boot: "b", Sequence: 1, Lifetime: lease.MaxLifetime, Server: server})
		if err != nil {
			t.Fatal(err)
		}
	}
	return api.NewHandler(d, api.Options{Log: slog.New(slog.DiscardHandler), Leases: leases})
}

// Servers that agents registered take orders, and of others that are not configured none
// does: sorry servers, and those of the pool that the service does not take.
func TestOrdersOfLeased(t *testing.T) {
	for _, order := range []struct{ path, body string }{{"override", `{"state":"down"}`}, {"drain", `{}`}} {
		h := withLeases(t)
		for _, test := range []struct {
			method, server string
			status         int
		}{
			{"PUT", "10.0.0.21:80", 200},
			{"PUT", "10.0.0.21", 200},
			{"PUT", "10.0.0.22:80", 404},
			{"PUT", "10.0.0.23:80", 404},
			{"PUT", "[2001:db8::7]:80", 404},
			{"DELETE", "10.0.0.21:80", 200},
			{"DELETE", "10.0.0.21:80", 404},
			{"DELETE", "10.0.0.23:80", 404},
		} {
			if w := ask(h, test.method, "/v1/services/web/servers/"+test.server+"/"+order.path, order.body); w.Code != test.status {
				t.Errorf("%s %s of %s: %d %s, want %d", test.method, order.path, test.server, w.Code, w.Body, test.status)
			}
		}
	}
}

// What is not an order is the agent's business, and is refused by name.
func TestLeasedIsNotConfigured(t *testing.T) {
	h := withLeases(t)
	for method, body := range map[string]string{"DELETE": "", "PATCH": `{"weight":3}`} {
		w := ask(h, method, "/v1/services/web/servers/10.0.0.21:80", body)
		if w.Code != 404 || !strings.Contains(w.Body.String(), "server 10.0.0.21:80 of tcp://192.0.2.10:80 came by a lease, and is not configured") {
			t.Errorf("%s: %d %s", method, w.Code, w.Body)
		}
	}
}

// The drain of a server whose lease has ended is given other terms, and cancelled.
func TestDrainOutlivesLease(t *testing.T) {
	h := withLeases(t)
	const server = "/v1/services/web/servers/10.0.0.21:80"
	for _, step := range []struct{ method, path, body, want string }{
		{"PUT", server + "/drain", `{"within":"1h"}`, `"action":"drain","service":"tcp://192.0.2.10:80","server":"10.0.0.21:80"`},
		{"DELETE", "/v1/pools/web/members/s1", "", ""},
		{"PUT", server + "/drain", `{}`, `"changed":true`},
		{"GET", "/v1/drains", "", `"server":"10.0.0.21:80"`},
		{"DELETE", server + "/drain", "", `"changed":true`},
		{"PUT", server + "/drain", `{}`, "server: not found"},
		{"GET", "/v1/drains", "", `"drains":[]`},
	} {
		if w := ask(h, step.method, step.path, step.body); !strings.Contains(w.Body.String(), step.want) {
			t.Errorf("%s %s: %d %s\nwant %s", step.method, step.path, w.Code, w.Body, step.want)
		}
	}
}

// A service has what agents registered beside its own servers, with its orders and
// connections; a revision names the orders.
func TestLeasedOfService(t *testing.T) {
	h := withLeases(t)
	for path, body := range map[string]string{"drain": `{}`, "override": `{"state":"down"}`} {
		if w := ask(h, "PUT", "/v1/services/web/servers/10.0.0.21:80/"+path, body); w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	w := ask(h, "GET", "/v1/services/web", "")
	var service api.Service
	if err := json.Unmarshal(w.Body.Bytes(), &service); err != nil || len(service.Servers) != 1 || len(service.Leased) != 1 {
		t.Fatalf("%v: %d %s", err, w.Code, w.Body)
	}
	got := service.Leased[0]
	if got.Drain == nil || got.Drain.Phase != string(director.PhaseDraining) || got.Override == nil || got.Override.State != api.StateDown {
		t.Errorf("orders %+v, %+v", got.Drain, got.Override)
	}
	got.Drain, got.Override = nil, nil
	want := api.Server{Address: "10.0.0.21:80", Method: "dr", Weight: 7, Active: 3, Inactive: 1, Reachable: true, Draining: true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	w = ask(h, "GET", "/v1/revisions/4", "")
	for _, want := range []string{
		`"drained":[{"service":"tcp://192.0.2.10:80","server":"10.0.0.21:80"`,
		`"overridden":[{"service":"tcp://192.0.2.10:80","server":"10.0.0.21:80","override":{"state":"down"`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%d %s\nwant %s", w.Code, w.Body, want)
		}
	}
}

// Who registers what a service is configured with, or cannot have, is told so; so is who
// asks for the pool.
func TestLeftOut(t *testing.T) {
	h := withLeases(t)
	w := ask(h, "PUT", "/v1/pools/web/members/s2", `{"boot":"b","sequence":2,"lifetime":"1m","server":{"address":"10.0.0.11:8080","method":"nat","weight":9}}`)
	const configured = `"left-out":[{"service":"tcp://192.0.2.10:80","why":"server 10.0.0.11:8080 of service \"web\" is configured, on terms of its own: its registration has no effect there"}]`
	if w.Code != 200 || !strings.Contains(w.Body.String(), configured) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	w = ask(h, "PUT", "/v1/pools/web/members/s1", `{"boot":"b","sequence":2,"lifetime":"1m","server":{"address":"10.0.0.21","method":"dr","weight":7}}`)
	if w.Code != 200 || strings.Contains(w.Body.String(), "left-out") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	w = ask(h, "GET", "/v1/pools/web", "")
	var pool api.Pool
	if err := json.Unmarshal(w.Body.Bytes(), &pool); err != nil || len(pool.Members) != 3 {
		t.Fatalf("%v: %d %s", err, w.Code, w.Body)
	}
	for i, want := range []string{"", "is configured, on terms of its own", "address family"} {
		left := pool.Members[i].LeftOut
		if want == "" && len(left) > 0 || want != "" && (len(left) != 1 || !strings.Contains(left[0].Why, want)) {
			t.Errorf("%s: %+v, want %q", pool.Members[i].Agent, left, want)
		}
	}
}

// However many services do not take a server, its agent can read the answer.
func TestLeftOutOfManyServices(t *testing.T) {
	d := newDirector(t, directortest.NewFake(director.State{}))
	state := d.State()
	for i := range 600 {
		key := webKey
		key.Address = netip.AddrPortFrom(webKey.Address.Addr(), uint16(1000+i))
		state.Services = append(state.Services, director.Service{
			Key: key, Scheduler: director.RoundRobin, Health: director.Health{Pool: "web"},
			Servers: []realserver.Server{{Address: netip.MustParseAddrPort("10.0.0.11:8080"), Method: realserver.NAT, Weight: 1}},
		})
	}
	if _, err := d.Apply(t.Context(), director.Request{}, state); err != nil {
		t.Fatal(err)
	}
	h := api.NewHandler(d, api.Options{Log: slog.New(slog.DiscardHandler), Leases: lease.Open(lease.Options{Log: slog.New(slog.DiscardHandler)})})
	w := ask(h, "PUT", "/v1/pools/web/members/s2", `{"boot":"b","sequence":1,"lifetime":"1m","server":{"address":"10.0.0.11:8080","method":"nat","weight":9}}`)
	if n := strings.Count(w.Body.String(), `"why":`); w.Code != 200 || n != 32 || w.Body.Len() > 64<<10 {
		t.Errorf("%d: %d services in %d bytes", w.Code, n, w.Body.Len())
	}
	w = ask(h, "GET", "/v1/pools/web", "")
	if n := strings.Count(w.Body.String(), `"why":`); w.Code != 200 || n != 600 {
		t.Errorf("%d: %d services of the pool", w.Code, n)
	}
}
