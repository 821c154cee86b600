package xdp

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"
	diff "github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// wideKey reads a service's URL.
func wideKey(t testing.TB, text string) director.ServiceKey {
	t.Helper()
	key, err := director.ParseServiceKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// wideService is a service with one server, whose number is in its address.
func wideService(key director.ServiceKey, n int) director.Service {
	addr := netip.AddrFrom4([4]byte{10, 0, 1, byte(n)})
	if key.Address.Addr().Is6() {
		addr = netip.AddrFrom16([16]byte{0xfd, 15: byte(n)})
	}
	port := key.Address.Port()
	if key.AnyPort() {
		port = 0
	}
	return director.Service{
		Key: key, Scheduler: director.RoundRobin, VIP: director.VIPExternal,
		Servers: []realserver.Server{{Address: netip.AddrPortFrom(addr, port), Method: realserver.Local, Weight: 1}},
	}
}

// add applies the service with its servers.
func (r *rig) add(s director.Service) {
	r.t.Helper()
	r.must(added(s)...)
}

// added is what adds the service with its servers.
func added(s director.Service) []director.Operation {
	servers := s.Servers
	s.Servers = nil
	ops := []director.Operation{director.AddService{Service: s}}
	for _, server := range servers {
		ops = append(ops, director.AddServer{Key: s.Key, Server: server})
	}
	return ops
}

// mostSpecific is the service that a packet to the address is for, by the rule as it
// is told to operators.
func mostSpecific(services map[director.ServiceKey]director.Service, to netip.AddrPort) (best director.Service, ok bool) {
	width := func(k director.ServiceKey) int {
		first, last := k.Ports()
		return int(last) - int(first)
	}
	for key, s := range services {
		if !key.Contains(to) {
			continue
		}
		if !ok || cmp.Or(key.Prefix().Bits()-best.Key.Prefix().Bits(), width(best.Key)-width(key),
			int(best.Key.Address.Port())-int(key.Address.Port())) > 0 {
			best, ok = s, true
		}
	}
	return best, ok
}

// Services come and go, one within another, and batches and restarts with them: the
// program's choice is the rule's at every step, and what is found what was asked for.
func TestWideServicesAsTheRule(t *testing.T) {
	r := newRig(t, Options{MaxServices: 512, MaxServers: 512, SchedulerWords: 1 << 16})
	const seed = 11
	random := rand.New(rand.NewPCG(seed, 5))
	for _, base := range []string{"192.0.2.0", "2001:db8::"} {
		addr := netip.MustParseAddr(base)
		near := func(n int) netip.Addr {
			b := addr.AsSlice()
			b[len(b)-1] = byte(n)
			a, _ := netip.AddrFromSlice(b)
			return a
		}
		services, numbers := map[director.ServiceKey]director.Service{}, 0
		check := func(step int) {
			t.Helper()
			for range 8 {
				to := netip.AddrPortFrom(near(random.IntN(256)), uint16(1+random.IntN(30)))
				client := netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), uint16(1024+random.IntN(60000)))
				if to.Addr().Is6() {
					client = netip.AddrPortFrom(netip.MustParseAddr("2001:db8:c::7"), client.Port())
				}
				server, got := r.syn(client, to)
				want, ok := mostSpecific(services, to)
				if got != ok || ok && server.Addr() != want.Servers[0].Address.Addr() {
					t.Fatalf("seed %d, step %d: %s goes to %s (%v), want %v of %s", seed, step, to, server, got, want.Servers, want.Key)
				}
			}
		}
		for step := range bpftest.Rounds(80) {
			if len(services) > 0 && random.IntN(3) == 0 {
				for key := range services {
					r.must(director.RemoveService{Key: key})
					delete(services, key)
					break
				}
			} else {
				key := director.ServiceKey{Protocol: 6}
				first := uint16(random.IntN(12))
				bits := addr.BitLen() - random.IntN(9)
				prefix := netip.PrefixFrom(near(random.IntN(256)), bits).Masked()
				if key.Address = netip.AddrPortFrom(prefix.Addr(), first); bits != addr.BitLen() {
					key.Bits = uint8(bits)
				}
				if first != 0 && random.IntN(2) == 0 {
					key.LastPort = first + 1 + uint16(random.IntN(12))
				}
				if _, taken := services[key]; taken {
					continue
				}
				numbers = numbers%250 + 1
				services[key] = wideService(key, numbers)
				r.add(services[key])
			}
			if step%20 == 19 {
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
				before := r.matchEntries()
				r.open()
				if d := diff.Diff(before, r.matchEntries()); d != "" {
					t.Fatalf("a restart changed the trie (-before +after):\n%s", d)
				}
			}
			check(step)
		}
		found, err := r.Found(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var want []director.Service
		for _, s := range services {
			want = append(want, s)
		}
		slices.SortFunc(want, func(a, b director.Service) int { return a.Key.Compare(b.Key) })
		if d := diff.Diff(want, found.Services, plain); d != "" {
			t.Errorf("found (-want +got):\n%s", d)
		}
		for key := range services {
			r.must(director.RemoveService{Key: key})
		}
		if left := r.matchEntries(); len(left) != 0 || len(r.matches.runs)+len(r.matches.services) != 0 {
			t.Errorf("%d keys, %d runs, %d prefixes are left", len(left), len(r.matches.runs), len(r.matches.services))
		}
	}
}

// matchEntries reads the trie, by its pin if the data plane is closed.
func (r *rig) matchEntries() map[bpf.KernelMatchKey]bpf.KernelMatch {
	r.t.Helper()
	plane := r.plane
	if r.isClosed() {
		m, err := ebpf.LoadPinnedMap(r.opts.PinDir+"/"+bpf.KernelMapMatches, nil)
		if err != nil {
			r.t.Fatal(err)
		}
		defer m.Close()
		plane = &bpf.Plane{KernelMaps: bpf.KernelMaps{Matches: m}}
	}
	entries, err := plane.MatchEntries()
	if err != nil {
		r.t.Fatal(err)
	}
	all := map[bpf.KernelMatchKey]bpf.KernelMatch{}
	for _, e := range entries {
		all[e.Key] = e.Match
	}
	return all
}

// The server answers as the address and port that the client asked for; one without a
// port of its own is asked for the client's.
func TestWideNATThroughTheDataPlane(t *testing.T) {
	r := newRig(t, Options{})
	for port, want := range map[uint16]uint16{0: 8123, 9000: 9000} {
		key := wideKey(t, "tcp://192.0.2.0/24:8000-8999")
		server := realserver.Server{Address: netip.AddrPortFrom(reachable, port), Method: realserver.NAT, Weight: 1}
		r.must(director.AddService{Service: director.Service{Key: key, Scheduler: director.RoundRobin, VIP: director.VIPExternal}},
			director.AddServer{Key: key, Server: server})
		client, vip := netip.MustParseAddrPort("198.51.100.7:4000"), netip.MustParseAddrPort("192.0.2.77:8123")
		from, to := r.forwarded(bpftest.Packet{From: client, To: vip, Flags: "S"})
		if from != client || to != netip.AddrPortFrom(reachable, want) {
			t.Errorf("port %d: forwarded as %s -> %s", port, from, to)
		}
		from, to = r.forwarded(bpftest.Packet{From: to, To: client, Flags: "SA"})
		if from != vip || to != client {
			t.Errorf("port %d: returned as %s -> %s", port, from, to)
		}
		found, err := r.Found(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(found.Services) != 1 || found.Services[0].Key != key || !slices.Equal(found.Services[0].Servers, []realserver.Server{server}) {
			t.Errorf("found %+v", found.Services)
		}
		r.must(director.RemoveService{Key: key})
		if _, err := r.Kill(t.Context(), director.ConnectionFilter{}); err != nil {
			t.Fatal(err)
		}
	}
}

// forwarded sends a packet and returns the source and destination that it leaves with,
// its checksums looked at.
func (r *rig) forwarded(p bpftest.Packet) (from, to netip.AddrPort) {
	r.t.Helper()
	options := ebpf.RunOptions{Data: p.Bytes(), DataOut: make([]byte, 2048)}
	action, err := r.plane.ShuntRoot.Run(&options)
	if err != nil {
		r.t.Fatal(err)
	}
	if a := bpftest.Action(action); a != bpftest.Redirect && a != bpftest.TX {
		r.t.Fatalf("%s -> %s: %v", p.From, p.To, a)
	}
	if err := bpftest.Verify(options.DataOut); err != nil {
		r.t.Error(err)
	}
	b := options.DataOut[14:]
	at := func(address, port int) netip.AddrPort {
		a, _ := netip.AddrFromSlice(b[address : address+4])
		return netip.AddrPortFrom(a, uint16(b[port])<<8|uint16(b[port+1]))
	}
	return at(12, 20), at(16, 22)
}

// While services within one another come and go, a packet is always for one of them.
func TestWideServicesAreReplacedAsAWhole(t *testing.T) {
	r := newRig(t, Options{})
	r.add(wideService(wideKey(t, "tcp://192.0.2.0/24:1-1000"), 1))
	before, err := r.plane.EventCounts()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wait sync.WaitGroup
	var sent atomic.Int64
	wait.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			n := sent.Add(1)
			client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(n >> 8), byte(n)}), uint16(1024+n%60000))
			r.send(bpftest.Packet{From: client, To: netip.MustParseAddrPort("192.0.2.20:80"), Flags: "S"})
		}
	})
	services := []string{"tcp://192.0.2.16/28:80", "tcp://192.0.2.0/24:80", "tcp://192.0.2.20:70-90", "tcp://192.0.0.0/16:80", "tcp://192.0.2.20:80"}
	for i := 0; i < 200 || sent.Load() < 5000; i++ {
		service := wideService(wideKey(t, services[i%len(services)]), 2+i%len(services))
		if _, err := r.model.live(service.Key); err == nil {
			r.must(director.RemoveService{Key: service.Key})
		} else {
			r.add(service)
		}
	}
	close(done)
	wait.Wait()
	after, err := r.plane.EventCounts()
	if err != nil {
		t.Fatal(err)
	}
	if n := after[bpf.KernelEventEVENT_PASS_NO_SERVICE] - before[bpf.KernelEventEVENT_PASS_NO_SERVICE]; n != 0 {
		t.Errorf("%d of %d packets met no service", n, sent.Load())
	}
	if after[bpf.KernelEventEVENT_PASS_LOCAL] == before[bpf.KernelEventEVENT_PASS_LOCAL] {
		t.Errorf("of %d packets none was given to a server", sent.Load())
	}
}

// More than there is room for is refused, and nothing is changed by that.
func TestWideServicesLimits(t *testing.T) {
	r := newRig(t, Options{MaxServices: 2000, MaxServers: 16, SchedulerWords: 1 << 17})
	ops := make([]director.Operation, 0, bpf.MaxRanges)
	service := func(port int) director.AddService {
		return director.AddService{Service: director.Service{
			Key:       wideKey(t, fmt.Sprintf("tcp://192.0.2.0/24:%d", port)),
			Scheduler: director.RoundRobin, VIP: director.VIPExternal,
		}}
	}
	for i := range bpf.MaxRanges {
		ops = append(ops, service(i+1))
	}
	r.must(ops...)
	before := r.matchEntries()
	for _, op := range []director.Operation{
		service(5000),
		director.AddService{Service: director.Service{
			Key: wideKey(t, "tcp://192.0.2.8/29:9"), Scheduler: director.RoundRobin, VIP: director.VIPExternal,
		}},
	} {
		if err := r.Apply(t.Context(), []director.Operation{op}); !errors.Is(err, director.ErrFull) {
			t.Errorf("%v: %v", op, err)
		}
		if d := diff.Diff(before, r.matchEntries()); d != "" {
			t.Errorf("%v changed the trie:\n%s", op, d)
		}
	}
	r.plane.Limits.Matches = 3
	for i := range 2 {
		err := r.Apply(t.Context(), []director.Operation{director.AddService{Service: director.Service{
			Key: wideKey(t, fmt.Sprintf("tcp://192.0.%d.0/24:9", i+3)), Scheduler: director.RoundRobin, VIP: director.VIPExternal,
		}}})
		if isFull := errors.Is(err, director.ErrFull); isFull != (i == 1) {
			t.Errorf("prefix %d of 2: %v", i+2, err)
		}
	}
}
