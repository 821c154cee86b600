package migrate_test

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/director/migrate"
	"github.com/shunt-lb/shunt/realserver"
)

// rig is a director over a fake XDP plane, and a fake IPVS; both write what is
// done to them into one list.
type rig struct {
	*testing.T
	director *director.Director
	plane    *directortest.Fake
	events   *event.Stream
	mover    *migrate.Mover

	did      []string
	services []director.Service
	readings [][]conntrack.Connection // what each reading of the source finds; the last again and again
	held     map[netip.AddrPort]bool  // what the target has
	fail     map[string]error         // by the act
	bypassed []string
	noSource bool
	onLoad   func(director.ServiceKey)
	left     []director.ServiceKey // migrations that an earlier process began
}

func newRig(t *testing.T, services ...director.Service) *rig {
	t.Helper()
	r := &rig{T: t, plane: directortest.NewFake(director.State{}), events: event.NewStream(slog.New(slog.DiscardHandler), 0), held: map[netip.AddrPort]bool{}, fail: map[string]error{}, services: services}
	features := director.XDPFeatures()
	features.Tunnels = true
	r.plane.SetFeatures(features)
	r.director = director.New(r.plane, &directortest.Store{}, director.Options{})
	if err := r.director.Start(t.Context(), director.State{}, director.Request{}); err != nil {
		t.Fatal(err)
	}
	r.mover = migrate.New(migrate.Options{
		Director: r.director, Target: r, Events: r.events,
		Open: func(context.Context) (migrate.Source, error) {
			if r.noSource {
				return nil, migrate.ErrNoSource
			}
			return source{r}, nil
		},
		Bypassed: func(context.Context, []director.Service) ([]string, error) { return r.bypassed, r.fail["firewall"] },
	})
	return r
}

// act notes what is done, and says whether it fails.
func (r *rig) act(format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	r.did = append(r.did, what)
	return r.fail[what]
}

func (r *rig) BeginMigration(_ context.Context, key director.ServiceKey) error {
	return r.act("begin %s", key)
}

func (r *rig) HoldMigration(_ context.Context, key director.ServiceKey) error {
	return r.act("hold %s", key)
}

func (r *rig) EndMigration(_ context.Context, key director.ServiceKey) error {
	return r.act("end %s", key)
}

func (r *rig) Migrating() []director.ServiceKey { return r.left }

func (r *rig) Load(_ context.Context, key director.ServiceKey, all iter.Seq[conntrack.Connection]) (director.LoadReport, error) {
	r.Helper()
	if r.director.State().Service(key) < 0 {
		r.Errorf("connections of %s are loaded before it is there", key)
	}
	if r.onLoad != nil {
		r.onLoad(key)
	}
	report := director.LoadReport{Skipped: map[string]uint64{}}
	for c := range all {
		switch {
		case c.Server.Addr() == netip.MustParseAddr("10.0.0.99"):
			report.Skipped["unknown server"]++
		case r.held[c.Client]:
			report.Known++
		default:
			r.held[c.Client] = true
			report.Loaded++
		}
	}
	return report, r.act("load %s: %d", key, report.Loaded)
}

// source is the rig as the data plane that services leave.
type source struct{ *rig }

func (s source) Services(context.Context) ([]director.Service, error) {
	return slices.Clone(s.services), s.fail["services"]
}

func (s source) Connections(context.Context, director.ServiceKey) iter.Seq2[conntrack.Connection, error] {
	return func(yield func(conntrack.Connection, error) bool) {
		if err := s.fail["connections"]; err != nil {
			yield(conntrack.Connection{}, err)
			return
		}
		if len(s.readings) == 0 {
			return
		}
		for _, c := range s.readings[0] {
			if !yield(c, nil) {
				return
			}
		}
		if len(s.readings) > 1 {
			s.rig.readings = s.readings[1:]
		}
	}
}

func (s source) Remove(_ context.Context, key director.ServiceKey) error {
	return s.act("remove %s", key)
}

func (s source) Close() error { return nil }

func web() director.Service {
	key, err := director.ParseServiceKey("tcp://192.0.2.1:80")
	if err != nil {
		panic(err)
	}
	return director.Service{
		Key: key, Scheduler: director.RoundRobin, Timeouts: conntrack.DefaultTimeouts(),
		Servers: []realserver.Server{{Address: netip.MustParseAddrPort("10.0.0.1:80"), Weight: 1}},
	}
}

// clients returns connections of clients with the ports.
func clients(ports ...uint16) []conntrack.Connection {
	var all []conntrack.Connection
	for _, port := range ports {
		all = append(all, conntrack.Connection{
			Protocol: conntrack.TCP, Client: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), port),
			Virtual: netip.MustParseAddrPort("192.0.2.1:80"), Server: netip.MustParseAddrPort("10.0.0.1:80"), State: conntrack.Established,
		})
	}
	return all
}

func (r *rig) names() []event.Name {
	var names []event.Name
	all, _ := r.events.After(0)
	for _, e := range all {
		names = append(names, e.Name)
	}
	return names
}

func (r *rig) wantDid(want ...string) {
	r.Helper()
	if diff := cmp.Diff(want, r.did); diff != "" {
		r.Errorf("what was done (-want +got):\n%s", diff)
	}
}
