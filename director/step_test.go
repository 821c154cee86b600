package director_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

func TestExplain(t *testing.T) {
	gone, limited := dns(), other()
	gone.Key = mustKey("udp://192.0.2.9:53")
	limited.Scheduler, limited.Flags.Port = director.SourceHash, true
	limited.Access = director.Access{Allow: prefixes("10.0.0.0/8", "192.0.2.0/24"), Deny: prefixes("10.1.0.0/16")}
	found := director.State{Services: []director.Service{web(), gone, dns()}, Timeouts: conntrack.DefaultTimeouts()}

	edited, opened := web(), dns()
	edited.Name, edited.Scheduler, edited.VIP = "", director.WeightedRoundRobin, director.VIPExternal
	edited.Access.Deny, edited.MSS = prefixes("10.1.0.0/16"), 1400
	edited.Servers = []realserver.Server{
		server("10.0.0.1:8080", realserver.NAT, 0),
		server("10.0.0.2:80", realserver.NAT, 5),
		server("10.0.0.7:80", realserver.DR, 1),
	}
	opened.Name, opened.Flags = "dns", director.SchedulerFlags{}
	desired := director.State{
		Services: []director.Service{edited, limited, opened},
		Timeouts: conntrack.Timeouts{TCP: time.Hour, TCPFin: 2 * time.Minute, UDP: 30 * time.Second},
	}

	steps := director.Explain(director.Plan(desired, found), found)
	want(t, "steps", []string{
		"set timeouts tcp 1h0m0s, tcp-fin 2m0s, udp 30s: tcp 15m0s → 1h0m0s, udp 5m0s → 30s",
		"remove server 192.0.2.1:80 from tcp://192.0.2.1:80",
		"remove service udp://192.0.2.9:53",
		"add service tcp://192.0.2.5:80: scheduler sh, flags sh-port, vip managed, allow 10.0.0.0/8,192.0.2.0/24, deny 10.1.0.0/16",
		"edit service tcp://192.0.2.1:80: name web → none, scheduler rr → wrr, vip managed → external, deny none → 10.1.0.0/16, mss none → 1400",
		"drain server 10.0.0.1:8080 of tcp://192.0.2.1:80: weight 1 → 0",
		"edit server 10.0.0.2:80 of tcp://192.0.2.1:80: method dr → nat, weight 2 → 5",
		"edit service udp://[2001:db8::1]:53: name none → dns, flags mh-fallback,mh-port → none",
		"add server 10.0.0.7:80 to tcp://192.0.2.1:80: method dr, weight 1",
		"add server 10.0.0.1:8080 to tcp://192.0.2.5:80: method nat, weight 1",
		"add server 10.0.0.2:80 to tcp://192.0.2.5:80: method dr, weight 2",
	}, stepTexts(steps))

	// What programs read of them.
	var got []string
	for _, s := range steps {
		place := ""
		if s.Service != (director.ServiceKey{}) {
			place += " " + s.Service.String()
		}
		if s.Server.IsValid() {
			place += " " + s.Server.String()
		}
		got = append(got, fmt.Sprintf("%s%s %d", s.Action, place, len(s.Changes)))
	}
	want(t, "their parts", []string{
		"change 2",
		"remove tcp://192.0.2.1:80 192.0.2.1:80 0",
		"remove udp://192.0.2.9:53 1",
		"add tcp://192.0.2.5:80 5",
		"change tcp://192.0.2.1:80 5",
		"drain tcp://192.0.2.1:80 10.0.0.1:8080 1",
		"change tcp://192.0.2.1:80 10.0.0.2:80 2",
		"change udp://[2001:db8::1]:53 2",
		"add tcp://192.0.2.1:80 10.0.0.7:80 2",
		"add tcp://192.0.2.5:80 10.0.0.1:8080 2",
		"add tcp://192.0.2.5:80 10.0.0.2:80 2",
	}, got)
	if diff := cmp.Diff([]director.Difference{{Field: "servers", Old: "1", New: "0"}}, steps[2].Changes); diff != "" {
		t.Errorf("a removed service (-want +got):\n%s", diff)
	}
}

// A server that has weight 0 already is not drained again, and one that gets
// weight is changed.
func TestExplainDrains(t *testing.T) {
	for _, tt := range []struct {
		from, to uint32
		method   realserver.Method
		want     director.Action
	}{
		{3, 0, realserver.DR, director.ActionDrain},
		{3, 0, realserver.NAT, director.ActionDrain},
		{3, 1, realserver.DR, director.ActionChange},
		{0, 1, realserver.DR, director.ActionChange},
		{0, 0, realserver.NAT, director.ActionChange},
	} {
		found, desired := sized(1), sized(1)
		found.Services[0].Servers[0].Weight = tt.from
		desired.Services[0].Servers[0].Weight, desired.Services[0].Servers[0].Method = tt.to, tt.method
		steps := director.Explain(director.Plan(desired, found), found)
		if len(steps) != 1 || steps[0].Action != tt.want {
			t.Errorf("weight %d to %d, %s: %v, want one to %s", tt.from, tt.to, tt.method, stepTexts(steps), tt.want)
		}
	}
}

func TestExplainNothing(t *testing.T) {
	if steps := director.Explain(nil, director.State{}); steps != nil {
		t.Errorf("steps %v, want none", steps)
	}
}

// Plan says what Apply then does, foreign services and drift included, and
// changes nothing itself.
func TestPlanIsWhatApplyDoes(t *testing.T) {
	r := startChanges(t, "")
	r.fake.Meddle(func(s *director.State) { s.Services[s.Service(web().Key)].Servers[0].Weight = 44 })
	mail, edited := foreign(), web()
	mail.Servers[0].Weight, edited.Servers[1].Weight = 0, 0
	next := director.State{Services: []director.Service{mail, other(), edited}, Timeouts: conntrack.Timeouts{UDP: time.Minute}}

	before, held := r.Head(), r.held(t)
	plan, err := r.Plan(t.Context(), next)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "plan", []string{
		"set timeouts tcp 15m0s, tcp-fin 2m0s, udp 1m0s: udp 5m0s → 1m0s",
		"remove service udp://[2001:db8::1]:53",
		"add service tcp://192.0.2.5:80: scheduler rr, vip managed",
		"edit server 10.0.0.1:8080 of tcp://192.0.2.1:80: weight 44 → 1",
		"drain server 10.0.0.2:80 of tcp://192.0.2.1:80: weight 2 → 0",
		"drain server 10.0.0.25:25 of tcp://192.0.2.200:25: weight 3 → 0",
		"add server 10.0.0.1:8080 to tcp://192.0.2.5:80: method nat, weight 1",
		"add server 10.0.0.2:80 to tcp://192.0.2.5:80: method dr, weight 2",
	}, stepTexts(plan.Steps))
	if plan.Base != before.Number || plan.Guard != nil {
		t.Errorf("base %d, guard %v", plan.Base, plan.Guard)
	}
	want(t, "operations of the plan", nil, texts(r.fake.Operations()))
	want(t, "events of the plan", nil, r.news())
	wantState(t, "held after the plan", held, r.held(t))
	if diff := cmp.Diff(before, r.Head(), cmpNetip); diff != "" {
		t.Errorf("head after the plan (-before +after):\n%s", diff)
	}

	outcome, err := r.Apply(t.Context(), director.Request{Base: plan.Base}, next)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(plan.Steps, outcome.Steps, cmpNetip); diff != "" {
		t.Errorf("steps (-plan +apply):\n%s", diff)
	}
	plan, err = r.Plan(t.Context(), next)
	if err != nil || plan.Steps != nil || plan.Base != before.Number+1 {
		t.Errorf("plan of what is there: %+v, error %v", plan, err)
	}
}

func TestPlanFails(t *testing.T) {
	first := start(t, web())
	plane := &blind{Fake: first.fake}
	r := first.over(plane, new(directortest.Store))
	if err := r.Start(t.Context(), director.State{}, by); err != nil {
		t.Fatal(err)
	}
	two := director.State{Services: []director.Service{web(), web()}}
	if _, err := r.Plan(context.Background(), two); err == nil || len(director.Problems(err)) != 2 {
		t.Errorf("error %v, want both problems", err)
	}
	plane.from = 1
	if _, err := r.Plan(t.Context(), director.State{}); err == nil || err.Error() != "plan: read what the data plane holds: blind" {
		t.Errorf("error %v", err)
	}
}
