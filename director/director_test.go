package director_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

// start returns a director over a fake that holds the services, with what Start
// did forgotten.
func start(t *testing.T, services ...director.Service) (*director.Director, *directortest.Fake) {
	t.Helper()
	fake := directortest.NewFake(director.State{Services: services, Timeouts: conntrack.DefaultTimeouts()})
	d := director.New(fake, slog.New(slog.DiscardHandler))
	if err := d.Start(t.Context(), director.State{}); err != nil {
		t.Fatal(err)
	}
	if ops := fake.Operations(); len(ops) != 0 {
		t.Fatalf("start without a change did %v", texts(ops))
	}
	return d, fake
}

// sameAsFound fails the test if the desired state is not what the fake holds.
func sameAsFound(t *testing.T, d *director.Director, fake *directortest.Fake) {
	t.Helper()
	found, err := fake.Found(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(found, d.State(), cmpNetip); diff != "" {
		t.Errorf("desired is not what is held (-found +desired):\n%s", diff)
	}
}

func TestStart(t *testing.T) {
	kept, changed := dns(), web()
	kept.Name = "new"
	fake := directortest.NewFake(director.State{Services: []director.Service{kept, changed}})
	var log bytes.Buffer
	d := director.New(fake, slog.New(slog.NewTextHandler(&log, nil)))

	edited := web()
	edited.Servers = []realserver.Server{server("10.0.0.9:0", realserver.DR, 1), server("10.0.0.1:8080", realserver.NAT, 5)}
	added := web()
	added.Key, added.Name = mustKey("tcp://192.0.2.7:80"), "new"
	err := d.Start(t.Context(), director.State{
		Services: []director.Service{added, edited},
		Timeouts: conntrack.Timeouts{UDP: time.Minute},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"set timeouts tcp 15m0s, tcp-fin 2m0s, udp 1m0s",
		"remove server 10.0.0.2:80 from tcp://192.0.2.1:80",
		"remove server 192.0.2.1:80 from tcp://192.0.2.1:80",
		"add service tcp://192.0.2.7:80",
		"edit server 10.0.0.1:8080 of tcp://192.0.2.1:80",
		"edit service udp://[2001:db8::1]:53",
		"add server 10.0.0.9:80 to tcp://192.0.2.1:80",
		"add server 10.0.0.1:8080 to tcp://192.0.2.7:80",
		"add server 10.0.0.2:80 to tcp://192.0.2.7:80",
		"add server 192.0.2.1:80 to tcp://192.0.2.7:80",
	}
	if diff := cmp.Diff(want, texts(fake.Operations())); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
	sameAsFound(t, d, fake)
	for _, want := range []string{
		`msg="service kept that the configuration does not name" service=udp://[2001:db8::1]:53`,
		`msg="kept service loses its name to another"`,
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log lacks %s:\n%s", want, log.String())
		}
	}
}

func TestStartFails(t *testing.T) {
	tests := []struct {
		name    string
		initial director.State
		prepare func(*directortest.Fake)
		want    string
	}{
		{"found", director.State{}, func(f *directortest.Fake) { f.FailFound(errors.New("no maps")) }, "read what the data plane holds: no maps"},
		{"apply", director.State{Services: []director.Service{web()}}, func(f *directortest.Fake) { f.FailAt(3) }, "add server 10.0.0.1:8080 to tcp://192.0.2.1:80: injected failure"},
		{"invalid", director.State{Services: []director.Service{web(), web()}}, func(*directortest.Fake) {}, `services[1] "web": tcp://192.0.2.1:80 is services[0] already`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fake := directortest.NewFake(director.State{})
			tt.prepare(fake)
			d := director.New(fake, slog.New(slog.DiscardHandler))
			err := d.Start(t.Context(), tt.initial)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want %q", err, tt.want)
			}
			err = d.RemoveService(t.Context(), web().Key)
			if want := "remove service tcp://192.0.2.1:80: the director is not started"; err == nil || err.Error() != want {
				t.Errorf("change after it: %v, want %s", err, want)
			}
			// A second start succeeds and finds what the first one left.
			fake.FailFound(nil)
			if err := d.Start(t.Context(), director.State{Services: []director.Service{web()}}); err != nil {
				t.Fatal(err)
			}
			sameAsFound(t, d, fake)
		})
	}
}

// changes are one of each, with the operations it takes on web and dns.
var changes = []struct {
	name string
	do   func(context.Context, *director.Director) error
	want []string
}{
	{
		"add_service", func(ctx context.Context, d *director.Director) error {
			s := web()
			s.Key, s.Name = mustKey("tcp://192.0.2.5:80"), ""
			s.Servers = s.Servers[:2]
			return d.AddService(ctx, s)
		},
		[]string{
			"add service tcp://192.0.2.5:80",
			"add server 10.0.0.1:8080 to tcp://192.0.2.5:80",
			"add server 10.0.0.2:80 to tcp://192.0.2.5:80",
		},
	},
	{
		"edit_service", func(ctx context.Context, d *director.Director) error {
			return d.EditService(ctx, web().Key, func(s *director.Service) error {
				s.Scheduler = director.Maglev
				s.Servers = []realserver.Server{server("10.0.0.7:80", realserver.NAT, 1), server("10.0.0.2:80", realserver.DR, 9)}
				return nil
			})
		},
		[]string{
			"remove server 10.0.0.1:8080 from tcp://192.0.2.1:80",
			"remove server 192.0.2.1:80 from tcp://192.0.2.1:80",
			"edit service tcp://192.0.2.1:80",
			"edit server 10.0.0.2:80 of tcp://192.0.2.1:80",
			"add server 10.0.0.7:80 to tcp://192.0.2.1:80",
		},
	},
	{
		"remove_service", func(ctx context.Context, d *director.Director) error {
			return d.RemoveService(ctx, web().Key)
		},
		[]string{"remove service tcp://192.0.2.1:80"},
	},
	{
		"add_server", func(ctx context.Context, d *director.Director) error {
			return d.AddServer(ctx, web().Key, server("10.0.0.7:0", realserver.DR, 1))
		},
		[]string{"add server 10.0.0.7:80 to tcp://192.0.2.1:80"},
	},
	{
		"edit_server", func(ctx context.Context, d *director.Director) error {
			return d.EditServer(ctx, web().Key, netip.MustParseAddrPort("10.0.0.2:0"), func(s *realserver.Server) error {
				s.Weight = 0
				return nil
			})
		},
		[]string{"edit server 10.0.0.2:80 of tcp://192.0.2.1:80"},
	},
	{
		"remove_server", func(ctx context.Context, d *director.Director) error {
			return d.RemoveServer(ctx, web().Key, netip.MustParseAddrPort("10.0.0.2:0"))
		},
		[]string{"remove server 10.0.0.2:80 from tcp://192.0.2.1:80"},
	},
	{
		"set_timeouts", func(ctx context.Context, d *director.Director) error {
			return d.SetTimeouts(ctx, conntrack.Timeouts{TCP: time.Hour})
		},
		[]string{"set timeouts tcp 1h0m0s, tcp-fin 2m0s, udp 5m0s"},
	},
}

func TestChange(t *testing.T) {
	for _, tt := range changes {
		t.Run(tt.name, func(t *testing.T) {
			d, fake := start(t, web(), dns())
			if err := tt.do(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, texts(fake.Operations())); diff != "" {
				t.Errorf("operations (-want +got):\n%s", diff)
			}
			sameAsFound(t, d, fake)
		})
	}
}

func TestChangeFailsAtEveryStep(t *testing.T) {
	for _, tt := range changes {
		for step := 1; step <= len(tt.want); step++ {
			t.Run(fmt.Sprintf("%s/%d", tt.name, step), func(t *testing.T) {
				d, fake := start(t, web(), dns())
				before := d.State()
				fake.FailAt(step)
				err := tt.do(t.Context(), d)
				if !errors.Is(err, directortest.ErrInjected) || !strings.Contains(err.Error(), tt.want[step-1]) {
					t.Fatalf("error %v, want one that names %q", err, tt.want[step-1])
				}
				did := texts(fake.Operations())
				if diff := cmp.Diff(tt.want[:step-1], did[:min(step-1, len(did))], cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("operations before it (-want +got):\n%s", diff)
				}
				sameAsFound(t, d, fake)
				// What was done is undone: a server that came back is the last added.
				if diff := cmp.Diff(before, d.State(), cmpNetip, cmpopts.SortSlices(func(a, b realserver.Server) bool {
					return a.Address.Compare(b.Address) < 0
				})); diff != "" {
					t.Errorf("after the roll-back (-before +after):\n%s", diff)
				}

				// The director goes on from there.
				if err := tt.do(t.Context(), d); err != nil {
					t.Errorf("again: %v", err)
				}
				sameAsFound(t, d, fake)
			})
		}
	}
}

func TestChangeFailsAndCannotBeReread(t *testing.T) {
	d, fake := start(t, web(), dns())
	blind := errors.New("blind")
	fake.FailAt(2)
	add := changes[0].do
	before := d.State()

	// The fake refuses the second step, and then to say what it holds.
	fake.FailFound(blind)
	err := add(t.Context(), d)
	if !errors.Is(err, directortest.ErrInjected) || !errors.Is(err, blind) {
		t.Fatalf("error %v, want both", err)
	}
	if diff := cmp.Diff(before, d.State(), cmpNetip); diff != "" {
		t.Errorf("desired changed (-before +after):\n%s", diff)
	}
	fake.Operations()
	if err := d.RemoveService(t.Context(), dns().Key); !errors.Is(err, blind) {
		t.Errorf("change while blind: %v, want it refused", err)
	}
	if ops := fake.Operations(); len(ops) != 0 {
		t.Errorf("change while blind did %v", texts(ops))
	}
	fake.FailFound(nil)
	if err := d.RemoveService(t.Context(), dns().Key); err != nil {
		t.Fatal(err)
	}
	sameAsFound(t, d, fake)
	if _, err := d.Service(mustKey("tcp://192.0.2.5:80")); err != nil {
		t.Errorf("the half-added service: %v, want it known", err)
	}
}

func TestChangeCancelled(t *testing.T) {
	d, fake := start(t, web(), dns())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.RemoveService(ctx, web().Key); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want cancelled", err)
	}
	sameAsFound(t, d, fake)
}

func TestResolve(t *testing.T) {
	d, _ := start(t, web(), dns())
	for ref, want := range map[string]director.ServiceKey{
		"web": web().Key, "TCP://192.0.2.1:80": web().Key, "udp://[2001:db8:0::1]:53": dns().Key,
	} {
		if got, err := d.Resolve(ref); err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", ref, got, err, want)
		}
	}
	for ref, kind := range map[string]error{
		"": director.ErrNotFound, "mail": director.ErrNotFound, "tcp://192.0.2.1:81": director.ErrNotFound,
		"tcp://192.0.2.1": director.ErrInvalid, "sctp://192.0.2.1:80": director.ErrUnsupported,
	} {
		if got, err := d.Resolve(ref); !errors.Is(err, kind) || !strings.Contains(err.Error(), ref) {
			t.Errorf("%q: %v, %v, want %v with the reference in it", ref, got, err, kind)
		}
	}
}

func TestStateIsACopy(t *testing.T) {
	d, _ := start(t, web())
	s := d.State()
	s.Services[0].Servers[0].Weight = 99
	s.Services[0].Name = "changed"
	if diff := cmp.Diff([]director.Service{web()}, d.State().Services, cmpNetip); diff != "" {
		t.Errorf("state changed through a copy (-want +got):\n%s", diff)
	}
}

func TestObservationsPassThrough(t *testing.T) {
	d, fake := start(t, web())
	stats := director.Stats{Services: []director.ServiceStats{{Key: web().Key, Counters: director.Counters{Connections: 7}}}}
	fake.SetStats(stats)
	got, err := d.Stats(t.Context())
	if diff := cmp.Diff(stats, got, cmpNetip); err != nil || diff != "" {
		t.Errorf("stats: %v (-want +got):\n%s", err, diff)
	}
	conn := conntrack.Connection{
		Protocol: conntrack.TCP, Client: netip.MustParseAddrPort("198.51.100.1:40000"),
		Virtual: web().Key.Address, Server: web().Servers[0].Address,
	}
	other := conn
	other.Client = netip.MustParseAddrPort("198.51.101.1:40000")
	fake.SetConnections(conn, other)
	var conns []conntrack.Connection
	for c, err := range d.Connections(t.Context(), director.ConnectionFilter{Client: netip.MustParsePrefix("198.51.100.0/24")}) {
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	if diff := cmp.Diff([]conntrack.Connection{conn}, conns, cmpNetip); diff != "" {
		t.Errorf("connections (-want +got):\n%s", diff)
	}
}

// Changes from many goroutines lose none.
func TestChangesAreConcurrent(t *testing.T) {
	d, fake := start(t, web())
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			s := realserver.Server{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), 80), Weight: 1}
			if err := d.AddServer(t.Context(), web().Key, s); err != nil {
				t.Error(err)
			}
			d.State()
		})
	}
	wg.Wait()
	sameAsFound(t, d, fake)
	if got, want := len(d.State().Services[0].Servers), 23; got != want {
		t.Errorf("%d servers, want %d", got, want)
	}
}
