package director_test

import (
	"context"
	"errors"
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
		"limits":    func(s *director.Service) { s.Limits.Connections = 1 },
		"source":    func(s *director.Service) { s.Limits.Source = director.SourceLimits{Prefix: 64, Rate: 1} },
		"guard":     func(s *director.Service) { s.Guard.Mode = director.GuardOn },
		"mss":       func(s *director.Service) { s.MSS = 1400 },
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

// genKeys are the services of genState's space.
func genKeys(plane string) []director.ServiceKey {
	if plane == director.PlaneIPVS {
		return []director.ServiceKey{mustKey("tcp://192.0.2.1:80"), mustKey("sctp://192.0.2.2:80"), mustKey("fwmark://3")}
	}
	return []director.ServiceKey{mustKey("tcp://192.0.2.1:80"), mustKey("tcp://192.0.2.2:80"), mustKey("tcp://192.0.2.3:80")}
}

// genServerOf draws the settings of the n-th server of a service of that space.
func genServerOf(t *rapid.T, key director.ServiceKey, n int, plane string) realserver.Server {
	s := realserver.Server{
		Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), key.Address.Port()),
		Method:  rapid.SampledFrom([]realserver.Method{realserver.NAT, realserver.DR}).Draw(t, "method"),
		Weight:  rapid.Uint32Range(0, 2).Draw(t, "weight"),
	}
	if plane == director.PlaneIPVS && rapid.Bool().Draw(t, "tunnel") {
		s.Method = realserver.Tunnel
		s.Tunnel = rapid.SampledFrom([]realserver.TunnelOptions{
			{}, {Type: realserver.TunnelGUE, Port: 5555}, {Type: realserver.TunnelGUE, Port: 5556}, {Type: realserver.TunnelGRE, Checksum: realserver.TunnelChecksumOn},
		}).Draw(t, "tunnel options")
	}
	return s
}

// genState draws a valid state of a data plane from a small space, so that two
// draws overlap.
func genState(t *rapid.T, label, plane string) director.State {
	state := director.State{Timeouts: conntrack.Timeouts{
		TCP:    time.Duration(rapid.IntRange(1, 2).Draw(t, label+" tcp")) * time.Minute,
		TCPFin: time.Minute, UDP: time.Minute,
	}}
	for i, key := range genKeys(plane) {
		if !rapid.Bool().Draw(t, fmt.Sprintf("%s service %d", label, i)) {
			continue
		}
		service := director.Service{
			Key:       key,
			Name:      rapid.SampledFrom([]string{"", fmt.Sprintf("s%d", i)}).Draw(t, "name"),
			Scheduler: rapid.SampledFrom([]director.Scheduler{director.SourceHash, director.Maglev}).Draw(t, "scheduler"),
			Flags:     director.SchedulerFlags{Port: rapid.Bool().Draw(t, "port"), Fallback: rapid.Bool().Draw(t, "fallback")},
			VIP:       rapid.SampledFrom([]director.VIPOwner{director.VIPManaged, director.VIPExternal}).Draw(t, "vip"),
		}
		if plane == director.PlaneIPVS {
			service.Flags.Third = rapid.Bool().Draw(t, "third")
			service.Persistence = rapid.SampledFrom([]director.Persistence{
				{}, {Timeout: time.Minute, Prefix: 24}, {Timeout: time.Minute, Prefix: 24, Engine: director.EngineSIP},
			}).Draw(t, "persistence")
		} else {
			service.Access = rapid.SampledFrom([]director.Access{
				{}, {Deny: prefixes("10.0.0.0/8")}, {Allow: prefixes("10.0.0.0/8", "192.0.2.0/24")},
			}).Draw(t, "access")
			service.Limits = rapid.SampledFrom([]director.Limits{
				{}, {Rate: 5}, {Connections: 7}, {Source: director.SourceLimits{Prefix: 24, Rate: 5}}, {Source: director.SourceLimits{Prefix: 32, Connections: 7}},
			}).Draw(t, "limits")
			service.Guard = rapid.SampledFrom([]director.SourceGuard{
				{}, {Mode: director.GuardOn}, {Mode: director.GuardAuto, On: 5, Off: 1}, {Mode: director.GuardAuto, On: 5, Off: 2},
			}).Draw(t, "guard")
		}
		for _, n := range rapid.Permutation([]int{1, 2, 3, 4, 5}).Draw(t, "servers")[:rapid.IntRange(0, 5).Draw(t, "count")] {
			service.Servers = append(service.Servers, genServerOf(t, key, n, plane))
		}
		state.Services = append(state.Services, service)
	}
	slices.SortFunc(state.Services, func(a, b director.Service) int { return a.Key.Compare(b.Key) })
	if plane == director.PlaneIPVS {
		state.Sync = genSync(t)
	}
	return state
}

// genSync draws sync daemons, none or those of some roles; never nil.
func genSync(t *rapid.T) []director.SyncDaemon {
	all := []director.SyncDaemon{}
	for _, role := range []director.SyncRole{director.SyncMaster, director.SyncBackup} {
		if rapid.Bool().Draw(t, string(role)) {
			all = append(all, daemon(role, rapid.SampledFrom([]string{"eth0", "eth1"}).Draw(t, "interface"), 1))
		}
	}
	return all
}

func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{director.PlaneXDP, director.PlaneIPVS}).Draw(t, "plane")
		desired, found := genState(t, "desired", name), genState(t, "found", name)
		features, err := director.FeaturesOf(name)
		if err := errors.Join(err, desired.Validate(), features.Check(desired)); err != nil {
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
