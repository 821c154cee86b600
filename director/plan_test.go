package director_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

func TestPlanOrder(t *testing.T) {
	gone, changed, added := dns(), web(), web()
	gone.Key = mustKey("udp://192.0.2.9:53")
	added.Key = mustKey("tcp://192.0.2.0:80")
	found := director.State{Services: []director.Service{changed, dns(), gone}, Timeouts: conntrack.DefaultTimeouts()}

	want := web()
	want.Scheduler = director.SourceHash
	want.Servers = []realserver.Server{
		server("10.0.0.9:80", realserver.NAT, 1),
		server("10.0.0.2:80", realserver.DR, 7),
		server("10.0.0.8:80", realserver.NAT, 1),
		server("10.0.0.1:8080", realserver.NAT, 1),
	}
	desired := director.State{Services: []director.Service{dns(), want, added}, Timeouts: found.Timeouts}
	desired.Timeouts.UDP = time.Minute

	got := texts(director.Plan(desired, found))
	wantText := []string{
		"set timeouts tcp 15m0s, tcp-fin 2m0s, udp 1m0s",
		"remove server 192.0.2.1:80 from tcp://192.0.2.1:80",
		"remove service udp://192.0.2.9:53",
		"add service tcp://192.0.2.0:80",
		"edit service tcp://192.0.2.1:80",
		"edit server 10.0.0.2:80 of tcp://192.0.2.1:80",
		"add server 10.0.0.1:8080 to tcp://192.0.2.0:80",
		"add server 10.0.0.2:80 to tcp://192.0.2.0:80",
		"add server 192.0.2.1:80 to tcp://192.0.2.0:80",
		"add server 10.0.0.9:80 to tcp://192.0.2.1:80",
		"add server 10.0.0.8:80 to tcp://192.0.2.1:80",
	}
	if diff := cmp.Diff(wantText, got); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
}

func TestPlanIgnoresServerOrder(t *testing.T) {
	reversed := web()
	slices.Reverse(reversed.Servers)
	ops := director.Plan(
		director.State{Services: []director.Service{reversed}},
		director.State{Services: []director.Service{web()}},
	)
	if len(ops) != 0 {
		t.Errorf("plan %v, want none", texts(ops))
	}
}

func TestPlanEveryServiceSettingIsCompared(t *testing.T) {
	base := dns()
	edits := map[string]func(*director.Service){
		"name":      func(s *director.Service) { s.Name = "dns" },
		"scheduler": func(s *director.Service) { s.Scheduler = director.SourceHash },
		"flags":     func(s *director.Service) { s.Flags.Port = false },
		"vip":       func(s *director.Service) { s.VIP = director.VIPManaged },
		"allow":     func(s *director.Service) { s.Access.Allow = prefixes("2001:db8:2::/48") },
		"deny":      func(s *director.Service) { s.Access.Deny = prefixes("2001:db8:2::/48") },
	}
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			want := base.Clone()
			edit(&want)
			ops := director.Plan(
				director.State{Services: []director.Service{want}},
				director.State{Services: []director.Service{base}},
			)
			if diff := cmp.Diff([]string{"edit service udp://[2001:db8::1]:53"}, texts(ops)); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

// genState draws a valid state from a small space, so that two draws overlap.
func genState(t *rapid.T, label string) director.State {
	state := director.State{Timeouts: conntrack.Timeouts{
		TCP:    time.Duration(rapid.IntRange(1, 2).Draw(t, label+" tcp")) * time.Minute,
		TCPFin: time.Minute, UDP: time.Minute,
	}}
	for i := range 3 {
		if !rapid.Bool().Draw(t, fmt.Sprintf("%s service %d", label, i)) {
			continue
		}
		service := director.Service{
			Key:       mustKey(fmt.Sprintf("tcp://192.0.2.%d:80", i+1)),
			Name:      rapid.SampledFrom([]string{"", fmt.Sprintf("s%d", i)}).Draw(t, "name"),
			Scheduler: rapid.SampledFrom([]director.Scheduler{director.SourceHash, director.Maglev}).Draw(t, "scheduler"),
			Flags:     director.SchedulerFlags{Port: rapid.Bool().Draw(t, "port"), Fallback: rapid.Bool().Draw(t, "fallback")},
			VIP:       rapid.SampledFrom([]director.VIPOwner{director.VIPManaged, director.VIPExternal}).Draw(t, "vip"),
			Access:    rapid.SampledFrom([]director.Access{{}, {Deny: prefixes("10.0.0.0/8")}, {Allow: prefixes("10.0.0.0/8", "192.0.2.0/24")}}).Draw(t, "access"),
		}
		for _, n := range rapid.Permutation([]int{1, 2, 3, 4, 5}).Draw(t, "servers")[:rapid.IntRange(0, 5).Draw(t, "count")] {
			service.Servers = append(service.Servers, realserver.Server{
				Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), 80),
				Method:  rapid.SampledFrom([]realserver.Method{realserver.NAT, realserver.DR}).Draw(t, "method"),
				Weight:  rapid.Uint32Range(0, 2).Draw(t, "weight"),
			})
		}
		state.Services = append(state.Services, service)
	}
	return state
}

func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		desired, found := genState(t, "desired"), genState(t, "found")
		if err := desired.Validate(); err != nil {
			t.Fatalf("generator: %v", err)
		}
		if ops := director.Plan(desired, desired); len(ops) != 0 {
			t.Errorf("plan of what is there: %v, want none", texts(ops))
		}
		ops := director.Plan(desired, found)
		if diff := cmp.Diff(texts(ops), texts(director.Plan(desired, found))); diff != "" {
			t.Errorf("plan differs the second time:\n%s", diff)
		}
		fake := directortest.NewFake(found)
		if err := fake.Apply(context.Background(), ops); err != nil {
			t.Fatalf("apply: %v", err)
		}
		got, _ := fake.Found(context.Background())
		// Settle says in what order the servers end up; the set is desired's.
		want := director.Settle(desired, found)
		if diff := cmp.Diff(want.Normalize(), got.Normalize(), cmpNetip, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("after the plan (-want +got):\n%s", diff)
		}
		if ops := director.Plan(desired, got); len(ops) != 0 {
			t.Errorf("plan after the plan: %v, want none", texts(ops))
		}
		if all := texts(ops); len(slices.Compact(slices.Sorted(slices.Values(all)))) != len(all) {
			t.Errorf("plan has a step twice: %v", all)
		}
	})
}
