package bpf_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// Connections that are killed with resets end at both sides.
func TestKill(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, part := range []struct {
		name string
		test func(*testing.T, *bpftest.Fixture)
	}{
		{"segments", killEach},
		{"before the handshake", killEarly},
		{"headers", killWithHeaders},
		{"resets and a new connection", killAndGoOn},
		{"timeout", killAndWait},
		{"UDP", killOthers},
		{"wide", killWide},
		{"beside packets", killBesidePackets},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, f) })
	}
}

// kill ends the packet's connection with resets.
func (s *scene) kill(p bpftest.Packet) error {
	return s.Plane.RemoveConnection(s.isV6(), &bpf.KernelRemoveArgs{
		Client: bpf.Address(p.From.Addr()), ClientPort: bpf.Port(p.From.Port()),
		VirtualAddress: bpf.Address(p.To.Addr()), VirtualPort: bpf.Port(p.To.Port()), Protocol: s.protocol,
		WithResets: 1,
	})
}

// segment is one of the established connection: from the client, or from the server.
func (s *scene) segment(fromServer bool, flags string, payload int) bpftest.Packet {
	p := s.request()
	p.Seq, p.Ack = 1001, 5001
	if fromServer {
		p = s.reply()
		p.Seq, p.Ack = 5001, 1001
	}
	p.Flags, p.Payload = flags, pattern(payload)
	return p
}

// on is the segment as its receiver gets it.
func (s *scene) on(p bpftest.Packet) bpftest.Packet {
	switch {
	case p.From == s.server:
		return returned(p, s.virtual)
	case s.service.Servers[0].Method == nat:
		return forwarded(p, s.server)
	default:
		return routed(p)
	}
}

// passedOn sends the segment, which must go on as a reset; answered one that must be
// answered by the reset; both of a connection that was killed.
func (s *scene) passedOn(t *testing.T, p bpftest.Packet) {
	t.Helper()
	run(t, s.Fixture, p.Bytes(), bpftest.Result{Action: bpftest.TX, Packet: bpftest.AsReset(s.on(p))}, one("killed-forwarded"))
}

func (s *scene) answered(t *testing.T, p bpftest.Packet) {
	t.Helper()
	flags, seq, ack := "R", p.Ack, uint32(0)
	if !slices.Contains([]byte(p.Flags), 'A') {
		flags, seq, ack = "RA", 0, p.Seq+uint32(len(p.Payload))
		if slices.Contains([]byte(p.Flags), 'F') {
			ack++
		}
	}
	before := killedOf(t, s)
	run(t, s.Fixture, p.Bytes(), bpftest.Result{Action: bpftest.TX, Packet: bpftest.Reset(p, flags, seq, ack)}, one("killed"))
	if got := killedOf(t, s); got != before+1 {
		t.Errorf("counted of the service: %d, before %d", got, before)
	}
}

// Every kind of segment of a killed connection ends it at one side or the other, in
// both directions, with the numbers that the receiver expects.
func killEach(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		for name, method := range map[string]bpf.KernelMethod{"nat": nat, "dr": dr} {
			for _, fromServer := range []bool{false, true} {
				if fromServer && method != nat {
					continue // they do not come this way
				}
				for _, tt := range []struct {
					flags   string
					payload int
					goesOn  bool
				}{
					{"PA", 100, true},
					{"A", 1400, true},
					{"FA", 0, true},
					{"F", 1, true},
					{"A", 0, false},
					{"", 0, false},
				} {
					side := map[bool]string{true: "server", false: "client"}[fromServer]
					t.Run(a.name+"/"+name+"/"+side+"/"+tt.flags, func(t *testing.T) {
						s := newScene(t, f, a, bpftest.TCP, method)
						s.establish(t)
						if err := s.kill(s.request()); err != nil {
							t.Fatal(err)
						}
						p := s.segment(fromServer, tt.flags, tt.payload)
						p.TCPOptions = 12
						if tt.goesOn {
							s.passedOn(t, p)
						}
						s.answered(t, p) // also when it comes again
						s.answered(t, p)
						if method != nat {
							return
						}
						// Its sender knows: what the other end says is answered at once.
						s.answered(t, s.segment(!fromServer, "PA", 10))
						s.answered(t, s.segment(!fromServer, "A", 0))
					})
				}
			}
		}
	}
}

// A server's answer to a first segment that is sent again resets the client that
// waits for it.
func killEarly(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.TCP, nat)
			s.run(t, s.request())
			if err := s.kill(s.request()); err != nil {
				t.Fatal(err)
			}
			s.passedOn(t, s.reply())
			s.answered(t, s.reply())
		})
	}
}

// Tags, options and extension headers stay as they are around a segment that is made
// a reset.
func killWithHeaders(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.TCP, nat)
			s.establish(t)
			p := s.segment(false, "PA", 333)
			p.TCPOptions = 12
			if a.isV6() {
				p.Extensions = []bpftest.Extension{{Header: 60, Length: 16}}
			} else {
				p.Options = 8
			}
			if err := s.kill(s.request()); err != nil {
				t.Fatal(err)
			}
			s.passedOn(t, p)
			run(t, f, p.Bytes(), dropped, one("not-quotable"))
			plain := s.segment(false, "PA", 333)
			plain.VLANs = []uint16{100}
			s.answered(t, plain)
		})
		t.Run(a.name+"/vlan", func(t *testing.T) {
			s := newScene(t, f, a, bpftest.TCP, nat)
			s.establish(t)
			if err := s.kill(s.request()); err != nil {
				t.Fatal(err)
			}
			p := s.segment(false, "PA", 333)
			p.VLANs = []uint16{100, 7}
			untagged := p
			untagged.VLANs = nil // the server's next hop has no tags
			run(t, f, p.Bytes(), bpftest.Result{Action: bpftest.TX, Packet: bpftest.AsReset(s.on(untagged))}, one("killed-forwarded"))
			s.answered(t, p)
		})
	}
}

// Resets of either end go on as they are, and a new first segment of the client's
// begins another connection.
func killAndGoOn(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.TCP, nat)
			server := s.service.Servers[0]
			s.establish(t)
			if load := f.Load(server); load.Active != 1 {
				t.Fatalf("load %+v before", load)
			}
			if err := s.kill(s.request()); err != nil {
				t.Fatal(err)
			}
			diffLoads(t, f, server)
			if load := f.Load(server); load.Active != 0 || load.Inactive != 1 {
				t.Errorf("load %+v of a killed one", load)
			}
			if err := s.kill(s.request()); !errors.Is(err, bpf.ErrNotFound) {
				t.Errorf("killed again: %v, want %v", err, bpf.ErrNotFound)
			}
			for _, p := range []bpftest.Packet{s.segment(false, "RA", 0), s.segment(true, "R", 0)} {
				run(t, f, p.Bytes(), sent(s.on(p)), nil)
			}
			diffStates(t, f, bpf.KernelConnStateSTATE_CLOSE, bpf.KernelConnStateSTATE_CLOSE)
			run(t, f, s.request().Bytes(), sent(forwarded(s.request(), s.server)), nil)
			diffStates(t, f, bpf.KernelConnStateSTATE_SYN_RECV, bpf.KernelConnStateSTATE_SYN_RECV)
			diffLoads(t, f, server)
			run(t, f, s.reply().Bytes(), sent(returned(s.reply(), s.virtual)), nil)
		})
	}
}

// A killed connection's entry is gone after the timeout of its state, however many
// packets there are; its segments are those of none then.
func killAndWait(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.TCP, nat)
			s.establish(t)
			f.AgeBy(10 * time.Minute)
			if err := s.kill(s.request()); err != nil {
				t.Fatal(err)
			}
			f.AgeBy(6 * time.Second)
			s.answered(t, s.segment(true, "A", 0))
			s.answered(t, s.segment(false, "A", 0))
			f.AgeBy(6 * time.Second)
			run(t, f, s.segment(false, "A", 0).Bytes(), dropped, one("expired-hit", "midstream"))
			diffEntries(t, f)
			if load := f.Load(s.service.Servers[0]); load.Active != 0 || load.Inactive != 0 {
				t.Errorf("load %+v in the end", load)
			}
		})
	}
}

// What is no TCP connection is removed at once.
func killOthers(t *testing.T, f *bpftest.Fixture) {
	s := newScene(t, f, families[0], bpftest.UDP, nat)
	s.establish(t)
	if err := s.kill(s.request()); err != nil {
		t.Fatal(err)
	}
	diffEntries(t, f)
	if err := s.kill(s.request()); !errors.Is(err, bpf.ErrNotFound) {
		t.Errorf("killed what is not there: %v, want %v", err, bpf.ErrNotFound)
	}
}

// Connections of services of several addresses are reset with the addresses that
// they have.
func killWide(t *testing.T, f *bpftest.Fixture) {
	eachWide(t, f, func(t *testing.T, s *scene) {
		if s.protocol != bpftest.TCP {
			return
		}
		s.establish(t)
		if err := s.kill(s.request()); err != nil {
			t.Fatal(err)
		}
		s.passedOn(t, s.segment(true, "PA", 10))
		s.answered(t, s.segment(true, "PA", 10))
		s.answered(t, s.segment(false, "PA", 10))
	})
}

// Packets that settle a connection while it is killed leave it killed, and counted
// once.
func killBesidePackets(t *testing.T, f *bpftest.Fixture) {
	for range 20 {
		s := newScene(t, f, families[0], bpftest.TCP, nat)
		server := s.service.Servers[0]
		frames := [][]byte{s.segment(false, "FA", 0).Bytes(), s.segment(false, "A", 0).Bytes(), s.segment(true, "FA", 0).Bytes()}
		s.establish(t)
		done := make(chan error)
		go func() {
			var err error
			for i := 0; i < 60 && err == nil; i++ {
				_, err = bpftest.Run(f.Plane.ShuntRoot, loopback, frames[i%len(frames)])
			}
			done <- err
		}()
		err := s.kill(s.request())
		if packets := <-done; packets != nil {
			t.Fatal(packets)
		}
		if err != nil {
			t.Fatal(err)
		}
		diffLoads(t, f, server)
		if load := f.Load(server); load.Active != 0 || load.Inactive != 1 {
			t.Fatalf("load %+v", load)
		}
	}
	diffStates(t, f, bpf.KernelConnStateSTATE_CLOSE, bpf.KernelConnStateSTATE_CLOSE)
}

// diffStates compares the states of the table's entries, the forward ones first.
func diffStates(t *testing.T, f *bpftest.Fixture, want ...bpf.KernelConnState) {
	t.Helper()
	var got []bpf.KernelConnState
	for _, e := range f.Entries() {
		got = append(got, bpf.KernelConnState(e.State))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
}

// killedOf is how many packets of the service's killed connections were answered.
func killedOf(t *testing.T, s *scene) (n uint64) {
	t.Helper()
	for _, d := range dropsOf(t, s.Fixture) {
		if d.Event == bpf.KernelEventEVENT_ANSWER_KILLED && d.Service == s.service.Index {
			n += d.Packets
		}
	}
	return n
}
