package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

// newKernel returns a fake that can what the kernel's IPVS can, and holds the
// state.
func newKernel(t *testing.T, state director.State) *directortest.Fake {
	t.Helper()
	fake := directortest.NewFake(state)
	fake.SetFeatures(director.IPVSFeatures())
	return fake
}

func TestKernelRequests(t *testing.T) {
	const web = "/v1/services/web"
	for _, test := range []struct {
		name, method, path, body string
		status                   int
		want                     string // in the answer
	}{
		{"adds_a_service_of_a_mark", "POST", "/v1/services", `{"listen":"fwmark://7","servers":[{"address":"10.0.0.1","method":"nat"}]}`, 201, `"text":"add server 10.0.0.1:0 to fwmark://7: method nat, weight 1"`},
		{"adds_a_service_of_sctp", "POST", "/v1/services", `{"listen":"sctp://192.0.2.1:80"}`, 201, `"service":"sctp://192.0.2.1:80"`},
		{"adds_a_server_behind_a_tunnel", "POST", web + "/servers", `{"address":"10.0.0.12","method":"tunnel","tunnel":{"type":"gue","port":5555,"checksum":"remote"}}`, 201, `{"field":"tunnel","new":"gue port 5555, remote checksum"}`},
		{"wraps_in_ipip_by_default", "POST", web + "/servers", `{"address":"10.0.0.12","method":"tunnel","tunnel":{}}`, 201, `{"field":"tunnel","new":"ipip"}`},
		{"puts_a_server_behind_a_tunnel", "PATCH", web + "/servers/10.0.0.11:80", `{"method":"tunnel","tunnel":{"type":"gre","checksum":"full"}}`, 200, `{"field":"tunnel","old":"none","new":"gre, full checksum"}`},
		{"sets_an_engine", "PATCH", web, `{"persistence":{"timeout":"5m","engine":"sip"}}`, 200, `"new":"5m0s for each /32 by sip"`},
		{"keeps_flags_of_others", "PATCH", web, `{"flags":["flag-1","flag-3"]}`, 200, `{"field":"flags","old":"none","new":"flag-1,flag-3"}`},
		{"starts_a_sync_daemon", "POST", "/v1/sync", `{"role":"master","interface":"eth1","id":7,"max-length":1400}`, 200, `"text":"start sync daemon master`},
		{"zeroes_all", "POST", "/v1/zero", `{}`, 204, ""},
		{"zeroes_one", "POST", "/v1/zero", `{"service":"web"}`, 204, ""},
		{"zeroes_a_foreign_one", "POST", "/v1/zero", `{"service":"udp://192.0.2.99:53"}`, 204, ""},
		{"says_what_it_can", "GET", "/v1/status", "", 200, `"features":{"marks":true,"sctp":true,"tunnels":true,"engines":true,"sync":true,"own-addresses":true,"ranges":false,"access":false,"timeouts":false,"rules":false,"kill":false,"decide":false,"limits":false,"guard":false,"fullnat":false,"mss":false,"max-weight":2147483647}`},

		{"a_tunnel_of_dr", "PATCH", web + "/servers/10.0.0.11:80", `{"method":"dr","tunnel":{"type":"gre"}}`, 422, "method dr has no tunnel"},
		{"gue_without_a_port", "POST", web + "/servers", `{"address":"10.0.0.12","method":"tunnel","tunnel":{"type":"gue"}}`, 422, "gue wants a port"},
		{"an_unknown_tunnel", "POST", web + "/servers", `{"address":"10.0.0.12","method":"tunnel","tunnel":{"type":"vxlan"}}`, 422, `server 10.0.0.12:80: tunnel: unknown tunnel type \"vxlan\": want ipip, gue or gre`},
		{"an_unknown_checksum", "PATCH", web + "/servers/10.0.0.11:80", `{"tunnel":{"checksum":"some"}}`, 422, `unknown tunnel checksum \"some\"`},
		{"an_unknown_engine", "PATCH", web, `{"persistence":{"timeout":"5m","engine":"http"}}`, 422, `unknown persistence engine \"http\": want sip`},
		{"an_engine_of_no_persistence", "PATCH", web, `{"persistence":{"engine":"sip"}}`, 422, "timeout is required"},
		{"an_engine_of_persistence_taken_away", "PATCH", web, `{"persistence":{"timeout":"0s","engine":"sip"}}`, 422, "and no engine"},
		{"an_unknown_role", "POST", "/v1/sync", `{"role":"boss"}`, 422, `unknown role \"boss\"`},
		{"no_role", "POST", "/v1/sync", `{}`, 422, `unknown role \"\"`},
		{"a_group_that_is_none", "POST", "/v1/sync", `{"role":"master","group":"all"}`, 422, `group \"all\" is not an IP address`},
		{"a_group_of_one", "POST", "/v1/sync", `{"role":"master","group":"192.0.2.1"}`, 422, "sync[0]: 192.0.2.1 is not a multicast address"},
		{"two_masters", "PUT", "/v1/configuration?force=1", `{"services":[],"sync":[{"role":"master"},{"role":"master","id":2}]}`, 422, "sync[1]: sync[0] is the master already"},
		{"a_bad_daemon_of_several", "PUT", "/v1/configuration?force=1", `{"services":[],"sync":[{"role":"master"},{"role":"slave"}]}`, 422, `sync[1]: unknown role`},
		{"an_unknown_role_to_stop", "DELETE", "/v1/sync/boss", "", 422, `unknown role \"boss\"`},
		{"a_range_of_ports", "POST", "/v1/services", `{"listen":"tcp://192.0.2.1:80-90"}`, 501, "a range of ports is not there on the ipvs data plane"},
		{"a_limit", "PATCH", "/v1/services/web", `{"limits":{"connections":5}}`, 501, "a limit of connections is not there on the ipvs data plane"},
		{"fullnat", "POST", "/v1/services/web/servers", `{"address":"10.0.0.13","method":"fullnat"}`, 501, "method fullnat is not there on the ipvs data plane"},
		{"segments", "PATCH", "/v1/services/web", `{"mss":1400}`, 501, "a limit of segments' size is not there on the ipvs data plane"},
		{"a_guard", "PATCH", "/v1/services/web", `{"guard":{"mode":"on"}}`, 501, "a guard is not there on the ipvs data plane"},
		{"a_mark_that_is_none", "POST", "/v1/services", `{"listen":"fwmark://0"}`, 422, "is not a firewall mark"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := ask(newKernelHandler(t, newKernel(t, seededState())), test.method, test.path, test.body)
			if w.Code != test.status || !strings.Contains(w.Body.String(), test.want) {
				t.Errorf("%d %s\nwant %d with %s", w.Code, w.Body, test.status, test.want)
			}
		})
	}
}

// newKernelHandler is newHandler with a server that is not behind nat, whose port
// is the service's.
func newKernelHandler(t *testing.T, fake *directortest.Fake) *api.Handler {
	t.Helper()
	h := newHandler(t, fake)
	for _, step := range [][3]string{
		{"DELETE", "/v1/services/web/servers/10.0.0.11:8080", ""},
		{"POST", "/v1/services/web/servers", `{"address":"10.0.0.11:80","method":"dr"}`},
	} {
		if w := ask(h, step[0], step[1], step[2]); w.Code >= 300 {
			t.Fatalf("%v: %d %s", step, w.Code, w.Body)
		}
	}
	fake.Zeroed()
	return h
}

// TestForeignOfNoAddress: a foreign service of an address that none of Shunt's can
// have is shown, found by its URL and zeroed, and stands in no other's way.
func TestForeignOfNoAddress(t *testing.T) {
	const url = "tcp://0.0.0.0:80"
	key, err := director.ParseFoundKey(url)
	if err != nil {
		t.Fatal(err)
	}
	fake := newKernel(t, seededState())
	h := newKernelHandler(t, fake)
	fake.Meddle(func(s *director.State) {
		s.Services = append(s.Services, director.Service{Key: key, Scheduler: director.RoundRobin, VIP: director.VIPExternal})
	})
	client := serve(t, h)
	for _, step := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/v1/found", "", 200, `{"listen":"tcp://0.0.0.0:80"`},
		{"POST", "/v1/zero", `{"service":"tcp://0.0.0.0:80"}`, 204, ""},
		{"GET", "/v1/connections?service=tcp://0.0.0.0:80", "", 200, ""},
		{"POST", "/v1/adopt", `{"services":["tcp://0.0.0.0:80"]}`, 200, "virtual address 0.0.0.0 is unspecified"},
		{"POST", "/v1/services", `{"listen":"tcp://0.0.0.0:80"}`, 422, "virtual address 0.0.0.0 is unspecified"},
		{"POST", "/v1/services", `{"listen":"tcp://192.0.2.77:80"}`, 201, ""},
	} {
		w := ask(h, step.method, step.path, step.body)
		if w.Code != step.status || !strings.Contains(w.Body.String(), step.want) {
			t.Errorf("%s %s: %d %s\nwant %d with %s", step.method, step.path, w.Code, w.Body, step.status, step.want)
		}
	}
	if zeroed := fake.Zeroed(); !slices.Equal(zeroed, []director.ServiceKey{key}) {
		t.Errorf("zeroed %v", zeroed)
	}
	if found, err := client.Found(t.Context()); err != nil || !slices.ContainsFunc(found.Services, func(s api.Service) bool { return s.Listen == url && s.Foreign }) {
		t.Errorf("found %+v, %v", found, err)
	}
}

// TestFound: what the kernel holds is told as it is, whosever it is.
func TestFound(t *testing.T) {
	state := seededState()
	state.Sync = []director.SyncDaemon{director.SyncDaemon{Role: director.SyncBackup, Interface: "eth1", ID: 9}.Normalize()}
	fake := newKernel(t, state)
	fake.SetStats(director.Stats{Info: director.DataplaneInfo{Version: "1.2.1", TableSize: 4096}, Services: []director.ServiceStats{
		{
			Key: webKey, Rates: director.Rates{Connections: 1, InPackets: 2, OutPackets: 3, InBytes: 4, OutBytes: 5},
			Servers: []director.ServerStats{{Server: realserver.Server{Address: netip.MustParseAddrPort("10.0.0.11:8080")}, Rates: director.Rates{InBytes: 6}, Active: 2, Reachable: true}},
		},
		{Key: foreignKey, Counters: director.Counters{Connections: 7}},
	}})
	client := serve(t, newHandler(t, fake))
	if _, err := client.StartSync(t.Context(), api.SyncDaemon{Role: "master"}, api.Terms{}); err != nil {
		t.Fatal(err)
	}
	fake.Meddle(func(s *director.State) {
		web := &s.Services[s.Service(webKey)]
		web.Servers = append(web.Servers, realserver.Server{
			Address: netip.MustParseAddrPort("10.0.0.12:80"), Method: realserver.Tunnel, Weight: 1,
			Tunnel: realserver.TunnelOptions{Type: realserver.TunnelGUE, Port: 5555, Checksum: realserver.TunnelChecksumOn},
		})
	})
	got, err := client.Found(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ttl := api.Timeouts{TCP: api.Duration(15 * time.Minute), TCPFin: api.Duration(2 * time.Minute), UDP: api.Duration(5 * time.Minute)}
	const absent = "not in the data plane"
	want := api.Found{
		Services: []api.Service{
			{
				Listen: "tcp://192.0.2.10:80", Name: "web", Scheduler: "rr", Flags: []string{}, VIP: "managed", Servers: []api.Server{
					{Address: "10.0.0.11:8080", Method: "nat", Weight: 1, Active: 2, Reachable: true},
					{Address: "10.0.0.12:80", Method: "tunnel", Weight: 1, Tunnel: &api.Tunnel{Type: "gue", Port: 5555, Checksum: "full"}, Reason: absent},
				},
			},
			{
				Listen: "udp://192.0.2.99:53", Scheduler: "rr", Flags: []string{}, VIP: "external", Foreign: true,
				Servers: []api.Server{{Address: "10.0.0.99:53", Method: "dr", Weight: 1, Reason: absent}},
			},
		},
		Timeouts: ttl,
		Sync: []api.FoundSync{
			{Role: "master", Interface: "eth0", Group: "224.0.0.81", Port: 8848, TTL: 1},
			{Role: "backup", Interface: "eth1", ID: 9, Group: "224.0.0.81", Port: 8848, TTL: 1, Foreign: true},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	stats, err := client.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantStats := api.Stats{
		Info: api.DataplaneInfo{Version: "1.2.1", TableSize: 4096}, PacketEvents: []api.PacketEvent{}, Tables: []api.Table{}, Interfaces: []api.Interface{},
		Services: []api.ServiceStats{
			{
				Listen: "tcp://192.0.2.10:80", Name: "web",
				Rates:   api.Rates{Connections: 1, In: api.Traffic{Packets: 2, Bytes: 4}, Out: api.Traffic{Packets: 3, Bytes: 5}},
				Servers: []api.ServerStats{{Address: "10.0.0.11:8080", Rates: api.Rates{In: api.Traffic{Bytes: 6}}}},
			},
			{Listen: "udp://192.0.2.99:53", Foreign: true, Counters: api.Counters{Connections: 7}, Servers: []api.ServerStats{}},
		},
	}
	if diff := cmp.Diff(wantStats, stats); diff != "" {
		t.Errorf("stats (-want +got)\n%s", diff)
	}
}

// TestZero: what is zeroed is what was asked for, and nothing else.
func TestZero(t *testing.T) {
	fake := newKernel(t, seededState())
	client := serve(t, newHandler(t, fake))
	for ref, want := range map[string]director.ServiceKey{"": {}, "web": webKey, "udp://192.0.2.99:53": foreignKey} {
		if err := client.Zero(t.Context(), ref); err != nil {
			t.Fatalf("%q: %v", ref, err)
		}
		if got := fake.Zeroed(); !slices.Equal(got, []director.ServiceKey{want}) {
			t.Errorf("%q: %v", ref, got)
		}
	}
	if err := client.Zero(t.Context(), "nobody"); err == nil || len(fake.Zeroed()) > 0 {
		t.Errorf("nobody: %v", err)
	}
}

// TestSync: a daemon that is started is desired until it is stopped.
func TestSync(t *testing.T) {
	fake := newKernel(t, director.State{})
	client := serve(t, newHandler(t, fake))
	daemon := api.SyncDaemon{Role: "backup", Interface: "eth1", ID: 200, Group: "ff02::81", Port: 8849, TTL: 3, MaxLength: 1400}
	if _, err := client.StartSync(t.Context(), daemon, api.Terms{Why: "second director"}); err != nil {
		t.Fatal(err)
	}
	configuration, revision, err := client.Configuration(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if before, err := client.Revision(t.Context(), 1); err != nil || before.Configuration.Sync == nil || len(before.Configuration.Sync) > 0 {
		t.Errorf("sync daemons of revision 1: %#v, %v; want an empty list", before.Configuration.Sync, err)
	}
	if diff := cmp.Diff([]api.SyncDaemon{daemon}, configuration.Sync); diff != "" {
		t.Errorf("desired (-want +got)\n%s", diff)
	}
	if _, err := client.StopSync(t.Context(), "backup", api.Terms{Revision: revision - 1}); err == nil {
		t.Error("it is stopped against an old revision")
	}
	if _, err := client.StopSync(t.Context(), "backup", api.Terms{Revision: revision}); err != nil {
		t.Fatal(err)
	}
	if found, err := client.Found(t.Context()); err != nil || len(found.Sync) > 0 {
		t.Errorf("%v, %+v", err, found.Sync)
	}

	// That there is none is in what is read, and so applying it restores that.
	configuration, _, err = client.Configuration(t.Context())
	if err != nil || configuration.Sync == nil || len(configuration.Sync) > 0 {
		t.Fatalf("sync %#v, %v: want an empty list", configuration.Sync, err)
	}
	if _, err := client.StartSync(t.Context(), daemon, api.Terms{}); err != nil {
		t.Fatal(err)
	}
	if outcome, err := client.Apply(t.Context(), configuration, api.Terms{}); err != nil || !outcome.Changed {
		t.Errorf("%+v, %v", outcome, err)
	}
	if found, err := client.Found(t.Context()); err != nil || len(found.Sync) > 0 {
		t.Errorf("%v, %+v", err, found.Sync)
	}
	xdp := serve(t, newHandler(t, directortest.NewFake(director.State{})))
	if configuration, _, err := xdp.Configuration(t.Context()); err != nil || configuration.Sync != nil {
		t.Errorf("sync %#v, %v: XDP has none", configuration.Sync, err)
	}
	if _, err := client.StopSync(t.Context(), "..", api.Terms{}); err == nil {
		t.Error("a role that no path can carry is stopped")
	}
}

// TestKernelConnections: what engines and marks add to templates is told.
func TestKernelConnections(t *testing.T) {
	fake := newKernel(t, director.State{})
	address := netip.MustParseAddrPort
	fake.SetConnections(
		conntrack.Connection{
			Client: address("198.51.100.7:0"), Virtual: address("0.0.0.0:0"), Server: address("10.0.0.11:0"), Method: "tunnel",
			Mark: 7, Template: true, Prefix: 32, Expires: time.Minute,
		},
		conntrack.Connection{
			Protocol: conntrack.UDP, Client: address("198.51.100.7:0"), Virtual: address("192.0.2.10:5060"), Server: address("10.0.0.11:5060"), Method: "nat",
			Engine: "sip", EngineData: "call\x1b[1m", Template: true, Prefix: 32, Expires: time.Minute,
		},
	)
	var got []api.Connection
	for c, err := range serve(t, newHandler(t, directortest.NoTable(fake))).Connections(t.Context(), api.ConnectionQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, c)
	}
	prefix, none := uint8(32), uint32(0)
	want := []api.Connection{
		{
			Protocol: "proto-0", Client: "198.51.100.7:0", Virtual: "0.0.0.0:0", Server: "10.0.0.11:0", Method: "tunnel", State: "NONE",
			Mark: 7, Template: true, Prefix: &prefix, Controlled: &none, Expires: api.Duration(time.Minute),
		},
		{
			Protocol: "udp", Client: "198.51.100.7:0", Virtual: "192.0.2.10:5060", Server: "10.0.0.11:5060", Method: "nat", State: "NONE",
			Engine: "sip", EngineData: "call\x1b[1m", Template: true, Prefix: &prefix, Controlled: &none, Expires: api.Duration(time.Minute),
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestConfigurationIsItself: what GET gives, PUT takes for what is so already,
// whatever a data plane can be asked for.
func TestConfigurationIsItself(t *testing.T) {
	for _, plane := range []string{director.PlaneXDP, director.PlaneIPVS} {
		t.Run(plane, func(t *testing.T) {
			features, err := director.FeaturesOf(plane)
			if err != nil {
				t.Fatal(err)
			}
			draw := drawing{rand.New(rand.NewPCG(5, 1)), features}
			for range 60 {
				fake := directortest.NewFake(director.State{})
				fake.SetFeatures(features)
				h := newHandler(t, fake)
				want := draw.state()
				put := func(c api.Configuration) string {
					t.Helper()
					text, err := json.Marshal(c)
					if err != nil {
						t.Fatal(err)
					}
					w := ask(h, "PUT", "/v1/configuration?force=true", string(text))
					if w.Code != 200 {
						t.Fatalf("%d %s\n%s", w.Code, w.Body, text)
					}
					return w.Body.String()
				}
				put(api.ConfigurationOf(want))
				found, err := fake.Found(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want.Normalize(), found.Normalize(), compared...); diff != "" {
					t.Fatalf("carried to the kernel (-want +got)\n%s", diff)
				}
				var again api.Configuration
				if err := json.Unmarshal(ask(h, "GET", "/v1/configuration", "").Body.Bytes(), &again); err != nil {
					t.Fatal(err)
				}
				if outcome := put(again); !strings.HasPrefix(outcome, `{"changed":false`) {
					t.Fatalf("%s\n%+v", outcome, again)
				}
			}
		})
	}
}

// TestKernelServices: services that have no address, and those of SCTP, work
// wherever a service is named.
func TestKernelServices(t *testing.T) {
	for _, listen := range []string{"fwmark://7", "fwmark6://4294967295", "sctp://192.0.2.77:80", "sctp://[2001:db8:7::1]:0"} {
		t.Run(listen, func(t *testing.T) {
			client := serve(t, newHandler(t, newKernel(t, director.State{})))
			tryService(t, client, listen)
			if err := client.Zero(t.Context(), listen); err == nil {
				t.Error("a service that is gone is zeroed")
			}
		})
	}
}

// TestKernelKeepsConnections: what cannot be done is told in the data plane's words.
func TestKernelKeepsConnections(t *testing.T) {
	fake := newKernel(t, director.State{})
	fake.FailKill(fmt.Errorf("remove connections: %w: the kernel has no way to", director.ErrUnsupported))
	_, err := serve(t, newHandler(t, fake)).KillConnections(t.Context(), api.ConnectionQuery{Service: "web"})
	problem, ok := errors.AsType[*api.Problem](err)
	if !ok || problem.Code != api.ProblemCodeUnsupported || problem.Detail != "remove connections: not supported: the kernel has no way to" {
		t.Errorf("%+v", err)
	}
}
