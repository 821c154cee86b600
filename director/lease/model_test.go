package lease

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shunt-lb/shunt/director/event"
)

// TestAgainstModel compares random registrations, ends, silences and restarts with a
// model that knows only until when each agent was granted its lease: each lease ends
// once, and none that was renewed does.
func TestAgainstModel(t *testing.T) {
	outer := t
	rapid.Check(t, func(t *rapid.T) {
		r := newRig(outer)
		file := r.file
		roomy := func(file string) { r.opts.File, r.opts.Servers, r.opts.Members = file, 100, 100 }
		roomy("") // it is written before a restart alone: a file costs more than the rest
		until, expired := map[string]time.Time{}, uint64(0)
		sequences := map[string]uint64{}
		pass := func() {
			r.expire()
			for agent, end := range until {
				if !r.now.Before(end) {
					delete(until, agent)
					expired++
				}
			}
		}
		counted := uint64(0) // before restarts
		t.Repeat(map[string]func(*rapid.T){
			"register": func(t *rapid.T) {
				g := registration(rapid.IntRange(1, 6).Draw(t, "agent"), 0)
				sequences[g.Agent]++
				g.Sequence = sequences[g.Agent]
				g.Lifetime = time.Duration(rapid.IntRange(5, 60).Draw(t, "lifetime")) * time.Second
				if _, err := r.Register(g); err != nil {
					t.Fatal(err)
				}
				until[g.Agent] = r.now.Add(g.Lifetime)
				r.now = r.now.Add(memberEvery)
				pass()
			},
			"replay": func(t *rapid.T) {
				g := registration(rapid.IntRange(1, 6).Draw(t, "agent"), 0)
				if sequences[g.Agent] == 0 {
					t.Skip()
				}
				g.Sequence = rapid.Uint64Range(1, sequences[g.Agent]).Draw(t, "sequence")
				if _, err := r.Register(g); err == nil {
					t.Fatalf("sequence %d of %s was taken again", g.Sequence, g.Agent)
				}
				r.now = r.now.Add(memberEvery)
				pass()
			},
			"leave": func(t *rapid.T) {
				agent := fmt.Sprintf("a%d", rapid.IntRange(1, 6).Draw(t, "agent"))
				if sequences[agent] == 0 {
					t.Skip()
				}
				sequences[agent]++
				_, in := until[agent]
				if err := r.Deregister("web", agent, "b1", sequences[agent]); (err == nil) != in {
					t.Fatalf("%s leaves: %v, registered: %v", agent, err, in)
				}
				if !in { // refused: that number was not spent
					sequences[agent]--
				}
				delete(until, agent)
				r.now = r.now.Add(memberEvery)
				pass()
			},
			"silence": func(t *rapid.T) {
				r.now = r.now.Add(time.Duration(rapid.IntRange(1, 40).Draw(t, "seconds")) * time.Second)
				pass()
			},
			"restart": func(t *rapid.T) {
				counted += r.Counts().Expired
				roomy(file)
				r.saveAll()
				r.restart()
				roomy("")
				for _, m := range r.Members("web") {
					least := r.now.Add(min(m.Lifetime, grace))
					if until[m.Agent].Before(least) {
						until[m.Agent] = least
					}
				}
			},
			"": func(t *rapid.T) {
				var got, want []string
				for _, m := range r.Members("web") {
					got = append(got, m.Agent+" "+m.Until.String())
				}
				for agent, end := range until {
					want = append(want, agent+" "+end.UTC().String())
				}
				slices.Sort(want)
				if !slices.Equal(got, want) {
					t.Fatalf("members %v, want %v", got, want)
				}
				if n := counted + r.Counts().Expired; n != expired {
					t.Fatalf("%d leases ended, want %d", n, expired)
				}
				if len(r.changed["web"]) != len(want) {
					t.Fatalf("told %v, want %v", r.changed["web"], want)
				}
				if told := r.events.Counts()[event.LeaseExpired]; told != r.Counts().Expired {
					t.Fatalf("%d ends were told of %d", told, r.Counts().Expired)
				}
			},
		})
	})
}
