package xdp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

func (r *rig) evidence() []director.Evidence {
	r.t.Helper()
	all, err := r.Evidence(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// The limits are the program's: they suspend, and what is suspended stays so, with no
// daemon and in the next one; they end with the zero value, with a service or its server.
func TestEvidence(t *testing.T) {
	r := newRig(t, Options{})
	service := testService(director.RoundRobin, director.SchedulerFlags{})
	key := service.Key
	first, second := natServer(), natServer()
	second.Address = netip.AddrPortFrom(reachable, 8081)
	r.must(director.AddService{Service: service}, director.AddServer{Key: key, Server: first}, director.AddServer{Key: key, Server: second})
	clients := 0
	refuse := func(server netip.AddrPort) { // one client's first segment is answered by a reset
		t.Helper()
		for range 4 {
			clients++
			client := netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), uint16(2000+clients))
			got, ok := r.syn(client, key.Address)
			if ok && got == server {
				r.send(bpftest.Packet{From: server, To: client, Flags: "RA"})
				return
			}
		}
		t.Fatalf("no client got %s", server)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	want := func(what string, all ...director.Evidence) {
		t.Helper()
		if diff := cmp.Diff(all, r.evidence(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmp.Comparer(func(a, b director.ServiceKey) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	one := director.Evidence{Service: key, Server: first.Address}
	other := director.Evidence{Service: key, Server: second.Address}

	refuse(first.Address)
	want("without limits")
	must(r.SetPassive(t.Context(), key, director.Passive{Resets: 1}))
	want("with limits", one, other)
	refuse(first.Address)
	one.Resets, one.Suspended = 1, true
	want("after a reset", one, other)
	q := director.Question{Protocol: conntrack.TCP, Client: netip.MustParseAddrPort("198.51.100.9:0"), Virtual: key.Address}
	for _, c := range r.decide(q).Candidates {
		if c.Suspended != (c.Server == first.Address) || c.Overloaded {
			t.Errorf("candidate %+v", c)
		}
	}
	for range 4 {
		if got := r.decide(q).Server; got != second.Address {
			t.Errorf("%s would get a connection", got)
		}
	}

	must(r.Close())
	r.open()
	want("after a restart", one, other)
	must(r.SetPassive(t.Context(), key, director.Passive{Resets: 1, Suspend: time.Minute}))
	want("with other limits", one, other)
	svc, err := r.model.live(key)
	must(err)
	wrote := *svc.passive
	must(r.plane.Passive.Put(svc.index, new(bpf.KernelPassiveLimits)))
	want("cleared by somebody else")
	must(r.review())
	want("repaired", one, other)
	var found [1]bpf.KernelPassiveLimits
	must(bpf.ReadRange(r.plane.Passive, svc.index, found[:]))
	if found[0] != wrote {
		t.Errorf("limits %+v, want %+v", found[0], wrote)
	}

	must(r.Absolve(t.Context(), key, first.Address))
	one.Suspended = false
	want("absolved", one, other)
	refuse(first.Address)
	must(r.SetPassive(t.Context(), key, director.Passive{}))
	want("with limits of zero")
	must(r.SetPassive(t.Context(), key, director.Passive{Resets: 1}))
	one.Resets = 2
	want("with limits again", one, other)

	refuse(first.Address)
	r.must(director.RemoveServer{Key: key, Address: first.Address}, director.AddServer{Key: key, Server: first})
	for _, e := range r.evidence() {
		if e.Suspended {
			t.Errorf("added again, and suspended: %+v", e)
		}
	}
	r.must(director.RemoveService{Key: key}, director.AddService{Service: service}, director.AddServer{Key: key, Server: first})
	want("of a service made anew")

	for what, err := range map[string]error{
		"limits of no service": r.SetPassive(t.Context(), director.ServiceKey{Protocol: conntrack.TCP, Address: second.Address}, director.Passive{}),
		"absolve no server":    r.Absolve(t.Context(), key, netip.MustParseAddrPort("10.9.9.9:9")),
	} {
		if !errors.Is(err, director.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// answerIn serves connections in the namespace: one octet for one.
func answerIn(t *testing.T, ns *directortest.Namespace, at netip.AddrPort) net.Listener {
	t.Helper()
	var l net.Listener
	err := ns.Do(func() (err error) {
		l, err = net.Listen("tcp", at.String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.CopyN(c, c, 1)
			c.Close()
		}
	}()
	return l
}

func request(address string) error {
	c, err := net.DialTimeout("tcp", address, time.Minute)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 1))
	return err
}

// A server whose process ends costs one request, the one whose first segment its host
// resets, of 500 a second without retries: real TCP. A request that the process had taken
// when it ended is not among them: nobody could answer that.
func TestKilledServerCostsOneRequest(t *testing.T) {
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed})
	var d *Dataplane
	err := lab.Director.Do(func() (err error) {
		d, err = Open(t.Context(), Options{
			Interfaces: lab.DirectorLinks, PinDir: filepath.Join(directortest.Bpffs(t), "pins"),
			MaxConnections: 4096, MaxServers: 16, MaxServices: 16, SchedulerWords: 1 << 12,
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Detach(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	service := testService(director.RoundRobin, director.SchedulerFlags{})
	service.Key.Address = netip.AddrPortFrom(directortest.VIP4, 80)
	ops := []director.Operation{director.AddService{Service: service}}
	var listeners []net.Listener
	for _, s := range lab.Servers {
		at := netip.AddrPortFrom(s.Addr4, 8080)
		listeners = append(listeners, answerIn(t, s.Namespace, at))
		ops = append(ops, director.AddServer{Key: service.Key, Server: realserver.Server{Address: at, Method: realserver.NAT, Weight: 1}})
	}
	if err := d.Apply(t.Context(), ops); err != nil {
		t.Fatal(err)
	}
	if err := d.SetPassive(t.Context(), service.Key, director.Passive{Resets: 1}); err != nil {
		t.Fatal(err)
	}
	const requests, killed = 500, 200
	var failed []int
	err = lab.Client.Do(func() error {
		pace := time.NewTicker(2 * time.Millisecond)
		defer pace.Stop()
		for i := range requests {
			<-pace.C
			if i == killed {
				if err := listeners[0].Close(); err != nil {
					return err
				}
			}
			if err := request(service.Key.Address.String()); err != nil {
				failed = append(failed, i)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d of %d requests failed: %v; the server ended before request %d", len(failed), requests, failed, killed)
	if len(failed) > 1 || len(failed) == 1 && failed[0] < killed {
		t.Errorf("requests %v failed, want one after %d at most", failed, killed)
	}
	all, err := d.Evidence(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 || !all[0].Suspended || all[0].Resets != 1 || all[1].Suspended || all[1].Resets != 0 {
		t.Errorf("evidence %+v", all)
	}
}
