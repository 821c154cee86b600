package scheduler_test

import (
	"fmt"
	"testing"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/scheduler"
)

// What Compares says of a scheduler is what its model chooses by, of two servers
// that have a connection each. twos need not draw both.
func TestCompares(t *testing.T) {
	compared := 0
	for _, name := range director.Schedulers() {
		cost, byWeight := scheduler.Compares(name)
		if cost == nil || name == director.TwoRandomChoices {
			continue
		}
		compared++
		for n := range 400 {
			list := entries(uint32(1+n%4), uint32(1+n/4%4))
			loads := scheduler.Loads{
				list[0].Address: {Active: int64(1 + n%5), Inactive: int64(n * 7 % 1500)},
				list[1].Address: {Active: int64(1 + n%3), Inactive: int64(n * 11 % 1500)},
			}
			costs := [2]int64{cost(loads[list[0].Address]), cost(loads[list[1].Address])}
			if byWeight { // a/w < b/v is a*v < b*w
				costs = [2]int64{costs[0] * int64(list[1].Weight), costs[1] * int64(list[0].Weight)}
			}
			want := list[0].Address // of equals the first
			if costs[1] < costs[0] {
				want = list[1].Address
			}
			got, _ := newModel(t, name, scheduler.Options{}, list).Pick(client(fmt.Sprintf("192.0.2.%d", n%256)), vip4, loads)
			if got != want {
				t.Fatalf("%s of weights %d and %d, loads %+v: %v, costs %v", name, list[0].Weight, list[1].Weight, loads, got, costs)
			}
		}
	}
	if compared < 6 {
		t.Errorf("%d schedulers compare loads, besides twos: want at least lc, wlc, sed, nq, lblc and lblcr", compared)
	}
	if cost, _ := scheduler.Compares("best"); cost != nil {
		t.Error("an unknown scheduler compares loads")
	}
}
