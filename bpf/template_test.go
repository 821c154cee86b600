package bpf_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

const (
	persistence = 5 * time.Minute // of the tests' templates
	prolonged   = time.Minute     // what one with connections is given then
)

// newPersistentScene is newScene with a persistent service, whose clients belong
// together by /24 or /64.
func newPersistentScene(t *testing.T, f *bpftest.Fixture, a family, protocol uint8, methods ...bpf.KernelMethod) *scene {
	t.Helper()
	s := newScene(t, f, a, protocol, methods...)
	s.service.Flags |= bpf.KernelServiceFlagsSERVICE_PERSISTENT
	s.service.ClientPrefix = 24
	if s.isV6() {
		s.service.ClientPrefix = 64
	}
	s.service.Timeouts = map[bpf.KernelConnState]time.Duration{bpf.KernelConnStateSTATE_TEMPLATE: persistence}
	f.Apply(s.service)
	return s
}

// requestFrom is the first packet of a host of a client network.
func (s *scene) requestFrom(network, host int) bpftest.Packet {
	p := s.request()
	b := s.client.Addr().AsSlice()
	if s.isV6() {
		b[7] = byte(network)
	} else {
		b[2] = byte(network)
	}
	b[len(b)-1] = byte(host)
	address, _ := netip.AddrFromSlice(b)
	p.From = netip.AddrPortFrom(address, uint16(20000+host))
	return p
}

// network is the address of the packet's client network.
func (s *scene) network(p bpftest.Packet) netip.Addr {
	prefix, err := p.From.Addr().Prefix(s.service.ClientPrefix)
	if err != nil {
		panic(err)
	}
	return prefix.Addr()
}

// connectionOf sends the packet and returns the server of its connection.
func (s *scene) connectionOf(t *testing.T, p bpftest.Packet) *bpftest.Server {
	t.Helper()
	if got := s.Run(p.Bytes()); got.Action != bpftest.TX {
		t.Fatalf("%v: %v %v", p.From, got.Action, s.Events())
	}
	for _, e := range s.Entries() {
		if e.Source == p.From && !e.Template && !e.Reply {
			return s.Server(e.Server)
		}
	}
	t.Fatalf("%v has no connection", p.From)
	return nil
}

// templates are those in the table, by their network.
func (s *scene) templates() map[netip.Addr]bpf.Entry {
	all := map[netip.Addr]bpf.Entry{}
	for _, e := range s.Entries() {
		if e.Template {
			all[e.Source.Addr()] = e
		}
	}
	return all
}

// remove removes the connection of the packet.
func (s *scene) remove(t *testing.T, p bpftest.Packet) {
	t.Helper()
	if err := s.Plane.RemoveConnection(s.isV6(), &bpf.KernelRemoveArgs{
		Client: bpf.Address(p.From.Addr()), ClientPort: bpf.Port(p.From.Port()),
		VirtualAddress: bpf.Address(p.To.Addr()), VirtualPort: bpf.Port(p.To.Port()), Protocol: p.Protocol,
	}); err != nil {
		t.Fatal(err)
	}
}

// diffTemplates holds that the servers' counts of templates, and the templates'
// of their connections, are what is in the table.
func (s *scene) diffTemplates(t *testing.T) {
	t.Helper()
	type counts struct {
		Templates  map[uint32]int64
		Controlled map[netip.Addr]uint32
	}
	want := counts{map[uint32]int64{}, map[netip.Addr]uint32{}}
	got := counts{map[uint32]int64{}, map[netip.Addr]uint32{}}
	for _, server := range s.service.Servers {
		want.Templates[server.Index], got.Templates[server.Index] = 0, s.Load(server).Templates
	}
	for network, e := range s.templates() {
		want.Templates[e.Server]++
		want.Controlled[network], got.Controlled[network] = 0, e.Controlled
	}
	for _, e := range s.Entries() {
		if e.UnderTemplate {
			prefix, _ := e.Source.Addr().Prefix(s.service.ClientPrefix)
			want.Controlled[prefix.Addr()]++
		}
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("templates by server, connections by template (-in the table +counted):\n%s", diff)
	}
}

// eachPersistent runs a test for every family, protocol and method, with two servers.
func eachPersistent(t *testing.T, f *bpftest.Fixture, test func(*testing.T, *scene)) {
	t.Helper()
	for _, a := range families {
		for _, protocol := range protocols {
			for _, method := range []bpf.KernelMethod{nat, dr} {
				t.Run(fmt.Sprintf("%s/%s/%d", a.name, protocol.name, method), func(t *testing.T) {
					test(t, newPersistentScene(t, f, a, protocol.number, method, method))
				})
			}
		}
	}
}

// The first connection of a client network is scheduled, the others follow it, as
// long as there is its template.
func TestTemplate(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	eachPersistent(t, f, func(t *testing.T, s *scene) {
		first, second := s.service.Servers[0], s.service.Servers[1]
		var packets []bpftest.Packet
		for i, want := range []*bpftest.Server{first, second, first} { // rr
			for host := range 3 {
				p := s.requestFrom(i, host)
				packets = append(packets, p)
				if got := s.connectionOf(t, p); got != want {
					t.Errorf("host %d of network %d is on server %d, want %d", host, i, got.Index, want.Index)
				}
			}
		}
		if got := len(s.templates()); got != 3 {
			t.Errorf("%d templates", got)
		}
		for network, e := range s.templates() {
			if e.Controlled != 3 || e.Proven || e.Service != s.service.Index {
				t.Errorf("template of %v: %+v, want 3 connections, unproven", network, e)
			}
		}
		s.diffTemplates(t)
		diffLoads(t, f, s.service.Servers...)
		diffPairs(t, f)
		for _, p := range packets[1:] {
			s.remove(t, p)
			s.diffTemplates(t)
		}
		// Without a connection a template lives on, and is followed.
		if got := s.connectionOf(t, s.requestFrom(1, 9)); got != second {
			t.Errorf("network 1 is on server %d now, want %d still", got.Index, second.Index)
		}
		// An edit that leaves the service without persistence leaves the templates unused.
		s.service.Flags &^= bpf.KernelServiceFlagsSERVICE_PERSISTENT
		f.Apply(s.service)
		if got := s.connectionOf(t, s.requestFrom(0, 10)); got != second { // rr's turn
			t.Errorf("server %d without persistence, want rr's turn %d", got.Index, second.Index)
		}
		if events := f.Events(); len(events) != 0 {
			t.Errorf("events: %v", events)
		}
	})
}

// What keeps a template from being followed, and what does not (kernel:
// ip_vs_check_template).
func TestTemplateIsFollowed(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	const quiescent = bpf.KernelServiceFlagsSERVICE_EXPIRE_QUIESCENT
	for _, tt := range []struct {
		name     string
		change   func(*scene, *bpftest.Server)
		followed bool
	}{
		{"weight 0", func(_ *scene, server *bpftest.Server) { server.Weight = 0 }, true},
		{"weight 0, expire_quiescent_template", func(s *scene, server *bpftest.Server) {
			server.Weight, s.service.Flags = 0, s.service.Flags|quiescent
		}, false},
		{"expire_quiescent_template", func(s *scene, _ *bpftest.Server) { s.service.Flags |= quiescent }, true},
		{"draining", func(_ *scene, server *bpftest.Server) { server.Draining = true }, false},
		{"overloaded", func(_ *scene, server *bpftest.Server) { server.Upper = 1 }, true},
		{"another method", func(_ *scene, server *bpftest.Server) { server.Method = dr }, true},
		{"removed", func(s *scene, _ *bpftest.Server) { s.service.Servers = s.service.Servers[1:] }, false},
	} {
		for _, a := range families {
			t.Run(a.name+"/"+tt.name, func(t *testing.T) {
				s := newPersistentScene(t, f, a, bpftest.TCP, nat, nat)
				first, second := s.service.Servers[0], s.service.Servers[1]
				s.connectionOf(t, s.requestFrom(0, 1))
				tt.change(s, first)
				f.Apply(s.service)
				if first.Upper != 0 { // a bind sets the flag
					s.connectionOf(t, s.requestFrom(0, 2))
				}
				want, network := first, s.network(s.requestFrom(0, 0))
				if !tt.followed {
					want = second
				}
				for host := 3; host < 5; host++ {
					if got := s.connectionOf(t, s.requestFrom(0, host)); got != want {
						t.Errorf("on server %d, want %d", got.Index, want.Index)
					}
				}
				if got := s.templates()[network]; got.Server != want.Index {
					t.Errorf("the template names server %d, want %d", got.Server, want.Index)
				}
				// The old connection is not the new template's.
				before := s.templates()[network].Controlled
				s.remove(t, s.requestFrom(0, 1))
				after := s.templates()[network].Controlled
				if moved := before != after; moved != tt.followed {
					t.Errorf("the end of the first connection moved the count from %d to %d", before, after)
				}
				if got := f.Load(first).Templates + f.Load(second).Templates; got != 1 {
					t.Errorf("%d templates are counted", got)
				}
			})
		}
	}
}

// A template without connections ends with its timeout, whether a sweep or a
// packet meets it; one with connections is given a minute, again and again.
func TestTemplateExpires(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, byPacket := range []bool{true, false} {
		eachPersistent(t, f, func(t *testing.T, s *scene) {
			first, second := s.service.Servers[0], s.service.Servers[1]
			// The connection outlives all of it.
			s.service.Timeouts[bpf.KernelConnStateSTATE_SYN_RECV] = time.Hour
			s.service.Timeouts[bpf.KernelConnStateSTATE_UDP] = time.Hour
			f.Apply(s.service)
			network := s.network(s.requestFrom(0, 0))
			s.connectionOf(t, s.requestFrom(0, 1))
			meet := func(host int) *bpftest.Server {
				if byPacket {
					return s.connectionOf(t, s.requestFrom(0, host))
				}
				f.Sweep()
				f.Sweep() // the first may leave one whose count has just moved
				if e, ok := s.templates()[network]; ok {
					return s.Server(e.Server)
				}
				return nil
			}
			f.AgeBy(persistence - 10*time.Second)
			if got := meet(2); got != first {
				t.Fatal("gone before its time")
			}
			f.AgeBy(persistence + f.Plane.Clock.Tick())
			if got := meet(3); got != first {
				t.Fatal("a template with connections is gone")
			}
			for range 2 { // a minute each time from now on
				f.AgeBy(prolonged - 10*time.Second)
				before := s.templates()[network].Seen
				f.Sweep()
				if after := s.templates()[network].Seen; after != before {
					t.Errorf("prolonged before its time, by %d ticks", after-before)
				}
				f.AgeBy(20 * time.Second)
				if got := meet(4); got != first {
					t.Fatal("a template with connections is gone after a minute")
				}
				s.diffTemplates(t)
			}
			for _, e := range s.Entries() {
				if e.UnderTemplate {
					v6, args := e.RemoveArgs()
					if err := f.Plane.RemoveConnection(v6, &args); err != nil {
						t.Fatal(err)
					}
				}
			}
			f.AgeBy(prolonged + 5*time.Second)
			want := second // rr's turn
			if !byPacket {
				want = nil
			}
			if got := meet(5); got != want {
				t.Errorf("on %+v, want %+v: the template is over", got, want)
			}
			s.diffTemplates(t)
		})
	}
}

// Proven templates that have no connections make room for connections, the oldest
// first; one that has a connection never does.
func TestIdleTemplatesMakeRoom(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 64})
	for _, a := range families {
		s := newPersistentScene(t, f, a, bpftest.TCP, nat, nat)
		s.service.ClientPrefix = s.client.Addr().BitLen() // a template for each client
		f.Apply(s.service)
		kept := s.requestFrom(0, 1)
		s.connectionOf(t, kept)
		s.prove(t, kept)
		const clients = 3000
		for i := range clients {
			p := s.requestFrom(1+i%200, i/200)
			if got := f.Run(p.Bytes()); got.Action == bpftest.TX { // not full yet
				s.prove(t, p)
				s.remove(t, p)
			}
		}
		s.service.Flags &^= bpf.KernelServiceFlagsSERVICE_PERSISTENT
		f.Apply(s.service)
		f.Events()
		const late = 100
		for i := range late {
			p := s.requestFrom(0, 100+i)
			if got := f.Run(p.Bytes()); got.Action != bpftest.TX {
				t.Fatalf("%s: connection %d: %s %v", a.name, i, got.Action, f.Events())
			}
			s.prove(t, p)
		}
		if events := f.Events(); events["table-full"] != 0 {
			t.Errorf("%s: templates without connections are in the way: %v", a.name, events)
		}
		if e := s.templates()[kept.From.Addr()]; !e.Proven {
			t.Errorf("%s: the template with a connection was given up", a.name)
		}
		diffLoads(t, f, s.service.Servers...)
	}
}

// A template is proven by a connection under it, as that is; unproven, it is given
// up for others, proven, never.
func TestTemplateProof(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 64})
	eachPersistent(t, f, func(t *testing.T, s *scene) {
		p := s.requestFrom(0, 1)
		network := s.network(p)
		s.connectionOf(t, p)
		if s.templates()[network].Proven {
			t.Error("proven by a first packet")
		}
		s.prove(t, p)
		if !s.templates()[network].Proven {
			t.Error("not proven by an established connection")
		}
		f.Events()
		const flood = 3000
		for i := range flood {
			f.Age(uint32(i % 10 / 9)) // some time, less than any timeout
			f.Run(s.requestFrom(1+i%200, i/200).Bytes())
		}
		events := f.Events()
		if events["evicted"] == 0 {
			t.Errorf("nothing was given up: the flood is no flood: %v", events)
		}
		if e := s.templates()[network]; e.Server != s.service.Servers[0].Index || !e.Proven {
			t.Errorf("the flood took the proven template: %+v", e)
		}
		if got := s.connectionOf(t, s.requestFrom(0, 2)); got != s.service.Servers[0] {
			t.Error("the client's network is on another server after the flood")
		}
		diffLoads(t, f, s.service.Servers...)
		diffPairs(t, f)
		var templates int64
		for _, server := range s.service.Servers {
			templates += f.Load(server).Templates
		}
		if got := int64(len(s.templates())); got != templates {
			t.Errorf("%d templates, %d are counted", got, templates)
		}
	})
}

// No packet finds a template, whatever its addresses.
func TestNoPacketFindsATemplate(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newPersistentScene(t, f, a, bpftest.TCP, nat)
			s.connectionOf(t, s.requestFrom(0, 1))
			before := f.Entries()
			// The template's own key, as far as a packet can have it.
			index := s.service.Index
			to := netip.AddrFrom4([4]byte{byte(index), byte(index >> 8)})
			if s.isV6() {
				to = netip.AddrFrom16([16]byte{byte(index), byte(index >> 8)})
			}
			f.AddVirtualAddress(to)
			for _, protocol := range []uint8{bpftest.TCP, bpftest.UDP} {
				p := bpftest.Packet{
					Source: bpftest.ClientMAC, Destination: bpftest.DirectorOutside, Flags: "A", Protocol: protocol,
					From: netip.AddrPortFrom(s.network(s.requestFrom(0, 1)), 0), To: netip.AddrPortFrom(to, 0),
				}
				frame := p.Bytes()
				run(t, f, frame, passed(frame), one("no-service"))
				next := 14 + 9
				if s.isV6() {
					next = 14 + 6
				}
				frame = slices.Clone(frame)
				frame[next] = uint8(bpf.KernelTemplateLayoutPROTOCOL_TEMPLATE)
				run(t, f, frame, passed(frame), one("protocol"))
			}
			if diff := cmp.Diff(before, f.Entries(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Errorf("table (-before +after):\n%s", diff)
			}
		})
	}
}

// A server that cannot take a client's connection because the reply key is taken
// passes it on; the template stays, and does not count it.
func TestTemplateStaysWhereAReplyCollides(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newPersistentScene(t, f, a, bpftest.TCP, nat, nat)
			first, second := s.service.Servers[0], s.service.Servers[1]
			p := s.requestFrom(0, 1)
			s.connectionOf(t, p)
			// Another service with the first server's address has the client's next port.
			other := &bpftest.Service{Listen: s.secondVirtual, Servers: []*bpftest.Server{
				{Address: first.Address, Weight: 1, Hop: first.Hop},
			}}
			f.Apply(other)
			taken := s.requestFrom(0, 2)
			taken.To = s.secondVirtual
			f.Run(taken.Bytes())
			f.Events()
			if got := s.connectionOf(t, s.requestFrom(0, 2)); got != second {
				t.Errorf("on server %d, want %d", got.Index, second.Index)
			}
			if events := f.Events(); events["collision-avoided"] == 0 {
				t.Errorf("events %v", events)
			}
			if e := s.templates()[s.network(p)]; e.Server != first.Index || e.Controlled != 1 {
				t.Errorf("template %+v, want on server %d with one connection", e, first.Index)
			}
			s.diffTemplates(t)
		})
	}
}
