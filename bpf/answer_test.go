package bpf_test

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// ICMP's numbers, IPv4 then IPv6 (RFC 792, RFC 4443).
var (
	portUnreachable = [2]bpftest.ICMPError{{Type: 3, Code: 3}, {Type: 1, Code: 4}}
	timeExceeded    = [2]bpftest.ICMPError{{Type: 11}, {Type: 3}}
	tooBig          = [2]bpftest.ICMPError{{Type: 3, Code: 4}, {Type: 2}}
)

// icmp is the error about the packet: it quotes the IP header and 8 octets.
func (s *scene) icmp(e [2]bpftest.ICMPError, p bpftest.Packet) bpftest.Result {
	about := e[0]
	about.Quoted = 20 + p.Options + 8
	if s.isV6() {
		about = e[1]
		about.Quoted = 40 + 8
	}
	about.From = s.service.Listen.Addr()
	return bpftest.Result{Action: bpftest.TX, Packet: about.About(p)}
}

// eachScene runs a test for every family and protocol, with a NAT server.
func eachScene(t *testing.T, f *bpftest.Fixture, test func(*testing.T, *scene)) {
	t.Helper()
	for _, a := range families {
		for _, protocol := range protocols {
			t.Run(a.name+"/"+protocol.name, func(t *testing.T) {
				test(t, newScene(t, f, a, protocol.number, nat))
			})
		}
	}
}

func TestAnswers(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	t.Run("no server", func(t *testing.T) {
		eachScene(t, f, func(t *testing.T, s *scene) {
			s.service.Servers[0].Weight = 0
			f.Apply(s.service)
			for _, vlans := range [][]uint16{nil, {100}, {100, 7}} {
				p := s.request()
				p.VLANs = vlans
				run(t, f, p.Bytes(), s.icmp(portUnreachable, p), one("no-server"))
				p.Payload = pattern(5000) // cut to what is quoted
				run(t, f, p.Bytes(), s.icmp(portUnreachable, p), one("no-server"))
			}
			diffEntries(t, f)
		})
	})
	t.Run("no server, quoting options", func(t *testing.T) {
		for _, options := range []int{4, 8, 36, 40} {
			for _, payload := range []int{0, 8, 44, 45, 100, 5000} {
				s := newScene(t, f, families[0], bpftest.UDP)
				p := s.request()
				p.Options, p.Payload = options, pattern(payload)
				run(t, f, p.Bytes(), s.icmp(portUnreachable, p), one("no-server"))
			}
		}
	})
	t.Run("no next hop", func(t *testing.T) {
		eachScene(t, f, func(t *testing.T, s *scene) {
			s.service.Servers[0].Hop = 0
			f.Apply(s.service)
			run(t, f, s.request().Bytes(), s.icmp(portUnreachable, s.request()), one("no-server"))
		})
	})
	t.Run("time to live", func(t *testing.T) {
		eachScene(t, f, func(t *testing.T, s *scene) {
			p := s.request()
			p.TTL = 1
			run(t, f, p.Bytes(), s.icmp(timeExceeded, p), one("ttl-exceeded"))
			tagged := p
			tagged.From, tagged.VLANs = s.other, []uint16{100}
			run(t, f, tagged.Bytes(), s.icmp(timeExceeded, tagged), one("ttl-exceeded"))
			// A packet of a connection, and a reply: the answer goes to the server.
			s.establish(t)
			run(t, f, p.Bytes(), s.icmp(timeExceeded, p), one("ttl-exceeded"))
			back := s.reply()
			back.TTL = 1
			run(t, f, back.Bytes(), s.icmp(timeExceeded, back), one("ttl-exceeded"))
		})
	})
	t.Run("too big", func(t *testing.T) { eachScene(t, f, testTooBig) })
	t.Run("not to be answered", func(t *testing.T) {
		for source, a := range map[string]family{
			"0.1.2.3:5": families[0], "127.0.0.1:5": families[0], "224.0.0.1:5": families[0],
			"255.255.255.255:5": families[0], "[::]:5": families[1], "[ff02::1]:5": families[1],
		} {
			s := newScene(t, f, a, bpftest.UDP)
			p := s.request()
			p.From = netip.MustParseAddrPort(source)
			run(t, f, p.Bytes(), dropped, one("martian"))
		}
	})
}

func testTooBig(t *testing.T, s *scene) {
	link := serverLink(s.Outside)
	link.MTU = 1280
	s.SetHop(s.service.Servers[0].Hop, link)
	s.establish(t)
	p := s.request()
	p.Flags, p.DF = "A", true
	p.Payload = pattern(1280 - len(p.Bytes()) + 14 + len(p.Payload))
	run(t, s.Fixture, p.Bytes(), sent(forwarded(p, s.server)), nil)
	p.Payload = pattern(len(p.Payload) + 1)
	about := tooBig
	about[0].Parameter, about[1].Parameter = 1280, 1280
	run(t, s.Fixture, p.Bytes(), s.icmp(about, p), one("frag-needed"))
	if !s.isV6() {
		p.DF = false
		run(t, s.Fixture, p.Bytes(), s.icmp(about, p), one("frag-needed"))
	}
	// Back: the client's next hop, which the program learned.
	s.ChangeLearnedHop(s.Entries()[0].Hop, func(h *bpf.KernelHop) { h.Mtu = 1280 })
	back := s.reply()
	back.DF, back.Payload = true, pattern(1300)
	run(t, s.Fixture, back.Bytes(), s.icmp(about, back), one("frag-needed"))
}

// The limit is for a tick: packets within one see it, the next tick begins anew.
func TestAnswersAreLimited(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{AnswersPerTick: 3})
	stayOnOneCPU(t, f) // each has its own budget
	s := newScene(t, f, families[0], bpftest.UDP)
	frame := s.request().Bytes()
	for attempt := 0; ; attempt++ {
		before := now(t, f)
		waitTick(t, f, before+1)
		f.Events()
		first := now(t, f)
		for range 10 {
			f.Run(frame)
		}
		events := f.Events()
		if now(t, f) != first && attempt < 20 {
			continue // the tick ended meanwhile
		}
		if events["no-server"] != 3 || events["rate-limited"] != 7 {
			t.Errorf("of 10 packets in a tick: %v, want 3 answers", events)
		}
		return
	}
}

func now(t *testing.T, f *bpftest.Fixture) uint32 {
	t.Helper()
	tick, err := f.Plane.Now()
	if err != nil {
		t.Fatal(err)
	}
	return tick
}

// stayOnOneCPU keeps the fixture's packets on one CPU until the test ends.
func stayOnOneCPU(t *testing.T, f *bpftest.Fixture) {
	t.Helper()
	var all, one unix.CPUSet
	var err error
	f.Do(func() {
		if err = unix.SchedGetaffinity(0, &all); err == nil {
			one.Set(allowedCPUs(all)[0])
			err = unix.SchedSetaffinity(0, &one)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.Do(func() { err = unix.SchedSetaffinity(0, &all) })
		if err != nil {
			t.Error(err)
		}
	})
}

// waitTick waits for the clock to show the tick.
func waitTick(t *testing.T, f *bpftest.Fixture, tick uint32) {
	t.Helper()
	for int32(now(t, f)-tick) < 0 {
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// A reset of a segment without a connection has the numbers of RFC 9293 §3.5.2.
func TestMidstream(t *testing.T) {
	t.Run("drop", func(t *testing.T) {
		f := bpftest.New(t, bpftest.Options{})
		for _, a := range families {
			for _, flags := range []string{"A", "SR", "R", "F", "FA", "", "RA"} {
				t.Run(a.name+"/"+flags, func(t *testing.T) {
					s := newScene(t, f, a, bpftest.TCP, nat)
					p := s.request()
					p.Flags = flags
					run(t, f, p.Bytes(), dropped, one("midstream"))
					diffEntries(t, f)
				})
			}
		}
	})
	t.Run("reset", func(t *testing.T) {
		f := bpftest.New(t, bpftest.Options{Midstream: bpf.KernelMidstreamMIDSTREAM_RESET})
		for _, a := range families {
			for _, tt := range []struct {
				flags, back string
				payload     int
				seq, ack    uint32
			}{
				{"A", "R", 0, 222, 0},
				{"PA", "R", 9, 222, 0},
				{"FA", "R", 1400, 222, 0},
				{"F", "RA", 0, 0, 112},
				{"", "RA", 7, 0, 118},
				{"F", "RA", 8999, 0, 111 + 9000},
			} {
				t.Run(a.name+"/"+tt.flags, func(t *testing.T) {
					s := newScene(t, f, a, bpftest.TCP, nat)
					for _, vlans := range [][]uint16{nil, {100}, {100, 7}} {
						p := s.request()
						p.VLANs, p.Flags, p.Seq, p.Ack = vlans, tt.flags, 111, 222
						p.Payload, p.TCPOptions = pattern(tt.payload), 12
						want := bpftest.Result{Action: bpftest.TX, Packet: bpftest.Reset(p, tt.back, tt.seq, tt.ack)}
						run(t, f, p.Bytes(), want, one("reset"))
					}
				})
			}
			t.Run(a.name+"/not a reset", func(t *testing.T) {
				s := newScene(t, f, a, bpftest.TCP, nat)
				p := s.request()
				p.Flags = "RA"
				run(t, f, p.Bytes(), dropped, one("midstream"))
			})
		}
		t.Run("not with options", func(t *testing.T) {
			s := newScene(t, f, families[0], bpftest.TCP, nat)
			p := s.request()
			p.Flags, p.Options = "A", 4
			run(t, f, p.Bytes(), dropped, one("not-quotable"))
		})
	})
}
