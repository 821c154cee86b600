package bpf_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// invented is a packet from an address and port that a flood makes up.
func invented(random *rand.Rand, p bpftest.Packet) bpftest.Packet {
	b := p.From.Addr().AsSlice()
	for i := len(b) - 3; i < len(b); i++ {
		b[i] = byte(random.Uint32())
	}
	address, _ := netip.AddrFromSlice(b)
	p.From = netip.AddrPortFrom(address, uint16(1024+random.IntN(60000)))
	p.Seq, p.Ack = random.Uint32(), random.Uint32()
	return p
}

// Floods from everywhere, ten times what the table holds: no proven connection of
// any service loses its entry, its packets or its counters, and a real client of
// another service gets one.
func TestFloodTakesNothingProven(t *testing.T) {
	const connections = 64
	f := bpftest.New(t, bpftest.Options{Connections: connections})
	const slots = (connections*5 + uint64(bpf.KernelTableShapeSLOTS) - 1) / uint64(bpf.KernelTableShapeSLOTS) * uint64(bpf.KernelTableShapeSLOTS)
	const clients = 40
	for _, a := range families {
		for _, flood := range []struct {
			name     string
			protocol uint8
			flags    []string
			method   bpf.KernelMethod
			answered bool // by the server
		}{
			{"SYN", bpftest.TCP, []string{"S"}, nat, true},
			{"SYN and ACK", bpftest.TCP, []string{"S", "A"}, nat, true},
			{"SYN and ACK at once", bpftest.TCP, []string{"S", "A"}, nat, false},
			{"SYN and ACK, no replies seen", bpftest.TCP, []string{"S", "A"}, dr, false},
			{"UDP", bpftest.UDP, []string{""}, nat, false},
			{"UDP, answered", bpftest.UDP, []string{""}, nat, true},
			{"UDP, no replies seen", bpftest.UDP, []string{""}, dr, false},
		} {
			t.Run(a.name+"/"+flood.name, func(t *testing.T) {
				s := newScene(t, f, a, bpftest.TCP, nat)
				attacked := &scene{Fixture: f, family: a, protocol: flood.protocol, service: &bpftest.Service{
					Listen: a.secondVirtual, Protocol: flood.protocol,
					Servers: []*bpftest.Server{{Address: a.secondServer, Method: flood.method, Weight: 1, Hop: s.service.Servers[0].Hop}},
				}}
				attacked.virtual, attacked.server = a.secondVirtual, a.secondServer
				f.Apply(attacked.service)
				var real []bpftest.Packet
				for i := range clients {
					real = append(real, s.requestOf(i))
					s.pass(t, "SYN", real[i])
					s.prove(t, real[i])
				}
				before := s.Traffic(s.service.Servers[0])
				f.Events()
				random := rand.New(rand.NewPCG(1, 2))
				for range bpftest.Rounds(10*int(slots)) / len(flood.flags) {
					p := invented(random, attacked.request())
					for _, flags := range flood.flags {
						p.Flags = flags
						f.Run(p.Bytes())
						if flags != "A" && flood.answered {
							reply := attacked.reply()
							reply.To, reply.Seq = p.From, random.Uint32()
							f.Run(reply.Bytes())
						}
					}
				}
				if events := f.Events(); events["evicted"] == 0 {
					t.Errorf("nothing was given up: no flood: %v", events)
				}
				for i, p := range real {
					if e := s.forward(t, p); !e.Proven {
						t.Fatalf("client %d: %+v", i, e)
					}
					p.Flags, p.Ack = "A", s.reply().Seq+1
					s.pass(t, "ACK", p)
					answer := s.reply()
					answer.To, answer.Flags = p.From, "A"
					s.pass(t, "answer", answer)
				}
				size := ipLength(s.request())
				before.InPackets, before.OutPackets = before.InPackets+clients, before.OutPackets+clients
				before.InBytes, before.OutBytes = before.InBytes+clients*size, before.OutBytes+clients*size
				if diff := cmp.Diff(before, s.Traffic(s.service.Servers[0])); diff != "" {
					t.Errorf("traffic (-want +got):\n%s", diff)
				}
				late := s.requestOf(clients)
				s.pass(t, "the SYN of a new client", late)
				s.prove(t, late)
				diffLoads(t, f, s.service.Servers[0], attacked.service.Servers[0])
				diffPairs(t, f)
			})
		}
	}
}

// In a set that a flood of one service has filled, the handshakes of another outlive
// the flood's entries, although they are older, and its new clients find room.
func TestFloodGivesUpItsOwn(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 64})
	for _, a := range families {
		for _, flood := range []struct {
			name  string
			flags []string
		}{{"unproven", []string{"S"}}, {"half proven", []string{"S", "A"}}} {
			t.Run(a.name+"/"+flood.name, func(t *testing.T) {
				const handshakes, rounds = 5, 3
				s := newScene(t, f, a, bpftest.TCP, dr)
				attacked := &scene{Fixture: f, family: a, protocol: bpftest.TCP, service: &bpftest.Service{
					Listen: a.secondVirtual, Protocol: bpftest.TCP,
					Servers: []*bpftest.Server{{Address: a.secondVirtual, Method: dr, Weight: 1, Hop: s.service.Servers[0].Hop}},
				}}
				attacked.virtual = a.secondVirtual
				f.Apply(attacked.service)
				group, set := setOf(t, f, s.requestOf(0))
				real := s.crowdIn(t, group, set, handshakes+1)
				for _, p := range real[:handshakes] {
					s.pass(t, "a handshake's first segment", p)
				}
				for _, p := range attacked.crowdIn(t, group, set, rounds*places) {
					f.Age(1)
					for _, flags := range flood.flags {
						p.Flags = flags
						s.pass(t, "the flood", p)
					}
				}
				const made = handshakes + rounds*uint64(bpf.KernelTableShapeWAYS+bpf.KernelTableShapeOVERFLOW)
				if got := f.Events()["evicted"]; got != made-uint64(places) {
					t.Errorf("%d were given up, want %d", got, made-uint64(places))
				}
				s.pass(t, "a new client's first segment", real[handshakes])
				if diff := cmp.Diff(one("evicted"), f.Events()); diff != "" {
					t.Errorf("events (-want +got):\n%s", diff)
				}
				for _, p := range real {
					p.Flags = "A"
					s.pass(t, "a handshake's last segment", p)
					if e := s.forward(t, p); e.State != established {
						t.Errorf("%+v, want it established", e)
					}
				}
				diffLoads(t, f, s.service.Servers[0], attacked.service.Servers[0])
			})
		}
	}
}

// A flood of a persistent service gives up its templates, too, before another
// service's handshakes.
func TestFloodOfTemplatesGivesUpItsOwn(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 64})
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.TCP, dr)
			attacked := &scene{Fixture: f, family: a, protocol: bpftest.TCP, service: &bpftest.Service{
				Listen: a.secondVirtual, Protocol: bpftest.TCP,
				Flags: bpf.KernelServiceFlagsSERVICE_PERSISTENT, ClientPrefix: a.client.Addr().BitLen(),
				Timeouts: map[bpf.KernelConnState]time.Duration{bpf.KernelConnStateSTATE_TEMPLATE: persistence},
				Servers:  []*bpftest.Server{{Address: a.secondVirtual, Method: dr, Weight: 1, Hop: s.service.Servers[0].Hop}},
			}}
			attacked.virtual = a.secondVirtual
			f.Apply(attacked.service)
			random := rand.New(rand.NewPCG(6, 5))
			flood := func(packets int) {
				for range packets {
					s.pass(t, "the flood", invented(random, attacked.request()))
				}
			}
			flood(2000)
			if len(attacked.templates()) < places {
				t.Fatalf("%d templates: no flood of them", len(attacked.templates()))
			}
			for i := range 10 {
				p := s.requestOf(i)
				s.pass(t, "a handshake's first segment", p)
				f.Age(1)
				flood(100)
				p.Flags = "A"
				s.pass(t, "a handshake's last segment", p)
			}
			diffLoads(t, f, s.service.Servers[0], attacked.service.Servers[0])
		})
	}
}
