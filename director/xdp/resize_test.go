package xdp

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/director"
)

const talkers = 60

// newTalkingRig has established connections to a NAT server, whose timeout a slow machine
// does not reach, and templates.
func newTalkingRig(t *testing.T, opts Options) *rig {
	t.Helper()
	r := newRig(t, opts)
	sticky := newStickyService()
	r.must(director.AddService{Service: sticky}, director.AddServer{Key: sticky.Key, Server: natServer()})
	r.eventually("the server is reachable", func() bool { return r.stats(sticky.Key).Servers[0].Reachable })
	for i := range byte(talkers) {
		r.send(bpftest.Packet{From: talker(i), To: sticky.Key.Address, Flags: "S"})
		r.send(bpftest.Packet{Source: bpftest.ServerMAC, Destination: bpftest.DirectorInside, From: natServer().Address, To: talker(i), Flags: "SA", Seq: 7, Ack: 1})
		r.send(bpftest.Packet{From: talker(i), To: sticky.Key.Address, Flags: "A", Seq: 1, Ack: 8})
	}
	return r
}

func talker(i byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, i / 10, i}), 4000+uint16(i))
}

// pairings lists connections and templates in the order of their clients.
func (r *rig) pairings(ctx context.Context) ([]string, error) {
	var all []string
	for c, err := range r.Connections(ctx, director.ConnectionFilter{}) {
		if err != nil {
			return nil, err
		}
		all = append(all, strings.Join([]string{c.Client.String(), c.Virtual.String(), c.Server.String(), c.State.String()}, " "))
	}
	slices.Sort(all)
	return all, nil
}

func (r *rig) mustPairings() []string {
	r.t.Helper()
	all, err := r.pairings(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// expectTables holds that the tables have room for so many connections, and all that
// were there.
func (r *rig) expectTables(v4, v6 uint64, pairings []string) {
	r.t.Helper()
	if has4, has6 := r.MaxConnections(); !sameSize(v4, has4) || !sameSize(v6, has6) {
		r.t.Errorf("room for %d and %d connections, want %d and %d", has4, has6, v4, v6)
	}
	if now := r.mustPairings(); !slices.Equal(now, pairings) {
		r.t.Errorf("connections before:\n%s\nafter:\n%s", strings.Join(pairings, "\n"), strings.Join(now, "\n"))
	}
	if faults := r.faults(); len(faults) > 0 {
		r.t.Errorf("faults: %v", faults)
	}
}

// Connections come over to larger and smaller tables; a table too small for them is
// refused with the numbers, and one that is as asked for stays.
func TestResize(t *testing.T) {
	r := newTalkingRig(t, Options{MaxConnections: 1024, MaxConnectionsIPv6: 512})
	before := r.mustPairings()
	if len(before) != talkers+talkers/10 {
		t.Fatalf("%d connections and templates: %v", len(before), before)
	}
	if report, err := r.Resize(t.Context(), 5000, 0); err != nil || report != (director.ResizeReport{Carried: talkers}) {
		t.Fatalf("%+v, %v", report, err)
	}
	r.expectTables(5000, 512, before)
	if _, err := r.Resize(t.Context(), 300, 700); err != nil {
		t.Fatal(err)
	}
	r.expectTables(300, 700, before)
	number, err := r.tablesNumber()
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Resize(t.Context(), 20, 0)
	if !errors.Is(err, director.ErrInvalid) || !strings.Contains(err.Error(), "126 keys") || !strings.Contains(err.Error(), "63") {
		t.Errorf("a table for 20 connections: %v", err)
	}
	if _, err := r.Resize(t.Context(), 1<<40, 0); !errors.Is(err, director.ErrInvalid) {
		t.Errorf("a table for 2^40 connections: %v", err)
	}
	if report, err := r.Resize(t.Context(), 300, 0); err != nil || report != (director.ResizeReport{}) {
		t.Errorf("%+v, %v", report, err)
	}
	if now, err := r.tablesNumber(); err != nil || now != number {
		t.Errorf("the tables are others: %d, before %d, %v", now, number, err)
	}
	r.expectTables(300, 700, before)
	if _, err := r.Kill(t.Context(), director.ConnectionFilter{}); err != nil {
		t.Error(err)
	}
	if left := r.mustPairings(); len(left) > 0 {
		t.Errorf("killed, and still there: %v", left)
	}
}

// What finds no room, and what gives way, is counted, whether a packet or the daemon
// meant to bring it over.
func TestResizeCountsTheLost(t *testing.T) {
	r := newTalkingRig(t, Options{MaxConnections: 1024, MaxConnectionsIPv6: 512})
	virtual := newStickyService().Key.Address
	before := r.mustPairings()                 // proven: they give way to none
	change, err := r.plane.PrepareResize(1, 0) // which Resize refuses
	if err != nil {
		t.Fatal(err)
	}
	counts, err := r.carryCounts()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.commit(change, true); err != nil {
		t.Fatal(err)
	}
	for i := range byte(talkers / 2) {
		r.send(bpftest.Packet{From: talker(i), To: virtual, Flags: "A", Seq: 1, Ack: 8})
	}
	report, err := r.bringOver(counts)
	if err != nil {
		t.Fatal(err)
	}
	after := r.mustPairings()
	t.Logf("%d connections and templates, then %d: %+v", len(before), len(after), report)
	if report.Lost == 0 || report.Expired > 0 || uint64(len(before)-len(after)) != report.Lost+report.Evicted {
		t.Errorf("of %d connections and templates %d are left: %+v", len(before), len(after), report)
	}
}

// A daemon that ends while connections come over leaves them to the next one: until
// that has them all, it lists none of them.
func TestResizeGoesOnAfterRestart(t *testing.T) {
	r := newTalkingRig(t, Options{MaxConnections: 1024, MaxConnectionsIPv6: 512})
	before := r.mustPairings()
	change, err := r.plane.PrepareResize(4000, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.commit(change, true); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.opts.MaxConnections = 4000
	r.open()
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if some, err := r.pairings(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while connections come over: %v, %v", some, err)
	}
	if err := r.sweep(t.Context()); !errors.Is(err, errCarrying) {
		t.Errorf("a sweep while connections come over: %v", err)
	}
	r.settleTables(t.Context())
	r.expectTables(4000, 512, before)
	if err := r.sweep(t.Context()); err != nil {
		t.Error(err)
	}
}

// A start gives adopted tables the sizes that are configured.
func TestStartResizes(t *testing.T) {
	r := newTalkingRig(t, Options{MaxConnections: 1024, MaxConnectionsIPv6: 512})
	before := r.mustPairings()
	for _, size := range []uint64{2000, 20} { // too few, the second: they stay
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r.opts.MaxConnections = size
		r.open()
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- r.Run(ctx) }()
		r.eventually("the tables are resized", func() bool { has, _ := r.MaxConnections(); return sameSize(2000, has) })
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		r.expectTables(2000, 512, before)
	}
}

// Who closes the gate has it when all others have left; who comes then waits.
func TestTableGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g tableGate
		leave, err := g.enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		closed := make(chan error, 1)
		go func() { closed <- g.close(t.Context()) }()
		time.Sleep(gatePatience / 2)
		if len(closed) > 0 {
			t.Fatal("closed while it is used")
		}
		entered := make(chan error, 1)
		go func() {
			leave, err := g.enter(t.Context())
			if err == nil {
				leave()
			}
			entered <- err
		}()
		leave()
		leave() // once
		if err := <-closed; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(entered) > 0 {
			t.Error("entered a closed gate")
		}
		g.open()
		if err := <-entered; err != nil {
			t.Error(err)
		}
		if leave, err = g.enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := g.close(t.Context()); !errors.Is(err, errTablesInUse) {
			t.Errorf("closed on somebody who stays: %v", err)
		}
		leave()
		if err := g.close(t.Context()); err != nil {
			t.Error(err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := g.enter(ended); !errors.Is(err, context.Canceled) {
			t.Errorf("waiting, its context over: %v", err)
		}
		if err := g.close(ended); !errors.Is(err, context.Canceled) {
			t.Errorf("waiting to close, its context over: %v", err)
		}
	})
}
