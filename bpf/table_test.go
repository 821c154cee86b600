package bpf_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// An expired connection is dead to its packets whether or not anybody sweeps.
func TestExpired(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	eachScene(t, f, func(t *testing.T, s *scene) {
		s.establish(t)
		timeout := bpftest.Timeouts[bpf.KernelConnState(s.Entries()[0].State)]
		again := s.request()
		again.Flags = "A"

		f.AgeBy(timeout - 10*time.Second) // not yet
		run(t, f, again.Bytes(), sent(forwarded(again, s.server)), nil)
		diffLoads(t, f, s.service.Servers[0])

		f.AgeBy(timeout + f.Plane.Clock.Tick())
		if s.protocol == bpftest.TCP {
			run(t, f, again.Bytes(), dropped, one("expired-hit", "midstream"))
			diffEntries(t, f)
		} else {
			run(t, f, s.reply().Bytes(), passed(s.reply().Bytes()), one("expired-hit", "no-service"))
			diffEntries(t, f)
		}
		diffLoads(t, f, s.service.Servers[0])

		// The first packet of a connection makes a new one, where it met the old one too.
		for _, events := range []map[string]uint64{nil, one("expired-hit")} {
			run(t, f, s.request().Bytes(), sent(forwarded(s.request(), s.server)), events)
			diffEntries(t, f, s.both(firstState(s.protocol), false)...)
			diffLoads(t, f, s.service.Servers[0])
			f.AgeBy(time.Hour)
		}
	})
}

// The clock that runs is the one that counts: without a hand in the table.
func TestExpiresByTheClock(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	s := newScene(t, f, families[0], bpftest.TCP, dr)
	f.ChangeSettings(func(settings *bpf.KernelSettings) { settings.Timeout[synReceived] = 0 })
	if got := f.Run(s.request().Bytes()); got.Action != bpftest.TX {
		t.Fatal(got.Action)
	}
	waitTick(t, f, s.Entries()[0].Seen+1)
	// Not an acknowledgement alone: no timeout is shorter than what that may rely on.
	again := s.request()
	again.Flags = "FA"
	run(t, f, again.Bytes(), dropped, one("expired-hit", "midstream"))
}

// The sweep removes what has expired, both keys, in slices, and recounts.
func TestSweep(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.TCP, nat, dr)
			const clients = 300
			for i := range clients {
				f.Run(s.requestOf(i).Bytes())
			}
			f.AgeBy(bpftest.Timeouts[bpf.KernelConnStateSTATE_SYN_RECV])
			for i := range clients {
				if i%3 == 0 {
					continue
				}
				ack := s.requestOf(i)
				ack.Flags = "A"
				f.Run(ack.Bytes())
			}
			f.Age(1)
			before := len(f.Entries())

			table, v6 := f.Plane.Connections4, s.isV6()
			if v6 {
				table = f.Plane.Connections6
			}
			clearRecounts(t, f)
			var removed, live uint32
			args := bpf.KernelSweepArgs{Groups: 3}
			for args.FirstGroup < table.MaxEntries() {
				args.Groups = min(args.Groups, table.MaxEntries()-args.FirstGroup)
				if err := f.Plane.Sweep(v6, &args); err != nil {
					t.Fatal(err)
				}
				if args.NextGroup != args.FirstGroup+args.Groups || args.Orphans != 0 {
					t.Fatalf("slice: %+v", args)
				}
				removed, live = removed+args.Removed, live+args.LiveKeys
				args.FirstGroup = args.NextGroup
			}
			if removed != clients/3 {
				t.Errorf("removed %d connections, want %d", removed, clients/3)
			}
			entries := f.Entries()
			// Every second connection is NAT's with two keys: of those removed too.
			if len(entries) >= before || uint32(len(entries)) > live {
				t.Errorf("%d keys are left of %d; the sweep saw %d", len(entries), before, live)
			}
			for _, e := range entries {
				if e.State != established {
					t.Errorf("left: %v -> %v in state %d", e.Source, e.Destination, e.State)
				}
			}
			diffPairs(t, f)
			diffLoads(t, f, s.service.Servers...)
			// Once more: what is left is all there is to count.
			clearRecounts(t, f)
			if again := f.Sweep(); again != 0 {
				t.Errorf("the second sweep removed %d", again)
			}
			for _, server := range s.service.Servers {
				var recount bpf.KernelRecount
				if err := f.Plane.Recounts.Lookup(server.Index, &recount); err != nil {
					t.Fatal(err)
				}
				want := bpf.KernelRecount{}
				for _, e := range entries {
					if e.Server == server.Index {
						want.Keys++
						if !e.Reply {
							want.Active++
						}
					}
				}
				if recount != want {
					t.Errorf("server %d recounted %+v, want %+v", server.Index, recount, want)
				}
			}
		})
	}
}

func clearRecounts(t *testing.T, f *bpftest.Fixture) {
	t.Helper()
	for i := range f.Plane.Recounts.MaxEntries() {
		if err := f.Plane.Recounts.Put(i, &bpf.KernelRecount{}); err != nil {
			t.Fatal(err)
		}
	}
}

// requestOf is the first packet of the i-th client.
func (s *scene) requestOf(i int) bpftest.Packet {
	p := s.request()
	b := s.client.Addr().AsSlice()
	binary.BigEndian.PutUint16(b[len(b)-2:], uint16(i))
	address, _ := netip.AddrFromSlice(b)
	p.From = netip.AddrPortFrom(address, uint16(1024+i))
	return p
}

// diffPairs holds that no key is there twice, that every NAT connection has both
// its keys, and that nothing is claimed.
func diffPairs(t *testing.T, f *bpftest.Fixture) {
	t.Helper()
	type key struct {
		source, destination netip.AddrPort
		protocol            uint8
		service             uint32 // a template's
	}
	forward, reply := map[key]bpf.Entry{}, map[key]bpf.Entry{}
	for _, e := range f.Entries() {
		k := key{e.Source, e.Destination, e.Protocol, e.Service}
		side := forward
		if e.Reply {
			side = reply
		}
		if _, twice := side[k]; twice {
			t.Errorf("%v is there twice", k)
		}
		if e.Busy {
			t.Errorf("%v is still claimed", k)
		}
		side[k] = e
	}
	locals, err := f.Plane.LocalAddresses()
	if err != nil {
		t.Fatal(err)
	}
	pairs := 0
	for k, e := range forward {
		client := k.source
		switch {
		case e.Template:
			continue
		case e.Method == uint8(fullNAT):
			index, port := bpf.ParseLocal(e.Local)
			client = netip.AddrPortFrom(bpf.ParseAddress(locals[index].Address, client.Addr().Is6()), port)
		case e.Method != uint8(nat):
			continue
		}
		pairs++
		r, ok := reply[key{f.Server(e.Server).Address, client, k.protocol, 0}]
		if !ok || r.Server != e.Server {
			t.Errorf("%v on server %d: its reply key: %v on %d", k, e.Server, ok, r.Server)
		}
	}
	if pairs != len(reply) {
		t.Errorf("%d NAT connections, %d reply keys", pairs, len(reply))
	}
}

// setOf returns the group and the set in it of a client's key: the table's hash
// and place (table.h, hash_key and locate), written down once more.
func setOf(t *testing.T, f *bpftest.Fixture, p bpftest.Packet) (group, set uint32) {
	t.Helper()
	settings, err := f.Plane.Settings()
	if err != nil {
		t.Fatal(err)
	}
	seed := settings.Seed
	source, destination := bpf.Address(p.From.Addr()), bpf.Address(p.To.Addr())
	ports := uint32(bpf.Port(p.From.Port())) | uint32(bpf.Port(p.To.Port()))<<16
	hash := seed[10] + (seed[0]+uint64(source[0]))*(seed[1]+uint64(destination[0])) +
		(seed[2]+uint64(ports))*(seed[3]+uint64(p.Protocol))
	table := f.Plane.Connections4
	if p.From.Addr().Is6() {
		table = f.Plane.Connections6
		for i := 1; i < 4; i++ {
			hash += (seed[2+2*i] + uint64(source[i])) * (seed[3+2*i] + uint64(destination[i]))
		}
	}
	hash = (hash ^ hash>>29) * 0xbf58476d1ce4e5b9 >> 32
	product := hash * uint64(table.MaxEntries())
	return uint32(product >> 32), uint32(uint64(uint32(product)) * uint64(bpf.KernelTableShapeSETS) >> 32)
}

// places is how many connections of one set there is room for.
const places = int(bpf.KernelTableShapeWAYS + bpf.KernelTableShapeOVERFLOW)

// crowd returns n first packets whose keys belong to one set.
func (s *scene) crowd(t *testing.T, n int) []bpftest.Packet {
	t.Helper()
	group, set := setOf(t, s.Fixture, s.requestOf(0))
	return s.crowdIn(t, group, set, n)
}

// crowdIn returns n first packets whose keys belong to that set.
func (s *scene) crowdIn(t *testing.T, wantGroup, wantSet uint32, n int) []bpftest.Packet {
	t.Helper()
	var crowd []bpftest.Packet
	for i := 0; len(crowd) < n; i++ {
		if i > 60000 {
			t.Fatalf("only %d of 60000 clients are of one set", len(crowd))
		}
		p := s.requestOf(i)
		if group, set := setOf(t, s.Fixture, p); group == wantGroup && set == wantSet {
			crowd = append(crowd, p)
		}
	}
	return crowd
}

// A full set gives up its expired connections first, else the one unproven for
// longest, never a proven one.
func TestEviction(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 64})
	for _, a := range families {
		for _, protocol := range protocols {
			t.Run(fmt.Sprint(a.name, "/", protocol.name), func(t *testing.T) {
				testEviction(t, newScene(t, f, a, protocol.number, dr))
			})
		}
	}
	t.Run("nat gives up both keys", func(t *testing.T) {
		for _, a := range families {
			s := newScene(t, f, a, bpftest.TCP, nat)
			const clients = 2000
			for i := range clients {
				f.Run(s.requestOf(i).Bytes())
			}
			events := f.Events()
			diffPairs(t, f)
			diffLoads(t, f, s.service.Servers...)
			made := uint64(len(f.Entries())/2) + events["evicted"]
			if events["evicted"] == 0 || events["table-full"] > clients/2 || made < clients-events["table-full"] {
				t.Errorf("%s: %d connections are left: %v", a.name, len(f.Entries())/2, events)
			}
		}
	})
}

func testEviction(t *testing.T, s *scene) {
	crowd := s.crowd(t, places+6)
	made, late := crowd[:places], crowd[places:]
	for _, p := range made {
		s.Age(1) // those before
		run(t, s.Fixture, p.Bytes(), sent(routed(p)), nil)
	}
	if got := len(s.Entries()); got != places {
		t.Fatalf("%d of %d fit", got, places)
	}
	there := func(p bpftest.Packet) bool {
		for _, e := range s.Entries() {
			if e.Source == p.From {
				return true
			}
		}
		return false
	}
	// The first made is the oldest; made proven, it stays and the next one goes.
	s.prove(t, made[0])
	run(t, s.Fixture, late[0].Bytes(), sent(routed(late[0])), one("evicted"))
	if !there(made[0]) || there(made[1]) || !there(late[0]) || !there(made[2]) {
		t.Error("another than the oldest unproven connection was given up")
	}
	diffLoads(t, s.Fixture, s.service.Servers...)

	s.prove(t, append(made[2:places:places], late[0])...)
	run(t, s.Fixture, late[1].Bytes(), dropped, one("table-full"))
	if there(late[1]) || len(s.Entries()) != places {
		t.Error("a proven connection was given up")
	}
	diffLoads(t, s.Fixture, s.service.Servers...)

	// Expired, they make room, and that is no eviction.
	s.AgeBy(time.Hour)
	run(t, s.Fixture, late[2].Bytes(), sent(routed(late[2])), nil)
	if !there(late[2]) || len(s.Entries()) != places {
		t.Error("no expired connection made room")
	}
	diffLoads(t, s.Fixture, s.service.Servers...)
}

// prove has the clients of first packets show that they are real. By NAT their servers
// answer, and UDP's come again a second later; elsewhere TCP's handshake is completed, and then they come three times, a
// second apart: that much older are all others then.
func (s *scene) prove(t *testing.T, packets ...bpftest.Packet) {
	t.Helper()
	if s.service.Servers[0].Method == nat {
		for _, p := range packets {
			s.answer(t, p)
		}
		if s.protocol == bpftest.UDP {
			s.Age(s.Plane.Clock.Ticks(time.Second))
			for _, p := range packets {
				s.pass(t, "a packet a second later", p)
			}
		}
		return
	}
	for i := range 4 {
		for _, p := range packets {
			p.Flags = "A"
			s.pass(t, fmt.Sprintf("packet %d of the proof", i), p)
		}
		s.Age(s.Plane.Clock.Ticks(time.Second))
	}
}

// answer has the server of a first packet, which has been sent, answer it, and then
// TCP's client acknowledge that.
func (s *scene) answer(t *testing.T, p bpftest.Packet) {
	t.Helper()
	reply := s.reply()
	reply.To = p.From
	for _, e := range s.Entries() {
		if e.Source == p.From && e.Destination == p.To && !e.Reply {
			reply.From = s.Server(e.Server).Address
		}
	}
	s.pass(t, "the server's answer", reply)
	if s.protocol == bpftest.TCP {
		s.pass(t, "the client's acknowledgement", bpftest.Handshake(p, reply)[2])
	}
}

// One connection is removed by its key, both entries, and is then not there.
func TestRemoveConnection(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	eachScene(t, f, func(t *testing.T, s *scene) {
		s.establish(t)
		other := s.request()
		other.From = s.other
		f.Run(other.Bytes())
		args := bpf.KernelRemoveArgs{
			Client: bpf.Address(s.client.Addr()), ClientPort: bpf.Port(s.client.Port()),
			VirtualAddress: bpf.Address(s.virtual.Addr()), VirtualPort: bpf.Port(s.virtual.Port()), Protocol: s.protocol,
		}
		if err := f.Plane.RemoveConnection(s.isV6(), &args); err != nil {
			t.Fatal(err)
		}
		var left []netip.AddrPort
		for _, e := range f.Entries() {
			left = append(left, e.Source)
		}
		want := []netip.AddrPort{s.other, s.server}
		if diff := cmp.Diff(want, left, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("sources left (-want +got):\n%s", diff)
		}
		diffLoads(t, f, s.service.Servers...)
		if err := f.Plane.RemoveConnection(s.isV6(), &args); !errors.Is(err, bpf.ErrNotFound) {
			t.Errorf("removed twice: %v", err)
		}
	})
}
