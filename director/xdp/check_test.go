package xdp

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/director"
)

// faults returns the kinds that Check finds where no packets flow, each once.
func (r *rig) faults() []string {
	r.t.Helper()
	faults, err := r.checkTables(r.t.Context(), 20*time.Microsecond)
	if err != nil {
		r.t.Fatal(err)
	}
	kinds := []string{}
	for _, f := range faults {
		if r.t.Logf("%+v", f); f.What == "" || f.Found == "" {
			r.t.Errorf("a fault that says nothing: %+v", f)
		}
		if !slices.Contains(kinds, f.Kind) {
			kinds = append(kinds, f.Kind)
		}
	}
	return kinds
}

// tables are copies of the maps that Check looks at.
type tables struct {
	groups4 []bpf.KernelGroup4
	groups6 []bpf.KernelGroup6
	loads   []bpf.KernelServerLoad
	states  []bpf.KernelServiceState
	sources map[bpf.KernelSourceKey]bpf.KernelSource
}

func (r *rig) readTables() (c tables) {
	r.t.Helper()
	var err error
	if c.groups4, err = bpf.ReadArray[bpf.KernelGroup4](r.plane.Connections4); err != nil {
		r.t.Fatal(err)
	}
	if c.groups6, err = bpf.ReadArray[bpf.KernelGroup6](r.plane.Connections6); err != nil {
		r.t.Fatal(err)
	}
	if c.loads, err = bpf.ReadArray[bpf.KernelServerLoad](r.plane.Loads); err != nil {
		r.t.Fatal(err)
	}
	if c.states, err = bpf.ReadArray[bpf.KernelServiceState](r.plane.ServiceStates); err != nil {
		r.t.Fatal(err)
	}
	if c.sources, err = r.plane.ReadSources(); err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *rig) writeTables(c tables) {
	r.t.Helper()
	put(r.t, r.plane.Connections4, c.groups4)
	put(r.t, r.plane.Connections6, c.groups6)
	put(r.t, r.plane.Loads, c.loads)
	put(r.t, r.plane.ServiceStates, c.states)
	for key, source := range c.sources {
		if err := r.plane.Sources.Put(&key, &source); err != nil {
			r.t.Fatal(err)
		}
	}
}

func put[T any](t testing.TB, m *ebpf.Map, values []T) {
	t.Helper()
	for i := range values {
		if err := m.Put(uint32(i), &values[i]); err != nil {
			t.Fatal(err)
		}
	}
}

// entry returns the first entry of the IPv4 table that is wanted.
func (c *tables) entry(t testing.TB, wanted func(*bpf.Slot) bool) *bpf.KernelEntry4 {
	t.Helper()
	for g := range c.groups4 {
		for i := range c.groups4[g].Slots {
			e := &c.groups4[g].Slots[i]
			s := bpf.Slot{ID: e.Id, Recipe: e.Recipe, Source: [4]uint32{e.Source}, Destination: [4]uint32{e.Destination}}
			if e.Recipe != 0 && wanted(&s) {
				return e
			}
		}
	}
	t.Fatal("no such entry")
	return nil
}

// having selects entries of the protocol with all these bits, and none of those.
func having(protocol uint8, set, clear uint64) func(*bpf.Slot) bool {
	return func(s *bpf.Slot) bool {
		return s.Protocol() == protocol && s.Recipe&set == set && s.Recipe&clear == 0
	}
}

var (
	replyBit  = bpf.RecipeBits(bpf.KernelRecipeLayoutRECIPE_REPLY)
	provenBit = bpf.RecipeBits(bpf.KernelRecipeLayoutRECIPE_PROVEN)
	wideBit   = bpf.RecipeBits(bpf.KernelRecipeLayoutRECIPE_WIDE)
)

// methodBits are the method's: none is set of a connection by nat.
const methodBits = uint64(bpf.KernelMasksMETHOD_MASK) << bpf.KernelRecipeLayoutRECIPE_METHOD

// Nothing is wrong with what packets have made, whatever becomes of it.
func TestCheckFindsNothing(t *testing.T) {
	r := newMixedRig(t, Options{})
	want := func(when string) {
		t.Helper()
		if found := r.faults(); len(found) > 0 {
			t.Errorf("%s: %v", when, found)
		}
	}
	want("empty")
	r.fill()
	if n := len(r.connections(director.ConnectionFilter{})); n != 185 {
		t.Fatalf("%d connections and templates, want 185", n)
	}
	want("full")
	r.sweepNow()
	want("swept")
	r.fill()
	want("filled once more")
	r.must(director.RemoveServer{Key: r.wide.Key, Address: r.connections(director.ConnectionFilter{Service: r.wide.Key})[0].Server})
	want("a server removed")
	if _, err := r.Kill(t.Context(), director.ConnectionFilter{Service: r.sticky.Key}); err != nil {
		t.Fatal(err)
	}
	want("killed")
	r.must(director.RemoveService{Key: r.v6.Key})
	want("a service removed")
	if _, err := r.Kill(t.Context(), director.ConnectionFilter{}); err != nil {
		t.Fatal(err)
	}
	r.sweepNow()
	want("all killed")
}

// Each thing that must be is missed if it is not, by its name.
func TestCheckNamesFaults(t *testing.T) {
	r := newMixedRig(t, Options{})
	r.fill()
	var sticky, wide uint32
	for i, svc := range r.model.services {
		switch svc.key {
		case r.sticky.Key:
			sticky = i
		case r.wide.Key:
			wide = i
		}
	}
	var member uint32 // of the sticky service
	for _, s := range r.model.services[sticky].members {
		member = s.index
	}
	foreign := uint64(r.model.services[wide].list[0].index)
	const (
		serverAt, stateAt = bpf.KernelRecipeLayoutRECIPE_SERVER, bpf.KernelRecipeLayoutRECIPE_STATE
		serverBits        = uint64(bpf.KernelMasksSERVER_MASK) << serverAt
		template          = uint8(bpf.KernelTemplateLayoutPROTOCOL_TEMPLATE)
	)
	const established, otherStates = uint64(bpf.KernelConnStateSTATE_ESTABLISHED) << stateAt, 0xe << stateAt
	forward, reply := having(6, provenBit|established, replyBit|methodBits|otherStates), having(6, provenBit|replyBit, 0)
	for _, test := range []struct {
		name   string
		damage func(*tables)
		want   []string
	}{
		{"none", func(*tables) {}, []string{}},
		{"a reply key is gone", func(c *tables) { *c.entry(t, reply) = bpf.KernelEntry4{} }, []string{faultReply}},
		{
			"a connection is gone, its reply key is not", func(c *tables) { *c.entry(t, forward) = bpf.KernelEntry4{} },
			[]string{faultActive, faultTotal, faultControlled, faultSource, faultOrphan},
		},
		{
			"halves of two servers", func(c *tables) { e := c.entry(t, reply); e.Recipe = e.Recipe&^serverBits | foreign<<serverAt },
			[]string{faultOrphan, faultReply},
		},
		{"halves in two states", func(c *tables) { c.entry(t, reply).Recipe ^= 3 << stateAt }, []string{faultStates}},
		{"only one half proven", func(c *tables) { c.entry(t, reply).Recipe &^= provenBit }, []string{faultStates}},
		{"halves of two kinds", func(c *tables) {
			// Not of the service's first port, by which alone the forward entry would be found.
			wide := having(17, replyBit|wideBit, 0)
			c.entry(t, func(s *bpf.Slot) bool { return wide(s) && uint16(s.ID) != bpf.Port(8000) }).Recipe &^= wideBit
		}, []string{faultOrphan, faultHalves}},
		{"another place", func(c *tables) { c.entry(t, having(17, replyBit|wideBit, 0)).Hop ^= 1 }, []string{faultOrphan, faultHalves}},
		{"where no lookup comes", func(c *tables) {
			e := c.entry(t, reply)
			from := slices.IndexFunc(c.groups4, func(g bpf.KernelGroup4) bool { return slices.Contains(g.Slots[:], *e) })
			to := &c.groups4[(from+1)%len(c.groups4)].Slots
			to[slices.IndexFunc(to[:14*8], func(e bpf.KernelEntry4) bool { return e.Recipe == 0 })] = *e
			*e = bpf.KernelEntry4{}
		}, []string{faultPlace, faultReply}},
		{"claimed", func(c *tables) {
			c.entry(t, reply).Recipe |= bpf.RecipeBits(bpf.KernelRecipeLayoutRECIPE_BUSY)
		}, []string{faultBusy}},
		{"two generations", func(c *tables) { c.entry(t, reply).Id ^= 1 << bpf.KernelIdLayoutID_GENERATION }, []string{faultGeneration, faultReply}},
		{"no generation", func(c *tables) {
			e := c.entry(t, having(17, replyBit, 0))
			e.Id &^= uint64(bpf.KernelMasksGENERATION_MASK) << bpf.KernelIdLayoutID_GENERATION
			e.Recipe &^= uint64(bpf.KernelMasksGENERATION_MASK)
		}, []string{faultGeneration}},
		{"what is left of an entry", func(c *tables) {
			g := &c.groups4[0]
			g.Slots[slices.IndexFunc(g.Slots[:], func(e bpf.KernelEntry4) bool { return e.Recipe == 0 })].Id = 1
		}, []string{faultGeneration}},
		{
			"no server", func(c *tables) { c.entry(t, reply).Recipe |= 0x80 << serverAt },
			[]string{faultReply, faultServer},
		},
		{"a template of another service's server", func(c *tables) {
			e := c.entry(t, having(template, 0, 0))
			e.Recipe = e.Recipe&^serverBits | foreign<<serverAt
		}, []string{faultControlled, faultTemplates, faultService}},
		{"a state of another protocol", func(c *tables) {
			e := c.entry(t, having(17, 0, replyBit|provenBit))
			e.Recipe ^= (uint64(bpf.KernelConnStateSTATE_UDP) ^ uint64(bpf.KernelConnStateSTATE_CLOSE)) << stateAt
		}, []string{faultEntry}},
		{"overflow slots", func(c *tables) { c.groups6[1].Strays++ }, []string{faultOverflow}},
		{"active", func(c *tables) { c.loads[member].Active++ }, []string{faultActive}},
		{"inactive", func(c *tables) { c.loads[member].Inactive-- }, []string{faultInactive}},
		{"templates", func(c *tables) { c.loads[member].Templates += 2 }, []string{faultTemplates}},
		{"a service's", func(c *tables) { c.states[sticky].Connections++ }, []string{faultTotal}},
		{"under a template", func(c *tables) { c.entry(t, having(template, 0, 0)).Hop++ }, []string{faultControlled}},
		{"of a network", func(c *tables) {
			for key, source := range c.sources {
				source.Connections++
				c.sources[key] = source
				return
			}
			t.Error("no source network is counted")
		}, []string{faultSource}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r.t = t
			whole, damaged := r.readTables(), r.readTables()
			test.damage(&damaged)
			r.writeTables(damaged)
			if diff := cmp.Diff(test.want, r.faults()); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
			r.writeTables(whole)
		})
	}
	r.t = t
	if found := r.faults(); len(found) > 0 {
		t.Errorf("mended: %v", found)
	}
}

// While packets of two CPUs make, change and end connections, with the sweep and
// kills beside them, nothing is taken for a fault.
func TestCheckWhileTrafficFlows(t *testing.T) {
	r := newMixedRig(t, Options{})
	ctx, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	var senders sync.WaitGroup
	for i := range uint64(2) {
		senders.Go(func() { r.sendAtRandom(ctx, rand.New(rand.NewPCG(i, 5))) })
	}
	checks := 0
	for ; ctx.Err() == nil; checks++ {
		faults, err := r.Check(ctx)
		if len(faults) > 0 || err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%+v, %v", faults, err)
		}
		if err := r.sweep(ctx); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	}
	senders.Wait()
	if found := r.faults(); len(found) > 0 {
		t.Errorf("in the end: %v", found)
	}
	t.Logf("%d checks, %d connections", checks, len(r.connections(director.ConnectionFilter{})))
}

// sendAtRandom sends packets of a few clients until the context ends.
func (r *mixedRig) sendAtRandom(ctx context.Context, random *rand.Rand) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	virtual := []netip.AddrPort{r.sticky.Key.Address, netip.MustParseAddrPort("192.0.2.70:8001")}
	servers := []netip.AddrPort{natServer().Address, netip.AddrPortFrom(reachable, 8001)}
	protocols := []uint8{bpftest.TCP, bpftest.UDP}
	var frames [][]byte
	for range 2000 {
		of := random.IntN(2)
		p := bpftest.Packet{From: stickyClient(byte(random.IntN(200))), To: virtual[of], Protocol: protocols[of]}
		if p.Flags = []string{"S", "A", "A", "FA", "R"}[random.IntN(5)]; random.IntN(2) == 0 {
			p.From, p.To = servers[of], p.From
			if p.Flags == "S" {
				p.Flags = "SA"
			}
		}
		frames = append(frames, p.Bytes())
	}
	out := make([]byte, 2048)
	for i := 0; ctx.Err() == nil; i = (i + 1) % len(frames) {
		if _, err := r.plane.ShuntRoot.Run(&ebpf.RunOptions{Data: frames[i], DataOut: out}); err != nil {
			r.t.Error(err)
			return
		}
	}
}
