package labtest

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director/api"
)

func TestTimeouts(t *testing.T) {
	t.Parallel()
	p := startPair(t, nat)
	show := func() string {
		v := read[api.Timeouts](t, p.d, "timeouts")
		return fmt.Sprint(v.TCP, " ", v.TCPFin, " ", v.UDP)
	}
	if got := show(); got != "15m0s 2m0s 5m0s" {
		t.Errorf("timeouts %s, want the kernel's", got)
	}
	p.d.do(t, "timeouts --tcp 1h --udp 10s")
	if got := show(); got != "1h0m0s 2m0s 10s" {
		t.Errorf("timeouts %s: want those named changed and no other", got)
	}
	for range 4 {
		mustOpen(t, p.lab.Client, p.vip)
	}
	if n := p.d.connections(t); n != 4 {
		t.Errorf("%d connections, want 4", n)
	}
	p.d.stop(t)
	p.d.start(t)
	if got := show(); got != "1h0m0s 2m0s 10s" {
		t.Errorf("timeouts after a restart %s", got)
	}
	p.d.do(t, "timeouts --tcp 1s")
	await(t, "connections leave", func() bool { return p.d.connections(t) == 0 })
	for _, address := range p.servers {
		await(t, "the counts of "+address+" are 0", func() bool {
			s := p.d.server(t, "web", address)
			return s.Active == 0 && s.Inactive == 0
		})
	}
	tables := read[api.Status](t, p.d, "status").Tables
	if tables[0].Expired != 4 || tables[0].Corrected != 0 {
		t.Errorf("table %+v: want 4 expired, none corrected", tables[0])
	}
	p.d.noFaults(t)
}

// Counts that are wrong, for whatever reason, are put right by what the table
// holds.
func TestRecountHeals(t *testing.T) {
	t.Parallel()
	p := startPair(t, nat)
	for range 4 {
		mustOpen(t, p.lab.Client, p.vip)
	}
	loads, err := ebpf.LoadPinnedMap(filepath.Join(p.d.pins, "loads"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer loads.Close()
	spoiled := bpf.KernelServerLoad{Active: 5002, Inactive: 77} // the first server has index 1
	if err := loads.Put(uint32(1), &spoiled); err != nil {
		t.Fatal(err)
	}
	if s := p.d.server(t, "web", p.servers[0]); s.Active != 5002 && s.Active != 2 {
		t.Fatalf("server %+v: the count is elsewhere", s)
	}
	await(t, "the counts are right", func() bool {
		s := p.d.server(t, "web", p.servers[0])
		return s.Active == 2 && s.Inactive == 0
	})
	await(t, "the correction is counted", func() bool {
		return read[api.Status](t, p.d, "status").Tables[0].Corrected == 1
	})
	p.d.waitLog(t, "connection counts corrected")
}
