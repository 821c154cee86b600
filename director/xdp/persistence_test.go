package xdp

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// newStickyService holds clients of a /24 together.
func newStickyService() director.Service {
	s := testService(director.RoundRobin, director.SchedulerFlags{})
	s.Persistence = director.Persistence{Timeout: 5 * time.Minute, Prefix: 24}
	return s
}

// connections returns what the filter selects, in the order of clients.
func (r *rig) connections(filter director.ConnectionFilter) []conntrack.Connection {
	r.t.Helper()
	var all []conntrack.Connection
	for c, err := range r.Connections(r.t.Context(), filter) {
		if err != nil {
			r.t.Fatal(err)
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b conntrack.Connection) int { return a.Client.Compare(b.Client) })
	return all
}

// A client network stays with its server; the walk shows its template, Stats counts
// it; a restart changes nothing of that.
func TestPersistence(t *testing.T) {
	r := newRig(t, Options{})
	service := newStickyService()
	r.must(
		director.AddService{Service: service},
		director.AddServer{Key: service.Key, Server: local(1, 1)}, director.AddServer{Key: service.Key, Server: local(2, 1)},
	)
	client := func(network, host byte) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, network, host}), 4000)
	}
	pick := func(network, host byte) netip.AddrPort {
		t.Helper()
		server, ok := r.syn(client(network, host), service.Key.Address)
		if !ok {
			t.Fatalf("no connection of %s", client(network, host))
		}
		return server
	}
	first, second := pick(1, 1), pick(2, 1)
	if first == second {
		t.Fatalf("two networks in turn: both got %s", first)
	}
	for round := range 2 {
		for host := byte(2 + 10*round); host < byte(6+10*round); host++ {
			if got := pick(1, host); got != first {
				t.Errorf("%s: %s, want its network's server %s", client(1, host), got, first)
			}
		}
		if round == 0 {
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			r.open()
		}
	}
	templates := r.connections(director.ConnectionFilter{Kind: director.KindTemplate})
	for i := range templates {
		if e := templates[i].Expires; e <= 0 || e > service.Persistence.Timeout+time.Second {
			t.Errorf("template %d expires in %v", i, e)
		}
		templates[i].Expires, templates[i].Age, templates[i].Idle = 0, 0, 0
	}
	want := []conntrack.Connection{
		{
			Protocol: conntrack.TCP, Client: netip.MustParseAddrPort("198.51.1.0:0"), Virtual: service.Key.Address, Server: first,
			Method: "local", Template: true, Prefix: 24, Controlled: 9,
		},
		{
			Protocol: conntrack.TCP, Client: netip.MustParseAddrPort("198.51.2.0:0"), Virtual: service.Key.Address, Server: second,
			Method: "local", Template: true, Prefix: 24, Controlled: 1,
		},
	}
	if diff := cmp.Diff(want, templates, plain); diff != "" {
		t.Errorf("templates (-want +got):\n%s", diff)
	}
	for _, c := range r.connections(director.ConnectionFilter{Kind: director.KindConnection}) {
		if !c.UnderTemplate || c.Template {
			t.Errorf("connection %+v is not under a template", c)
		}
	}
	for _, s := range r.stats(service.Key).Servers {
		if s.Templates != 1 {
			t.Errorf("%s has %d templates, want 1", s.Server.Address, s.Templates)
		}
	}
}

// A server that drains is given no connection, by its templates neither; cancelled,
// it is as it was.
func TestDrainingServer(t *testing.T) {
	r := newRig(t, Options{})
	service := newStickyService()
	r.must(
		director.AddService{Service: service},
		director.AddServer{Key: service.Key, Server: local(1, 1)}, director.AddServer{Key: service.Key, Server: local(2, 1)},
	)
	n := uint16(0)
	pick := func(network byte) netip.AddrPort {
		n++
		server, _ := r.syn(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, network, 7}), 4000+n), service.Key.Address)
		return server
	}
	held := pick(1)
	drained := local(1, 1)
	if drained.Address != held {
		drained = local(2, 1)
	}
	drained.Draining = true
	r.must(director.EditServer{Key: service.Key, Server: drained})
	for network := byte(1); network < 9; network++ {
		if got := pick(network); got == held || !got.IsValid() {
			t.Errorf("network %d: given %v while %s drains", network, got, held)
		}
	}
	stats := r.stats(service.Key)
	for _, s := range stats.Servers {
		if s.Server.Address == held && (!s.Server.Draining || s.Active == 0 || s.Templates != 0) {
			t.Errorf("the server that drains: %+v, want its connection and no template", s)
		}
	}
	drained.Draining = false
	r.must(director.EditServer{Key: service.Key, Server: drained})
	back := false
	for network := byte(20); network < 24; network++ {
		back = back || pick(network) == held
	}
	if !back {
		t.Errorf("%s got nothing after its drain was cancelled", held)
	}
}

// Whatever the scheduler, clients of a server that drains are given another one,
// and those of the others keep theirs where a table says who is whose.
func TestDrainRefusesNobody(t *testing.T) {
	r := newRig(t, Options{})
	for n, name := range director.Schedulers() {
		t.Run(string(name), func(t *testing.T) {
			r.t = t
			service := testService(name, director.SchedulerFlags{})
			service.Key.Address = netip.AddrPortFrom(service.Key.Address.Addr(), uint16(8000+n))
			r.must(director.AddService{Service: service})
			for i := range 4 {
				r.must(director.AddServer{Key: service.Key, Server: local(i+1, 1000)})
			}
			pick := func(port uint16, host byte) netip.AddrPort {
				server, _ := r.syn(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, host}), port), service.Key.Address)
				return server
			}
			before := make(map[byte]netip.AddrPort)
			for host := range byte(40) {
				before[host] = pick(1000, host)
			}
			drained := local(1, 1000)
			for _, held := range before { // dh: the only one that is anybody's
				drained.Address = held
			}
			drained.Draining = true
			r.must(director.EditServer{Key: service.Key, Server: drained})
			for host := range byte(40) {
				got := pick(2000, host)
				if got == drained.Address || !got.IsValid() {
					t.Errorf("client %d: given %v while %s drains", host, got, drained.Address)
				}
				if before[host] != drained.Address && got != before[host] && (name == director.SourceHash || name == director.Maglev) {
					t.Errorf("client %d: given %s, was with %s, which does not drain", host, got, before[host])
				}
			}
		})
	}
}

// Timeouts of a service are in force before its servers say so, follow the
// director's where it has none of its own, and end with it.
func TestTimeoutsOfService(t *testing.T) {
	r := newRig(t, Options{})
	service := newStickyService()
	service.Timeouts.TCPFin = 9 * time.Second
	r.must(
		director.SetTimeouts{Timeouts: conntrack.Timeouts{TCP: time.Hour, TCPFin: time.Minute, UDP: time.Minute}},
		director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: local(1, 1)},
	)
	svc := r.model.byKey[service.Key]
	set := func() (set bpf.KernelTimeoutSet) {
		t.Helper()
		if err := r.plane.Timeouts.Lookup(svc.index, &set); err != nil {
			t.Fatal(err)
		}
		return set
	}
	hasSet := func() bool {
		t.Helper()
		var k bpf.KernelServer
		if err := r.plane.Servers.Lookup(svc.members[local(1, 1).Address].index, &k); err != nil {
			t.Fatal(err)
		}
		return k.Flags&uint8(bpf.KernelServerFlagsSERVER_OWN_TIMEOUTS) != 0
	}
	check := func(when string, want map[bpf.KernelConnState]time.Duration) {
		t.Helper()
		got := set()
		for state, timeout := range want {
			if got.Ticks[state] != r.plane.Clock.Ticks(timeout) {
				t.Errorf("%s: state %d has %d ticks, want those of %v", when, state, got.Ticks[state], timeout)
			}
		}
		if hasSet() != (len(want) > 0) {
			t.Errorf("%s: the server has a set: %v", when, hasSet())
		}
	}
	const established, finWait, template = bpf.KernelConnStateSTATE_ESTABLISHED, bpf.KernelConnStateSTATE_FIN_WAIT, bpf.KernelConnStateSTATE_TEMPLATE
	check("made", map[bpf.KernelConnState]time.Duration{established: time.Hour, finWait: 9 * time.Second, template: 5 * time.Minute})
	r.must(director.SetTimeouts{Timeouts: conntrack.Timeouts{TCP: 2 * time.Hour, TCPFin: 2 * time.Minute, UDP: time.Minute}})
	check("director's changed", map[bpf.KernelConnState]time.Duration{established: 2 * time.Hour, finWait: 9 * time.Second, template: 5 * time.Minute})
	r.syn(netip.MustParseAddrPort("198.51.100.9:4000"), service.Key.Address)
	r.send(bpftest.Packet{From: netip.MustParseAddrPort("198.51.100.9:4000"), To: service.Key.Address, Flags: "A"})
	r.send(bpftest.Packet{From: netip.MustParseAddrPort("198.51.100.9:4000"), To: service.Key.Address, Flags: "FA"})
	for _, c := range r.connections(director.ConnectionFilter{Kind: director.KindConnection}) {
		if c.State != conntrack.FinWait || c.Expires > 10*time.Second {
			t.Errorf("a connection in %v expires in %v, want FIN_WAIT's 9s", c.State, c.Expires)
		}
	}
	service.Timeouts, service.Persistence.Timeout = conntrack.Timeouts{TCP: 3 * time.Hour}, 7*time.Minute
	r.must(director.EditService{Service: service})
	check("edited", map[bpf.KernelConnState]time.Duration{established: 3 * time.Hour, finWait: 2 * time.Minute, template: 7 * time.Minute})
	service.Timeouts, service.Persistence = conntrack.Timeouts{}, director.Persistence{}
	r.must(director.EditService{Service: service})
	check("ended", nil)
}
