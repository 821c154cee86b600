package labtest

import (
	"slices"
	"testing"

	"github.com/shunt-lb/shunt/director/api"
)

// Under load the tables grow and shrink, and no connection notices.
func TestResizeUnderLoad(t *testing.T) {
	t.Parallel()
	for _, method := range []string{nat, dr} {
		t.Run(method, func(t *testing.T) {
			p := startPair(t, method)
			var held []*call
			for range 20 {
				held = append(held, mustOpen(t, p.lab.Client, p.vip))
			}
			before := p.d.pairings(t, held)
			l := p.startLoad(t)
			for _, size := range []string{"64Ki", "4Ki", "16Ki"} {
				l.more(t, 20)
				p.d.shunt(t, "conn", "resize", size)
			}
			l.more(t, 20)
			l.end()
			if after := p.d.pairings(t, held); !slices.Equal(before, after) {
				t.Errorf("pairings before %q, after %q", before, after)
			}
			askAll(t, held)
			if events := p.d.events(t); events["carried"] == 0 || events["carry-lost"] > 0 {
				t.Errorf("%d connections came over, %d did not", events["carried"], events["carry-lost"])
			}
			if limit := read[api.Status](t, p.d, "status").Tables[0].Limit; limit < 16<<10 || limit > 17<<10 {
				t.Errorf("the table is made for %d connections", limit)
			}
			p.d.noFaults(t)
			p.d.kill()
			p.d.start(t)
			askAll(t, held)
		})
	}
}
