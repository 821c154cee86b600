package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

var webKey = director.ServiceKey{Protocol: conntrack.TCP, Address: netip.MustParseAddrPort("192.0.2.10:80")}

// newDirector returns a started Director with the service web and one server.
func newDirector(t *testing.T, dp director.Dataplane) *director.Director {
	t.Helper()
	d := director.New(dp, &directortest.Store{}, director.Options{Log: slog.New(slog.DiscardHandler)})
	err := d.Start(t.Context(), director.State{Services: []director.Service{{
		Key: webKey, Name: "web", Scheduler: director.RoundRobin,
		Servers: []realserver.Server{{Address: netip.MustParseAddrPort("10.0.0.11:8080"), Weight: 1}},
	}}}, director.Request{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func newHandler(t *testing.T, dp director.Dataplane) *api.Handler {
	t.Helper()
	return api.NewHandler(newDirector(t, dp), api.Options{Log: slog.New(slog.DiscardHandler)})
}

// serve runs the handler on a socket and returns a client of it.
func serve(t *testing.T, h *api.Handler) *api.Client {
	t.Helper()
	return serveOn(t, h, filepath.Join(t.TempDir(), "s"), api.ListenOptions{})
}

func serveOn(t *testing.T, h *api.Handler, socket string, opts api.ListenOptions) *api.Client {
	t.Helper()
	l, err := api.Listen(socket, opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1) // one value, sent once
	go func() { done <- h.Run(ctx, l) }()
	client := api.NewSocketClient(socket)
	t.Cleanup(func() {
		client.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return client
}

// ask sends one request to the handler without a socket.
func ask(h http.Handler, method, path, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, api.AsAdmin(httptest.NewRequest(method, path, strings.NewReader(body))))
	return w
}

func TestRequests(t *testing.T) {
	const web = "/v1/services/tcp:%2F%2F192.0.2.10:80"
	huge := `{"listen":"` + strings.Repeat("x", 1<<20) + `"}`
	for _, test := range []struct {
		name, method, path, body string
		status                   int
		want                     string // in the answer
	}{
		{"reads_a_service_by_its_escaped_url", "GET", web, "", 200, `"name":"web"`},
		{"reads_a_service_by_its_name", "GET", "/v1/services/web", "", 200, `"listen":"tcp://192.0.2.10:80"`},
		{
			"adds_a_service_with_servers", "POST", "/v1/services", `{"listen":"udp://[2001:db8::1]:53","servers":[{"address":"2001:db8::2","method":"dr"}]}`, 201,
			`"text":"add server [2001:db8::2]:53 to udp://[2001:db8::1]:53: method dr, weight 1"`,
		},
		{"edits_only_what_is_named", "PATCH", web, `{"scheduler":"sh"}`, 200, `"changes":[{"field":"scheduler","old":"rr","new":"sh"}]`},
		{"an_empty_edit_changes_nothing", "PATCH", web, `{}`, 200, `{"changed":false,"revision":{"number":1,`},
		{"edits_access", "PATCH", web, `{"access":{"deny":["198.51.100.7","203.0.113.0/24"]}}`, 200, `"field":"deny","old":"none","new":"198.51.100.7/32,203.0.113.0/24"`},
		{"makes_a_service_persistent", "PATCH", web, `{"persistence":{"timeout":"5m"}}`, 200, `"changes":[{"field":"persistence","old":"none","new":"5m0s for each /32"}]`},
		{"sets_rules", "PATCH", web, `{"conn-reuse-mode":0,"sloppy-tcp":true,"timeouts":{"tcp":"1h","udp":"0s"}}`, 200, `"changes":[{"field":"timeout tcp","old":"none","new":"1h0m0s"},{"field":"conn-reuse-mode","old":"none","new":"0"},{"field":"sloppy-tcp","old":"none","new":"yes"}]`},
		{"sets_thresholds", "PATCH", web + "/servers/10.0.0.11:8080", `{"upper":1000,"lower":700}`, 200, `"changes":[{"field":"upper","old":"none","new":"1000"},{"field":"lower","old":"none","new":"700"}]`},
		{
			"adds_a_wide_service", "POST", "/v1/services", `{"listen":"tcp://198.51.100.0/24:8000-8999","vip":"external","servers":[{"address":"10.0.0.1","method":"dr"}]}`, 201,
			`"text":"add server 10.0.0.1:0 to tcp://198.51.100.0/24:8000-8999: method dr, weight 1"`,
		},
		{"removes_a_service", "DELETE", web, "", 200, `"action":"remove","service":"tcp://192.0.2.10:80"`},
		{"adds_a_server", "POST", web + "/servers", `{"address":"10.0.0.12:80","method":"nat","weight":0}`, 201, `"server":"10.0.0.12:80","changes":[{"field":"method","new":"nat"},{"field":"weight","new":"0"}]`},
		{"edits_a_server", "PATCH", web + "/servers/10.0.0.11:8080", `{"weight":7}`, 200, `"changes":[{"field":"weight","old":"1","new":"7"}]`},
		{"drains_a_server", "PATCH", web + "/servers/10.0.0.11:8080", `{"weight":0}`, 200, `"action":"drain"`},
		{"removes_a_server", "DELETE", "/v1/services/web/servers/10.0.0.11:8080", "", 200, `"action":"remove"`},
		{"sets_all_timeouts", "PUT", "/v1/timeouts", `{"tcp":"1h","tcp-fin":"1m","udp":"10s"}`, 200, `{"field":"tcp","old":"15m0s","new":"1h0m0s"}`},
		{"edits_one_timeout", "PATCH", "/v1/timeouts", `{"udp":"10s"}`, 200, `"changes":[{"field":"udp","old":"5m0s","new":"10s"}]`},
		{"applies_a_configuration", "PUT", "/v1/configuration", `{"timeouts":{"udp":"7s"},"services":[{"listen":"tcp://192.0.2.10:80","name":"web","scheduler":"rr","servers":[{"address":"10.0.0.11:8080","method":"nat"}]}]}`, 200, `"changes":[{"field":"udp","old":"5m0s","new":"7s"}]`},
		{"plans", "POST", "/v1/plan", `{"services":[]}`, 200, `"guard":{"what":"services","removed":1,"have":1,"limit":50`},
		{"forces", "PUT", "/v1/configuration?force=true", `{"services":[]}`, 200, `"action":"remove"`},
		{"reads_the_configuration", "GET", "/v1/configuration", "", 200, `{"timeouts":{"tcp":"15m0s","tcp-fin":"2m0s","udp":"5m0s"},"services":[{"listen":"tcp://192.0.2.10:80","name":"web","scheduler":"rr","vip":"managed","servers":[{"address":"10.0.0.11:8080","method":"nat","weight":1}]}]}`},
		{"reads_a_revision", "GET", "/v1/revisions/1", "", 200, `"action":"first start","configuration":{"timeouts"`},
		{"compares_a_revision_with_now", "GET", "/v1/revisions/1/diff", "", 200, `{"base":1,"steps":[]}`},
		{"compares_revisions", "GET", "/v1/revisions/1/diff?to=1", "", 200, `{"base":1,"steps":[]}`},
		{"rolls_back_to_where_it_is", "POST", "/v1/revisions/1/rollback", "", 200, `"changed":false`},
		{"reads_drift", "GET", "/v1/drift", "", 200, `"foreign":[]`},
		{"serves_the_document", "GET", "/v1/openapi.yaml", "", 200, "openapi: 3.1.0"},
		{"is_alive", "GET", "/healthz", "", 200, "ok"},
		{"is_ready", "GET", "/readyz", "", 200, "ready"},

		{"no_such_service", "GET", "/v1/services/nobody", "", 404, `"type":"urn:shunt:problem:not-found"`},
		{"no_such_url", "DELETE", "/v1/services/udp:%2F%2F192.0.2.10:80", "", 404, "not-found"},
		{"a_bad_url", "GET", "/v1/services/tcp:%2F%2Fx:80", "", 422, "urn:shunt:problem:invalid"},
		{"an_unsupported_url", "POST", "/v1/services", `{"listen":"fwmark://7"}`, 501, "urn:shunt:problem:unsupported"},
		{"no_such_server", "DELETE", web + "/servers/10.0.0.99:80", "", 404, "not-found"},
		{"a_bad_server", "DELETE", web + "/servers/ten", "", 422, "is not an IP address and a port"},
		{"an_unescaped_url", "GET", "/v1/services/tcp://192.0.2.10:80", "", 404, "escaped as one segment"},
		{"a_path_with_dots", "GET", "/v1/x/../status", "", 404, `"type":"urn:shunt:problem:no-route"`},
		{"a_path_with_two_slashes", "GET", "/v1//status", "", 404, `"type":"urn:shunt:problem:no-route"`},
		{"another_path_with_dots", "PUT", "/v1/x/../timeouts", "{}", 404, `"type":"urn:shunt:problem:no-route"`},
		{"no_such_resource", "GET", "/v2/services", "", 404, `"type":"urn:shunt:problem:no-route"`},
		{"a_wrong_method", "DELETE", "/v1/services", "", 405, `allowed: GET, HEAD, POST`},
		{"a_wrong_method_of_a_server", "GET", web + "/servers/10.0.0.11:8080", "", 405, "allowed: DELETE, PATCH"},

		{"no_body", "POST", "/v1/services", "", 400, "want a JSON object"},
		{"null", "PATCH", web, "null", 400, "want a JSON object"},
		{"an_array", "PATCH", web, "[]", 400, "want a JSON object"},
		{"half_an_object", "PATCH", web, `{"name":`, 400, "ends inside the object"},
		{"no_json", "PATCH", web, `{name}`, 400, "request body: byte 2"},
		{"two_objects", "PATCH", web, `{} {}`, 400, "more after the object's end"},
		{"an_unknown_field", "PATCH", web, `{"shceduler":"rr"}`, 422, `unknown field \"shceduler\"`},
		{"an_unknown_field_deep_inside", "POST", "/v1/plan", `{"services":[{"listen":"tcp://192.0.2.1:80","servers":[{"address":"10.0.0.1","method":"dr","wieght":1}]}]}`, 422, `unknown field \"wieght\" in services[0].servers[0]`},
		{"a_field_twice", "POST", "/v1/plan", `{"services":[],"services":[]}`, 422, "services is given twice"},
		{"a_field_twice_in_another_case", "PATCH", web + "/servers/10.0.0.11:8080", `{"weight":1,"WEIGHT":2}`, 422, "WEIGHT is given twice"},
		{"a_configuration_without_services", "PUT", "/v1/configuration", `{}`, 422, "services is required"},
		{"services_in_the_order_of_the_body", "PUT", "/v1/configuration", `{"services":[{"listen":"tcp://192.0.2.99:80"},{"listen":"tcp://192.0.2.1:80","scheduler":"xx"}]}`, 422, `services[1] tcp://192.0.2.1:80: unknown scheduler`},
		{"a_located_server", "PUT", "/v1/configuration", `{"services":[{"listen":"tcp://192.0.2.99:80"},{"listen":"tcp://192.0.2.1:80","servers":[{"address":"10.0.0.1","method":"nat"},{"address":"x","method":"nat"}]}]}`, 422, `services[1]: servers[1]: server \"x\"`},
		{"too_much_removed", "PUT", "/v1/configuration", `{"services":[]}`, 409, "urn:shunt:problem:guard"},
		{"too_much_removed_hints_at_force", "PUT", "/v1/configuration", `{"services":[]}`, 409, "--force"},
		{"no_such_revision", "GET", "/v1/revisions/9", "", 404, "shunt history"},
		{"revision_0", "GET", "/v1/revisions/0", "", 404, "not-found"},
		{"a_rollback_to_nothing", "POST", "/v1/revisions/9/rollback", "", 404, "not-found"},
		{"a_revision_that_is_no_number", "GET", "/v1/revisions/x", "", 422, "parameter number"},
		{"a_diff_to_nothing", "GET", "/v1/revisions/1/diff?to=9", "", 404, "not-found"},
		{"a_bad_flag", "PUT", "/v1/configuration?force=perhaps", `{"services":[]}`, 422, "parameter force"},
		{"a_parameter_twice", "GET", "/v1/services?limit=1&limit=2", "", 422, `parameter \"limit\" is given 2 times`},
		{"a_page_too_large", "GET", "/v1/services?limit=1001", "", 422, "limit 1001 is out of range"},
		{"a_page_of_nothing", "GET", "/v1/revisions?limit=0", "", 422, "limit 0 is out of range"},
		{"a_cursor_of_ones_own", "GET", "/v1/services?after=web", "", 422, "after: "},
		{"an_event_that_does_not_exist", "GET", "/v1/events?name=chagne", "", 422, "there is no event named chagne"},
		{"an_interval_too_short", "GET", "/v1/connections/count/stream?interval=1ms", "", 422, "out of range"},
		{"a_mask_with_holes", "POST", "/v1/services", `{"listen":"tcp://192.0.2.1:80","persistence":{"timeout":"1m","prefix":8,"mask":"255.0.255.0"}}`, 501, "netmask 255.0.255.0 of clients is no prefix: want one such as 255.0.0.0 (/8)"},
		{"a_mask_that_is_none", "POST", "/v1/services", `{"listen":"tcp://192.0.2.1:80","persistence":{"timeout":"1m","mask":"24"}}`, 422, `persistence: mask \"24\" is not an IPv4 mask`},
		{"adopting_by_name", "POST", "/v1/adopt", `{"services":["web"]}`, 422, "want protocol://address:port"},
		{"adopting_none", "POST", "/v1/adopt", `{"services":[]}`, 422, "leave it out for all"},
		{"a_prefix_that_is_none", "PATCH", web, `{"access":{"allow":["192.0.2.0/24","x"]}}`, 422, `access: allow[1]: \"x\" is not a network","hint":"want 192.0.2.0/24`},
		{"a_prefix_with_bits_beyond_its_length", "PATCH", web, `{"access":{"deny":["203.0.113.5/24"]}}`, 422, `access: deny[0]: 203.0.113.5/24 has bits beyond its length","hint":"write 203.0.113.0/24, or 203.0.113.5 for the one address"`},
		{"a_prefix_of_the_other_family", "PATCH", web, `{"access":{"allow":["2001:db8::/32"]}}`, 422, "not of the service's address family"},
		{"no_doctor", "GET", "/v1/doctor", "", 501, "not supported"},
		{"no_reload", "POST", "/v1/reload", "", 501, "not supported"},
		{"no_metrics", "GET", "/metrics", "", 501, "not supported"},
		{"a_field_that_cannot_change", "PATCH", web, `{"listen":"tcp://192.0.2.11:80"}`, 422, `unknown field \"listen\"`},
		{"a_wrong_type", "PATCH", web, `{"name":7}`, 422, "request body: name: a JSON number does not fit string"},
		{"a_negative_weight", "PATCH", web + "/servers/10.0.0.11:8080", `{"weight":-1}`, 422, "request body: weight: a JSON number -1 does not fit uint32"},
		{"a_large_weight", "PATCH", web + "/servers/10.0.0.11:8080", `{"weight":4000000000}`, 422, "4000000000"},
		{"a_huge_body", "POST", "/v1/services", huge, 413, "larger than 1048576 bytes"},
		{"a_second_of_the_same", "POST", "/v1/services", `{"listen":"tcp://192.0.2.10:80"}`, 409, "urn:shunt:problem:exists"},
		{"listen_missing", "POST", "/v1/services", `{}`, 422, "listen is required"},
		{"a_method_missing", "POST", "/v1/services", `{"listen":"tcp://192.0.2.11:80","servers":[{"address":"10.0.0.1"}]}`, 422, "servers[0]: server 10.0.0.1:80: method is required"},
		{"a_method_unknown", "PATCH", web + "/servers/10.0.0.11:8080", `{"method":"masq"}`, 422, "unknown forwarding method"},
		{"flags_of_another_scheduler", "PATCH", web, `{"scheduler":"mh","flags":["sh-port"]}`, 422, `flags[0]: unknown flag \"sh-port\"","hint":"scheduler mh has mh-fallback and mh-port"`},
		{"a_duration_without_unit", "PATCH", "/v1/timeouts", `{"tcp":900}`, 422, "900 is not a duration"},
		{"a_duration_that_is_none", "PATCH", "/v1/timeouts", `{"tcp":"long"}`, 422, "is not a duration"},
		{"a_zero_timeout", "PATCH", "/v1/timeouts", `{"tcp":"0s"}`, 422, "tcp timeout: 0s is out of range"},
		{"a_timeout_out_of_range", "PATCH", "/v1/timeouts", `{"tcp":"9999h"}`, 422, "out of range"},
		{"not_all_timeouts", "PUT", "/v1/timeouts", `{"tcp":"1h"}`, 422, "tcp, tcp-fin and udp are required"},
		{"an_unknown_filter", "GET", "/v1/connections?sevice=web", "", 422, `unknown parameter \"sevice\"`},
		{"flags_of_a_scheduler_without", "PATCH", web, `{"flags":["sh-port"]}`, 422, `flags[0]: scheduler rr has no flags","hint":"sh and mh have`},
		{"a_bad_filter", "GET", "/v1/connections?client=x", "", 422, `client: \"x\" is not a network`},
		{"a_filter_with_bits_beyond_its_length", "GET", "/v1/connections?client=10.0.0.1/8", "", 422, "write 10.0.0.0/8, or 10.0.0.1 for the one address"},
		{"a_bad_limit", "GET", "/v1/connections?limit=-1", "", 422, "parameter limit"},
		{"a_bad_query", "GET", "/v1/connections?%zz", "", 400, "query: "},
		{"an_interval_of_a_count", "GET", "/v1/connections/count?interval=1s", "", 422, "unknown parameter"},
		{"a_cursor_that_is_none", "GET", "/v1/connections?cursor=next", "", 422, `cursor \"next\" is none`},
		{"a_cursor_of_other_tables", "GET", "/v1/connections?cursor=ff", "", 422, "list connections in parts: invalid"},
		{"an_age_without_a_unit", "GET", "/v1/connections?min-age=10", "", 422, `min-age \"10\" is not a duration`},
		{"an_age_of_nothing", "GET", "/v1/connections/count?max-age=0s", "", 422, "max-age 0s: want more than 0s"},
		{"a_negative_idle_time", "DELETE", "/v1/connections?min-idle=-1s", "", 422, "min-idle -1s: want more than 0s"},
		{"ages_between_which_is_nothing", "GET", "/v1/connections?min-age=1h&max-age=1h", "", 422, "min-age 1h0m0s and max-age 1h0m0s: nothing is between them"},
		{"killing_of_an_empty_age", "DELETE", "/v1/connections?min-age=&kind=connection", "", 422, "min-age is empty"},
		{"a_reset_that_is_no_word", "DELETE", "/v1/connections?service=web&reset=often", "", 422, "parameter reset"},
		{"watching_a_state_that_is_none", "GET", "/v1/connections/watch?state=OPEN", "", 422, `unknown connection state \"OPEN\"`},
		{"dumping_of_no_service", "GET", "/v1/connections/dump?service=nobody", "", 404, "not-found"},
		{"resizing_to_nothing", "POST", "/v1/connections/resize", `{"ipv4":0}`, 422, "no size is given"},
		{"resizing_to_words", "POST", "/v1/connections/resize", `{"ipv4":"4Mi"}`, 422, "ipv4"},
		{"loading_json", "POST", "/v1/connections/load", `{}`, 415, `content type \"\" is not supported`},
		{"persistence_without_a_timeout", "PATCH", web, `{"persistence":{"prefix":24}}`, 422, "the service has none: timeout is required"},
		{"persistence_of_no_time", "POST", "/v1/services", `{"listen":"tcp://192.0.2.11:80","persistence":{"timeout":"0s"}}`, 422, "persistence: timeout 0s is out of range"},
		{"persistence_of_parts_of_a_second", "PATCH", web, `{"persistence":{"timeout":"1500ms"}}`, 422, "whole seconds"},
		{"a_prefix_of_no_persistence", "PATCH", web, `{"persistence":{"timeout":"0s","prefix":24}}`, 422, "it has no prefix then"},
		{"a_prefix_too_long", "PATCH", web, `{"persistence":{"timeout":"5m","prefix":33}}`, 422, "prefix 33"},
		{"a_prefix_longer_than_any", "PATCH", web, `{"persistence":{"timeout":"5m","prefix":300}}`, 422, "persistence.prefix: a JSON number 300 does not fit uint8"},
		{"an_unknown_setting_of_persistence", "PATCH", web, `{"persistence":{"time":"5m"}}`, 422, `unknown field \"time\" in persistence`},
		{"one_packet_of_tcp", "PATCH", web, `{"one-packet":true}`, 422, "one-packet"},
		{"a_reuse_mode_of_the_kernel_only", "PATCH", web, `{"conn-reuse-mode":2}`, 422, "conn-reuse-mode 2: want 0, 1 or 3"},
		{"a_lower_threshold_above_the_upper", "PATCH", web + "/servers/10.0.0.11:8080", `{"upper":7,"lower":8}`, 422, "lower threshold 8"},
		{"a_negative_threshold", "PATCH", web + "/servers/10.0.0.11:8080", `{"upper":-1}`, 422, "upper: a JSON number -1 does not fit uint32"},
		{"draining_is_no_setting", "PATCH", web + "/servers/10.0.0.11:8080", `{"draining":true}`, 422, `unknown field \"draining\"`},
		{"a_kind_that_is_none", "GET", "/v1/connections?kind=templates", "", 422, `kind \"templates\": want connection or template`},
		{"a_state_that_is_none", "GET", "/v1/connections?state=OPEN", "", 422, `state: unknown connection state \"OPEN\": want one of NONE, ESTABLISHED, SYN_SENT`},
		{"counting_in_no_state", "GET", "/v1/connections/count?state=OPEN", "", 422, `unknown connection state \"OPEN\"`},
		{"killing_in_no_state", "DELETE", "/v1/connections?state=OPEN", "", 422, `unknown connection state \"OPEN\"`},
		{"killing_in_an_empty_state", "DELETE", "/v1/connections?state=&service=web", "", 422, "state is empty"},
		{"counting_by_what_is_not_known", "GET", "/v1/connections/count?by=colour", "", 422, `by \"colour\": want one of client, server, state, age, idle`},
		{"counting_by_nothing", "GET", "/v1/connections/count?by=", "", 422, `by \"\": want one of client`},
		{"a_query_where_there_is_none", "GET", "/v1/drains?service=web", "", 422, `unknown parameter \"service\"","hint":"it takes none"`},
		{"killing_everything", "DELETE", "/v1/connections", "", 422, "which is not said"},
		{"killing_what_an_empty_filter_names", "DELETE", "/v1/connections?service=", "", 422, "service is empty"},
		{"killing_what_half_a_filter_names", "DELETE", "/v1/connections?service=&kind=connection", "", 422, "service is empty"},
		{"killing_of_no_service", "DELETE", "/v1/connections?service=nobody", "", 404, "not-found"},
		{"explaining_nothing", "GET", "/v1/connections/explain", "", 422, "protocol"},
		{"explaining_sctp", "GET", "/v1/connections/explain?protocol=sctp&client=198.51.100.7&virtual=192.0.2.10:80", "", 422, `protocol \"sctp\": want tcp or udp`},
		{"explaining_a_client_that_is_none", "GET", "/v1/connections/explain?protocol=tcp&client=x&virtual=192.0.2.10:80", "", 422, `client \"x\" is not an address`},
		{"explaining_to_no_port", "GET", "/v1/connections/explain?protocol=tcp&client=198.51.100.7&virtual=192.0.2.10", "", 422, `virtual \"192.0.2.10\" is not an address and port`},
		{"explaining_to_port_0", "GET", "/v1/connections/explain?protocol=tcp&client=198.51.100.7&virtual=192.0.2.10:0", "", 422, "is not an address and port"},
		{"explaining_across_families", "GET", "/v1/connections/explain?protocol=tcp&client=2001:db8::7&virtual=192.0.2.10:80", "", 422, "of different address families"},
		{"explaining_ipv4_in_ipv6", "GET", "/v1/connections/explain?protocol=tcp&client=::ffff:198.51.100.7&virtual=192.0.2.10:80", "", 422, "in IPv6 form"},
		{"detach_without_a_way", "POST", "/v1/detach", "", 501, "not supported"},
	} {
		t.Run(test.name, func(t *testing.T) {
			fake := directortest.NewFake(director.State{})
			h := newHandler(t, fake)
			fake.Operations()
			w := ask(h, test.method, test.path, test.body)
			if w.Code != test.status || !strings.Contains(w.Body.String(), test.want) {
				t.Fatalf("%d %s\nwant %d with %s", w.Code, w.Body, test.status, test.want)
			}
			if w.Code < 400 {
				return
			}
			var p api.Problem
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Status != w.Code || p.Title == "" || p.Detail == "" {
				t.Errorf("no problem: %v, %+v", err, p)
			}
			if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("content type %q", got)
			}
			if ops := fake.Operations(); len(ops) > 0 {
				t.Errorf("a refused request changed the data plane: %v", ops)
			}
		})
	}
}

func TestContentType(t *testing.T) {
	h := newHandler(t, directortest.NewFake(director.State{}))
	for media, want := range map[string]int{
		"application/json; charset=utf-8": 200, "application/x-www-form-urlencoded": 200, "text/xml": 415, ";": 415,
	} {
		r := httptest.NewRequest("PATCH", "/v1/timeouts", strings.NewReader("{}"))
		r.Header.Set("Content-Type", media)
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, api.AsAdmin(r)); w.Code != want {
			t.Errorf("%s: %d %s, want %d", media, w.Code, w.Body, want)
		}
	}
}

func TestChange(t *testing.T) {
	t.Run("outlives_its_caller", func(t *testing.T) {
		fake := directortest.NewFake(director.State{})
		h := newHandler(t, fake)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, api.AsAdmin(httptest.NewRequest("DELETE", "/v1/services/web", nil).WithContext(ctx)))
		if w.Code != 200 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
	t.Run("the_data_planes_failure_is_told", func(t *testing.T) {
		fake := directortest.NewFake(director.State{})
		h := newHandler(t, fake)
		fake.FailAt(1)
		w := ask(h, "DELETE", "/v1/services/web", "")
		if w.Code != 500 || !strings.Contains(w.Body.String(), directortest.ErrInjected.Error()) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
	t.Run("full_is_507", func(t *testing.T) {
		h := newHandler(t, refusing{directortest.NewFake(director.State{}), &director.ErrFull})
		w := ask(h, "POST", "/v1/services", `{"listen":"tcp://192.0.2.11:80"}`)
		if w.Code != 507 || !strings.Contains(w.Body.String(), "urn:shunt:problem:full") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

// refusing is a data plane that takes the first state and nothing after it.
type refusing struct {
	*directortest.Fake
	err *error
}

func (r refusing) Apply(ctx context.Context, ops []director.Operation) error {
	if r.Applies() > 0 {
		return &director.OperationError{Operation: ops[0], Err: *r.err}
	}
	return r.Fake.Apply(ctx, ops)
}

func TestDetach(t *testing.T) {
	order := ""
	d := newDirector(t, directortest.NewFake(director.State{}))
	failing := errors.New("busy")
	h := api.NewHandler(d, api.Options{
		Log:      slog.New(slog.DiscardHandler),
		Detach:   func(context.Context) error { order += "detach "; return failing },
		Detached: func() { order += "end" },
	})
	if w := ask(h, "POST", "/v1/detach", ""); w.Code != 500 {
		t.Errorf("a failed detach: %d %s", w.Code, w.Body)
	}
	if w := ask(h, "GET", "/v1/services", ""); w.Code != 200 {
		t.Errorf("after a failed detach: %d %s", w.Code, w.Body)
	}
	failing = nil
	if w := ask(h, "POST", "/v1/detach", ""); w.Code != 204 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if diff := cmp.Diff("detach detach end", order); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if w := ask(h, "DELETE", "/v1/services/web", ""); w.Code != 503 {
		t.Errorf("a change after detach: %d %s", w.Code, w.Body)
	}
}
