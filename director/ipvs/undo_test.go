package ipvs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	guest "github.com/shunt-lb/shunt/director/directortest/ipvs"
	"github.com/shunt-lb/shunt/realserver"
)

// traffic is a lab whose director is a rig's.
type traffic struct {
	*rig
	*testing.T
	lab *directortest.Lab
}

func startTraffic(t *testing.T) *traffic {
	t.Helper()
	guest.Guest(t)
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 2, Forwarding: directortest.On})
	if _, err := lab.ServeHTTP(8080); err != nil {
		t.Fatal(err)
	}
	return &traffic{rig: openIn(t, lab.Director), T: t, lab: lab}
}

// nat is a service of the lab's servers.
func (l *traffic) nat(name, url string) director.Service {
	s := service(url, realserver.NAT)
	s.Name, s.VIP, s.Scheduler = name, director.VIPManaged, director.RoundRobin
	for _, server := range l.lab.Servers {
		s.Servers = append(s.Servers, realserver.Server{Address: netip.AddrPortFrom(server.Addr4, 8080), Method: realserver.NAT, Weight: 1})
	}
	return s
}

// client keeps one connection.
func (l *traffic) client() *http.Client {
	client := l.lab.Client.HTTPClient(directortest.ClientOptions{KeepAlive: directortest.On})
	client.Timeout = time.Minute
	l.Cleanup(client.CloseIdleConnections)
	return client
}

// get returns who answers.
func (l *traffic) get(client *http.Client, to netip.AddrPort) string {
	l.Helper()
	answer, err := client.Get(fmt.Sprintf("http://%s/", to))
	if err != nil {
		l.Fatal(err)
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		l.Error(err)
	}
	return answer.Header.Get(directortest.HeaderServer)
}

// An apply that fails half way names its step and is undone: removed servers and
// services come back with their connections.
func TestGuestFailedApplyIsUndone(t *testing.T) {
	l := startTraffic(t)
	web, mail := l.nat("web", "tcp://192.0.2.10:80"), l.nat("mail", "tcp://192.0.2.10:25")
	state := director.State{Services: []director.Service{web, mail}}
	d := l.direct(t, &directortest.Store{}, state)
	clients := map[director.ServiceKey]*http.Client{web.Key: l.client(), mail.Key: l.client()}
	answered := map[director.ServiceKey]string{}
	for key, client := range clients {
		answered[key] = l.get(client, key.Address)
	}
	before, connections := l.ipvsadm(t, "-S", "-n"), l.connections(t)

	// The server that has web's connection goes, mail goes, and then web is to have a
	// scheduler that this kernel has not.
	next := director.State{Services: []director.Service{web.Clone()}}
	changed := &next.Services[0]
	at := slices.IndexFunc(l.lab.Servers, func(s *directortest.Server) bool { return s.Name == answered[web.Key] })
	changed.Servers = slices.Delete(changed.Servers, at, at+1)
	changed.Scheduler = director.TwoRandomChoices
	l.spy.writes = nil
	_, err := d.Apply(t.Context(), director.Request{Who: "the test", Force: true}, next)
	const want = "edit service tcp://192.0.2.10:80: the kernel has no scheduler twos: modprobe ip_vs_twos"
	if err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, director.ErrNoScheduler) {
		t.Errorf("error %v, want %q", err, want)
	}
	if writes := strings.Join(l.spy.writes, "\n"); !strings.Contains(writes, "delete tcp://192.0.2.10:25") || !strings.Contains(writes, "new tcp://192.0.2.10:25") {
		t.Errorf("nothing was to be undone:\n%s", writes)
	}
	if after := l.ipvsadm(t, "-S", "-n"); after != before {
		t.Errorf("the kernel has\n%s\nwant\n%s", after, before)
	}
	if after := l.connections(t); len(after) != len(connections) {
		t.Errorf("connections %v, were %v", after, connections)
	}
	for key, client := range clients {
		if again := l.get(client, key.Address); again != answered[key] {
			t.Errorf("%s: %s answered, want %s", key, again, answered[key])
		}
	}
	d.reconcile(t)
	if drift := d.Drift(); drift.Found != 0 || len(drift.Foreign) != 0 {
		t.Errorf("drift %+v, want none", drift)
	}
}

// connections lists all.
func (r *rig) connections(t *testing.T) []conntrack.Connection {
	t.Helper()
	var all []conntrack.Connection
	for c, err := range r.Connections(t.Context(), director.ConnectionFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

// A failure at any write leaves the kernel as it was, and names the step.
func TestGuestFailureAtEveryWrite(t *testing.T) {
	r := newRig(t)
	before := director.State{Services: []director.Service{web(), service("udp://192.0.2.1:53", realserver.NAT, "10.0.0.1:53")}}
	after := director.State{Services: []director.Service{web(), service("tcp://[2001:db8::1]:80", realserver.Tunnel, "10.0.0.1:80", "10.0.0.2:80")}}
	after.Services[0].Scheduler = director.Maglev
	after.Services[0].Servers = after.Services[0].Servers[1:]
	after.Services[0].Servers[0].Upper = 10
	d := r.direct(t, &directortest.Store{}, before)
	saved := r.ipvsadm(t, "-S", "-n") + r.ipvsadm(t, "-L", "-n", "--thresholds")
	broken := errors.New("the kernel is broken")
	writes := 0
	for n := 1; ; n++ {
		writes = 0
		r.spy.fail = func(string) error {
			if writes++; writes == n {
				return broken
			}
			return nil
		}
		_, err := d.Apply(context.Background(), director.Request{Who: "the test", Force: true}, after)
		r.spy.fail = nil
		if err == nil {
			break
		}
		failed := (*director.OperationError)(nil)
		if !errors.As(err, &failed) || !errors.Is(err, broken) {
			t.Errorf("write %d: error %v, want an operation's", n, err)
		}
		if now := r.ipvsadm(t, "-S", "-n") + r.ipvsadm(t, "-L", "-n", "--thresholds"); now != saved {
			t.Errorf("write %d failed: the kernel has\n%s\nwant\n%s", n, now, saved)
		}
		d.reconcile(t)
	}
	if writes < 7 {
		t.Errorf("%d writes, want at least 7", writes)
	}
	if drift := d.Drift(); drift.Found != 0 {
		t.Errorf("drift %+v, want none", drift)
	}
}

// A service that carries traffic is taken over without a write, a lost connection or a
// counter that moves by itself.
func TestGuestAdoptionUnderTraffic(t *testing.T) {
	l := startTraffic(t)
	to := netip.MustParseAddrPort("192.0.2.10:80")
	if err := l.ns.AddAddress("lo", netip.PrefixFrom(to.Addr(), 32)); err != nil {
		t.Fatal(err)
	}
	l.script(t, "-A -t 192.0.2.10:80 -s rr -p 600", "-a -t 192.0.2.10:80 -r 10.2.0.11:8080 -m", "-a -t 192.0.2.10:80 -r 10.2.0.12:8080 -m")
	held := l.client()
	name := l.get(held, to)
	d := l.direct(t, &directortest.Store{}, director.State{})
	counted := func() director.ServiceStats {
		t.Helper()
		stats, err := d.Stats(t.Context())
		if err != nil || len(stats.Services) != 1 {
			t.Fatalf("%d services, %v", len(stats.Services), err)
		}
		return stats.Services[0]
	}
	for counted().Counters.Connections == 0 { // counts come late
		time.Sleep(100 * time.Millisecond)
	}
	before, connections := counted().Counters, l.connections(t)
	l.spy.writes = nil
	if _, err := d.Adopt(t.Context(), by, key("tcp://192.0.2.10:80")); err != nil {
		t.Fatal(err)
	}
	d.reconcile(t)
	l.spy.wrote(t)
	if now := counted().Counters; now.Connections != before.Connections || now.InPackets < before.InPackets {
		t.Errorf("counted %+v, were %+v", now, before)
	}
	if now := l.connections(t); len(now) != len(connections) || len(now) != 2 { // and the template
		t.Errorf("connections %+v, were %+v", now, connections)
	}
	if again := l.get(held, to); again != name {
		t.Errorf("the connection went to %s, want %s", again, name)
	}
}
