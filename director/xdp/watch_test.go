package xdp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// seer is somebody who watches connections.
type seer struct {
	changes chan director.ConnectionChange // unbuffered: it sees one when the test takes it
	ended   chan error
	stop    context.CancelFunc
}

// watch begins to watch; it ends with the test.
func (r *rig) watch(filter director.ConnectionFilter) *seer {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	s := &seer{changes: make(chan director.ConnectionChange), ended: make(chan error, 1), stop: cancel}
	before := r.watchers()
	go func() {
		for change, err := range r.Watch(ctx, filter) {
			if err != nil {
				s.ended <- err
				return
			}
			select {
			case s.changes <- change:
			case <-ctx.Done():
			}
		}
		s.ended <- nil
	}()
	r.eventually("it watches", func() bool { return r.watchers() > before })
	r.t.Cleanup(cancel)
	return s
}

func (r *rig) watchers() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.watching.watchers)
}

// isTold says whether the program tells of connections.
func (r *rig) isTold() bool {
	r.t.Helper()
	settings, err := r.plane.Settings()
	if err != nil {
		r.t.Fatal(err)
	}
	return settings.Watching != 0
}

// sees compares the next changes with what is wanted, as "opened CLIENT SERVER".
func (s *seer) sees(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for range want {
		c := <-s.changes
		got = append(got, fmt.Sprintf("%s %s %s", c.What, c.Connection.Client, c.Connection.Server))
		if c.Lost != 0 {
			t.Errorf("%d lost before %s", c.Lost, got[len(got)-1])
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

// Each watcher is told of what its filter selects, in order, with the server's
// address also when the server is gone; the program tells while anybody watches.
func TestWatch(t *testing.T) {
	r := newRig(t, Options{CountConnections: true})
	service := testService(director.RoundRobin, director.SchedulerFlags{})
	r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: local(1, 1)})
	near, far := netip.MustParseAddrPort("198.51.100.7:4000"), netip.MustParseAddrPort("203.0.113.7:4000")
	r.syn(far, service.Key.Address)
	all := r.watch(director.ConnectionFilter{})
	some := r.watch(director.ConnectionFilter{Client: netip.MustParsePrefix("198.51.100.0/24")})

	r.syn(near, service.Key.Address)
	some.sees(t, "opened 198.51.100.7:4000 10.0.0.1:80")
	if _, err := r.Kill(t.Context(), director.ConnectionFilter{Client: netip.PrefixFrom(far.Addr(), 32)}); err != nil {
		t.Fatal(err)
	}
	all.sees(t, "opened 198.51.100.7:4000 10.0.0.1:80", "closed 203.0.113.7:4000 10.0.0.1:80")
	all.stop()
	if err := <-all.ended; err != nil {
		t.Error(err)
	}
	if !r.isTold() {
		t.Error("the program tells nothing to the one who watches still")
	}

	// Its last connection, and with it all that is known of a server, goes before
	// anybody can look.
	r.must(director.RemoveServer{Key: service.Key, Address: local(1, 1).Address})
	r.mu.Lock()
	index := uint32(0)
	for i := range r.model.servers {
		index = i
	}
	if err := r.plane.RemoveConnection(false, removal(near, service.Key.Address)); err != nil {
		t.Fatal(err)
	}
	r.model.dropServer(r.model.servers[index])
	r.watching.isStale = true
	r.mu.Unlock()
	change := <-some.changes
	want := director.ConnectionChange{
		What: director.ConnectionClosed, Service: service.Key,
		Connection: conntrack.Connection{
			Protocol: conntrack.TCP, Client: near, Virtual: service.Key.Address, Server: local(1, 1).Address,
			Method: "local", State: conntrack.SynRecv, Traffic: &conntrack.Traffic{InPackets: 1, InBytes: 40},
		},
	}
	change.Connection.Age, change.Connection.Expires = 0, 0
	if diff := cmp.Diff(want, change, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("the end of a connection to a removed server (-want +got):\n%s", diff)
	}
	some.stop()
	if err := <-some.ended; err != nil {
		t.Error(err)
	}
	if r.isTold() {
		t.Error("the program tells of connections and nobody watches")
	}
}

func removal(client, virtual netip.AddrPort) *bpf.KernelRemoveArgs {
	return &bpf.KernelRemoveArgs{
		Client: bpf.Address(client.Addr()), ClientPort: bpf.Port(client.Port()),
		VirtualAddress: bpf.Address(virtual.Addr()), VirtualPort: bpf.Port(virtual.Port()), Protocol: bpftest.TCP,
	}
}

// A watcher that is too slow loses what does not fit its queue and is told how many;
// the others lose nothing.
func TestWatchTooSlowly(t *testing.T) {
	const many = watchQueue + 500
	r := newRig(t, Options{})
	service := testService(director.RoundRobin, director.SchedulerFlags{})
	r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: local(1, 1)})
	slow, quick := r.watch(director.ConnectionFilter{}), r.watch(director.ConnectionFilter{})
	seen := make(chan error)
	go func() {
		for i := range many {
			if c := <-quick.changes; c.Lost > 0 || c.Connection.Client.Port() != uint16(1024+i) {
				seen <- fmt.Errorf("change %d is of %s, after %d lost", i, c.Connection.Client, c.Lost)
				return
			}
		}
		seen <- nil
	}()
	client := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), uint16(1024+i))
	}
	for i := range many {
		r.send(bpftest.Packet{From: client(i), To: service.Key.Address, Flags: "S"})
	}
	if err := <-seen; err != nil {
		t.Fatal(err)
	}
	// One was on its way to the watcher, or none, and the queue was full after that.
	var got int
	for range watchQueue {
		if c := <-slow.changes; c.Lost > 0 {
			t.Fatalf("%d lost before change %d", c.Lost, got)
		}
		got++
	}
	r.send(bpftest.Packet{From: client(many), To: service.Key.Address, Flags: "S"})
	for {
		c := <-slow.changes
		if c.Lost == 0 {
			got++
			continue
		}
		if lost := many - got; c.Lost != uint64(lost) || c.Connection.Client != client(many) {
			t.Errorf("%d lost before the one of %s, want %d", c.Lost, c.Connection.Client, lost)
		}
		return
	}
}

// A data plane that is closed ends those who watch, and one that is opened tells
// nobody, whatever the one before did.
func TestWatchEnds(t *testing.T) {
	r := newRig(t, Options{})
	s := r.watch(director.ConnectionFilter{})
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-s.ended; err == nil {
		t.Error("watching a closed data plane ended without an error")
	}
	r.open()
	r.watch(director.ConnectionFilter{})
	r.mu.Lock()
	r.watching.watchers = nil // as if it had been killed
	r.mu.Unlock()
	if err := r.plane.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	if r.isTold() {
		t.Error("the program tells an earlier daemon's watchers")
	}
	r.watch(director.ConnectionFilter{}).stop()
}

// The news that was read while the last watcher went is nobody's.
func TestWatchNewsOfTheEnd(t *testing.T) {
	var d Dataplane
	if d.pass(new(bpf.NewsReader), new(bpf.News), nil) {
		t.Error("the reader goes on for nobody")
	}
}

// Who comes while those go whose news ended would wait for news for ever.
func TestWatchBrokenNews(t *testing.T) {
	r := newRig(t, Options{})
	r.mu.Lock()
	r.watching.news = new(bpf.NewsReader) // its goroutine has ended
	r.mu.Unlock()
	if _, err := r.beginWatch(t.Context(), director.ConnectionFilter{}); !errors.Is(err, errNewsEnded) {
		t.Errorf("%v, want that the news ended", err)
	}
	r.mu.Lock()
	r.watching.news = nil
	r.mu.Unlock()
}
