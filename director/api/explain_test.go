package api_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// asked is a data plane that keeps the question.
type asked struct {
	*directortest.Fake
	question *director.Question
	err      error
}

func (a asked) Decide(ctx context.Context, q director.Question) (director.Decision, error) {
	*a.question = q
	if a.err != nil {
		return director.Decision{}, a.err
	}
	return a.Fake.Decide(ctx, q)
}

func TestExplain(t *testing.T) {
	fake := directortest.NewFake(director.State{})
	fake.SetStats(seededStats())
	var question director.Question
	client := serve(t, newHandler(t, asked{fake, &question, nil}))

	t.Run("every_member_of_a_decision_arrives", func(t *testing.T) {
		fake.SetDecision(seededDecision())
		got, err := client.Explain(t.Context(), "tcp", "198.51.100.7:40000", "192.0.2.10:80")
		if err != nil {
			t.Fatal(err)
		}
		prefix, controlled := uint8(24), uint32(2)
		want := api.Decision{
			Protocol: "tcp", Client: "198.51.100.7:40000", Virtual: "192.0.2.10:80", Service: "tcp://192.0.2.10:80", Name: "web",
			By: "template", Server: "10.0.0.11:8080", Method: "nat",
			Connection: &api.Connection{
				Protocol: "tcp", Client: "198.51.100.0:0", Virtual: "192.0.2.10:80", Server: "10.0.0.11:8080", Method: "nat", State: "NONE",
				Proven: true, Template: true, Prefix: &prefix, Controlled: &controlled, Expires: api.Duration(60e9),
			},
			Scheduler: "sh", Flags: []string{"sh-port"},
			Candidates: []api.Candidate{
				{Server: "10.0.0.12:80", Weight: 1, Active: 2, Inactive: 3, Overloaded: true}, {Server: "10.0.0.11:8080", Weight: 3},
			},
			Turn: 1, CurrentWeight: 2, Slot: 171,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
	t.Run("why_a_server_has_no_weight", func(t *testing.T) {
		h := newHandler(t, fake)
		if w := ask(h, "PUT", drainPath, `{}`); w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		for weight, want := range map[uint32]bool{0: true, 3: false} { // 3: of before the order
			decision := seededDecision()
			decision.Candidates[1].Weight = weight
			fake.SetDecision(decision)
			got := decoded[api.Decision](t, ask(h, "GET", "/v1/connections/explain?protocol=tcp&client=198.51.100.7&virtual=192.0.2.10:80", ""))
			if c := got.Candidates[1]; c.Draining != want || c.Unreachable || got.Candidates[0].Draining {
				t.Errorf("weight %d: %+v", weight, got.Candidates)
			}
		}
	})
	t.Run("the_data_plane_is_asked_for_the_packet", func(t *testing.T) {
		if _, err := client.Explain(t.Context(), "udp", "2001:db8::7", "[2001:db8::10]:53"); err != nil {
			t.Fatal(err)
		}
		want := director.Question{
			Protocol: conntrack.UDP, Client: netip.MustParseAddrPort("[2001:db8::7]:0"), Virtual: netip.MustParseAddrPort("[2001:db8::10]:53"),
		}
		if question != want {
			t.Errorf("asked %+v, want %+v", question, want)
		}
	})
	t.Run("a_refusal_says_what_it_means", func(t *testing.T) {
		fake.SetDecision(director.Decision{By: director.ByNothing, Event: "no-server", Turn: -1, Slot: -1})
		got, err := client.Explain(t.Context(), "tcp", "198.51.100.7", "192.0.2.10:80")
		want := api.Decision{
			Protocol: "tcp", Client: "198.51.100.7:0", Virtual: "192.0.2.10:80", By: "nothing", Event: "no-server", Help: "no server",
			Flags: []string{}, Candidates: []api.Candidate{}, Turn: -1, Slot: -1,
		}
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v (-want +got)\n%s", err, diff)
		}
	})
	t.Run("a_data_plane_that_cannot_be_asked", func(t *testing.T) {
		h := newHandler(t, asked{fake, &question, director.ErrUnsupported})
		w := ask(h, "GET", "/v1/connections/explain?protocol=tcp&client=198.51.100.7&virtual=192.0.2.10:80", "")
		if w.Code != 501 || !strings.Contains(w.Body.String(), "explain tcp://192.0.2.10:80 for 198.51.100.7: ") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

// killing is a data plane that breaks off.
type killing struct{ *directortest.Fake }

func (killing) Kill(context.Context, director.ConnectionFilter) (uint64, error) {
	return 3, errors.New("no such map")
}

func TestKill(t *testing.T) {
	address := netip.MustParseAddrPort
	connections := []conntrack.Connection{
		{Protocol: conntrack.TCP, Client: address("198.51.100.7:1"), Virtual: address("192.0.2.10:80"), Server: address("10.0.0.11:8080"), State: conntrack.Established},
		{Protocol: conntrack.TCP, Client: address("198.51.100.8:1"), Virtual: address("192.0.2.10:80"), Server: address("10.0.0.12:8080"), State: conntrack.TimeWait},
		{Protocol: conntrack.TCP, Client: address("198.51.100.0:0"), Virtual: address("192.0.2.10:80"), Server: address("10.0.0.12:8080"), Template: true, Prefix: 24},
		{Protocol: conntrack.SCTP, Client: address("198.51.100.7:1"), Virtual: address("198.51.100.53:8001"), Server: address("10.0.0.11:53"), State: conntrack.SCTPEstablished},
	}
	for name, test := range map[string]struct {
		query string
		want  uint64
	}{
		"a_service_by_its_name":   {"service=web", 3},
		"a_service_by_its_url":    {"service=tcp://192.0.2.10:80", 3},
		"a_wide_service":          {"service=sctp://198.51.100.0/24:8000-8999", 1},
		"an_escaped_one":          {"service=sctp%3A%2F%2F198.51.100.0%2F24%3A8000-8999", 1},
		"a_server":                {"server=10.0.0.12:8080", 2},
		"a_client":                {"client=198.51.100.7", 3},
		"a_client_itself":         {"client=198.51.100.7&kind=connection", 2},
		"templates":               {"kind=template", 1},
		"all_but_templates":       {"kind=connection", 3},
		"everything_said_is_met":  {"service=web&server=10.0.0.12:8080&kind=connection&client=198.51.100.0/24", 1},
		"a_state_of_any_protocol": {"state=established", 2},
		"a_template's_state":      {"state=NONE", 1},
		"nothing_in_the_state":    {"state=C-WAIT", 0},
		"a_state_of_a_server":     {"state=TIME_WAIT&server=10.0.0.12:8080", 1},
		"nothing_that_is_there":   {"client=203.0.113.0/24", 0},
	} {
		t.Run(name, func(t *testing.T) {
			fake := directortest.NewFake(director.State{})
			fake.SetConnections(connections...)
			h := newHandler(t, fake)
			counted := ask(h, "GET", "/v1/connections/count?"+test.query, "")
			killed := ask(h, "DELETE", "/v1/connections?"+test.query, "")
			left := ask(h, "GET", "/v1/connections/count", "")
			want := []string{
				jsonNumber("count", test.want), jsonNumber("killed", test.want), jsonNumber("count", uint64(len(connections))-test.want),
			}
			if diff := cmp.Diff(want, []string{counted.Body.String(), killed.Body.String(), left.Body.String()}); diff != "" {
				t.Errorf("counted, killed, left (-want +got)\n%s", diff)
			}
		})
	}
	t.Run("what_broke_off_says_how_far_it_came", func(t *testing.T) {
		w := ask(newHandler(t, killing{directortest.NewFake(director.State{})}), "DELETE", "/v1/connections?kind=template", "")
		if w.Code != 500 || !strings.Contains(w.Body.String(), "remove connections, 3 so far: no such map") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
	t.Run("the_client_asks_for_what_it_is_told", func(t *testing.T) {
		fake := directortest.NewFake(director.State{})
		fake.SetConnections(connections...)
		client := serve(t, newHandler(t, fake))
		query := api.ConnectionQuery{Service: "web", Server: "10.0.0.12:8080", Client: "198.51.100.0/24", Kind: "template"}
		counted, countErr := client.CountConnections(t.Context(), query)
		killed, killErr := client.KillConnections(t.Context(), query)
		if counted != 1 || killed != 1 || countErr != nil || killErr != nil {
			t.Errorf("counted %d (%v), killed %d (%v): want 1 and 1", counted, countErr, killed, killErr)
		}
	})
}
