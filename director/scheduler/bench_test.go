package scheduler_test

import (
	"fmt"
	"testing"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/scheduler"
)

// The tables that a change of a service's servers builds anew. All weights equal
// is mh's worst case but for the number of servers: every slot is one turn.
func BenchmarkTable(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		weights := make([]uint32, n)
		for i := range weights {
			weights[i] = 1
		}
		list := entries(weights...)
		mixed := entries(weights...)
		for i := range mixed {
			mixed[i] = scheduler.NewEntry(mixed[i].Address, uint32(1+i*7919%100))
		}
		for _, table := range []struct {
			name  string
			build func() []int
		}{
			{"sh", func() []int { return scheduler.SourceHashTable(list) }},
			{"dh", func() []int { return scheduler.DestinationHashTable(list) }},
			{"mh", func() []int { return scheduler.MaglevTable(vip4.Addr(), list) }},
			{"mh-weights", func() []int { return scheduler.MaglevTable(vip4.Addr(), mixed) }},
		} {
			b.Run(fmt.Sprintf("%s-%d", table.name, n), func(b *testing.B) {
				for b.Loop() {
					table.build()
				}
			})
		}
	}
}

// A pick of each model among the most servers a service may have.
func BenchmarkPick(b *testing.B) {
	for _, name := range scheduler.Names() {
		weights := make([]uint32, director.MaxServers)
		for i := range weights {
			weights[i] = uint32(1 + i%10)
		}
		model := newModel(b, name, scheduler.Options{}, entries(weights...))
		b.Run(string(name), func(b *testing.B) {
			for b.Loop() {
				model.Pick(client("192.0.2.1"), vip4, nil)
			}
		})
	}
}
