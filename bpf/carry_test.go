package bpf_test

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// carryRounds is how often the tables are resized under the racers' packets.
const carryRounds = 2

// Two CPUs begin, follow and end connections while the tables are resized, to and fro:
// no packet goes astray or waits in vain, none is lost, and what is left is consistent.
func TestCarryRace(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(families[flag(v6)].name, func(t *testing.T) { testCarryRace(t, v6, func(*bpftest.Service) {}) })
	}
	t.Run("wide", func(t *testing.T) {
		testCarryRace(t, false, func(s *bpftest.Service) {
			if s.Listen == families[0].virtual {
				s.LastPort = s.Listen.Port() + 1
			}
		})
	})
}

func testCarryRace(t *testing.T, v6 bool, change func(*bpftest.Service)) {
	f := bpftest.New(t, bpftest.Options{Connections: 1024})
	services := raceServices(f, v6, change)
	packets := racePackets(services, v6)
	f.Events()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	cpus := allowedCPUs(set)
	root, err := f.Plane.ShuntRoot.Clone() // it goes on to whatever is in force
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	var wait sync.WaitGroup
	var ended atomic.Bool
	racers := make([]*racer, 2)
	for i := range racers {
		racers[i] = &racer{
			plane:    &bpf.Plane{KernelPrograms: bpf.KernelPrograms{ShuntRoot: root}},
			services: services, packets: packets, random: rand.New(rand.NewPCG(uint64(i), 11)), v6: v6,
		}
		wait.Go(func() { racers[i].talkUntil(cpus[i%len(cpus)], &ended) })
	}
	resizeWhile(t, f)
	ended.Store(true)
	wait.Wait()
	for i, r := range racers {
		if r.fault != "" {
			t.Errorf("racer %d: %s", i, r.fault)
		}
	}
	events := f.Events()
	t.Log(events)
	for _, name := range []string{"fault-map", "fault-server", "carry-lost", "table-full", "evicted"} {
		if events[name] != 0 {
			t.Errorf("%s: %d", name, events[name])
		}
	}
	if events["carried"] == 0 {
		t.Error("nothing came over: the race is not what it should be")
	}
	var servers []*bpftest.Server
	for _, s := range services {
		servers = append(servers, s.Servers...)
	}
	diffPairs(t, f)
	diffLoads(t, f, servers...)
	diffStrays(t, f)
	f.AgeBy(bpftest.Timeouts[bpf.KernelConnStateSTATE_ESTABLISHED] * 2)
	f.ChangeSettings(func(s *bpf.KernelSettings) { setTimeouts(s, 0) })
	f.Sweep()
	if left := f.Entries(); len(left) != 0 {
		t.Errorf("%d keys cannot be removed: %+v", len(left), left[0])
	}
	diffLoads(t, f, servers...)
}

// resizeWhile resizes the tables, to larger and smaller ones.
func resizeWhile(t *testing.T, f *bpftest.Fixture) {
	t.Helper()
	for i := range bpftest.Rounds(carryRounds) {
		size := uint64(1000 + 3000*(i%2) + 50*i)
		change, err := f.Plane.PrepareResize(size, size)
		if err == nil {
			err = f.Plane.Commit(change)
		}
		var report bpf.CarryReport
		if err == nil {
			report, err = f.Plane.Carry(t.Context())
		}
		if err == nil {
			err = f.Plane.EndCarry()
		}
		if err != nil {
			t.Error(err)
			return
		}
		if report.Lost+report.Left > 0 {
			t.Errorf("round %d: %+v", i, report)
		}
	}
}

// No packet of an established connection is dropped, or passed, while the tables are
// resized: each goes where it did before.
func TestCarryDropsNothing(t *testing.T) {
	w := newEstate(t, 1024)
	w.Events()
	root, err := w.Plane.ShuntRoot.Clone()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	type sending struct {
		name  string
		frame []byte
		want  bpftest.Result
	}
	var all []sending
	for _, c := range w.calls {
		all = append(all, sending{c.name + " request", c.request.Bytes(), c.to})
		if c.back.Packet != nil {
			all = append(all, sending{c.name + " reply", c.reply.Bytes(), c.back})
		}
	}
	var wait sync.WaitGroup
	var ended atomic.Bool
	wait.Go(func() {
		random := rand.New(rand.NewPCG(3, 5))
		w.Do(func() {
			for !ended.Load() {
				s := &all[random.IntN(len(all))]
				got, err := bpftest.Run(root, w.Outside, s.frame)
				if diff := cmp.Diff(s.want, got); err != nil || diff != "" {
					t.Errorf("%s: %v (-want +got):\n%s", s.name, err, diff)
					return
				}
			}
		})
	})
	resizeWhile(t, w.Fixture)
	ended.Store(true)
	wait.Wait()
	events := w.Events()
	for name, n := range events {
		switch name {
		case "carried", "insert-race", "local", "stale-read":
		default:
			t.Errorf("%s: %d", name, n)
		}
	}
	if all := uint64(len(w.calls) + len(w.answered)); events["carried"] != all*uint64(bpftest.Rounds(carryRounds)) {
		t.Errorf("%d connections came over, of %d each time", events["carried"], all)
	}
	w.recount(t)
	diffPairs(t, w.Fixture)
}

// talkUntil sends packets on a CPU, on a thread that ends with it.
func (r *racer) talkUntil(cpu int, ended *atomic.Bool) {
	runtime.LockOSThread() // never unlocked: the affinity goes with the thread
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		r.fault = err.Error()
		return
	}
	for r.fault == "" && !ended.Load() {
		if err := r.packet(); err != nil {
			r.fault = err.Error()
		}
	}
}

// A template, and what is under it, come over with the first packet that needs it: a
// client's next connection goes to the server of those before.
func TestTemplateComesOverForANewConnection(t *testing.T) {
	w := newEstate(t, 1024)
	w.begin(t, 4000)
	for _, c := range w.calls {
		if !c.isPersistent {
			continue
		}
		got := w.Run(c.requestOfAnother.Bytes())
		_, to := endpoints(got.Packet)
		if got.Action != bpftest.TX || to != c.serverIfPersisted {
			t.Errorf("%s: %v to %v, want to %v", c.name, got.Action, to, c.serverIfPersisted)
		}
	}
	w.end(t)
	for _, e := range w.Entries() {
		if e.Template && e.Controlled != 2 {
			t.Errorf("a template of server %d has %d connections, want 2", e.Server, e.Controlled)
		}
	}
	diffLoads(t, w.Fixture, w.servers...)
	w.diffTemplates(t)
}

// A new connection does not take the reply key of one that has yet to come over.
func TestReplyKeyOfAnOldConnectionIsTaken(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 1024})
	for i, a := range families {
		s := newScene(t, f, a, bpftest.TCP, nat)
		other := f.Apply(&bpftest.Service{Listen: a.secondVirtual, Servers: []*bpftest.Server{
			{Address: a.server, Weight: 1, Hop: s.service.Servers[0].Hop},
		}})
		s.establish(t)
		size := []uint64{4000, 600}[i]
		change, err := f.Plane.PrepareResize(size, size)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Plane.Commit(change); err != nil {
			t.Fatal(err)
		}
		p := s.request()
		p.To = other.Listen
		run(t, f, p.Bytes(), dropped, one("reply-collision"))
		reply := s.reply()
		reply.Flags = "A"
		run(t, f, reply.Bytes(), sent(returned(reply, s.virtual)), one("carried"))
		if _, err := f.Plane.Carry(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := f.Plane.EndCarry(); err != nil {
			t.Fatal(err)
		}
	}
}
