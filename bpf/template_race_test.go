package bpf_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

const (
	templateNetworks = 200
	templateHosts    = 2
	templateSteps    = 6_000
	templateRounds   = 8 // from an empty table: both CPUs meet at the first packets
)

// templateRacer sends the packets of the hosts of a few networks, and removes their
// connections, but no template.
type templateRacer struct {
	plane   *bpf.Plane
	frames  [][]byte
	removes []bpf.KernelRemoveArgs
	random  *rand.Rand
	v6      bool
	number  int
	err     error
}

func (r *templateRacer) run(cpu int) {
	runtime.LockOSThread() // never unlocked: the affinity goes with the thread
	var set unix.CPUSet
	set.Set(cpu)
	if r.err = unix.SchedSetaffinity(0, &set); r.err != nil {
		return
	}
	for i := 0; i < templateSteps && r.err == nil; i++ {
		n := r.random.IntN(len(r.frames))
		if i < len(r.frames) {
			n = i ^ r.number // the other host of the same network
		} else if i%8 == 7 {
			// Gone already, or in the other racer's hands: as well.
			_ = r.plane.RemoveConnection(r.v6, &r.removes[n])
			continue
		}
		if i%4000 == 3999 {
			r.err = r.plane.Sweep(r.v6, &bpf.KernelSweepArgs{Groups: 1 << 16})
			continue
		}
		var got bpftest.Result
		if got, r.err = bpftest.Run(r.plane.ShuntRoot, loopback, r.frames[n]); r.err == nil && got.Action == bpftest.Pass {
			r.err = fmt.Errorf("a packet was passed")
		}
	}
}

// Two CPUs make and remove the connections of the same client networks: all of a
// network's are on one server, and in the end each template has counted those that
// are there, no more and no less, without being healed.
func TestTemplateRace(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for i := range templateRounds {
		a := families[i%2]
		t.Run(fmt.Sprint(a.name, "/", i), func(t *testing.T) {
			s := newPersistentScene(t, f, a, bpftest.TCP, nat, nat)
			hop := f.AddHop(bpftest.Link{Interface: loopback, Source: bpftest.DirectorInside, Destination: bpftest.ServerMAC})
			for _, server := range s.service.Servers {
				server.Hop = hop
			}
			f.Apply(s.service)
			var set unix.CPUSet
			if err := unix.SchedGetaffinity(0, &set); err != nil {
				t.Fatal(err)
			}
			cpus := allowedCPUs(set)
			racers := make([]*templateRacer, 2)
			for i := range racers {
				r := &templateRacer{plane: f.Plane, number: i, random: rand.New(rand.NewPCG(uint64(i), 9)), v6: s.isV6()}
				for n := range templateNetworks * templateHosts {
					p := s.requestFrom(n/templateHosts, n%templateHosts+1)
					r.frames = append(r.frames, p.Bytes())
					r.removes = append(r.removes, bpf.KernelRemoveArgs{
						Client: bpf.Address(p.From.Addr()), ClientPort: bpf.Port(p.From.Port()),
						VirtualAddress: bpf.Address(p.To.Addr()), VirtualPort: bpf.Port(p.To.Port()), Protocol: bpftest.TCP,
					})
				}
				racers[i] = r
			}
			f.Events()
			var wait sync.WaitGroup
			for i, r := range racers {
				wait.Go(func() { r.run(cpus[i%len(cpus)]) })
			}
			wait.Wait()
			for i, r := range racers {
				if r.err != nil {
					t.Errorf("racer %d: %v", i, r.err)
				}
			}
			events := f.Events()
			t.Log(events)
			for _, name := range []string{"fault-map", "fault-server", "template-healed", "no-server", "table-full"} {
				if events[name] != 0 {
					t.Errorf("%s: %d", name, events[name])
				}
			}
			servers, templates := map[netip.Addr]uint32{}, s.templates()
			for _, e := range f.Entries() {
				if e.Template || e.Reply {
					continue
				}
				prefix, _ := e.Source.Addr().Prefix(s.service.ClientPrefix)
				if template := templates[prefix.Addr()]; e.Server != template.Server || !e.UnderTemplate {
					t.Errorf("%v is on server %d, its template on %d", e.Source, e.Server, template.Server)
				}
				servers[prefix.Addr()]++
			}
			if len(templates) != templateNetworks || len(servers) < templateNetworks/2 {
				t.Errorf("%d networks have templates, %d connections; want all, and most", len(templates), len(servers))
			}
			s.diffTemplates(t)
			diffLoads(t, f, s.service.Servers...)
			diffPairs(t, f)
		})
	}
}
