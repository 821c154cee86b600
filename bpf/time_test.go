package bpf_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// setAllTimeouts gives all states but templates' this timeout.
func setAllTimeouts(f *bpftest.Fixture, ticks uint32) {
	f.ChangeSettings(func(s *bpf.KernelSettings) {
		for i := range s.Timeout {
			if bpf.KernelConnState(i) != bpf.KernelConnStateSTATE_TEMPLATE {
				s.Timeout[i] = ticks
			}
		}
	})
}

// A connection lives as long as its timeout says, days too, and also where its last
// packet was before the ticks began again at zero; to the tick, swept or not.
func TestTimeoutsAreKept(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 64})
	now, err := f.Plane.Now()
	if err != nil {
		t.Fatal(err)
	}
	for name, timeout := range map[string]uint32{
		"a_minute": f.Plane.Clock.Ticks(time.Minute), "seven_days": f.Plane.Clock.Ticks(7 * 24 * time.Hour),
		"past_the_ticks_zero": now + 1<<16, "the_longest": 1<<31 - 1<<16,
	} {
		for _, method := range []bpf.KernelMethod{nat, dr} {
			t.Run(fmt.Sprint(name, "/method_", method), func(t *testing.T) {
				s := newScene(t, f, families[0], bpftest.TCP, method)
				s.establish(t)
				setAllTimeouts(f, timeout)
				again := s.request()
				again.Flags = "A"
				answer := s.reply()
				answer.Flags = "A"
				// The clock goes on meanwhile, by less than these ticks.
				const slack = 240
				f.Age(timeout - slack)
				if removed := f.Sweep(); removed != 0 {
					t.Errorf("%d connections were swept before their time", removed)
				}
				want := sent(routed(again))
				if method == nat {
					want = sent(forwarded(again, s.server))
				}
				run(t, f, again.Bytes(), want, nil)
				f.Age(timeout - slack) // that packet was one
				if method == nat {
					run(t, f, answer.Bytes(), sent(returned(answer, s.virtual)), nil)
					f.Age(timeout - slack) // and so was that
				}
				run(t, f, again.Bytes(), want, nil)
				f.Age(timeout + 2)
				run(t, f, again.Bytes(), dropped, one("expired-hit", "midstream"))
				diffEntries(t, f)
				diffLoads(t, f, s.service.Servers...)

				s.establish(t)
				f.Age(timeout + 2)
				if removed := f.Sweep(); removed != 1 {
					t.Errorf("%d connections were swept after their time, want 1", removed)
				}
				diffEntries(t, f)
			})
		}
	}
}

// While nobody sweeps, new connections take the places of expired ones: a small table
// has room for any number, as long as no more live at one time than it is sized for.
func TestInsertsReclaimTheExpired(t *testing.T) {
	const size, rounds = 64, 30
	f := bpftest.New(t, bpftest.Options{Connections: size})
	for _, test := range []struct {
		name   string
		a      family
		method bpf.KernelMethod
	}{{"v4/nat", families[0], nat}, {"v6/nat", families[1], nat}, {"v4/dr", families[0], dr}} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(t, f, test.a, bpftest.TCP, test.method)
			most := 0
			for round := range rounds {
				for i := range size {
					if got := f.Run(s.requestOf(round*size + i).Bytes()); got.Action != bpftest.TX {
						t.Fatalf("round %d, client %d: %v: %v", round, i, got.Action, f.Events())
					}
				}
				most = max(most, len(f.Entries()))
				f.AgeBy(time.Hour)
			}
			if events := f.Events(); len(events) != 0 {
				t.Errorf("some live ones gave way, or were refused: %v", events)
			}
			if made := size * rounds; most >= made {
				t.Errorf("the table held all %d: it is too large for this test", most)
			}
			diffPairs(t, f)
			diffLoads(t, f, s.service.Servers...)
		})
	}
}

// Slices of any length go over each slot once.
func TestSlicesOfTheSweep(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.TCP, nat)
			const clients = 500
			for i := range clients {
				if i == clients/2 {
					f.AgeBy(time.Hour)
				}
				f.Run(s.requestOf(i).Bytes())
			}
			table := f.Plane.Connections4
			if s.isV6() {
				table = f.Plane.Connections6
			}
			clearRecounts(t, f)
			var removed, live, slices uint32
			args := bpf.KernelSweepArgs{Limit: 1}
			for args.FirstGroup < table.MaxEntries() {
				args.Groups = table.MaxEntries() - args.FirstGroup
				if err := f.Plane.Sweep(s.isV6(), &args); err != nil {
					t.Fatal(err)
				}
				if args.NextGroup < args.FirstGroup || args.NextGroup == args.FirstGroup && args.NextSet <= args.FirstSet {
					t.Fatalf("a slice went nowhere: %+v", args)
				}
				removed, live, slices = removed+args.Removed, live+args.LiveKeys, slices+1
				args.FirstGroup, args.FirstSet = args.NextGroup, args.NextSet
			}
			if slices < 10 {
				t.Errorf("%d slices, each as short as can be", slices)
			}
			// A reply key may be met before its connection is removed.
			if left := uint32(len(f.Entries())); removed != clients/2 || left != clients || live < left || live > left+removed {
				t.Errorf("%d connections removed, %d keys met, %d left; want %d, %d to %d, %d", removed, live, left, clients/2, clients, clients+clients/2, clients)
			}
			diffPairs(t, f)
			diffLoads(t, f, s.service.Servers...)
		})
	}
}

// What began long ago never looks young: the sweep keeps its age at the oldest that
// can be told, to nine minutes. All others stay as they are.
func TestBirthsAreKept(t *testing.T) {
	const (
		halves = 1 << bpf.KernelBornLayoutBORN_HALF_BITS
		oldest = uint16(bpf.KernelBornLayoutBORN_OLDEST)
	)
	f := bpftest.New(t, bpftest.Options{Connections: 64})
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.TCP, nat)
			s.establish(t)
			age := func() (forward, reply uint16) {
				now, err := f.Plane.Now()
				if err != nil {
					t.Fatal(err)
				}
				entries := f.Entries()
				unit := uint16(now >> bpf.KernelBornLayoutBORN_SHIFT)
				return unit - entries[0].Born, unit - entries[1].Born
			}
			kept := 0
			for half := range uint64(halves) {
				f.EditRecipes(func(recipe uint64) uint64 {
					return recipe&^((halves-1)<<bpf.KernelRecipeLayoutRECIPE_BORN) | half<<bpf.KernelRecipeLayoutRECIPE_BORN
				})
				before, replyBefore := age()
				f.Sweep()
				after, replyAfter := age()
				const passed = 4                                              // units, while this ran
				const future = uint16(bpf.KernelBornLayoutBORN_MASK) - halves // not born yet, by as much as an id may be late
				switch isOld := before > oldest+passed && before < future-passed; {
				case isOld && (after > oldest+passed || after <= oldest-halves):
					t.Errorf("an age of %d units became %d, want one of the last below %d", before, after, oldest)
				case isOld:
					kept++
				case before <= oldest-passed && after-before > passed:
					t.Errorf("an age of %d units became %d", before, after)
				}
				if replyAfter-replyBefore > passed {
					t.Errorf("the reply key's age went from %d units to %d: nobody asks for it", replyBefore, replyAfter)
				}
			}
			if want := halves - int(oldest)/halves - 4; kept < want {
				t.Errorf("%d ages were kept from wrapping, want %d or more", kept, want)
			}
			diffPairs(t, f)
		})
	}
}
