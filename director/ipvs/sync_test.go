package ipvs

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/ipvs/kernel"
	"github.com/shunt-lb/shunt/realserver"
)

// newSyncRig returns a rig whose eth0 can do multicast.
func newSyncRig(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	peer, err := directortest.NewNamespace("peer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := peer.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := errors.Join(
		r.ns.AddVeth("eth0", peer, "eth0", 9000),
		r.ns.AddAddress("eth0", netip.MustParsePrefix("10.0.0.254/24")),
		r.ns.AddAddress("eth0", netip.MustParsePrefix("2001:db8:f::1/64")),
	); err != nil {
		t.Fatal(err)
	}
	return r
}

// Daemons are found as they run, and not started again for a length that the kernel
// makes of none, or of another one, by a daemon that starts anew either.
func TestGuestSyncDaemons(t *testing.T) {
	group6 := netip.MustParseAddr("ff02::81")
	tests := []struct {
		name   string
		daemon director.SyncDaemon
		length uint16 // that the kernel has
	}{
		{"master", director.SyncDaemon{Role: director.SyncMaster, ID: 1}, 1472},
		{"master_short", director.SyncDaemon{Role: director.SyncMaster, MaxLength: 100, TTL: 3, Port: 9999}, 100},
		{"master_of_the_usual_length", director.SyncDaemon{Role: director.SyncMaster, MaxLength: 1472}, 1472},
		{"master_too_long", director.SyncDaemon{Role: director.SyncMaster, MaxLength: 65507, ID: 255}, 65507},
		{"master_ipv6", director.SyncDaemon{Role: director.SyncMaster, Group: group6}, 1452},
		{"backup", director.SyncDaemon{Role: director.SyncBackup}, 8972},
		{"backup_short", director.SyncDaemon{Role: director.SyncBackup, MaxLength: 100}, 1024},
		{"backup_ipv6", director.SyncDaemon{Role: director.SyncBackup, Group: group6}, 8952},
		{"backup_ipv6_too_long", director.SyncDaemon{Role: director.SyncBackup, Group: group6, MaxLength: 65507}, 65487},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newSyncRig(t)
			daemon := test.daemon.Normalize()
			state := director.State{Sync: []director.SyncDaemon{daemon}}
			run := []director.Operation{director.StartSync{Daemon: daemon}}
			daemon.MaxLength = test.length
			for range 2 {
				r.spy.writes = nil
				r.apply(t, run...)
				if diff := cmp.Diff([]director.SyncDaemon{daemon}, r.found(t).Sync, equal...); diff != "" {
					t.Errorf("found (-want +got):\n%s", diff)
				}
			}
			r.spy.wrote(t) // the second time

			anew := openIn(t, r.ns)
			ops := director.Plan(director.State{Sync: state.Sync, Timeouts: anew.found(t).Timeouts}, anew.found(t))
			anew.apply(t, ops...)
			anew.spy.wrote(t)
			if diff := cmp.Diff([]director.SyncDaemon{daemon}, anew.found(t).Sync, equal...); diff != "" {
				t.Errorf("found anew (-want +got):\n%s", diff)
			}
			for range 2 {
				anew.apply(t, director.StopSync{Role: daemon.Role})
				if found := anew.found(t).Sync; found != nil {
					t.Errorf("found after the stop: %v", found)
				}
			}
		})
	}
}

// One that is stopped before it first ran is stopped, though the kernel does not say
// so: with one CPU that is the usual case.
func TestGuestStopRightAfterStart(t *testing.T) {
	r := newSyncRig(t)
	daemon := director.SyncDaemon{Role: director.SyncMaster}.Normalize()
	for range 10 {
		r.apply(t, director.StartSync{Daemon: daemon})
		r.apply(t, director.StopSync{Role: director.SyncMaster})
	}
	if found := r.found(t).Sync; found != nil {
		t.Errorf("found %v, want none", found)
	}
}

// What the kernel refuses is named.
func TestGuestSyncRefusals(t *testing.T) {
	r := newSyncRig(t)
	start := func(s director.SyncDaemon) error {
		return r.Apply(t.Context(), []director.Operation{director.StartSync{Daemon: s.Normalize()}})
	}
	err := start(director.SyncDaemon{Role: director.SyncMaster, Interface: "eth9"})
	wantRefusal(t, err, director.ErrNoInterface, "start sync daemon master: there is no interface eth9")

	// One that others started is not ours to change.
	r.ipvsadm(t, "--start-daemon", "master", "--syncid", "9")
	err = start(director.SyncDaemon{Role: director.SyncMaster})
	wantRefusal(t, err, director.ErrExists, "start sync daemon master: "+kernel.ErrDaemonExists.Error())

	// The daemons know nothing of servers of another family.
	mixed := service("udp://[2001:db8::1]:53", realserver.Tunnel, "10.0.0.9:53")
	err = r.Apply(t.Context(), adding(mixed))
	wantRefusal(t, err, director.ErrInvalid, "add server 10.0.0.9:53 to udp://[2001:db8::1]:53: "+
		"a sync daemon runs, which does not know servers of another address family than their service's: stop it first")
	r.apply(t, director.StopSync{Role: director.SyncMaster})
	r.apply(t, adding(mixed)...)
	err = start(director.SyncDaemon{Role: director.SyncMaster})
	wantRefusal(t, err, director.ErrInvalid, "start sync daemon master: the kernel takes the daemon for invalid: eth0 may not do multicast, "+
		"or a service has servers of another address family, which the daemons do not know")
}

// wantRefusal compares an operation's error.
func wantRefusal(t *testing.T, err, kind error, text string) {
	t.Helper()
	failed := (*director.OperationError)(nil)
	if !errors.As(err, &failed) || !errors.Is(err, kind) || err.Error() != text {
		t.Errorf("error %q (%T), want %q that is %v", fmtError(err), err, text, kind)
	}
}

func fmtError(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
