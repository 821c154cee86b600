package labtest

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/shunt-lb/shunt/director/directortest"
)

// A live table moves to a second director, which takes the router's addresses over:
// the connections go on there.
func TestTableMovesToASecondDirector(t *testing.T) {
	t.Parallel()
	for _, method := range []string{nat, dr} {
		t.Run(method, func(t *testing.T) {
			lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 2, Standby: true})
			if _, err := lab.ServeHTTP(80); err != nil {
				t.Fatal(err)
			}
			first := startDaemon(t, lab)
			second := newDaemon(t, lab.Standby, []string{"eth0"})
			second.start(t)
			p := pair{lab: lab, d: first, vip: webs[0].vip}
			for _, d := range []*daemon{first, second} {
				d.do(t, "service add tcp://192.0.2.10:80 --name web --scheduler rr --persistent 5m")
				for _, s := range lab.Servers {
					d.do(t, "server add web "+s.Addr4.String()+":80 --method "+method)
				}
			}
			var held []*call
			for range 20 {
				held = append(held, mustOpen(t, lab.Client, p.vip))
			}
			before := first.pairings(t, held)
			records := filepath.Join(t.TempDir(), "records")
			first.shunt(t, "conn", "dump", "-f", records)
			second.shunt(t, "conn", "load", "-f", records)
			if after := second.pairings(t, held); !slices.Equal(before, after) {
				t.Errorf("pairings before %q, after %q", before, after)
			}
			if err := lab.TakeOver(); err != nil {
				t.Fatal(err)
			}
			askAll(t, held)
			if total, _ := second.counters(t, "web"); total.In.Packets < 20 {
				t.Errorf("the second director counted %d packets", total.In.Packets)
			}
			second.noFaults(t)
		})
	}
}
