package bpf_test

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// What other load balancers in XDP get wrong with odd packets, as read in their code or
// reported by those who use them: each row is what a user of theirs would see.
func TestDefectsOfOthers(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, tt := range []struct {
		name   string
		of     string // whose, and where
		test   func(*testing.T, *scene)
		method bpf.KernelMethod
	}{
		{"the host's own fragments are lost", "katran, balancer.bpf.c: dropped before the lookup of the VIP", keepsOthersFragments, nat},
		{"the host's own IP options are lost", "katran, balancer.bpf.c: dropped before the lookup of the VIP", keepsOthersOptions, nat},
		{"fragments to a VIP are lost", "katran, balancer.bpf.c", keepsFragments, dr},
		{"options to a VIP are lost", "katran, balancer.bpf.c", keepsOptions, dr},
		{"echo is answered for addresses that are no VIPs", "katran, balancer.bpf.c: before the lookup of the VIP", echoesOnlyForVIPs, nat},
		{"an ICMP error with 8 octets quoted is lost", "facebookincubator/katran#159", relaysShortQuotes, dr},
		{"an ICMP error that quotes options is lost", "katran, balancer.bpf.c", relaysQuotedOptions, dr},
		{"too big never reaches a server", "facebookincubator/katran#206, cilium/cilium#34380, cilium/cilium#21262", relaysTooBig, nat},
		{"the header that an ICMP error quotes is not translated", "cilium/cilium#46993, cilium/cilium#47755", relaysTooBig, nat},
		{"too big goes to every server", "xvs, bpf/layer3.c: copied to all", relaysToOneServer, nat},
		{"frames with tags go to the kernel", "katran, balancer.bpf.c; facebookincubator/katran#13, cilium/cilium#24768", takesTags, nat},
		{"frag-needed has a wrong inner header", "xvs, bpf/layer3.c: the destination is zeroed", quotesWhatCame, nat},
		{"too big is misplaced in frames with tags", "xvs, bpf/layer3.c: 80 octets further than 4", quotesBehindTags, nat},
		{"a packet of just the MTU is lost", "facebookincubator/katran#82", fitsTheMTU, nat},
		{"other protocols to a VIP are lost", "xvs, bpf/layer3.c", passesOtherProtocols, nat},
		{"UDP's connections are never found again", "xvs, bpf/layer3.c: stored in one map, looked up in another", findsUDPAgain, nat},
		{"the time to live stays, and loops are endless", "katran, balancer.bpf.c: the inner one is not decremented", agesPackets, dr},
		{"a VLAN's reply goes out untagged", "cilium/cilium#35615, cilium/cilium#32699", repliesWithTags, nat},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, a := range families {
				t.Run(a.name, func(t *testing.T) {
					s := newOwnScene(t, f, a, bpftest.UDP, tt.method)
					s.establish(t)
					tt.test(t, s)
					if t.Failed() {
						t.Log("as with", tt.of)
					}
				})
			}
		})
	}
}

// untouched runs a frame that must be passed as it is.
func (s *scene) untouched(t *testing.T, frame []byte) {
	t.Helper()
	if got := s.Run(frame); got.Action != bpftest.Pass || !bytes.Equal(got.Packet, frame) {
		t.Errorf("%v %x, want it passed: %x", got.Action, got.Packet, frame)
	}
}

func (s *scene) wayIn(p bpftest.Packet) bpftest.Packet {
	if s.service.Servers[0].Method == dr {
		return routed(p)
	}
	return forwarded(p, s.server)
}

func keepsOthersFragments(t *testing.T, s *scene) {
	p := large(s.request())
	p.To = s.other
	for _, frame := range p.Fragments(unit) {
		s.untouched(t, frame)
	}
}

func keepsOthersOptions(t *testing.T, s *scene) {
	p := s.request()
	p.To = s.other
	p.Options, p.Extensions = 12, []bpftest.Extension{{Header: 0, Length: 8}}
	s.untouched(t, p.Bytes())
}

func keepsFragments(t *testing.T, s *scene) {
	p := large(s.request())
	runFragments(t, s.Fixture, p.Fragments(unit), s.wayIn(p).Fragments(unit))
}

func keepsOptions(t *testing.T, s *scene) {
	p := s.request()
	p.Options, p.Extensions = 12, []bpftest.Extension{{Header: 0, Length: 8}}
	run(t, s.Fixture, p.Bytes(), sent(s.wayIn(p)), nil)
}

func echoesOnlyForVIPs(t *testing.T, s *scene) {
	s.SetEcho(netip.PrefixFrom(s.virtual.Addr(), s.virtual.Addr().BitLen()), bpf.KernelEchoECHO_ANSWERED)
	ask := bpftest.Message{Source: bpftest.ClientMAC, Destination: bpftest.DirectorOutside, From: s.client.Addr(), Type: 8}
	if s.isV6() {
		ask.Type = 128
	}
	for _, to := range []netip.Addr{s.other.Addr(), s.server.Addr(), s.secondVirtual.Addr()} {
		ask.To = to
		s.untouched(t, ask.Bytes())
	}
	s.AddVirtualAddress(s.secondVirtual.Addr()) // its bit of the filter may be set all the same
	s.untouched(t, ask.Bytes())
	ask.To = s.virtual.Addr()
	if got := s.Run(ask.Bytes()); got.Action != bpftest.TX {
		t.Errorf("echo to the virtual address: %v", got.Action)
	}
}

// relayed sends a router's error in about what the client got from the service, and
// wants it sent on to the server, with what that has sent quoted.
func (s *scene) relayed(t *testing.T, quoted int, change func(*bpftest.Packet)) {
	t.Helper()
	sentByServer := s.reply()
	sentByServer.Payload = pattern(1400)
	change(&sentByServer)
	got := sentByServer
	got.From = s.virtual
	to := bpftest.Message{Source: bpftest.DirectorInside, Destination: bpftest.ServerMAC, From: routers[s.isV6()], To: s.server.Addr()}
	if s.service.Servers[0].Method == dr {
		sentByServer, to.To = got, s.virtual.Addr()
	}
	tooBig := icmpErrors[s.isV6()][1]
	if s.isV6() {
		tooBig = icmpErrors[true][2]
	}
	in := errorFrom(tooBig, routers[s.isV6()], got, quoted)
	run(t, s.Fixture, in.Bytes(), sentMessage(quotedAs(in, sentByServer, quoted, to)), one("icmp-to-server"))
}

func relaysShortQuotes(t *testing.T, s *scene) { s.relayed(t, 8, func(*bpftest.Packet) {}) }

func relaysQuotedOptions(t *testing.T, s *scene) {
	s.relayed(t, 8, func(p *bpftest.Packet) {
		p.Options = 12
		if s.isV6() {
			p.Options, p.Extensions = 0, []bpftest.Extension{{Header: 60, Length: 8}}
		}
	})
}

func relaysTooBig(t *testing.T, s *scene) { s.relayed(t, 500, func(*bpftest.Packet) {}) }

func relaysToOneServer(t *testing.T, s *scene) {
	another := &bpftest.Server{Address: s.secondServer, Weight: 1, Hop: s.service.Servers[0].Hop}
	s.service.Servers = append([]*bpftest.Server{another}, s.service.Servers...)
	s.Apply(s.service)
	for range 4 {
		s.relayed(t, 64, func(*bpftest.Packet) {})
	}
	if s.Traffic(another) != (bpf.KernelTraffic{}) {
		t.Error("the other server got it, too")
	}
}

func takesTags(t *testing.T, s *scene) {
	p := s.request()
	for _, tags := range [][]uint16{{100}, {100, 7}} {
		p.VLANs = tags
		want := s.wayIn(p)
		want.VLANs = nil
		if got := s.Run(p.Bytes()); got.Action != bpftest.TX || !bytes.Equal(got.Packet, want.Bytes()) {
			t.Errorf("%v %x, want %x", got.Action, got.Packet, want.Bytes())
		}
	}
}

// quotes sends in a packet that is too big for the server's link, and wants what it
// began with quoted.
func (s *scene) quotes(t *testing.T, tags []uint16) {
	t.Helper()
	link := serverLink(s.Outside)
	link.MTU = 1300
	s.SetHop(s.service.Servers[0].Hop, link)
	p := s.request()
	p.DF, p.VLANs, p.Payload = true, tags, pattern(1400)
	got := s.Run(p.Bytes())
	if got.Action != bpftest.TX {
		t.Fatal(got.Action)
	}
	if err := bpftest.Verify(got.Packet); err != nil {
		t.Error(err)
	}
	l3 := 14 + 4*len(tags)
	headers := 20
	if s.isV6() {
		headers = 40
	}
	if !bytes.Equal(got.Packet[12:l3], p.Bytes()[12:l3]) {
		t.Errorf("tags %x, want %x", got.Packet[12:l3], p.Bytes()[12:l3])
	}
	quote := got.Packet[l3+headers+8:]
	if want := p.Bytes()[l3:][:len(quote)]; len(quote) < headers+8 || !bytes.Equal(quote, want) {
		t.Errorf("quoted %x, want %x", quote, want)
	}
}

func quotesWhatCame(t *testing.T, s *scene) { s.quotes(t, nil) }

func quotesBehindTags(t *testing.T, s *scene) {
	for _, tags := range [][]uint16{{100}, {100, 7}} {
		s.quotes(t, tags)
	}
}

func fitsTheMTU(t *testing.T, s *scene) {
	link := serverLink(s.Outside)
	link.MTU = 1400
	s.SetHop(s.service.Servers[0].Hop, link)
	p := s.request()
	p.DF = true
	headers := 20 + 8
	if s.isV6() {
		headers = 40 + 8
	}
	p.Payload = pattern(1400 - headers)
	run(t, s.Fixture, p.Bytes(), sent(s.wayIn(p)), nil)
	p.Payload = pattern(1401 - headers)
	s.Events()
	if s.Run(p.Bytes()); s.Events()["frag-needed"] != 1 {
		t.Error("one octet more is not answered")
	}
}

func passesOtherProtocols(t *testing.T, s *scene) {
	for _, protocol := range []byte{2, 47, 50, 89, 132} {
		frame := s.request().Bytes()
		at := 14 + 9
		if s.isV6() {
			at = 14 + 6
		}
		frame[at] = protocol
		s.untouched(t, frame)
	}
}

func findsUDPAgain(t *testing.T, s *scene) {
	another := &bpftest.Server{Address: s.secondServer, Weight: 1, Hop: s.service.Servers[0].Hop}
	s.service.Servers = append(s.service.Servers, another)
	s.Apply(s.service)
	for range 4 {
		run(t, s.Fixture, s.request().Bytes(), sent(s.wayIn(s.request())), nil)
	}
}

func agesPackets(t *testing.T, s *scene) {
	p := s.request()
	for p.TTL = 64; p.TTL > 1; p.TTL-- {
		run(t, s.Fixture, p.Bytes(), sent(s.wayIn(p)), nil)
	}
	s.Events()
	if s.Run(p.Bytes()); s.Events()["ttl-exceeded"] != 1 {
		t.Error("a packet at its end is not answered")
	}
}

func repliesWithTags(t *testing.T, s *scene) {
	p := s.request()
	p.VLANs = []uint16{100}
	s.AgeBy(2 * time.Second) // it is looked at once a second
	s.Run(p.Bytes())
	back := s.reply()
	want := returned(back, s.virtual)
	want.VLANs = slices.Clone(p.VLANs)
	run(t, s.Fixture, back.Bytes(), sent(want), nil)
}
