package xdp

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/director"
)

// The rates of servers and services are what the estimator makes of their counters;
// a restart and a Zero are no packets.
func TestRates(t *testing.T) {
	r := newRig(t, Options{})
	service := testService(director.RoundRobin, director.SchedulerFlags{})
	r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: local(1, 1)}, director.AddServer{Key: service.Key, Server: local(2, 1)})
	clients := uint16(1000)
	open := func(n int) {
		for range n {
			clients++
			r.send(bpftest.Packet{From: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), clients), To: service.Key.Address, Flags: "S"})
		}
	}
	var ofService director.Estimator
	var ofServers [2]director.Estimator
	check := func(when string) {
		t.Helper()
		stats := r.stats(service.Key)
		want := []director.Rates{ofService.Rates(), ofServers[0].Rates(), ofServers[1].Rates()}
		got := []director.Rates{stats.Rates, stats.Servers[0].Rates, stats.Servers[1].Rates}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: rates of the service, then the servers' (-want +got):\n%s", when, diff)
		}
	}
	sample := func() {
		t.Helper()
		stats := r.stats(service.Key)
		ofService.Sample(stats.Counters)
		for i := range ofServers {
			ofServers[i].Sample(stats.Servers[i].Counters)
		}
		if err := r.sample(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	check("before any")
	for _, n := range []int{100, 30, 0, 7, 0} {
		open(n)
		check("between samples")
		sample()
		check("sampled")
	}
	if rates := r.stats(service.Key).Rates; rates.Connections == 0 || rates.InPackets != rates.Connections || rates.InBytes < 40*(rates.InPackets-1) {
		t.Errorf("rates: %+v", rates)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	ofService.Reset(r.stats(service.Key).Counters)
	for i := range ofServers {
		ofServers[i].Reset(r.stats(service.Key).Servers[i].Counters)
	}
	sample()
	check("after a restart")
	if rates := r.stats(service.Key).Rates; rates != (director.Rates{}) {
		t.Errorf("what was counted before a restart shows as %+v", rates)
	}
	open(50)
	sample()
	check("after a restart, sampled")
	r.zero(service.Key)
	if rates := r.stats(service.Key).Rates; rates != (director.Rates{}) {
		t.Errorf("rates after Zero: %+v", rates)
	}
	ofService, ofServers = director.Estimator{}, [2]director.Estimator{}
	open(9)
	sample()
	check("after Zero")
}

// A server, or a service, that comes back has no rate by what was counted before it
// left, whether or not the daemon was another one then; and a service that comes back
// counts from zero, its servers too (kernel: ip_vs_ctl.c, __ip_vs_update_dest), where
// a server that comes back to its service goes on.
func TestReturning(t *testing.T) {
	r := newRig(t, Options{})
	service := testService(director.RoundRobin, director.SchedulerFlags{})
	r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: local(1, 1)}, director.AddServer{Key: service.Key, Server: local(2, 1)})
	clients := uint16(1000)
	open := func(n int) {
		for range n {
			clients++
			r.send(bpftest.Packet{From: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), clients), To: service.Key.Address, Flags: "S"})
		}
	}
	check := func(when string, total, second uint64) {
		t.Helper()
		if err := r.sample(t.Context()); err != nil {
			t.Fatal(err)
		}
		stats := r.stats(service.Key)
		server := stats.Servers[len(stats.Servers)-1] // the last one added
		if stats.Counters.Connections != total || server.Counters.Connections != second {
			t.Errorf("%s: %d connections, %d of them the server's; want %d, %d", when, stats.Counters.Connections, server.Counters.Connections, total, second)
		}
		if stats.Rates != (director.Rates{}) || server.Rates != (director.Rates{}) {
			t.Errorf("%s: without traffic the service's rates are %+v, the server's %+v", when, stats.Rates, server.Rates)
		}
	}
	restart := func() {
		t.Helper()
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r.open()
	}
	open(400)
	restart() // which has the rates begin anew
	r.must(director.RemoveServer{Key: service.Key, Address: local(2, 0).Address})
	restart()
	r.must(director.AddServer{Key: service.Key, Server: local(2, 1)})
	check("the server is back", 400, 200)
	r.must(director.RemoveService{Key: service.Key})
	restart()
	again := []director.Operation{
		director.AddService{Service: service},
		director.AddServer{Key: service.Key, Server: local(1, 1)},
		director.AddServer{Key: service.Key, Server: local(2, 1)},
	}
	r.must(again...)
	check("the service is back", 0, 0)
	if active := r.stats(service.Key).Servers[0].Active; active != 200 {
		t.Errorf("%d active connections, want the 200 that are left", active)
	}
	r.must(director.RemoveService{Key: service.Key})
	r.must(again...)
	check("once more, with the same daemon", 0, 0)
	open(2)
	if got := r.stats(service.Key).Counters.Connections; got != 2 {
		t.Errorf("%d connections since, want 2", got)
	}
}

// What ipvsadm's first line tells.
func TestInfo(t *testing.T) {
	r := newRig(t, Options{})
	stats, err := r.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v4, v6 := r.MaxConnections()
	if want := (director.DataplaneInfo{Version: "1.2.1", TableSize: v4 + v6}); stats.Info != want || v4 < 4096 || v6 == 0 {
		t.Errorf("%+v, want %+v", stats.Info, want)
	}
}
