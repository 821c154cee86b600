package director_test

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/realserver"
)

func server(addr string, method realserver.Method, weight uint32) realserver.Server {
	return realserver.Server{Address: netip.MustParseAddrPort(addr), Method: method, Weight: weight}
}

func web() director.Service {
	return director.Service{
		Key: mustKey("tcp://192.0.2.1:80"), Name: "web", Scheduler: director.RoundRobin, VIP: director.VIPManaged,
		Servers: []realserver.Server{
			server("10.0.0.1:8080", realserver.NAT, 1),
			server("10.0.0.2:80", realserver.DR, 2),
			server("192.0.2.1:80", realserver.Local, 0),
		},
	}
}

func dns() director.Service {
	return director.Service{
		Key: mustKey("udp://[2001:db8::1]:53"), Scheduler: director.Maglev, VIP: director.VIPExternal,
		Flags:   director.SchedulerFlags{Port: true, Fallback: true},
		Servers: []realserver.Server{server("[2001:db8:1::1]:53", realserver.DR, 65535)},
	}
}

// foreign is a service that no test makes Shunt's at first.
func foreign() director.Service {
	return director.Service{
		Key: mustKey("tcp://192.0.2.200:25"), Name: "mail", Scheduler: director.RoundRobin, VIP: director.VIPExternal,
		Servers: []realserver.Server{server("10.0.0.25:25", realserver.DR, 3)},
	}
}

// everything is a state that has what the kernel's IPVS alone can do.
func everything() director.State {
	tunnel := func(addr string, t realserver.TunnelType, port uint16, sum realserver.TunnelChecksum) realserver.Server {
		s := server(addr, realserver.Tunnel, 1)
		s.Tunnel = realserver.TunnelOptions{Type: t, Port: port, Checksum: sum}
		return s
	}
	return director.State{
		Timeouts: conntrack.DefaultTimeouts(),
		Services: []director.Service{
			{
				Key: mustKey("sctp://192.0.2.1:3868"), Name: "diameter", Scheduler: director.RoundRobin, VIP: director.VIPManaged,
				Flags:   director.SchedulerFlags{Third: true},
				Servers: []realserver.Server{server("10.0.0.1:3869", realserver.NAT, 1)},
			},
			{
				Key: mustKey("udp://[::1]:5060"), Scheduler: director.SourceHash, VIP: director.VIPExternal,
				Persistence: director.Persistence{Timeout: time.Minute, Prefix: 128, Engine: director.EngineSIP},
				Servers:     []realserver.Server{server("[::1]:5061", realserver.NAT, 1)},
			},
			{
				Key: mustKey("fwmark://7"), Name: "marked", Scheduler: director.WeightedLeastConnection, VIP: director.VIPExternal, OnePacket: true,
				Servers: []realserver.Server{
					server("10.0.0.1:0", realserver.NAT, 1),
					server("10.0.0.1:8080", realserver.DR, 1),
					tunnel("10.0.0.2:0", realserver.TunnelIPIP, 0, realserver.TunnelNoChecksum),
					tunnel("10.0.0.3:0", realserver.TunnelGUE, 5555, realserver.TunnelRemoteChecksum),
					tunnel("10.0.0.4:99", realserver.TunnelGRE, 0, realserver.TunnelChecksumOn),
				},
			},
			{
				Key: mustKey("fwmark6://7"), Scheduler: director.Maglev, VIP: director.VIPExternal,
				Servers: []realserver.Server{server("[2001:db8:1::1]:0", realserver.DR, 1)},
			},
		},
		Sync: []director.SyncDaemon{daemon(director.SyncMaster, "eth0", 1), daemon(director.SyncBackup, "eth1", 0)},
	}
}

// daemon is a normalized sync daemon.
func daemon(role director.SyncRole, on string, id uint8) director.SyncDaemon {
	return director.SyncDaemon{Role: role, Interface: on, ID: id}.Normalize()
}

// plane returns what the data plane of the name can do.
func plane(t testing.TB, name string) director.Features {
	t.Helper()
	features, err := director.FeaturesOf(name)
	if err != nil {
		t.Fatal(err)
	}
	return features
}

// startOn is start on the data plane of the name.
func startOn(t testing.TB, name string, state director.State) *rig {
	t.Helper()
	fake := directortest.NewFake(director.State{Timeouts: conntrack.DefaultTimeouts()})
	fake.SetFeatures(plane(t, name))
	r := newRig(fake, nil)
	if err := r.Start(t.Context(), state, by); err != nil {
		t.Fatal(err)
	}
	r.fake.Operations()
	r.news()
	return r
}

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// by is who asks for the changes of most tests.
var by = director.Request{Who: "ann", Why: "test"}

// rig is a director with all that is around it.
type rig struct {
	*director.Director
	fake   *directortest.Fake
	store  *directortest.Store
	events *event.Stream
	seen   uint64 // the last event told of
}

// newRig returns a director that is not started over what the fake and the
// store hold; nil stands for an empty one.
func newRig(fake *directortest.Fake, store *directortest.Store) *rig {
	if fake == nil {
		fake = directortest.NewFake(director.State{Timeouts: conntrack.DefaultTimeouts()})
	}
	if store == nil {
		store = new(directortest.Store)
	}
	r := &rig{fake: fake, store: store}
	return r.over(fake, store)
}

// over returns a director that is not started over a data plane and a store,
// which stand before the fakes.
func (r *rig) over(dp director.Dataplane, store director.Store) *rig {
	log := slog.New(slog.DiscardHandler)
	events := event.NewStream(log, 0)
	d := director.New(dp, store, director.Options{Log: log, Events: events})
	return &rig{Director: d, fake: r.fake, store: r.store, events: events}
}

// start returns a started director with the services at revision 1; what led
// there is forgotten.
func start(t testing.TB, services ...director.Service) *rig {
	t.Helper()
	r := newRig(nil, nil)
	if err := r.Start(t.Context(), director.State{Services: services}, by); err != nil {
		t.Fatal(err)
	}
	r.fake.Operations()
	r.news()
	return r
}

// restart returns another director over the same data plane and store, as after
// the daemon was killed, with nothing forgotten.
func (r *rig) restart() *rig { return newRig(r.fake, r.store) }

// meddle changes a service of the fake behind the director's back.
func (r *rig) meddle(key director.ServiceKey, edit func(*director.Service)) {
	r.fake.Meddle(func(s *director.State) { edit(&s.Services[s.Service(key)]) })
}

// reconcile fails the test if the kernel cannot be read.
func (r *rig) reconcile(t testing.TB) {
	t.Helper()
	if err := r.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// news returns the events since it was called last, as "name: message".
func (r *rig) news() []string {
	var all []string
	events, _ := r.events.After(r.seen)
	for _, e := range events {
		all = append(all, string(e.Name)+": "+e.Message)
		r.seen = e.ID
	}
	return all
}

// held is what the fake holds, but for the order of servers.
func (r *rig) held(t testing.TB) director.State {
	t.Helper()
	found, err := r.fake.Found(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// sameAsFound fails the test if the desired state is not what the fake holds.
func (r *rig) sameAsFound(t testing.TB) {
	t.Helper()
	wantState(t, "desired", r.held(t), r.State())
}

// wantState compares states but for the order of servers.
func wantState(t testing.TB, what string, want, got director.State) {
	t.Helper()
	if diff := cmp.Diff(want, got, equalStates...); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// want compares texts such as operations or events.
func want(t testing.TB, what string, want, got []string) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func texts(ops []director.Operation) []string {
	var out []string
	for _, op := range ops {
		out = append(out, op.String())
	}
	return out
}

func stepTexts(steps []director.Step) []string {
	var out []string
	for _, step := range steps {
		out = append(out, step.String())
	}
	return out
}

// cmpNetip compares netip values, which have unexported fields, by ==.
var cmpNetip = cmp.Options{
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

var equalStates = []cmp.Option{
	cmpNetip, cmpopts.EquateEmpty(),
	cmpopts.SortSlices(func(a, b realserver.Server) bool { return a.Address.Compare(b.Address) < 0 }),
}
