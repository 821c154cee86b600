package bpf_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// hour is long enough that no test sees a limit's time pass: in 1/65536 jiffies of
// the fastest clock.
const hour = 3600 * 1000 << 16

// limitedScene is a scene whose service has limits.
type limitedScene struct{ *scene }

func newLimitedScene(t *testing.T, f *bpftest.Fixture, a family, protocol uint8, method bpf.KernelMethod, l bpf.KernelServiceLimits) limitedScene {
	t.Helper()
	s := limitedScene{newScene(t, f, a, protocol, method)}
	f.ForgetClients()
	f.PutLimits(s.service, l)
	return s
}

// wholeAddress is the mask of a source network that is one client.
var wholeAddress = [4]uint32{^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0)}

// from is the i-th packet of the n-th client: the first of a connection of its own.
func (s limitedScene) from(n, i int) bpftest.Packet {
	p := s.request()
	octets := p.From.Addr().AsSlice()
	octets[len(octets)-1], octets[len(octets)-2] = byte(n), byte(n>>8)
	addr, _ := netip.AddrFromSlice(octets)
	p.From = netip.AddrPortFrom(addr, uint16(20000+i))
	return p
}

// try sends the packet and compares what was counted: nothing if it is let through.
func (s limitedScene) try(t *testing.T, p bpftest.Packet, event string) {
	t.Helper()
	want := map[string]uint64{}
	if event != "" {
		want = one(event)
	}
	if s.service.Servers[0].Method == local && event == "" {
		want = one("local")
	}
	s.Events()
	got := s.Run(p.Bytes())
	if (got.Action == bpftest.Drop) != (event != "") {
		t.Errorf("packet from %s: %v, want %q", p.From, got.Action, event)
	}
	events := s.Events()
	delete(events, "expired-hit")
	if diff := cmp.Diff(want, events); diff != "" {
		t.Errorf("events of the packet from %s (-want +got):\n%s", p.From, diff)
	}
}

// counted compares the connections that are counted of the service, and of the only
// source network there is.
func (s limitedScene) counted(t *testing.T, service, source int64) {
	t.Helper()
	if got := s.ServiceState(s.service).Connections; got != service {
		t.Errorf("%d connections of the service are counted, want %d", got, service)
	}
	var loads, sources int64
	for _, server := range s.service.Servers {
		load := s.Load(server)
		loads += load.Active + load.Inactive
	}
	if loads != service {
		t.Errorf("its servers have %d connections, want %d", loads, service)
	}
	for _, v := range s.Sources() {
		sources += v.Connections
	}
	if sources != source {
		t.Errorf("%d connections of sources are counted, want %d", sources, source)
	}
}

// forget removes the packet's connection as user space does.
func (s limitedScene) forget(t *testing.T, p bpftest.Packet) {
	t.Helper()
	err := s.Plane.RemoveConnection(s.isV6(), &bpf.KernelRemoveArgs{
		Client: bpf.Address(p.From.Addr()), VirtualAddress: bpf.Address(p.To.Addr()),
		ClientPort: bpf.Port(p.From.Port()), VirtualPort: bpf.Port(p.To.Port()), Protocol: s.protocol,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What the limits let begin. Loading the programs takes longest: once for all.
func TestLimits(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for name, test := range map[string]func(*testing.T, *bpftest.Fixture){
		"connections":           testLimitOfConnections,
		"connections that end":  testLimitOfConnectionsThatEnd,
		"source networks":       testLimitOfSourceNetworks,
		"rate":                  testLimitOfRate,
		"rate over time":        testLimitOfRateOverTime,
		"all or nothing":        testLimitsTakeAllOrNothing,
		"one-packet scheduling": testLimitsOfOnePacketScheduling,
		"set later":             testLimitSetLater,
		"templates":             testLimitsDoNotCountTemplates,
		"explained":             testLimitsExplained,
		"sources forgotten":     testLimitsForgetSources,
		"two CPUs":              testLimitsOnTwoCPUs,
	} {
		t.Run(name, func(t *testing.T) { test(t, f) })
	}
}

// Limits of connections at one time, in each family, protocol and method: the
// exact number, and on again after each way a connection can end.
func testLimitOfConnections(t *testing.T, f *bpftest.Fixture) {
	for _, which := range []struct {
		event  string
		limits bpf.KernelServiceLimits
	}{
		{"service-connections", bpf.KernelServiceLimits{Connections: 3}},
		{"source-connections", bpf.KernelServiceLimits{SourceConnections: 3, SourceMask: wholeAddress}},
	} {
		for _, a := range families {
			for _, protocol := range protocols {
				for _, method := range []bpf.KernelMethod{nat, dr, local} {
					t.Run(which.event+"/"+a.name+"/"+protocol.name+"/"+methodName(method), func(t *testing.T) {
						s := newLimitedScene(t, f, a, protocol.number, method, which.limits)
						testConnections(t, s, which.event)
					})
				}
			}
		}
	}
}

func methodName(m bpf.KernelMethod) string {
	return map[bpf.KernelMethod]string{nat: "nat", dr: "dr", local: "local"}[m]
}

func testConnections(t *testing.T, s limitedScene, event string) {
	sources := int64(0)
	if event == "source-connections" {
		sources = 1
	}
	for i := range 3 {
		s.try(t, s.from(1, i), "")
	}
	s.try(t, s.from(1, 3), event)
	s.try(t, s.from(1, 0), "") // a retransmission: it has its entry
	s.counted(t, 3, 3*sources)
	if event == "source-connections" {
		s.try(t, s.from(2, 0), "") // another network
		s.forget(t, s.from(2, 0))
	}
	s.forget(t, s.from(1, 1))
	s.counted(t, 2, 2*sources)
	s.try(t, s.from(1, 4), "")
	s.try(t, s.from(1, 5), event)
	// Expired, and swept away.
	s.AgeBy(time.Hour)
	if removed := s.Sweep(); removed != 3 {
		t.Fatalf("swept %d connections, want 3", removed)
	}
	s.counted(t, 0, 0)
	for i := range 3 {
		s.try(t, s.from(1, i), "")
	}
	// Expired, and met by a packet of the client.
	s.AgeBy(time.Hour)
	s.try(t, s.from(1, 1), "")
	s.counted(t, 3, 3*sources)
	state := s.ServiceState(s.service)
	if refused := state.RefusedConnections + state.RefusedSourceConnections; refused != 2 {
		t.Errorf("%d were refused by the service's count, want 2", refused)
	}
	s.AgeBy(time.Hour)
	s.Sweep()
	s.counted(t, 0, 0)
}

// A TCP connection that ends makes room, and one that takes the place of the
// client's last one needs none.
func testLimitOfConnectionsThatEnd(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		s := newLimitedScene(t, f, a, bpftest.TCP, nat, bpf.KernelServiceLimits{
			Connections: 1, SourceConnections: 1, SourceMask: wholeAddress,
		})
		s.establish(t)
		fin, back := s.request(), s.reply()
		fin.Flags, back.Flags = "FA", "FA"
		for _, p := range []bpftest.Packet{fin, back, fin} {
			if got := s.Run(p.Bytes()); got.Action != bpftest.TX {
				t.Fatalf("%s of the end: %v", p.Flags, got.Action)
			}
		}
		s.try(t, s.from(1, 1), "service-connections")
		s.try(t, s.request(), "") // the client's next one of the same port
		s.counted(t, 1, 1)
		s.try(t, s.from(1, 1), "service-connections")
		s.AgeBy(3 * time.Minute)
		s.Sweep()
		s.try(t, s.from(1, 1), "")
		s.counted(t, 1, 1)
	}
}

// Source networks of more than one client.
func testLimitOfSourceNetworks(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		s := newLimitedScene(t, f, a, bpftest.TCP, dr, bpf.KernelServiceLimits{
			SourceConnections: 2, SourceMask: networkMask(a, 8),
		})
		s.try(t, s.from(0x100, 0), "")
		s.try(t, s.from(0x1ff, 0), "")
		s.try(t, s.from(0x180, 0), "source-connections")
		s.try(t, s.from(0x200, 0), "")
		s.counted(t, 3, 3)
		if got := len(s.Sources()); got != 2 {
			t.Errorf("%d source networks are remembered, want 2", got)
		}
	}
}

// networkMask covers all of an address but its last bits, at most 16.
func networkMask(a family, host int) [4]uint32 {
	bits := a.client.Addr().BitLen()
	all := netip.AddrFrom16([16]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	if bits == 32 {
		all = netip.AddrFrom4([4]byte{0xff, 0xff, 0xff, 0xff})
	}
	return bpf.Address(netip.PrefixFrom(all, bits-host).Masked().Addr())
}

// A rate lets a burst through, exactly, and then one after the time of one: with
// hours for that, no packet here comes late enough.
func testLimitOfRate(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		for _, protocol := range protocols {
			t.Run("service/"+a.name+"/"+protocol.name, func(t *testing.T) {
				s := newLimitedScene(t, f, a, protocol.number, nat, bpf.KernelServiceLimits{Cost: hour, Burst: 4 * hour})
				for i := range 4 {
					s.try(t, s.from(i, 0), "")
				}
				s.try(t, s.from(9, 0), "service-rate")
				s.try(t, s.from(1, 0), "") // a retransmission
				// Two hours pass, and then a day; a time beyond all bursts is none.
				for n, passed := range []struct {
					hours int64
					more  int
				}{{2, 2}, {24, 4}, {-1000, 4}} {
					s.EditServiceState(s.service, func(state *bpf.KernelServiceState) {
						state.RateTime -= uint64(passed.hours * hour)
					})
					for i := range passed.more {
						s.try(t, s.from(100+i, n), "")
					}
					s.try(t, s.from(9, 0), "service-rate")
				}
				if got := s.ServiceState(s.service).RefusedRate; got != 4 {
					t.Errorf("%d were refused by the service's count, want 4", got)
				}
			})
			t.Run("source/"+a.name+"/"+protocol.name, func(t *testing.T) {
				s := newLimitedScene(t, f, a, protocol.number, nat, bpf.KernelServiceLimits{
					SourceCost: hour, SourceBurst: 2 * hour, SourceMask: wholeAddress,
				})
				for _, client := range []int{1, 2} {
					s.try(t, s.from(client, 0), "")
					s.try(t, s.from(client, 1), "")
					s.try(t, s.from(client, 2), "source-rate")
				}
				if got := s.ServiceState(s.service).RefusedSourceRate; got != 2 {
					t.Errorf("%d were refused by the service's count, want 2", got)
				}
			})
		}
	}
}

// The rate as it is set, over time: never more than the burst and what time
// allowed, and all of that is used.
func testLimitOfRateOverTime(t *testing.T, f *bpftest.Fixture) {
	const perSecond = 200
	cost, burst := f.Plane.Clock.Rate(perSecond)
	s := newLimitedScene(t, f, families[0], bpftest.UDP, dr, bpf.KernelServiceLimits{Cost: cost, Burst: burst})
	begin, passed := time.Now(), 0
	for i := 0; time.Since(begin) < 500*time.Millisecond; i++ {
		if got := s.Run(s.from(i>>14, i&0x3fff).Bytes()); got.Action == bpftest.TX {
			passed++
		}
	}
	// A jiffy is up to 10 ms long, and counts as a whole at either end.
	most := perSecond + int(float64(perSecond)*(time.Since(begin).Seconds()+0.02))
	if passed < perSecond || passed > most {
		t.Errorf("%d connections began in %v, want %d to %d", passed, time.Since(begin), perSecond, most)
	}
	if got := s.ServiceState(s.service).Connections; got != int64(passed) {
		t.Errorf("%d connections are counted, want %d", got, passed)
	}
}

// What one limit refuses has used up nothing of the others.
func testLimitsTakeAllOrNothing(t *testing.T, f *bpftest.Fixture) {
	all := bpf.KernelServiceLimits{
		Cost: hour, Burst: 2 * hour, Connections: 2,
		SourceCost: hour, SourceBurst: 2 * hour, SourceConnections: 2, SourceMask: wholeAddress,
	}
	for _, tt := range []struct {
		event  string
		change func(*bpf.KernelServiceLimits)
	}{
		{"service-connections", func(l *bpf.KernelServiceLimits) { l.Connections = 1 }},
		{"service-rate", func(l *bpf.KernelServiceLimits) { l.Burst = hour }},
		{"source-connections", func(l *bpf.KernelServiceLimits) { l.SourceConnections = 1 }},
		{"source-rate", func(l *bpf.KernelServiceLimits) { l.SourceBurst = hour }},
	} {
		t.Run(tt.event, func(t *testing.T) {
			limits := all
			tt.change(&limits)
			s := newLimitedScene(t, f, families[0], bpftest.TCP, nat, limits)
			s.try(t, s.from(1, 0), "")
			state, sources := s.ServiceState(s.service), s.Sources()
			for i := range 3 {
				s.try(t, s.from(1, 1+i), tt.event)
			}
			after := s.ServiceState(s.service)
			if after.RateTime != state.RateTime || after.Connections != state.Connections {
				t.Errorf("the service's state went from %+v to %+v", state, after)
			}
			if diff := cmp.Diff(sources, s.Sources()); diff != "" {
				t.Errorf("the source's state (-before +after):\n%s", diff)
			}
			// And with the limit away there is one left of each.
			f.PutLimits(s.service, all)
			s.try(t, s.from(1, 4), "")
		})
	}
}

// A connection that comes to nothing after it was admitted is not counted.
func TestLimitsAreGivenBack(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 1})
	limits := bpf.KernelServiceLimits{Connections: 1000, SourceConnections: 1000, SourceMask: wholeAddress}
	for _, a := range families {
		t.Run(a.name+"/no server", func(t *testing.T) {
			s := newLimitedScene(t, f, a, bpftest.TCP, nat, limits)
			s.service.Servers[0].Weight = 0
			f.Apply(s.service)
			if got := s.Run(s.request().Bytes()); got.Action != bpftest.TX { // port unreachable
				t.Errorf("%v", got.Action)
			}
			s.counted(t, 0, 0)
		})
		t.Run(a.name+"/reply collision", func(t *testing.T) {
			s := newLimitedScene(t, f, a, bpftest.UDP, nat, limits)
			s.try(t, s.request(), "")
			second := &bpftest.Service{Listen: a.secondVirtual, Protocol: bpftest.UDP, Servers: []*bpftest.Server{
				{Address: s.service.Servers[0].Address, Weight: 1, Hop: s.service.Servers[0].Hop},
			}}
			f.Apply(second)
			f.PutLimits(second, limits)
			p := s.request()
			p.To = a.secondVirtual
			s.try(t, p, "reply-collision")
			if got := f.ServiceState(second).Connections; got != 0 {
				t.Errorf("%d connections of the second service are counted", got)
			}
			s.counted(t, 1, 1)
		})
		t.Run(a.name+"/no room", func(t *testing.T) {
			s := newLimitedScene(t, f, a, bpftest.TCP, nat, limits)
			full := 0
			for i := range 400 {
				reply := s.reply()
				reply.To = s.from(1, i).From
				for _, p := range bpftest.Handshake(s.from(1, i), reply) {
					s.Run(p.Bytes()) // proven: not given up for the next one
				}
				full += int(s.Events()["table-full"])
			}
			if full == 0 {
				t.Fatal("the table was never full")
			}
			var entries int64
			for _, e := range f.Entries() {
				if !e.Reply {
					entries++
				}
			}
			s.counted(t, entries, entries)
			s.AgeBy(time.Hour)
			s.Sweep()
			s.counted(t, 0, 0)
		})
	}
}

// One packet that is scheduled by itself counts for rates alone.
func testLimitsOfOnePacketScheduling(t *testing.T, f *bpftest.Fixture) {
	s := newLimitedScene(t, f, families[0], bpftest.UDP, nat, bpf.KernelServiceLimits{
		Cost: hour, Burst: 3 * hour, Connections: 1, SourceConnections: 1, SourceMask: wholeAddress,
	})
	s.service.Flags |= bpf.KernelServiceFlagsSERVICE_ONE_PACKET
	f.Apply(s.service)
	for range 3 {
		s.try(t, s.request(), "")
	}
	s.try(t, s.request(), "service-rate")
	s.counted(t, 0, 0)
}

// The service's connections are counted without a limit: one that is set later
// knows them.
func testLimitSetLater(t *testing.T, f *bpftest.Fixture) {
	s := newLimitedScene(t, f, families[0], bpftest.TCP, dr, bpf.KernelServiceLimits{})
	for i := range 5 {
		s.try(t, s.from(i, 0), "")
	}
	s.counted(t, 5, 0)
	f.PutLimits(s.service, bpf.KernelServiceLimits{Connections: 5, SourceConnections: 1, SourceMask: wholeAddress})
	s.try(t, s.from(7, 0), "service-connections")
	s.forget(t, s.from(1, 0))
	// Sources are counted from when they have a limit.
	s.try(t, s.from(2, 1), "")
	s.counted(t, 5, 1)
}

// Templates are no connections.
func testLimitsDoNotCountTemplates(t *testing.T, f *bpftest.Fixture) {
	s := newPersistentScene(t, f, families[0], bpftest.TCP, nat, nat)
	for i := range 3 {
		s.connectionOf(t, s.requestFrom(0, i))
	}
	if got := f.ServiceState(s.service).Connections; got != 3 {
		t.Errorf("%d connections are counted, want 3", got)
	}
	s.AgeBy(24 * time.Hour)
	s.Sweep()
	if got := f.ServiceState(s.service).Connections; got != 0 {
		t.Errorf("%d connections are counted when all are over", got)
	}
}

// Of more source networks than there is room for, the last ones are remembered: no
// count goes below 0, and all are 0 in the end.
func testLimitsForgetSources(t *testing.T, f *bpftest.Fixture) {
	s := newLimitedScene(t, f, families[0], bpftest.TCP, dr, bpf.KernelServiceLimits{
		SourceConnections: 2, SourceMask: wholeAddress,
	})
	const clients = 3000
	for i := range clients {
		s.try(t, s.from(i, 0), "")
	}
	if got := len(s.Sources()); got == 0 || got >= clients {
		t.Errorf("%d source networks are remembered", got)
	}
	for i := range clients / 2 {
		s.forget(t, s.from(i, 0))
	}
	s.try(t, s.from(clients-1, 1), "")
	s.try(t, s.from(clients-1, 2), "source-connections")
	s.AgeBy(time.Hour)
	s.Sweep()
	for key, source := range s.Sources() {
		if source.Connections != 0 {
			t.Errorf("%v: %d connections are counted in the end", key, source.Connections)
		}
	}
	s.counted(t, 0, 0)
}

// What would become of a packet is said, and nothing is used up.
func testLimitsExplained(t *testing.T, f *bpftest.Fixture) {
	for _, tt := range []struct {
		event  string
		limits bpf.KernelServiceLimits
	}{
		{"service-connections", bpf.KernelServiceLimits{Connections: 1}},
		{"service-rate", bpf.KernelServiceLimits{Cost: hour, Burst: hour}},
		{"source-connections", bpf.KernelServiceLimits{SourceConnections: 1, SourceMask: wholeAddress}},
		{"source-rate", bpf.KernelServiceLimits{SourceCost: hour, SourceBurst: hour, SourceMask: wholeAddress}},
	} {
		for _, a := range families {
			t.Run(tt.event+"/"+a.name, func(t *testing.T) {
				s := newLimitedScene(t, f, a, bpftest.UDP, nat, tt.limits)
				for range 3 {
					if got := explain(t, f, s.from(1, 0)); got.Event != 0 || got.Server == 0 {
						t.Fatalf("explained as %s", bpf.Events[got.Event].Name)
					}
				}
				if got := s.Sources(); len(got) != 0 {
					t.Errorf("a question is remembered: %v", got)
				}
				s.try(t, s.from(1, 0), "")
				state, sources := s.ServiceState(s.service), s.Sources()
				got := explain(t, f, s.from(1, 1))
				if name := bpf.Events[got.Event].Name; name != tt.event {
					t.Errorf("explained as %q, want %q", name, tt.event)
				}
				if diff := cmp.Diff(state, s.ServiceState(s.service)) + cmp.Diff(sources, s.Sources()); diff != "" {
					t.Errorf("changed by a question (-before +after):\n%s", diff)
				}
				s.try(t, s.from(1, 1), tt.event)
			})
		}
	}
}
