package migrate_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/director/migrate"
	"github.com/shunt-lb/shunt/realserver"
)

// TestMove reads the source until nothing is new, and once more while nothing changes there.
func TestMove(t *testing.T) {
	r := newRig(t, web())
	lost := clients(9)[0]
	lost.Server = netip.MustParseAddrPort("10.0.0.99:80")
	r.readings = [][]conntrack.Connection{append(clients(1, 2), lost), append(clients(1, 2, 3), lost), append(clients(1, 2, 3), lost), append(clients(2, 3, 4), lost)}
	report, err := r.mover.Move(t.Context(), director.Request{Who: "me"}, migrate.Request{Force: true})
	if err != nil {
		t.Fatal(err)
	}
	key := web().Key
	r.wantDid("begin tcp://192.0.2.1:80", "load tcp://192.0.2.1:80: 2", "load tcp://192.0.2.1:80: 1", "load tcp://192.0.2.1:80: 0",
		"hold tcp://192.0.2.1:80", "load tcp://192.0.2.1:80: 1", "end tcp://192.0.2.1:80", "remove tcp://192.0.2.1:80")
	want := migrate.Report{Services: []migrate.ServiceReport{{
		Key: key, Servers: 1, Moved: true, Loaded: 4, Skipped: map[string]uint64{"unknown server": 1},
		Notes: []string{"scheduler rr begins its round anew: the kernel does not tell its place"},
	}}}
	if diff := cmp.Diff(want, report, cmpopts.EquateComparable(director.ServiceKey{})); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	service, err := r.director.Service(key)
	if err != nil {
		t.Fatal(err)
	}
	if service.VIP != director.VIPExternal || service.Timeouts != (conntrack.Timeouts{}) {
		t.Errorf("the service has vip %s and timeouts %s: want external, and none that are the director's", service.VIP, service.Timeouts)
	}
	if got := r.names(); !slices.Contains(got, event.Migrated) {
		t.Errorf("events: %s", got)
	}
}

// TestTunnelsMove: servers by tunnels, of either address family, move as others do, and
// their connections with them.
func TestTunnelsMove(t *testing.T) {
	service := web()
	service.Servers = []realserver.Server{
		{Address: netip.MustParseAddrPort("10.0.0.1:80"), Method: realserver.Tunnel, Weight: 1},
		{Address: netip.MustParseAddrPort("[2001:db8:1::1]:80"), Method: realserver.Tunnel, Weight: 2, Tunnel: realserver.TunnelOptions{Type: realserver.TunnelGUE, Port: 5555}},
	}
	r := newRig(t, service)
	connections := clients(1, 2)
	for i := range connections {
		connections[i].Method = realserver.Tunnel.String()
	}
	connections[1].Server = service.Servers[1].Address
	r.readings = [][]conntrack.Connection{connections}
	report, err := r.mover.Move(t.Context(), director.Request{}, migrate.Request{})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Services) != 1 || !report.Services[0].Moved || report.Services[0].Loaded != 2 || report.Services[0].Servers != 2 {
		t.Errorf("report %+v", report)
	}
	got, err := r.director.Service(service.Key)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(service.Servers, got.Servers, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Errorf("servers (-want +got):\n%s", diff)
	}
}

// TestTimeoutsComeAlong: those of the kernel become the service's own.
func TestTimeoutsComeAlong(t *testing.T) {
	service := web()
	service.Timeouts.TCP *= 2
	r := newRig(t, service)
	if _, err := r.mover.Move(t.Context(), director.Request{}, migrate.Request{}); err != nil {
		t.Fatal(err)
	}
	got, err := r.director.Service(service.Key)
	if err != nil {
		t.Fatal(err)
	}
	if got.Timeouts != service.Timeouts {
		t.Errorf("timeouts: %s, want %s", got.Timeouts, service.Timeouts)
	}
}

// TestDesiredAlready is a start on the other data plane: the service is ours, and
// stays as it is desired.
func TestDesiredAlready(t *testing.T) {
	r := newRig(t, web())
	r.readings = [][]conntrack.Connection{clients(1)}
	desired := web()
	desired.Name, desired.Timeouts = "web", conntrack.Timeouts{}
	keys, err := r.mover.Prepare(t.Context(), director.State{Services: []director.Service{desired}}, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.director.AddService(t.Context(), director.Request{}, desired); err != nil {
		t.Fatal(err)
	}
	report, err := r.mover.Finish(t.Context(), director.Request{}, keys)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Services) != 1 || report.Services[0].Loaded != 1 {
		t.Errorf("report: %+v", report)
	}
	r.wantDid("begin tcp://192.0.2.1:80", "begin tcp://192.0.2.1:80", "load tcp://192.0.2.1:80: 1", "load tcp://192.0.2.1:80: 0",
		"hold tcp://192.0.2.1:80", "load tcp://192.0.2.1:80: 0", "end tcp://192.0.2.1:80", "remove tcp://192.0.2.1:80")
	if got, err := r.director.Service(desired.Key); err != nil || got.Name != "web" {
		t.Errorf("the service is %+v, %v", got, err)
	}
}

func TestPrepareHasNothingToDo(t *testing.T) {
	for name, change := range map[string]func(*rig){
		"no_source":   func(r *rig) { r.noSource = true },
		"no_services": func(r *rig) { r.services = nil },
		"others": func(r *rig) {
			r.services[0].Key.Address = netip.MustParseAddrPort("192.0.2.2:80")
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, web())
			change(r)
			keys, err := r.mover.Prepare(t.Context(), director.State{Services: []director.Service{web()}}, false)
			if err != nil || keys != nil {
				t.Errorf("%v, %v: want nothing to move", keys, err)
			}
			if _, err := r.mover.Finish(t.Context(), director.Request{}, keys); err != nil {
				t.Error(err)
			}
			r.wantDid()
		})
	}
}

// TestLeftHalfWay ends what nothing is left of to move.
func TestLeftHalfWay(t *testing.T) {
	r := newRig(t)
	r.left = []director.ServiceKey{web().Key}
	if keys, err := r.mover.Prepare(t.Context(), director.State{Services: []director.Service{web()}}, false); err != nil || keys != nil {
		t.Errorf("%v, %v: want nothing to move", keys, err)
	}
	r.wantDid("end tcp://192.0.2.1:80")
}

// TestRefusals change nothing.
func TestRefusals(t *testing.T) {
	other, err := director.ParseServiceKey("tcp://192.0.2.9:80")
	if err != nil {
		t.Fatal(err)
	}
	marked, err := director.ParseServiceKey("fwmark://7")
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	for _, tt := range []struct {
		name    string
		request migrate.Request
		change  func(*rig)
		want    string
	}{
		{"no_source", migrate.Request{}, func(r *rig) { r.noSource = true }, "migrate: the kernel has no IPVS in use"},
		{"unknown", migrate.Request{Services: []director.ServiceKey{other}}, nil, "migrate: service tcp://192.0.2.9:80: not found in the kernel's IPVS"},
		{"unsupported", migrate.Request{}, func(r *rig) { r.services[0].Key = marked }, "a service of a firewall mark is not there on the xdp data plane"},
		{"firewall", migrate.Request{}, func(r *rig) { r.bypassed = []string{"ip filter input: drop"} }, "migrate: XDP takes packets past rules of the firewall: 1"},
		{"unknown_firewall", migrate.Request{Force: true}, func(r *rig) { r.fail["firewall"] = broken }, "migrate: look at the firewall: broken"},
		{"unreadable", migrate.Request{}, func(r *rig) { r.fail["services"] = broken }, "migrate: read the services: broken"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, web())
			if tt.change != nil {
				tt.change(r)
			}
			_, err := r.mover.Move(t.Context(), director.Request{}, tt.request)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			r.wantDid()
			if n := len(r.director.State().Services); n != 0 {
				t.Errorf("%d services are desired", n)
			}
		})
	}
}

// TestPrepareRefuses where Move would, unless it is forced.
func TestPrepareRefuses(t *testing.T) {
	r := newRig(t, web())
	r.bypassed = []string{"ip filter input: drop"}
	desired := director.State{Services: []director.Service{web()}}
	bypassed := (*director.BypassedError)(nil)
	if _, err := r.mover.Prepare(t.Context(), desired, false); !errors.As(err, &bypassed) {
		t.Errorf("error %v: want a *BypassedError", err)
	}
	if keys, err := r.mover.Prepare(t.Context(), desired, true); err != nil || len(keys) != 1 {
		t.Errorf("forced: %v, %v", keys, err)
	}
}

// TestFailures take the service back to where it was.
func TestFailures(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct{ act, want string }{
		{"begin tcp://192.0.2.1:80", "broken"},
		{"load tcp://192.0.2.1:80: 1", "broken"},
		{"hold tcp://192.0.2.1:80", "broken"},
		{"end tcp://192.0.2.1:80", "broken"},
		{"connections", "read the connections: broken"},
	} {
		t.Run(tt.act, func(t *testing.T) {
			r := newRig(t, web())
			r.readings = [][]conntrack.Connection{clients(1)}
			r.fail[tt.act] = broken
			report, err := r.mover.Move(t.Context(), director.Request{}, migrate.Request{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if len(report.Services) != 1 || report.Services[0].Moved {
				t.Errorf("report: %+v", report)
			}
			if n := len(r.director.State().Services); n != 0 {
				t.Errorf("%d services are desired still", n)
			}
			if slices.Contains(r.did, "remove tcp://192.0.2.1:80") {
				t.Error("the source has lost the service")
			}
			if got := r.names(); !slices.Contains(got, event.MigrationFailed) {
				t.Errorf("events: %s", got)
			}
		})
	}
	t.Run("made", func(t *testing.T) {
		r := newRig(t, web())
		r.plane.FailAt(1)
		if _, err := r.mover.Move(t.Context(), director.Request{}, migrate.Request{}); err == nil {
			t.Error("no error")
		}
		r.wantDid("begin tcp://192.0.2.1:80", "end tcp://192.0.2.1:80")
	})
	t.Run("removed", func(t *testing.T) {
		r := newRig(t, web())
		r.fail["remove tcp://192.0.2.1:80"] = broken
		_, err := r.mover.Move(t.Context(), director.Request{}, migrate.Request{})
		if want := "migrate service tcp://192.0.2.1:80: it is served by XDP now; remove it from the kernel's IPVS: broken"; err == nil || err.Error() != want {
			t.Errorf("error %v, want %q", err, want)
		}
		if n := len(r.director.State().Services); n != 1 {
			t.Errorf("%d services are desired: want the one that is served", n)
		}
	})
}

// TestTrial counts and changes nothing.
func TestTrial(t *testing.T) {
	r := newRig(t, web())
	r.readings, r.bypassed = [][]conntrack.Connection{clients(1, 2, 3)}, []string{"ip filter input: drop"}
	report, err := r.mover.Move(t.Context(), director.Request{}, migrate.Request{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	if s := report.Services; len(s) != 1 || s[0].Loaded != 3 || s[0].Moved || len(report.Bypassed) != 1 {
		t.Errorf("report: %+v", report)
	}
	r.wantDid()
	if n := len(r.director.State().Services); n != 0 {
		t.Errorf("%d services are desired", n)
	}
}
