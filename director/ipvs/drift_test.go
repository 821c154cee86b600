package ipvs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/director/ipvs/kernel"
	"github.com/shunt-lb/shunt/realserver"
)

// directed is a director over a rig.
type directed struct {
	*director.Director
	*rig
	events *event.Stream
	seen   uint64 // the id of the newest event that news returned
	log    bytes.Buffer
}

var by = director.Request{Who: "the test"}

// direct starts a director that is to have the state, if the store has none.
func (r *rig) direct(t *testing.T, store director.Store, initial director.State) *directed {
	t.Helper()
	d := &directed{rig: r}
	d.events = event.NewStream(slog.New(slog.NewTextHandler(&d.log, nil)), 0)
	d.Director = director.New(r.Dataplane, store, director.Options{Events: d.events, Log: slog.New(slog.DiscardHandler)})
	if err := d.Start(t.Context(), initial, by); err != nil {
		t.Fatal(err)
	}
	d.news()
	return d
}

// news returns the events since the last call, as "name: message".
func (d *directed) news() []string {
	var all []string
	events, _ := d.events.After(d.seen)
	for _, e := range events {
		all = append(all, fmt.Sprintf("%s: %s", e.Name, e.Message))
		d.seen = e.ID
	}
	return all
}

func (d *directed) reconcile(t *testing.T) {
	t.Helper()
	if err := d.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// web is a service that others meddle with.
func web() director.Service {
	s := service("tcp://192.0.2.1:80", realserver.DR, "10.0.0.1", "10.0.0.2", "10.0.0.3")
	s.Name, s.VIP, s.Scheduler = "web", director.VIPManaged, director.WeightedRoundRobin
	s.Servers[1].Weight = 5
	return s
}

// foreignScript makes a service that is somebody else's, with all that ipvsadm can
// say.
var foreignScript = []string{
	"-A -u 192.0.2.9:53 -s sh -b sh-port -p 120 -M 255.255.0.0",
	"-a -u 192.0.2.9:53 -r 10.0.0.9 -m -w 0 -x 10 -y 5",
	"-a -u 192.0.2.9:53 -r 10.0.0.8:5353 -m -w 65535",
	"-A -f 99 -s mh",
	"-a -f 99 -r 10.0.0.9 -i --tun-type gue --tun-port 5555 --tun-csum",
}

var foreignSaved = []string{
	"-A -u 192.0.2.9:53 -s sh -p 120 -M 255.255.0.0 -b sh-port",
	"-a -u 192.0.2.9:53 -r 10.0.0.8:5353 -m -w 65535",
	"-a -u 192.0.2.9:53 -r 10.0.0.9:53 -m -w 0",
	"-A -f 99 -s mh",
	"-a -f 99 -r 10.0.0.9:0 -i -w 1 --tun-type gue --tun-port 5555 --tun-csum",
}

// What somebody changes behind Shunt's back is told, repaired and counted; services
// of somebody else are left alone.
func TestGuestDriftIsRepaired(t *testing.T) {
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
	if err := r.ns.AddVeth("eth0", peer, "eth0", 1500); err != nil {
		t.Fatal(err)
	}
	if err := r.ns.AddAddress("eth0", netip.MustParsePrefix("10.0.0.254/24")); err != nil {
		t.Fatal(err)
	}
	r.script(t, foreignScript...)
	state := director.State{
		Services: []director.Service{web()},
		Timeouts: conntrack.Timeouts{TCP: 10 * time.Minute, TCPFin: time.Minute, UDP: 2 * time.Minute},
		Sync:     []director.SyncDaemon{{Role: director.SyncMaster, ID: 7}},
	}
	d := r.direct(t, &directortest.Store{}, state)
	before := r.ipvsadm(t, "-S", "-n")

	const (
		server    = "192.0.2.1:80 -r 10.0.0.2"
		startSync = "start sync daemon master: interface eth0, id 7, group 224.0.0.81, port 8848, ttl 1"
	)
	tests := []struct {
		name   string
		meddle []string
		found  []string // the steps, as they are told
	}{
		{"weight", []string{"-e -t " + server + " -g -w 1"}, []string{"edit server 10.0.0.2:80 of tcp://192.0.2.1:80: weight 1 → 5"}},
		{"method", []string{"-e -t " + server + " -m -w 5"}, []string{"edit server 10.0.0.2:80 of tcp://192.0.2.1:80: method nat → dr"}},
		{"thresholds", []string{"-e -t " + server + " -g -w 5 -x 9 -y 3"}, []string{
			"edit server 10.0.0.2:80 of tcp://192.0.2.1:80: upper 9 → none, lower 3 → none",
		}},
		{"scheduler", []string{"-E -t 192.0.2.1:80 -s rr"}, []string{"edit service tcp://192.0.2.1:80: scheduler rr → wrr"}},
		{"persistence", []string{"-E -t 192.0.2.1:80 -s wrr -p 30"}, []string{"edit service tcp://192.0.2.1:80: persistence 30s for each /32 → none"}},
		{"flags", []string{"-E -t 192.0.2.1:80 -s wrr -b flag-3"}, []string{"edit service tcp://192.0.2.1:80: flags flag-3 → none"}},
		{"server_deleted", []string{"-d -t 192.0.2.1:80 -r 10.0.0.3"}, []string{"add server 10.0.0.3:80 to tcp://192.0.2.1:80: method dr, weight 1"}},
		{"server_added", []string{"-a -t 192.0.2.1:80 -r 10.0.0.7 -g"}, []string{"remove server 10.0.0.7:80 from tcp://192.0.2.1:80"}},
		{"service_deleted", []string{"-D -t 192.0.2.1:80"}, []string{
			"add service tcp://192.0.2.1:80: name web, scheduler wrr, vip managed",
			"add server 10.0.0.1:80 to tcp://192.0.2.1:80: method dr, weight 1",
			"add server 10.0.0.2:80 to tcp://192.0.2.1:80: method dr, weight 5",
			"add server 10.0.0.3:80 to tcp://192.0.2.1:80: method dr, weight 1",
		}},
		{"timeouts", []string{"--set 900 0 300"}, []string{"set timeouts tcp 10m0s, tcp-fin 1m0s, udp 2m0s: tcp 15m0s → 10m0s, udp 5m0s → 2m0s"}},
		{"daemon_stopped", []string{"--stop-daemon master"}, []string{
			startSync,
		}},
		{"daemon_other", []string{"--stop-daemon master", "--start-daemon master --syncid 8 --sync-maxlen 1400"}, []string{
			"stop sync daemon master",
			startSync,
		}},
		{"daemon_of_others", []string{"--start-daemon backup"}, nil},
		{"foreign_services", []string{"-e -f 99 -r 10.0.0.9 -i -w 3", "-e -f 99 -r 10.0.0.9 -i -w 1 --tun-type gue --tun-port 5555 --tun-csum"}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			was := d.Drift()
			r.script(t, test.meddle...)
			d.log.Reset()
			d.reconcile(t)
			var want []string
			for _, step := range test.found {
				want = append(want, "drift: the kernel differs; to repair: "+step)
			}
			for _, step := range test.found {
				want = append(want, "repaired: repaired: "+step)
			}
			if diff := cmp.Diff(want, d.news()); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if now, n := d.Drift(), uint64(len(test.found)); now.Found-was.Found != n || now.Repaired-was.Repaired != n || len(now.Pending) > 0 {
				t.Errorf("drift %+v, then %+v: want %d more found and repaired", was, now, n)
			}
			if lines := strings.Count(d.log.String(), "\n"); lines != 2*len(test.found) {
				t.Errorf("%d lines logged, want %d:\n%s", lines, 2*len(test.found), &d.log)
			}
			if diff := cmp.Diff(before, r.ipvsadm(t, "-S", "-n")); diff != "" {
				t.Errorf("ipvsadm -Sn (-want +got):\n%s", diff)
			}
			r.spy.writes = nil
			d.reconcile(t)
			r.spy.wrote(t)
		})
	}

	t.Run("flushed", func(t *testing.T) {
		r.ipvsadm(t, "-C")
		d.reconcile(t)
		r.holds(t, web())
	})
}

// Run finds by itself what was changed: it looks every two seconds.
func TestGuestDriftIsFoundByItself(t *testing.T) {
	r := newRig(t)
	d := r.direct(t, &directortest.Store{}, director.State{Services: []director.Service{web()}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	start := time.Now()
	r.script(t, "-e -t 192.0.2.1:80 -r 10.0.0.2 -g -w 9", "-d -t 192.0.2.1:80 -r 10.0.0.1")
	waiting, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	repaired := 0
	for events := range d.events.Follow(waiting, d.seen) {
		for _, e := range events {
			if e.Name == event.Repaired {
				repaired++
			}
		}
		if repaired == 2 {
			break
		}
	}
	t.Logf("repaired after %s", time.Since(start).Round(time.Millisecond))
	cancel()
	if err := <-done; err != nil || repaired != 2 {
		t.Errorf("repaired %d of 2 within 5 s, error %v", repaired, err)
	}
	want := web()
	want.Servers = append(want.Servers[1:], want.Servers[0]) // what comes back is the newest
	r.holds(t, want)
}

// What is taken over is not written, and stays as its owner made it: as far as we
// have no words for it, too.
func TestGuestAdoption(t *testing.T) {
	r := newRig(t)
	r.script(t, foreignScript...)
	before := r.ipvsadm(t, "-L", "-n", "--stats") + r.ipvsadm(t, "-L", "-n", "--thresholds")
	store := &directortest.Store{}
	d := r.direct(t, store, director.State{})
	if n := len(d.Drift().Foreign); n != 2 {
		t.Fatalf("%d foreign services, want 2", n)
	}
	r.spy.writes = nil
	if adoption, err := d.Adopt(t.Context(), by); err != nil || len(adoption.Adopted) != 2 || len(adoption.Steps) > 0 || adoption.Revision.Number != 2 {
		t.Errorf("adoption %+v, error %v: want both in revision 2, without a step", adoption, err)
	}
	d.reconcile(t)
	r.spy.wrote(t)
	if foreign := d.Drift().Foreign; len(foreign) > 0 {
		t.Errorf("still foreign: %+v", foreign)
	}
	if diff := cmp.Diff(before, r.ipvsadm(t, "-L", "-n", "--stats")+r.ipvsadm(t, "-L", "-n", "--thresholds")); diff != "" {
		t.Errorf("ipvsadm -Ln --stats, and --thresholds (-want +got):\n%s", diff)
	}
	r.saved(t, foreignSaved...)

	// It is ours: an edit changes what it names alone.
	if _, err := d.EditService(t.Context(), by, key("udp://192.0.2.9:53"), func(s *director.Service) error {
		s.Scheduler, s.Flags = director.RoundRobin, director.SchedulerFlags{}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	r.spy.wrote(t, "set udp://192.0.2.9:53")
	edited := append([]string{"-A -u 192.0.2.9:53 -s rr -p 120 -M 255.255.0.0"}, foreignSaved[1:]...)
	r.saved(t, edited...)

	// And is so to a daemon that starts anew, which writes nothing.
	r = openIn(t, r.ns)
	r.direct(t, store, director.State{})
	r.spy.wrote(t)
	r.saved(t, edited...)
}

// A client mask with holes is what no configuration can say: the service is not
// taken over, for it would come back with another mask, and what takes it away says
// so. A change that fails puts it back.
func TestGuestMaskWithHoles(t *testing.T) {
	r := newRig(t)
	const odd = "-A -u 192.0.2.9:53 -s rr -p 120 -M 255.255.0.255"
	r.script(t, odd)
	d := r.direct(t, &directortest.Store{}, director.State{})
	r.spy.writes = nil
	adoption, err := d.Adopt(t.Context(), by, key("udp://192.0.2.9:53"))
	if err != nil {
		t.Fatal(err)
	}
	const refusal = "adopt service udp://192.0.2.9:53: service udp://192.0.2.9:53: netmask 255.255.0.255 of clients is no prefix: want one such as 255.255.0.0 (/16)"
	if len(adoption.Refused) != 1 || adoption.Refused[0].Err.Error() != refusal || !errors.Is(adoption.Refused[0].Err, director.ErrUnsupported) {
		t.Errorf("adoption %+v, want it refused: %s", adoption, refusal)
	}
	r.spy.wrote(t)

	s := service("udp://192.0.2.9:53", realserver.DR)
	s.Scheduler, s.Persistence = director.RoundRobin, director.Persistence{Timeout: 2 * time.Minute, Prefix: 16}
	plan, err := d.Plan(t.Context(), director.State{Services: []director.Service{s}})
	if err != nil {
		t.Fatal(err)
	}
	want := "edit service udp://192.0.2.9:53: persistence 2m0s for each 255.255.0.255 → 2m0s for each /16"
	if len(plan.Steps) != 1 || plan.Steps[0].String() != want {
		t.Errorf("steps %v, want %s", plan.Steps, want)
	}
	other := service("udp://192.0.2.9:54", realserver.DR)
	other.Scheduler = director.TwoRandomChoices // this kernel has not
	if _, err := d.Apply(t.Context(), by, director.State{Services: []director.Service{s, other}}); !errors.Is(err, director.ErrNoScheduler) {
		t.Errorf("error %v, want %v", err, director.ErrNoScheduler)
	}
	r.saved(t, odd)
	if _, err := d.Apply(t.Context(), by, director.State{Services: []director.Service{s}}); err != nil {
		t.Fatal(err)
	}
	r.saved(t, "-A -u 192.0.2.9:53 -s rr -p 120 -M 255.255.0.0")

	// Behind Shunt's back, the same leading ones do not hide it.
	r.script(t, "-E -u 192.0.2.9:53 -s rr -p 120 -M 255.255.0.255")
	d.reconcile(t)
	r.saved(t, "-A -u 192.0.2.9:53 -s rr -p 120 -M 255.255.0.0")
}

// The address of a service goes with it although somebody else has removed the
// service before Shunt does.
func TestGuestAddressOfARemovedService(t *testing.T) {
	r := newRig(t)
	d := r.direct(t, &directortest.Store{}, director.State{Services: []director.Service{web()}})
	vip := netip.MustParsePrefix("192.0.2.1/32")
	if on, err := r.vips.Addresses(); err != nil || !on[vip] {
		t.Fatalf("addresses %v, %v: want %s", on, err, vip)
	}
	r.ipvsadm(t, "-D", "-t", "192.0.2.1:80")
	if _, err := d.RemoveService(t.Context(), by, web().Key); err != nil {
		t.Fatal(err)
	}
	if on, err := r.vips.Addresses(); err != nil || on[vip] {
		t.Errorf("addresses %v, %v: want none of ours", on, err)
	}
	r.saved(t)
}

// Many services are adopted at once, with thresholds that only keepalived writes.
func TestGuestAdoptionOfMany(t *testing.T) {
	r := newRig(t)
	const n = 500
	err := r.ns.Do(func() error {
		for mark := range uint32(n) {
			id := kernel.MarkID(mark+1, kernel.IPv4)
			if err := r.spy.Driver.NewService(t.Context(), kernel.Service{ServiceID: id, Scheduler: "wlc", Prefix: 32}); err != nil {
				return err
			}
			server := kernel.Server{Address: netip.MustParseAddrPort("10.0.0.1:0"), Method: kernel.DR, Weight: 1, Upper: 1<<32 - 1, Lower: 1<<32 - 1}
			if err := r.spy.Driver.NewServer(t.Context(), id, server); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	d := r.direct(t, &directortest.Store{}, director.State{})
	r.spy.writes = nil
	begin := time.Now()
	adoption, err := d.Adopt(t.Context(), by)
	if err != nil || len(adoption.Adopted) != n || len(adoption.Refused) > 0 || len(adoption.Steps) > 0 || adoption.Revision.Number != 2 {
		t.Fatalf("adopted %d in revision %d, refused %v, steps %v, error %v", len(adoption.Adopted), adoption.Revision.Number, adoption.Refused, adoption.Steps, err)
	}
	t.Logf("%d services adopted in %s", n, time.Since(begin).Round(time.Millisecond))
	r.spy.wrote(t)
	if upper := d.State().Services[0].Servers[0].Upper; upper != 1<<32-1 {
		t.Errorf("upper threshold %d", upper)
	}
	d.reconcile(t)
	r.spy.wrote(t)
}

// What the kernel takes and Shunt could not write as it is stays foreign, and is in
// the way of no other.
func TestGuestAdoptionRefuses(t *testing.T) {
	r := newRig(t)
	r.script(t,
		"-A -u 192.0.2.2:5060 -s rr --pe sip", // without -p
		"-A -u 192.0.2.3:53 -s rr", "-a -u 192.0.2.3:53 -r 10.0.0.1:0 -m",
		"-A -t 192.0.2.4:80 -s rr",
	)
	d := r.direct(t, &directortest.Store{}, director.State{})
	before := r.ipvsadm(t, "-S", "-n")
	adoption, err := d.Adopt(t.Context(), by)
	if err != nil {
		t.Fatal(err)
	}
	var refused []string
	for _, refusal := range adoption.Refused {
		refused = append(refused, refusal.Err.Error())
	}
	if diff := cmp.Diff([]string{
		"adopt service udp://192.0.2.2:5060: service udp://192.0.2.2:5060: persistence engine sip without a persistence timeout: want 1s to 744h (31 days)",
		"adopt service udp://192.0.2.3:53: server 10.0.0.1:0: not supported: port 0 beside a service's own: replace it by 10.0.0.1:53 there first",
	}, refused); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
	if got := fmt.Sprint(adoption.Adopted); got != "[tcp://192.0.2.4:80]" {
		t.Errorf("adopted %s", got)
	}
	if diff := cmp.Diff(before, r.ipvsadm(t, "-S", "-n")); diff != "" {
		t.Errorf("ipvsadm -Sn (-want +got):\n%s", diff)
	}
}
