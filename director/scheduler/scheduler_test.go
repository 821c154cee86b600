package scheduler_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/scheduler"
)

var (
	vip4 = netip.MustParseAddrPort("192.0.2.80:80")
	vip6 = netip.MustParseAddrPort("[2001:db8::80]:80")
)

// entries returns servers 10.0.0.1:80, 10.0.0.2:80, … added in that order: last
// one first.
func entries(weights ...uint32) []scheduler.Entry {
	list := make([]scheduler.Entry, len(weights))
	for i, w := range weights {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte((i + 1) >> 8), byte(i + 1)}), 80)
		list[len(weights)-1-i] = scheduler.NewEntry(addr, w)
	}
	return list
}

func newModel(t testing.TB, name director.Scheduler, options scheduler.Options, list []scheduler.Entry) scheduler.Model {
	t.Helper()
	model, err := scheduler.New(name, options)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(list) - 1; i >= 0; i-- {
		model.Add(list[i].Address, list[i].Weight)
	}
	return model
}

func client(s string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(s), 40000) }

func TestHashVectors(t *testing.T) {
	tests := []struct {
		client                       string
		bucket, bucketPort, slot, sp uint32
	}{
		{"192.0.2.1", 50, 214, 2891, 3651},
		{"198.51.100.7", 171, 79, 924, 1707},
		{"2001:db8::1", 63, 226, 3457, 3517},
	}
	for _, tt := range tests {
		c := client(tt.client)
		got := []uint32{
			scheduler.SourceHashBucket(c.Addr(), 0, 0), scheduler.SourceHashBucket(c.Addr(), c.Port(), 0),
			scheduler.MaglevSlot(c.Addr(), 0, 0), scheduler.MaglevSlot(c.Addr(), c.Port(), 0),
		}
		if diff := cmp.Diff([]uint32{tt.bucket, tt.bucketPort, tt.slot, tt.sp}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.client, diff)
		}
	}
	for i, want := range [][2]uint32{{3167, 700}, {1231, 3544}, {1631, 3453}} {
		addr := netip.MustParseAddrPort(fmt.Sprintf("10.0.0.%d:80", i+1))
		if start, skip := scheduler.MaglevStart(vip4.Addr(), addr); start != want[0] || skip != want[1] {
			t.Errorf("mh of %s: (%d, %d), want %v", addr, start, skip, want)
		}
	}
	// An IPv6 server of an IPv4 service counts with its first word only.
	a, b := netip.MustParseAddrPort("[2001:db8::1]:80"), netip.MustParseAddrPort("[2001:db8::2]:80")
	startA, _ := scheduler.MaglevStart(vip4.Addr(), a)
	startB, _ := scheduler.MaglevStart(vip4.Addr(), b)
	sixA, _ := scheduler.MaglevStart(vip6.Addr(), a)
	if startA != startB || sixA == startA {
		t.Errorf("mixed families: %d, %d, in IPv6 %d", startA, startB, sixA)
	}
}

func TestPickVectors(t *testing.T) {
	tests := []struct {
		name    director.Scheduler
		weights []uint32
		want    map[string]int
	}{
		{director.Maglev, []uint32{1, 1, 1}, map[string]int{"192.0.2.1": 3, "192.0.2.2": 2, "192.0.2.3": 2, "198.51.100.7": 1}},
		{director.SourceHash, []uint32{1, 2, 3}, map[string]int{"192.0.2.1": 3, "192.0.2.2": 2, "192.0.2.3": 3, "198.51.100.7": 2, "2001:db8::1": 2}},
	}
	for _, tt := range tests {
		model := newModel(t, tt.name, scheduler.Options{}, entries(tt.weights...))
		for c, want := range tt.want {
			got, ok := model.Pick(client(c), vip4, nil)
			if wantAddr := netip.MustParseAddrPort(fmt.Sprintf("10.0.0.%d:80", want)); !ok || got != wantAddr {
				t.Errorf("%s %s: %v, %t, want %v", tt.name, c, got, ok, wantAddr)
			}
		}
	}
	var slots [3]int
	for _, server := range scheduler.MaglevTable(vip4.Addr(), entries(1, 1, 1)) {
		slots[server]++
	}
	if want := [3]int{1365, 1364, 1364}; slots != want {
		t.Errorf("mh slots of the last, middle and first server: %v, want %v", slots, want)
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := scheduler.New("sip", scheduler.Options{}); !errors.Is(err, director.ErrInvalid) {
		t.Errorf("sip: %v, want invalid", err)
	}
	if _, err := scheduler.New("rr", scheduler.Options{Flags: director.SchedulerFlags{Port: true}}); !errors.Is(err, director.ErrInvalid) {
		t.Errorf("rr with flags: %v, want invalid", err)
	}
	if want := slices.Sorted(slices.Values(director.Schedulers())); !slices.Equal(want, scheduler.Names()) {
		t.Errorf("models of %v, want %v", scheduler.Names(), want)
	}
	for _, name := range director.Schedulers() {
		model, err := scheduler.New(name, scheduler.Options{})
		if err != nil {
			t.Fatalf("%s: %v: every scheduler of this version has a model", name, err)
		}
		if got, ok := model.Pick(client("192.0.2.1"), vip4, nil); ok {
			t.Errorf("%s without servers: %v", name, got)
		}
		if scheduler.About(name) == "" {
			t.Errorf("%s: nothing is said about it", name)
		}
	}
}

// The page for operators has every scheduler in the table of costs, and that of the
// programs' authors in its table of files.
func TestGuideNamesEveryScheduler(t *testing.T) {
	for page, row := range map[string]string{
		"SCHEDULERS.md": "^\\| (`[a-z]+` )*`%s` (`[a-z]+` )*\\| .* \\| .* \\| ", "../../bpf/src/schedulers/README.md": "^\\| `.*` \\| ([a-z]+, )*%s(, [a-z]+)* \\| ",
	} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range director.Schedulers() {
			if !regexp.MustCompile("(?m)" + fmt.Sprintf(row, name)).Match(text) {
				t.Errorf("%s says nothing of %s", page, name)
			}
		}
	}
}

// The pointer rules that the golden data does not exercise.
func TestRoundRobinPointer(t *testing.T) {
	list := entries(1, 1, 1) // .3 .2 .1
	pick := func(m scheduler.Model) string {
		server, ok := m.Pick(client("192.0.2.1"), vip4, nil)
		if !ok {
			return "none"
		}
		return server.Addr().String()
	}
	t.Run("deleting_the_last_chosen_goes_to_its_predecessor", func(t *testing.T) {
		m := newModel(t, director.RoundRobin, scheduler.Options{}, list)
		pick(m)
		pick(m) // .2
		m.Remove(list[1].Address)
		if got := pick(m); got != "10.0.0.1" {
			t.Errorf("%s, want 10.0.0.1", got)
		}
	})
	t.Run("deleting_an_earlier_one_does_not_move_it", func(t *testing.T) {
		m := newModel(t, director.RoundRobin, scheduler.Options{}, list)
		pick(m)
		pick(m) // .2
		m.Remove(list[0].Address)
		if got := pick(m); got != "10.0.0.1" {
			t.Errorf("%s, want 10.0.0.1", got)
		}
	})
	t.Run("deleting_the_first_chosen_goes_to_the_head", func(t *testing.T) {
		m := newModel(t, director.RoundRobin, scheduler.Options{}, list)
		pick(m) // .3
		m.Remove(list[0].Address)
		if got := pick(m); got != "10.0.0.2" {
			t.Errorf("%s, want 10.0.0.2", got)
		}
	})
	t.Run("only_the_last_chosen_is_left", func(t *testing.T) {
		m := newModel(t, director.RoundRobin, scheduler.Options{}, list)
		pick(m) // .3
		m.Edit(list[1].Address, 0)
		m.Edit(list[2].Address, 0)
		if got := pick(m); got != "10.0.0.3" {
			t.Errorf("%s, want 10.0.0.3", got)
		}
		m.Edit(list[0].Address, 0)
		if got := pick(m); got != "none" {
			t.Errorf("%s, want none", got)
		}
	})
}

func TestWeightStep(t *testing.T) {
	for _, tt := range []struct {
		weights []uint32
		mw, di  uint32
	}{
		{nil, 0, 1},
		{[]uint32{0, 0}, 0, 1},
		{[]uint32{1, 2, 3}, 3, 1},
		{[]uint32{2, 4, 6, 0}, 5, 2},
		{[]uint32{5}, 1, 5},
		{[]uint32{65535, 65535}, 1, 65535},
	} {
		if mw, di := scheduler.WeightStep(entries(tt.weights...)); mw != tt.mw || di != tt.di {
			t.Errorf("%v: (%d, %d), want (%d, %d)", tt.weights, mw, di, tt.mw, tt.di)
		}
	}
	for _, tt := range [][4]uint32{{0, 5, 1, 5}, {6, 5, 1, 5}, {3, 5, 1, 3}, {4, 5, 2, 5}, {3, 5, 2, 3}, {1, 5, 2, 1}} {
		if got := scheduler.CurrentWeight(tt[0], tt[1], tt[2]); got != tt[3] {
			t.Errorf("CurrentWeight(%d, %d, %d): %d, want %d", tt[0], tt[1], tt[2], got, tt[3])
		}
	}
}

func drawWeights(t *rapid.T, most uint32) []uint32 {
	return rapid.SliceOfN(rapid.Uint32Range(0, most), 1, 12).Draw(t, "weights")
}

// wrr gives every server exactly its share in every round.
func TestWeightedRoundRobinShares(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		list := entries(drawWeights(rt, 12)...)
		model := newModel(t, director.WeightedRoundRobin, scheduler.Options{}, list)
		var total, divisor uint32
		for _, e := range list {
			total += e.Weight
			for a, b := divisor, e.Weight; ; a, b = b, a%b {
				if b == 0 {
					divisor = a
					break
				}
			}
		}
		// Bring the model to the beginning of a round: it may start within one.
		for range rapid.IntRange(0, 30).Draw(rt, "warm") {
			model.Pick(client("192.0.2.1"), vip4, nil)
		}
		if total == 0 {
			if got, ok := model.Pick(client("192.0.2.1"), vip4, nil); ok {
				rt.Fatalf("all weights 0, yet %v", got)
			}
			return
		}
		// Any window as long as two rounds after the first has every share twice,
		// whatever the place in the round.
		for range total / divisor {
			model.Pick(client("192.0.2.1"), vip4, nil)
		}
		got := make(map[netip.AddrPort]uint32)
		for range 2 * total / divisor {
			server, ok := model.Pick(client("192.0.2.1"), vip4, nil)
			if !ok {
				rt.Fatal("refused")
			}
			got[server]++
		}
		for _, e := range list {
			if want := 2 * e.Weight / divisor; got[e.Address] != want {
				rt.Errorf("%v of weight %d: %d times, want %d", e.Address, e.Weight, got[e.Address], want)
			}
		}
	})
}

func TestSourceHashTable(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		list := entries(drawWeights(rt, 300)...)
		table := scheduler.SourceHashTable(list)
		var want []int
		for len(want) < scheduler.SourceHashSize {
			for i, e := range list {
				for range max(1, e.Weight) {
					want = append(want, i)
				}
			}
		}
		if diff := cmp.Diff(want[:scheduler.SourceHashSize], table); diff != "" {
			rt.Errorf("table (-want +got):\n%s", diff)
		}
	})
}

// Maglev: every slot has a server, shares follow the weights, and weight 0
// moves nobody.
func TestMaglevTable(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		weights := rapid.SliceOfN(rapid.Uint32Range(1, 5), 2, 10).Draw(rt, "weights")
		list := entries(weights...)
		table := scheduler.MaglevTable(vip4.Addr(), list)
		var total uint32
		share := make([]int, len(list))
		for _, e := range list {
			total += e.Weight
		}
		for slot, server := range table {
			if server < 0 {
				rt.Fatalf("slot %d is empty", slot)
			}
			share[server]++
		}
		for i, e := range list {
			want := float64(scheduler.MaglevSize) * float64(e.Weight) / float64(total)
			if got := float64(share[i]); got < want-float64(e.Weight)-1 || got > want+float64(e.Weight)+1 {
				rt.Errorf("server %d of weight %d has %v slots, want about %v", i, e.Weight, got, want)
			}
		}
		gone := rapid.IntRange(0, len(list)-1).Draw(rt, "gone")
		drained := append([]scheduler.Entry{}, list...)
		drained[gone] = drained[gone].Edit(0)
		if diff := cmp.Diff(table, scheduler.MaglevTable(vip4.Addr(), drained)); diff != "" {
			rt.Errorf("weight 0 moved slots:\n%s", diff)
		}
		if again := scheduler.MaglevTable(vip4.Addr(), list); !cmp.Equal(table, again) {
			rt.Error("the table differs the second time")
		}
	})
}
