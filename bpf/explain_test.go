package bpf_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// tcpFlags is the octet with the flags of the letters.
func tcpFlags(letters string) (octet uint8) {
	for i, letter := range []string{"F", "S", "R", "P", "A"} {
		if strings.Contains(letters, letter) {
			octet |= 1 << i
		}
	}
	return octet
}

// explain asks what would become of the packet.
func explain(t *testing.T, f *bpftest.Fixture, p bpftest.Packet) bpf.KernelExplainArgs {
	t.Helper()
	args := bpf.KernelExplainArgs{
		Source: bpf.Address(p.From.Addr()), SourcePort: bpf.Port(p.From.Port()),
		Destination: bpf.Address(p.To.Addr()), DestinationPort: bpf.Port(p.To.Port()),
		Protocol: p.Protocol, TcpFlags: tcpFlags(p.Flags),
	}
	if p.Protocol == 0 {
		args.Protocol = bpftest.TCP
	}
	if err := f.Plane.Explain(p.From.Addr().Is6(), &args); err != nil {
		t.Fatal(err)
	}
	return args
}

// What decides, in each case there is.
func TestExplain(t *testing.T) {
	const (
		nothing    = bpf.KernelDeciderDECIDED_BY_NOTHING
		connection = bpf.KernelDeciderDECIDED_BY_CONNECTION
		template   = bpf.KernelDeciderDECIDED_BY_TEMPLATE
		scheduler  = bpf.KernelDeciderDECIDED_BY_SCHEDULER
	)
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newPersistentScene(t, f, a, bpftest.TCP, nat, nat)
			first, second := s.service.Servers[0], s.service.Servers[1]
			known := s.requestFrom(0, 1)
			reply := bpftest.Packet{From: first.Address, To: known.From, Protocol: bpftest.TCP, Flags: "A"}
			other := func(change func(*bpftest.Packet)) bpftest.Packet {
				p := s.requestFrom(0, 1)
				change(&p)
				return p
			}
			ask := func(name string, p bpftest.Packet, event string, by bpf.KernelDecider, server *bpftest.Server) bpf.KernelExplainArgs {
				t.Helper()
				got := explain(t, f, p)
				var index, service uint32
				if server != nil {
					index, service = server.Index, s.service.Index
				}
				if bpf.Events[got.Event].Name != event || bpf.KernelDecider(got.DecidedBy) != by || got.Server != index {
					t.Errorf("%s: %q, by %d, server %d; want %q, by %d, server %d", name,
						bpf.Events[got.Event].Name, got.DecidedBy, got.Server, event, by, index)
				}
				if server != nil && got.Service != service {
					t.Errorf("%s: service %d, want %d", name, got.Service, service)
				}
				return got
			}
			ask("first", known, "", scheduler, first)
			ask("first, again: the scheduler has not moved", known, "", scheduler, first)
			s.connectionOf(t, known)
			got := ask("connection", known, "", connection, first)
			if e := bpf.Follows(got.Met); e.State != synReceived || !e.UnderTemplate || got.Met != got.Recipe {
				t.Errorf("met %+v", e)
			}
			ask("reply", reply, "", connection, first)
			got = ask("template", s.requestFrom(0, 2), "", template, first)
			if e := bpf.Follows(got.Met); e.State != uint8(bpf.KernelConnStateSTATE_TEMPLATE) || bpf.Controlled(got.MetHop) != 1 {
				t.Errorf("met %+v with %d connections, want a template with one", e, bpf.Controlled(got.MetHop))
			}
			ask("another network", s.requestFrom(1, 1), "", scheduler, second)
			ask("no service", other(func(p *bpftest.Packet) { p.To = netip.AddrPortFrom(p.To.Addr(), 9) }), "no-service", nothing, nil)
			ask("not ours", other(func(p *bpftest.Packet) { p.To = p.From }), "not-ours", nothing, nil)
			ask("protocol", other(func(p *bpftest.Packet) { p.Protocol = 254 }), "protocol", nothing, nil)
			ask("mid-stream", other(func(p *bpftest.Packet) { p.From, p.Flags = s.other, "A" }), "midstream", nothing, nil)
			ask("port 20", other(func(p *bpftest.Packet) { p.From = netip.AddrPortFrom(p.From.Addr(), 20) }), "ftp-data", nothing, nil)
			ask("martian", other(func(p *bpftest.Packet) { p.From = netip.AddrPortFrom(p.To.Addr(), 20) }), "martian", nothing, nil)
			f.AgeBy(2 * bpftest.Timeouts[bpf.KernelConnStateSTATE_SYN_RECV])
			ask("expired connection, template", known, "", template, first)
			f.AgeBy(persistence)
			ask("expired connection, that the expired template had", known, "", scheduler, second)
			ask("expired template, with a connection by its count", s.requestFrom(0, 2), "", template, first)
			for _, server := range s.service.Servers {
				server.Weight = 0
			}
			f.Apply(s.service)
			ask("no server", known, "no-server", nothing, nil)
			first.Weight, first.Hop = 1, 0
			s.service.Flags = 0
			f.Apply(s.service)
			ask("unreachable", s.requestFrom(2, 1), "no-server", nothing, nil)
			if events := f.Events(); len(events) != 0 {
				t.Errorf("counted: %v", events)
			}
		})
	}
}

// Connections that cannot be made are refused in a trial as in earnest: for want of
// room, or of a reply key.
func TestExplainRefusals(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 64})
	t.Run("table full", func(t *testing.T) {
		s := newScene(t, f, families[0], bpftest.TCP, dr)
		crowd := s.crowd(t, places+1)
		for _, p := range crowd[:places] {
			f.Run(p.Bytes())
		}
		late := crowd[places]
		if got := explain(t, f, late); got.Event != 0 {
			t.Errorf("%s, want room: there are unproven ones", bpf.Events[got.Event].Name)
		}
		s.prove(t, crowd[:places]...)
		if got := explain(t, f, late); got.Event != uint32(bpf.KernelEventEVENT_DROP_TABLE_FULL) || got.Server != 0 {
			t.Errorf("%q, server %d", bpf.Events[got.Event].Name, got.Server)
		}
		run(t, f, late.Bytes(), dropped, one("table-full"))
		// One that is to be replaced is room enough.
		f.SetState(bpf.KernelConnStateSTATE_TIME_WAIT)
		if got := explain(t, f, crowd[0]); got.Event != 0 || got.DecidedBy != uint32(bpf.KernelDeciderDECIDED_BY_SCHEDULER) {
			t.Errorf("%q by %d, want the scheduler's", bpf.Events[got.Event].Name, got.DecidedBy)
		}
	})
	t.Run("reply collision", func(t *testing.T) {
		for _, a := range families {
			s := newScene(t, f, a, bpftest.TCP, nat)
			f.Apply(&bpftest.Service{Listen: s.secondVirtual, Servers: []*bpftest.Server{
				{Address: s.server, Weight: 1, Hop: s.service.Servers[0].Hop},
			}})
			f.Run(s.request().Bytes())
			p := s.request()
			p.To = s.secondVirtual
			if got := explain(t, f, p); got.Event != uint32(bpf.KernelEventEVENT_DROP_REPLY_COLLISION) {
				t.Errorf("%s: %q", a.name, bpf.Events[got.Event].Name)
			}
			run(t, f, p.Bytes(), dropped, one("reply-collision"))
			// Its own old connection's reply key is none in the way, nor an expired one's.
			f.SetState(bpf.KernelConnStateSTATE_TIME_WAIT)
			if got := explain(t, f, s.request()); got.Event != 0 {
				t.Errorf("%s, reuse: %q", a.name, bpf.Events[got.Event].Name)
			}
			f.AgeBy(time.Hour)
			if got := explain(t, f, p); got.Event != 0 {
				t.Errorf("%s, expired: %q", a.name, bpf.Events[got.Event].Name)
			}
		}
	})
}

// dump is all that is in the plane's maps.
func dump(t *testing.T, f *bpftest.Fixture) map[string]string {
	t.Helper()
	maps := reflect.ValueOf(f.Plane.KernelMaps)
	all := map[string]string{}
	for i := range maps.NumField() {
		m, ok := maps.Field(i).Interface().(*ebpf.Map)
		name := maps.Type().Field(i).Name
		// What a trial works in; and programs and the ring, which cannot be read.
		if !ok || slices.Contains([]string{"Scratch", "Slots", "NewDestination", "News"}, name) {
			continue
		}
		if m.Flags()&unix.BPF_F_MMAPABLE != 0 { // the largest
			memory, err := m.Memory()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			content := make([]byte, memory.Size())
			if _, err := memory.ReadAt(content, 0); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			all[name] = string(content)
			continue
		}
		var text strings.Builder
		var key []byte
		values := m.Iterate()
		perCPU := m.Type() == ebpf.PerCPUArray
		var value []byte
		var each [][]byte
		for {
			if perCPU && !values.Next(&key, &each) || !perCPU && !values.Next(&key, &value) {
				break
			}
			fmt.Fprintf(&text, "%x %x %x\n", key, value, each)
		}
		if err := values.Err(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[name] = text.String()
	}
	return all
}

// world is a service with all that can be said of one drawn at random, and its
// history.
type world struct {
	*scene
	t      *testing.T
	random *rand.Rand
	step   int
}

func newWorld(t *testing.T, f *bpftest.Fixture, a family, seed uint64) *world {
	random := rand.New(rand.NewPCG(seed, 4))
	protocol := protocols[random.IntN(2)].number
	methods := make([]bpf.KernelMethod, 2)
	for i := range methods {
		methods[i] = []bpf.KernelMethod{nat, nat, dr}[random.IntN(3)]
	}
	w := &world{scene: newPersistentScene(t, f, a, protocol, methods...), t: t, random: random}
	if seed%4 == 0 {
		w.service.Flags = 0 // not persistent
	}
	for _, flag := range []bpf.KernelServiceFlags{
		bpf.KernelServiceFlagsSERVICE_SLOPPY_TCP,
		bpf.KernelServiceFlagsSERVICE_EXPIRE_NODEST, bpf.KernelServiceFlagsSERVICE_EXPIRE_QUIESCENT,
		bpf.KernelServiceFlagsSERVICE_REUSE_NEVER, bpf.KernelServiceFlagsSERVICE_REUSE_FIN_WAIT,
	} {
		if random.IntN(2) == 0 {
			w.service.Flags |= flag
		}
	}
	w.service.Scheduler = []bpf.KernelScheduler{
		bpf.KernelSchedulerSCHEDULER_RR, bpf.KernelSchedulerSCHEDULER_WRR, bpf.KernelSchedulerSCHEDULER_WLC,
		bpf.KernelSchedulerSCHEDULER_SH,
	}[random.IntN(4)]
	f.Apply(w.service)
	return w
}

// change changes the service, lets time pass, or sweeps.
func (w *world) change() {
	server := w.service.Servers[w.random.IntN(len(w.service.Servers))]
	switch w.random.IntN(6) {
	case 0:
		server.Weight = uint32(w.random.IntN(3))
	case 1:
		server.Upper = uint32(w.random.IntN(4))
	case 2:
		server.Draining = !server.Draining
	case 3: // away, and another in its place
		fresh := *server
		fresh.Index, fresh.Weight = 0, 1
		w.service.Servers = append(slices.DeleteFunc(w.service.Servers, func(s *bpftest.Server) bool { return s == server }), &fresh)
	case 4:
		// Expired, a connection is swept before it is asked about: see explain.h.
		w.AgeBy(time.Duration(w.random.IntN(int(4 * time.Minute))))
		w.Sweep()
		return
	case 5:
		w.Sweep()
		return
	}
	w.Apply(w.service)
}

// packet is one of a few clients' or of their servers'.
func (w *world) packet() bpftest.Packet {
	p := w.requestFrom(w.random.IntN(3), w.random.IntN(3))
	flags := []string{"S", "S", "S", "A", "FA", "R", "RS", "SA"}
	if w.random.IntN(4) == 0 {
		p.From, p.To = w.service.Servers[0].Address, p.From
		flags = []string{"SA", "A", "FA", "R"}
	}
	if w.protocol == bpftest.TCP {
		p.Flags = flags[w.random.IntN(len(flags))]
	}
	return p
}

// check explains the packet, sends it, and compares.
func (w *world) check(p bpftest.Packet) {
	w.t.Helper()
	want := explain(w.t, w.Fixture, p)
	w.Events()
	result := w.Run(p.Bytes())
	var event string
	for name := range w.Events() {
		i := slices.IndexFunc(bpf.Events[:], func(e bpf.EventInfo) bool { return e.Name == name })
		if bpf.Events[i].Kind != "note" {
			event = name
		}
	}
	if wanted := bpf.Events[want.Event].Name; event != wanted {
		w.t.Fatalf("step %d, %v -> %v %s: %q, explained as %q", w.step, p.From, p.To, p.Flags, event, wanted)
	}
	if event != "" {
		return
	}
	if result.Action != bpftest.TX {
		w.t.Fatalf("step %d: %v", w.step, result.Action)
	}
	for _, e := range w.Entries() {
		if e.Source != p.From || e.Destination != p.To {
			continue
		}
		asked := bpf.Follows(want.Recipe)
		if e.Server != want.Server || e.Reply != asked.Reply || e.UnderTemplate != asked.UnderTemplate || e.Method != asked.Method {
			w.t.Fatalf("step %d, %v -> %v %s: %+v, explained as %+v", w.step, p.From, p.To, p.Flags, e, asked)
		}
		return
	}
	w.t.Fatalf("step %d: no connection", w.step)
}

// What is explained is what then happens, whatever has happened before, and to
// explain it changes nothing.
func TestExplainAgreesWithPackets(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 64})
	for _, a := range families {
		by := map[uint32]int{}
		for seed := range uint64(bpftest.Rounds(24)) {
			t.Run(fmt.Sprint(a.name, "/", seed), func(t *testing.T) {
				w := newWorld(t, f, a, seed)
				for w.step = range 150 {
					if w.random.IntN(4) == 0 {
						w.change()
						continue
					}
					p := w.packet()
					if seed < 4 && w.step%50 == 49 {
						before := dump(t, f)
						for range 20 {
							explain(t, f, w.packet())
						}
						for name, content := range dump(t, f) {
							if content != before[name] {
								t.Fatalf("step %d: explaining changed map %s", w.step, name)
							}
						}
					}
					by[explain(t, f, p).DecidedBy]++
					w.check(p)
				}
			})
		}
		t.Logf("%s: decided by: %v", a.name, by)
		for decider := range uint32(4) {
			if by[decider] < 30 {
				t.Errorf("%s: only %d packets were decided on by %d", a.name, by[decider], decider)
			}
		}
	}
}
