package scheduler_test

import (
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/scheduler"
)

// algorithm is what the test that all algorithms pass has to know of one.
type algorithm struct {
	name  string
	build func(scheduler.Options) scheduler.Model
	flags director.SchedulerFlags
	// refuses: there may be no choice although a server is eligible.
	refuses bool
	// remembers: a server chosen before is followed although it is overloaded.
	remembers bool
}

// algorithms are all that have a model, and the example of ADDING.md.
func algorithms(t *testing.T) []algorithm {
	all := []algorithm{{name: "last", build: scheduler.NewLast}}
	for _, name := range scheduler.Names() {
		build := func(o scheduler.Options) scheduler.Model { return newModel(t, name, o, nil) }
		a := algorithm{name: string(name), build: build}
		switch name {
		case director.Overflow, director.DestinationHash, director.SourceHash, director.Maglev:
			a.refuses = true
		case director.LocalityLC:
			a.remembers = true
		}
		all = append(all, a)
		if name.HasFlags() {
			a.name += "-fallback-port"
			a.flags = director.SchedulerFlags{Fallback: true, Port: true}
			// One of sh's 256 offsets always finds a server. Those of mh are hashed and
			// need not reach every slot.
			a.refuses = name == director.Maglev
			all = append(all, a)
		}
	}
	return all
}

// Under any changes and loads a pick is an eligible server, there is one whenever
// one is eligible and the algorithm is bound to find it, and the same events give
// the same choices.
func TestAlgorithms(t *testing.T) {
	for _, a := range algorithms(t) {
		t.Run(a.name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) { checkAlgorithm(rt, a) })
		})
	}
}

func checkAlgorithm(rt *rapid.T, a algorithm) {
	now := time.Unix(0, 0)
	options := scheduler.Options{Flags: a.flags, Now: func() time.Time { return now }, SetLimit: rapid.IntRange(0, 3).Draw(rt, "set limit")}
	options.Random = alwaysRandom(1)
	model := a.build(options)
	options.Random = alwaysRandom(1)
	twin := a.build(options)
	all := entries(make([]uint32, 8)...)
	weights := make(map[netip.AddrPort]uint32)
	loads := make(scheduler.Loads)
	for range rapid.IntRange(1, 60).Draw(rt, "steps") {
		server := rapid.SampledFrom(all).Draw(rt, "server").Address
		weight := rapid.Uint32Range(0, 3).Draw(rt, "weight")
		_, there := weights[server]
		switch rapid.SampledFrom([]string{"add", "add", "remove", "edit", "load", "load", "time"}).Draw(rt, "step") {
		case "add":
			if !there {
				model.Add(server, weight)
				twin.Add(server, weight)
				weights[server] = weight
			}
		case "remove":
			model.Remove(server)
			twin.Remove(server)
			delete(weights, server)
		case "edit":
			model.Edit(server, weight)
			twin.Edit(server, weight)
			if there {
				weights[server] = weight
			}
		case "load":
			loads[server] = scheduler.Load{
				Active:     rapid.Int64Range(0, 5).Draw(rt, "active"),
				Inactive:   rapid.Int64Range(0, 300).Draw(rt, "inactive"),
				Overloaded: rapid.Bool().Draw(rt, "overloaded"),
				Suspended:  rapid.Bool().Draw(rt, "suspended"),
			}
		case "time":
			now = now.Add(rapid.SampledFrom([]time.Duration{time.Minute, 6 * time.Minute, 25 * time.Hour}).Draw(rt, "later"))
		}
		var eligible int
		for server, w := range weights {
			if w > 0 && !loads[server].Overloaded && !loads[server].Suspended {
				eligible++
			}
		}
		client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, rapid.Byte().Draw(rt, "client")}), 1)
		virtual := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, rapid.ByteRange(0, 3).Draw(rt, "virtual")}), 80)
		got, ok := model.Pick(client, virtual, loads)
		switch {
		case ok && weights[got] == 0:
			rt.Fatalf("chose %v of weight 0, or removed, among %v", got, weights)
		case ok && loads[got].Overloaded && !a.remembers:
			rt.Fatalf("chose %v, which is overloaded", got)
		case ok && loads[got].Suspended:
			rt.Fatalf("chose %v, which is suspended", got)
		case !ok && eligible > 0 && !a.refuses:
			rt.Fatalf("refused with %v and %v", weights, loads)
		}
		if again, okAgain := twin.Pick(client, virtual, loads); again != got || okAgain != ok {
			rt.Fatalf("chose %v %t, the same events %v %t", got, ok, again, okAgain)
		}
	}
}

// alwaysRandom is a small generator: the quality is another test's matter.
func alwaysRandom(state uint32) func(uint32) uint32 {
	return func(n uint32) uint32 {
		state = state*1664525 + 1013904223
		return state >> 8 % n
	}
}

// Connections that stay spread by weight, exactly after every round: where the
// weights do not count, each is 1. For wrr see TestWeightedRoundRobinShares.
func TestShares(t *testing.T) {
	byWeight := map[director.Scheduler]bool{
		director.RoundRobin: false, director.LeastConnection: false, director.WeightedLeastConnection: true,
		director.ShortestExpectedDelay: true, director.NeverQueue: true, director.LocalityLC: true,
		director.LocalityLCReplicated: true,
	}
	for name, weighs := range byWeight {
		t.Run(string(name), func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				weights := rapid.SliceOfN(rapid.Uint32Range(1, 9), 1, 6).Draw(rt, "weights")
				rounds := rapid.IntRange(1, 3).Draw(rt, "rounds")
				s := simulate(rt, director.Service{Scheduler: name}, weights...)
				share := func(weight uint32) int64 {
					if weighs {
						return int64(weight)
					}
					return 1
				}
				var round int64
				for _, w := range weights {
					round += share(w)
				}
				for i := range int(round) * rounds {
					// Another destination each: lblc and lblcr would follow the last choice.
					s.Open(numbered(i), netip.AddrPortFrom(numbered(i).Addr(), 80))
				}
				for _, server := range s.Servers() {
					if want := share(server.Server.Weight) * int64(rounds); server.Load.Active != want {
						rt.Errorf("%v of weight %d has %d, want %d", server.Server.Address, server.Server.Weight, server.Load.Active, want)
					}
				}
			})
		})
	}
}
