package bpf_test

import (
	options "flag" // flag is a function of this package
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/scheduler"
)

// inGuest is whether a CPU is emulated for the tests: they do less of the same there.
var inGuest = os.Getenv("SHUNT_GUEST") != ""

// The program and the model in Go choose the same servers whatever happens to
// servers and loads between picks. What twos draws cannot be the same: see
// TestTwosByDistribution.
func TestSchedulersAgreeWithTheirModels(t *testing.T) {
	if inGuest {
		checks := options.Lookup("rapid.checks").Value
		defer checks.Set(checks.String())
		if err := checks.Set("3"); err != nil {
			t.Fatal(err)
		}
	}
	f := bpftest.New(t, bpftest.Options{})
	var hops []uint32
	eachScheduler(t, func(t *testing.T, name director.Scheduler) {
		if name == director.TwoRandomChoices {
			return
		}
		rapid.Check(t, func(rt *rapid.T) {
			c := newComparison(t, rt, f, &hops, name)
			rt.Repeat(map[string]func(*rapid.T){ // a pick is three times as likely as what it depends on
				"pick": c.pick, "": func(*rapid.T) {},
				"pick again": c.pick, "pick and pick": c.pick, "load": c.load,
				"add": c.add, "remove": c.remove, "weight": c.weight, "time": c.time,
			})
		})
	})
}

// comparison is a service in the program and its model.
type comparison struct {
	*selection
	rt     *rapid.T
	model  scheduler.Model
	loads  scheduler.Loads
	now    time.Time
	spare  []*bpftest.Server // not in the list
	opened int
}

const mostServers = 9

func newComparison(t *testing.T, rt *rapid.T, f *bpftest.Fixture, hops *[]uint32, name director.Scheduler) *comparison {
	c := &comparison{rt: rt, loads: scheduler.Loads{}, now: time.Unix(0, 0)}
	o := scheduler.Options{Now: func() time.Time { return c.now }, SetLimit: scheduler.FastPathSetLimit}
	var flags bpf.KernelServiceFlags
	if name.HasFlags() {
		o.Flags = director.SchedulerFlags{Port: rapid.Bool().Draw(rt, "port"), Fallback: rapid.Bool().Draw(rt, "fallback")}
		if o.Flags.Port {
			flags |= bpf.KernelServiceFlagsSERVICE_HASH_PORT
		}
		if o.Flags.Fallback {
			flags |= bpf.KernelServiceFlagsSERVICE_FALLBACK
		}
	}
	var err error
	if c.model, err = scheduler.New(name, o); err != nil {
		rt.Fatal(err)
	}
	c.selection = newSelection(t, f, hops, name, rapid.Bool().Draw(rt, "v6"), flags)
	c.Apply(c.service)
	// Limits that nothing reaches: a change of the servers has the suspended looked for.
	if err := f.Plane.Passive.Put(c.service.Index, &bpf.KernelPassiveLimits{Most: [4]uint32{1 << 30}}); err != nil {
		rt.Fatal(err)
	}
	for i := range mostServers {
		server := c.server(i, 0)
		server.Upper = 1 << 31 // an edit without a threshold would end overload
		c.spare = append(c.spare, server)
	}
	for range rapid.IntRange(0, 5).Draw(rt, "servers") {
		c.add(rt)
	}
	return c
}

// drawWeight draws from weights of a common divisor, small ones, and any.
func drawWeight(rt *rapid.T) uint32 {
	return rapid.OneOf(
		rapid.Uint32Range(0, 4), rapid.SampledFrom([]uint32{0, 3, 6, 9, 60, 600}), rapid.Uint32Range(0, 65535),
	).Draw(rt, "weight")
}

func (c *comparison) add(rt *rapid.T) {
	if len(c.spare) == 0 {
		return
	}
	i := rapid.IntRange(0, len(c.spare)-1).Draw(rt, "server")
	server := c.spare[i]
	c.spare = slices.Delete(c.spare, i, i+1)
	server.Weight = drawWeight(rt)
	c.service.Servers = slices.Insert(c.service.Servers, 0, server)
	c.Apply(c.service)
	c.model.Add(server.Address, server.Weight)
}

// one draws a server of the list; nil if it is empty.
func (c *comparison) one(rt *rapid.T) *bpftest.Server {
	if len(c.service.Servers) == 0 {
		return nil
	}
	return rapid.SampledFrom(c.service.Servers).Draw(rt, "server")
}

func (c *comparison) remove(rt *rapid.T) {
	server := c.one(rt)
	if server == nil {
		return
	}
	c.service.Servers = slices.DeleteFunc(c.service.Servers, func(s *bpftest.Server) bool { return s == server })
	c.Apply(c.service)
	c.model.Remove(server.Address)
	c.spare = append(c.spare, server)
}

func (c *comparison) weight(rt *rapid.T) {
	if server := c.one(rt); server != nil {
		server.Weight = drawWeight(rt)
		c.Apply(c.service)
		c.model.Edit(server.Address, server.Weight)
	}
}

func (c *comparison) load(rt *rapid.T) {
	server := c.one(rt)
	if server == nil {
		return
	}
	counts := rapid.OneOf(rapid.Int64Range(0, 4), rapid.Int64Range(0, 100_000))
	load := scheduler.Load{
		Active: counts.Draw(rt, "active"), Inactive: counts.Draw(rt, "inactive"), Overloaded: rapid.Bool().Draw(rt, "overloaded"),
		Suspended: rapid.Bool().Draw(rt, "suspended"),
	}
	c.loads[server.Address] = load
	c.SetLoad(server, load.Active, load.Inactive, load.Overloaded)
	if load.Suspended {
		c.suspend(server)
	}
}

// time passes for lblc's and lblcr's caches, in steps that leave no doubt whether
// something is older than a day.
func (c *comparison) time(*rapid.T) {
	const step = 13 * time.Hour
	c.now = c.now.Add(step)
	c.AgeDestinations(step, scheduler.CacheExpiration)
}

// entries are the servers of the list.
func (c *comparison) entries() []scheduler.Entry {
	entries := make([]scheduler.Entry, 0, len(c.service.Servers))
	for _, server := range c.service.Servers {
		entries = append(entries, scheduler.NewEntry(server.Address, server.Weight))
	}
	return entries
}

func (c *comparison) pick(rt *rapid.T) {
	client := c.client(rapid.IntRange(0, 30).Draw(rt, "client"))
	client = netip.AddrPortFrom(client.Addr(), uint16(1024+c.opened)) // each is a new connection
	c.opened++
	virtual := c.virtual(rapid.IntRange(0, 3).Draw(rt, "virtual"))
	tried := c.trial(client, virtual)
	var got netip.AddrPort
	if server := c.open(client, virtual); server != nil {
		got = server.Address
	}
	want, ok := c.model.Pick(client, virtual, c.loads)
	if !ok && c.loads.Relent(c.entries()) {
		want, ok = c.model.Pick(client, virtual, c.loads)
	}
	if !ok {
		want = netip.AddrPort{}
	}
	if tried != nil && tried.Address != got || tried == nil && got.IsValid() {
		rt.Fatalf("%v -> %v: tried was %v, chosen %v", client, virtual, name(tried), got)
	}
	if got != want {
		rt.Fatalf("%v -> %v: the program chose %v, the model %v", client, virtual, got, want)
	}
	if got.IsValid() {
		load := c.loads[got]
		load.Active++
		c.loads[got] = load
	}
}

// twos chooses in shares that are those of its two draws: each server's share of
// the picks is what a count of all pairs of draws says.
func TestTwosByDistribution(t *testing.T) {
	picks := 20_000
	if inGuest {
		picks = 2000
	}
	f := bpftest.New(t, bpftest.Options{Connections: 2 * uint64(picks)})
	var hops []uint32
	s := newSelection(t, f, &hops, director.TwoRandomChoices, false, 0).with(1, 4, 0, 2, 3)
	active := []int64{3, 0, 0, 2, 9} // by position in the list, weights 3 2 0 4 1
	restore := func() {
		for i, server := range s.service.Servers {
			s.SetLoad(server, active[i], 5, false)
		}
	}
	entries := make([]scheduler.Entry, 0, len(s.service.Servers))
	loads := scheduler.Loads{}
	for i, server := range s.service.Servers {
		entries = append(entries, scheduler.NewEntry(server.Address, server.Weight))
		loads[server.Address] = scheduler.Load{Active: active[i], Inactive: 5}
	}
	// The model, given every pair of draws once.
	var draws []uint32
	model, err := scheduler.New(director.TwoRandomChoices, scheduler.Options{Random: func(uint32) uint32 {
		next := draws[0]
		draws = draws[1:]
		return next
	}})
	if err != nil {
		t.Fatal(err)
	}
	var total uint32
	for _, e := range slices.Backward(entries) {
		model.Add(e.Address, e.Weight)
		total += e.Weight
	}
	share := map[netip.AddrPort]float64{}
	for first := range total + 1 {
		for second := range total + 1 {
			draws = []uint32{first, second}
			server, _ := model.Pick(netip.AddrPort{}, netip.AddrPort{}, loads)
			share[server] += 1 / float64((total+1)*(total+1))
		}
	}
	got := map[netip.AddrPort]int{}
	for n := range picks {
		restore()
		got[s.open(s.client(n), s.virtual(n%250)).Address]++
	}
	var squares float64
	for _, e := range entries {
		expected := share[e.Address] * float64(picks)
		t.Logf("%v of weight %d: %d, expected %.0f", e.Address, e.Weight, got[e.Address], expected)
		if expected == 0 {
			if got[e.Address] != 0 {
				t.Errorf("%v was chosen %d times, and never is", e.Address, got[e.Address])
			}
			continue
		}
		difference := float64(got[e.Address]) - expected
		squares += difference * difference / expected
	}
	// With three degrees of freedom 40 is passed once in a hundred million runs.
	if squares > 40 {
		t.Errorf("chi-square %.1f over %d picks", squares, picks)
	}
}
