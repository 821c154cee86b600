package xdp

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/scheduler"
	"github.com/shunt-lb/shunt/realserver"
)

func testService(name director.Scheduler, flags director.SchedulerFlags) director.Service {
	return director.Service{
		Key:       director.ServiceKey{Protocol: conntrack.TCP, Address: netip.MustParseAddrPort("192.0.2.1:80")},
		Name:      "web",
		Scheduler: name, Flags: flags, VIP: director.VIPExternal,
	}
}

// local is a server that needs no next hop, so that every pick can be made.
func local(i int, weight uint32) realserver.Server {
	return realserver.Server{
		Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80), Method: realserver.Local, Weight: weight,
	}
}

// TestSchedulesAsTheModels edits services at random between picks and compares
// every choice of the loaded program with the kernel's model.
func TestSchedulesAsTheModels(t *testing.T) {
	r := newRig(t, Options{})
	type variant struct {
		name  director.Scheduler
		flags director.SchedulerFlags
	}
	var variants []variant
	for _, name := range director.Schedulers() {
		if name == director.TwoRandomChoices {
			continue // chance
		}
		variants = append(variants, variant{name: name})
		if name.HasFlags() {
			variants = append(variants, variant{name, director.SchedulerFlags{Port: true, Fallback: true}})
		}
	}
	for n, c := range variants {
		t.Run(fmt.Sprintf("%s/%+v", c.name, c.flags), func(t *testing.T) {
			service := testService(c.name, c.flags)
			// A port of its own: a service that comes back finds its connections again.
			service.Key.Address = netip.AddrPortFrom(service.Key.Address.Addr(), uint16(8000+n))
			r.must(director.AddService{Service: service})
			defer r.must(director.RemoveService{Key: service.Key})
			model, err := scheduler.New(c.name, scheduler.Options{Flags: c.flags, SetLimit: scheduler.FastPathSetLimit})
			if err != nil {
				t.Fatal(err)
			}
			random := rand.New(rand.NewPCG(1, uint64(len(c.name))+2))
			present := map[int]bool{}
			var open []netip.AddrPort    // clients that have a connection
			var ops []director.Operation // not applied yet: several at once are as one after another
			do := func(op director.Operation) {
				if ops = append(ops, op); random.IntN(2) == 0 {
					r.must(ops...)
					ops = nil
				}
			}
			for step := range bpftest.Rounds(400) {
				i, weight := 1+random.IntN(6), uint32(random.IntN(5))
				addr := local(i, 0).Address
				switch kind := random.IntN(7); {
				case kind == 0 && !present[i]:
					server := local(i, weight)
					server.Upper = uint32(random.IntN(2) * (1 + random.IntN(20)))
					do(director.AddServer{Key: service.Key, Server: server})
					model.Add(addr, weight)
					present[i] = true
				case kind <= 1 && present[i]:
					server := local(i, weight)
					server.Upper = uint32(random.IntN(2) * (1 + random.IntN(20)))
					do(director.EditServer{Key: service.Key, Server: server})
					model.Edit(addr, weight)
				case kind == 2 && present[i] && random.IntN(2) == 0:
					do(director.RemoveServer{Key: service.Key, Address: addr})
					model.Remove(addr)
					delete(present, i)
				case kind == 3 && len(open) > 0:
					last := len(open) - 1
					j := random.IntN(len(open))
					filter := only(open[j])
					filter.Service = service.Key
					if n, err := r.Kill(t.Context(), filter); err != nil || n != 1 {
						t.Fatalf("end the connection of %s: %d, %v", open[j], n, err)
					}
					open[j], open = open[last], open[:last]
				default:
					r.must(ops...)
					ops = nil
					client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(step / 256), byte(step)}), uint16(1024+random.IntN(9)))
					want, wantOK := model.Pick(client, service.Key.Address, r.loads(service.Key))
					got, ok := r.syn(client, service.Key.Address)
					if ok != wantOK || ok && got != want {
						t.Fatalf("step %d, client %s: the program chose %v %v, the kernel's model %v %v", step, client, got, ok, want, wantOK)
					}
					if ok {
						open = append(open, client)
					}
				}
			}
		})
	}
}

// Edits of a service's own settings leave rr and wrr where they are, as the kernel's
// do (kernel: ip_vs_ctl.c, ip_vs_edit_service).
func TestServiceEditsKeepTurns(t *testing.T) {
	r := newRig(t, Options{})
	weights := []uint32{4, 2, 2}
	port := uint16(8000) // one for each service: one that comes back finds its connections again
	add := func(name director.Scheduler) director.Service {
		service := testService(name, director.SchedulerFlags{})
		service.Key.Address = netip.AddrPortFrom(service.Key.Address.Addr(), port)
		port++
		r.must(director.AddService{Service: service})
		for i, weight := range weights {
			r.must(director.AddServer{Key: service.Key, Server: local(i+1, weight)})
		}
		return service
	}
	for _, name := range []director.Scheduler{director.RoundRobin, director.WeightedRoundRobin} {
		for what, edit := range map[string]func(*director.Service){
			"name":     func(s *director.Service) { s.Name += "x" },
			"access":   func(s *director.Service) { s.Access.Deny = prefixes("203.0.113.0/24") },
			"timeouts": func(s *director.Service) { s.Timeouts.TCP += time.Minute },
			"rules":    func(s *director.Service) { s.Rules.SloppyTCP = !s.Rules.SloppyTCP },
		} {
			t.Run(string(name)+"/"+what, func(t *testing.T) {
				service := add(name)
				model, err := scheduler.New(name, scheduler.Options{})
				if err != nil {
					t.Fatal(err)
				}
				for i, weight := range weights {
					model.Add(local(i+1, 0).Address, weight)
				}
				for n := range byte(12) {
					client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, n}), 4000)
					want, _ := model.Pick(client, service.Key.Address, nil)
					if got, _ := r.syn(client, service.Key.Address); got != want {
						t.Errorf("connection %d: server %v, want %v", n, got, want)
					}
					edit(&service)
					r.must(director.EditService{Service: service})
				}
			})
		}
		// Another scheduler begins at the head, wrr with the greatest weight.
		t.Run(string(name)+"/scheduler", func(t *testing.T) {
			service := add(name)
			want := map[director.Scheduler]netip.AddrPort{
				director.RoundRobin: local(3, 0).Address, director.WeightedRoundRobin: local(1, 0).Address,
			}[name]
			for n := range byte(4) {
				for _, next := range []director.Scheduler{director.LeastConnection, name} {
					service.Scheduler = next
					r.must(director.EditService{Service: service})
				}
				client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, n}), 4000)
				if got, _ := r.syn(client, service.Key.Address); got != want {
					t.Errorf("connection %d: server %v, want %v", n, got, want)
				}
			}
		})
	}
}

// loads are what the service's servers have to do now.
func (r *rig) loads(key director.ServiceKey) scheduler.Loads {
	r.t.Helper()
	loads := scheduler.Loads{}
	for _, s := range r.stats(key).Servers {
		loads[s.Server.Address] = scheduler.Load{Active: int64(s.Active), Inactive: int64(s.Inactive), Overloaded: s.Overloaded}
	}
	return loads
}

// stats are the service's.
func (r *rig) stats(key director.ServiceKey) director.ServiceStats {
	r.t.Helper()
	stats, err := r.Stats(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, s := range stats.Services {
		if s.Key == key {
			return s
		}
	}
	r.t.Fatalf("no stats of %s", key)
	return director.ServiceStats{}
}

// only selects what the client's address has.
func only(client netip.AddrPort) director.ConnectionFilter {
	return director.ConnectionFilter{Client: netip.PrefixFrom(client.Addr(), client.Addr().BitLen())}
}

// TestRestart closes and opens the data plane: what it holds is what it held,
// and schedulers go on where they were.
func TestRestart(t *testing.T) {
	r := newRig(t, Options{})
	service := testService(director.WeightedRoundRobin, director.SchedulerFlags{})
	other := testService(director.Maglev, director.SchedulerFlags{Port: true})
	other.Key.Address, other.Name, other.VIP = netip.MustParseAddrPort("[2001:db8::1]:443"), "", director.VIPManaged
	r.must(
		director.AddService{Service: service},
		director.AddServer{Key: service.Key, Server: local(1, 3)},
		director.AddServer{Key: service.Key, Server: local(2, 0)},
		director.AddServer{Key: service.Key, Server: local(3, 2)},
		director.AddService{Service: other},
		director.SetTimeouts{Timeouts: conntrack.Timeouts{TCP: time.Hour, TCPFin: time.Minute, UDP: time.Second}},
	)
	model, err := scheduler.New(director.WeightedRoundRobin, scheduler.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range []uint32{3, 0, 2} {
		model.Add(local(i+1, 0).Address, w)
	}
	before, err := r.Found(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for n := range 12 {
		if n%5 == 4 {
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			r.open()
		}
		client := netip.AddrPortFrom(netip.MustParseAddr("198.51.100.9"), uint16(2000+n))
		want, _ := model.Pick(client, service.Key.Address, nil)
		if got, _ := r.syn(client, service.Key.Address); got != want {
			t.Errorf("connection %d: server %s, want %s", n, got, want)
		}
	}
	after, err := r.Found(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, after, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("state after restarts (-before +after):\n%s", diff)
	}
}

// TestIndicesAreReused removes services with and without connections: an index
// is free after a sweep that found nothing that refers to it, and not before.
func TestIndicesAreReused(t *testing.T) {
	r := newRig(t, Options{})
	service := testService(director.RoundRobin, director.SchedulerFlags{})
	server := local(1, 1)
	r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: server})
	client := netip.MustParseAddrPort("198.51.100.9:4000")
	if _, ok := r.syn(client, service.Key.Address); !ok {
		t.Fatal("no connection was made")
	}
	r.must(director.RemoveService{Key: service.Key})
	for range 3 {
		r.sweepNow()
	}
	if len(r.model.servers) != 1 || len(r.model.services) != 1 {
		t.Fatalf("%d servers and %d services have an index while a connection refers to them, want 1 and 1", len(r.model.servers), len(r.model.services))
	}
	args := bpf.KernelRemoveArgs{
		Client: bpf.Address(client.Addr()), VirtualAddress: bpf.Address(service.Key.Address.Addr()),
		ClientPort: bpf.Port(client.Port()), VirtualPort: bpf.Port(80), Protocol: uint8(conntrack.TCP),
	}
	if err := r.plane.RemoveConnection(false, &args); err != nil {
		t.Fatal(err)
	}
	r.sweepNow()
	if len(r.model.servers) != 0 || len(r.model.services) != 0 {
		t.Fatalf("%d servers and %d services have an index after their last connection, want none", len(r.model.servers), len(r.model.services))
	}
	// As often as there are places: nothing leaks.
	for range 2 * r.opts.MaxServices {
		r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: server}, director.RemoveService{Key: service.Key})
		r.sweepNow()
	}
}

func (r *rig) sweepNow() {
	r.t.Helper()
	if err := r.sweep(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// TestRecountHeals spoils a server's counts: the second sweep that finds the same
// difference corrects them, the first does not.
func TestRecountHeals(t *testing.T) {
	r := newRig(t, Options{})
	service := testService(director.RoundRobin, director.SchedulerFlags{})
	r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: local(1, 1)})
	for port := range uint16(5) {
		r.syn(netip.AddrPortFrom(netip.MustParseAddr("198.51.100.9"), 4000+port), service.Key.Address)
	}
	if err := r.plane.Correct(bpf.KernelCorrectArgs{Server: 1, Active: 7, Inactive: -2}); err != nil {
		t.Fatal(err)
	}
	for n, want := range []uint64{12, 5, 5} {
		r.sweepNow()
		stats, err := r.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			continue
		}
		if got := stats.Services[0].Servers[0]; got.Active != want || got.Inactive != 0 {
			t.Errorf("after sweep %d: active %d inactive %d, want %d 0", n+1, got.Active, got.Inactive, want)
		}
	}
	stats, err := r.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := stats.Table[0].Corrected; got != 1 {
		t.Errorf("%d corrections counted, want 1", got)
	}
}

// TestCountersOutliveServers: a service's totals include servers that are gone.
func TestCountersOutliveServers(t *testing.T) {
	r := newRig(t, Options{})
	service := testService(director.RoundRobin, director.SchedulerFlags{})
	r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: local(1, 1)})
	client := netip.MustParseAddrPort("198.51.100.9:4000")
	r.syn(client, service.Key.Address)
	r.send(bpftest.Packet{From: client, To: service.Key.Address, Flags: "R"})
	r.must(
		director.SetTimeouts{Timeouts: conntrack.Timeouts{TCP: time.Second, TCPFin: time.Second, UDP: time.Second}},
		director.RemoveServer{Key: service.Key, Address: local(1, 1).Address},
	)
	if err := r.plane.RemoveConnection(false, &bpf.KernelRemoveArgs{
		Client: bpf.Address(client.Addr()), VirtualAddress: bpf.Address(service.Key.Address.Addr()),
		ClientPort: bpf.Port(client.Port()), VirtualPort: bpf.Port(80), Protocol: uint8(conntrack.TCP),
	}); err != nil {
		t.Fatal(err)
	}
	r.sweepNow()
	stats, err := r.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := stats.Services[0]
	if len(got.Servers) != 0 || got.Counters.Connections != 1 || got.Counters.InPackets != 2 {
		t.Errorf("service's counters %+v with %d servers, want 1 connection, 2 packets, no server", got.Counters, len(got.Servers))
	}
}

func TestRefusals(t *testing.T) {
	r := newRig(t, Options{})
	service := testService("sometimes", director.SchedulerFlags{})
	strange := local(1, 1)
	strange.Method = 4 // the kernel's bypass
	good := testService(director.RoundRobin, director.SchedulerFlags{})
	r.must(director.AddService{Service: good})
	for name, op := range map[string]director.Operation{
		"scheduler": director.AddService{Service: service},
		"method":    director.AddServer{Key: good.Key, Server: strange},
		"service":   director.AddServer{Key: director.ServiceKey{Protocol: conntrack.UDP, Address: good.Key.Address}, Server: local(1, 1)},
		"server":    director.EditServer{Key: good.Key, Server: local(9, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			before, _ := r.Found(t.Context())
			if err := r.Apply(t.Context(), []director.Operation{op}); err == nil {
				t.Fatal("accepted")
			}
			if after, _ := r.Found(t.Context()); !slices.EqualFunc(before.Services, after.Services, func(a, b director.Service) bool { return a.Key == b.Key }) {
				t.Error("state changed")
			}
		})
	}
}
