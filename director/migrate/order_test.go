package migrate_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/migrate"
)

func keyed(t *testing.T, url string) director.Service {
	t.Helper()
	key, err := director.ParseServiceKey(url)
	if err != nil {
		t.Fatal(err)
	}
	s := web()
	s.Key = key
	return s
}

// allPorts is a service that has the packets of web's address which web has not.
func allPorts(t *testing.T) director.Service {
	t.Helper()
	s := keyed(t, "tcp://192.0.2.1:0")
	s.Persistence = director.Persistence{Timeout: conntrack.MinTimeout, Prefix: 32}
	s.Servers[0].Address = netip.AddrPortFrom(s.Servers[0].Address.Addr(), 0)
	return s
}

// TestSpecificFirst: on XDP, a service of all ports would have the packets of one
// that is not there yet.
func TestSpecificFirst(t *testing.T) {
	r := newRig(t, allPorts(t), web())
	if _, err := r.mover.Move(t.Context(), director.Request{}, migrate.Request{}); err != nil {
		t.Fatal(err)
	}
	first, second := slices.Index(r.did, "remove tcp://192.0.2.1:80"), slices.Index(r.did, "begin tcp://192.0.2.1:0")
	if first < 0 || second < first {
		t.Errorf("what was done: %s", r.did)
	}
	r = newRig(t, allPorts(t), web())
	_, err := r.mover.Move(t.Context(), director.Request{}, migrate.Request{Services: []director.ServiceKey{allPorts(t).Key}})
	if want := "migrate: service tcp://192.0.2.1:0: invalid without tcp://192.0.2.1:80, whose packets it would get on XDP: move both"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	r.wantDid()
}

// TestMarksAreNamed: a mark's service has its packets before those of addresses.
func TestMarksAreNamed(t *testing.T) {
	mark := web()
	mark.Key = director.ServiceKey{Mark: 7, Address: netip.AddrPortFrom(netip.IPv4Unspecified(), 0)}
	r := newRig(t, web(), mark)
	request := migrate.Request{Services: []director.ServiceKey{web().Key}}
	bypassed := (*director.BypassedError)(nil)
	if _, err := r.mover.Move(t.Context(), director.Request{}, request); !errors.As(err, &bypassed) || !strings.Contains(bypassed.Rules[0], "fwmark://7") {
		t.Errorf("error %v: want that the mark is named", err)
	}
	request.Force = true
	if _, err := r.mover.Move(t.Context(), director.Request{}, request); err != nil {
		t.Error(err)
	}
}

// TestFollows what somebody changes in the source: before a service's turn, and
// while it moves.
func TestFollows(t *testing.T) {
	other := keyed(t, "tcp://192.0.2.2:80")
	r := newRig(t, web(), other)
	r.readings = [][]conntrack.Connection{clients(1)}
	r.onLoad = func(key director.ServiceKey) {
		r.services[0].Servers[0].Weight, r.services[1].Servers[0].Weight = 0, 0
		if key == other.Key {
			r.services[1].Scheduler = director.SourceHash
		}
	}
	if _, err := r.mover.Move(t.Context(), director.Request{}, migrate.Request{}); err != nil {
		t.Fatal(err)
	}
	for _, key := range []director.ServiceKey{web().Key, other.Key} {
		got, err := r.director.Service(key)
		if err != nil {
			t.Fatal(err)
		}
		if got.Servers[0].Weight != 0 || key == other.Key && got.Scheduler != director.SourceHash {
			t.Errorf("service %s is as it was when the move began: %+v", key, got)
		}
	}
}

// TestLeftovers of an earlier service of the key go before it is made, and what a
// failed move has loaded goes with it.
func TestLeftovers(t *testing.T) {
	r := newRig(t, web())
	r.readings = [][]conntrack.Connection{clients(1)}
	r.plane.SetConnections(clients(7)...)
	left := func() (n int) {
		for range r.plane.Connections(t.Context(), director.ConnectionFilter{}) {
			n++
		}
		return n
	}
	r.onLoad = func(director.ServiceKey) {
		if n := left(); n != 0 {
			t.Errorf("%d connections of an earlier service are there as the kernel's are loaded", n)
		}
		r.plane.SetConnections(clients(1)...)
	}
	r.fail["load tcp://192.0.2.1:80: 1"] = errors.New("broken")
	if _, err := r.mover.Move(t.Context(), director.Request{}, migrate.Request{}); err == nil {
		t.Fatal("no error")
	}
	if n := left(); n != 0 {
		t.Errorf("%d connections are left of a service that is not there", n)
	}
	r.wantDid("begin tcp://192.0.2.1:80", "load tcp://192.0.2.1:80: 1", "end tcp://192.0.2.1:80")
}

// TestFinishFails: what is not moved stays marked, and its packets come through.
func TestFinishFails(t *testing.T) {
	r := newRig(t, web())
	keys, err := r.mover.Prepare(t.Context(), director.State{Services: []director.Service{web()}}, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.director.AddService(t.Context(), director.Request{}, web()); err != nil {
		t.Fatal(err)
	}
	r.fail["load tcp://192.0.2.1:80: 0"] = errors.New("broken")
	if _, err := r.mover.Finish(t.Context(), director.Request{}, keys); err == nil {
		t.Fatal("no error")
	}
	r.wantDid("begin tcp://192.0.2.1:80", "begin tcp://192.0.2.1:80", "load tcp://192.0.2.1:80: 0", "begin tcp://192.0.2.1:80")
	if n := len(r.director.State().Services); n != 1 {
		t.Errorf("%d services are desired", n)
	}
}

// TestHoldIsLifted: after a failure of the last reading packets go to the source
// again, whether or not the service can be removed here.
func TestHoldIsLifted(t *testing.T) {
	lost := clients(9)[0]
	lost.Server = netip.MustParseAddrPort("10.0.0.99:80")
	r := newRig(t, web())
	if _, err := r.director.AddService(t.Context(), director.Request{}, web()); err != nil {
		t.Fatal(err)
	}
	r.readings = [][]conntrack.Connection{clients(1), clients(1), append(clients(1), lost)}
	if _, err := r.mover.Move(t.Context(), director.Request{}, migrate.Request{}); !errors.Is(err, director.ErrUnsupported) {
		t.Errorf("a connection is missed in the last reading: %v", err)
	}
	r.wantDid("begin tcp://192.0.2.1:80", "load tcp://192.0.2.1:80: 1", "load tcp://192.0.2.1:80: 0",
		"hold tcp://192.0.2.1:80", "load tcp://192.0.2.1:80: 0", "begin tcp://192.0.2.1:80")

	r = newRig(t, web())
	r.fail["end tcp://192.0.2.1:80"] = errors.New("broken")
	loads := 0
	r.onLoad = func(director.ServiceKey) {
		if loads++; loads == 2 {
			r.plane.FailAt(1) // the removal
		}
	}
	if _, err := r.mover.Move(t.Context(), director.Request{}, migrate.Request{}); err == nil {
		t.Fatal("no error")
	}
	r.wantDid("begin tcp://192.0.2.1:80", "load tcp://192.0.2.1:80: 0", "hold tcp://192.0.2.1:80", "load tcp://192.0.2.1:80: 0",
		"end tcp://192.0.2.1:80", "begin tcp://192.0.2.1:80")
}

// TestPrepareKnowsItsOwn: a service that XDP has is on its way only if a migration
// was left half way, which no firewall's rule stops any more; else somebody put it
// into the kernel's IPVS, too.
func TestPrepareKnowsItsOwn(t *testing.T) {
	r := newRig(t, web())
	if _, err := r.director.AddService(t.Context(), director.Request{}, web()); err != nil {
		t.Fatal(err)
	}
	r.bypassed = []string{"ip filter input: drop"}
	desired := director.State{Services: []director.Service{web()}}
	if keys, err := r.mover.Prepare(t.Context(), desired, false); err != nil || keys != nil {
		t.Errorf("a foreign one: %v, %v", keys, err)
	}
	r.wantDid()
	r.left = []director.ServiceKey{web().Key}
	if keys, err := r.mover.Prepare(t.Context(), desired, false); err != nil || len(keys) != 1 {
		t.Errorf("one that is on its way: %v, %v", keys, err)
	}
}

// TestSkipped: what cannot be loaded holds up the move before anything is cut, but
// for what has expired; and what only the source has is named.
func TestSkipped(t *testing.T) {
	lost := clients(9)[0]
	lost.Server = netip.MustParseAddrPort("10.0.0.99:80")
	r := newRig(t, web())
	r.readings = [][]conntrack.Connection{append(clients(1), lost)}
	_, err := r.mover.Move(t.Context(), director.Request{}, migrate.Request{})
	if want := "migrate service tcp://192.0.2.1:80: not supported: connections that could not be loaded and would be cut: 1 (1 unknown server): force the move if that is meant"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	r.wantDid("begin tcp://192.0.2.1:80", "load tcp://192.0.2.1:80: 1", "load tcp://192.0.2.1:80: 0", "end tcp://192.0.2.1:80")
	if n := len(r.director.State().Services); n != 0 {
		t.Errorf("%d services are desired", n)
	}

	ours := web()
	ours.Servers = nil
	if _, err := r.director.AddService(t.Context(), director.Request{}, ours); err != nil {
		t.Fatal(err)
	}
	bypassed := (*director.BypassedError)(nil)
	if _, err := r.mover.Move(t.Context(), director.Request{}, migrate.Request{}); !errors.As(err, &bypassed) || !strings.Contains(bypassed.Rules[0], "server 10.0.0.1:80") {
		t.Errorf("error %v: want that the server is named", err)
	}
}
