package xdp

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf/probe"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

// An interface that goes and comes back has another index: servers behind it are asked
// again, without a restart; those behind others are asked all the time.
func TestDialServerFollows(t *testing.T) {
	l := newProbeLab(t, directortest.TwoArmed)
	key := l.add("tcp://192.0.2.10:8080", realserver.DR, nil)
	l.wantAnswer("first", key)

	const link = "eth1"
	anew := l.cut(link, l.Servers[0])
	l.sweepNow()
	if said, err := l.ask(key, time.Second); err == nil {
		t.Errorf("without the interface: said %q, want an error", said)
	}
	other := netip.AddrPortFrom(l.Servers[1].Addr4, probePort)
	c, err := l.DialServer(t.Context(), "tcp", key, other, 0)
	if err != nil {
		t.Errorf("a server by another interface: %v", err)
	} else {
		c.Close()
	}

	anew()
	l.sweepNow()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		said, err := l.ask(key, time.Second)
		if err == nil && said == l.Servers[0].Name {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("with the interface again: said %q, %v; want %q", said, err, l.Servers[0].Name)
		}
	}
}

// Answers come again after somebody has taken off what hands them over.
func TestDialServerAttachesAnew(t *testing.T) {
	l := newProbeLab(t, directortest.OneArmed)
	key := l.add("tcp://192.0.2.10:8080", realserver.DR, nil)
	l.wantAnswer("first", key)
	l.probing.mu.Lock()
	if len(l.probing.attached) == 0 {
		t.Error("it is attached nowhere")
	}
	for _, a := range l.probing.attached {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
	l.probing.mu.Unlock()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		said, err := l.ask(key, time.Second)
		if err == nil && said == l.Servers[0].Name {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("said %q, %v; want %q", said, err, l.Servers[0].Name)
		}
	}
}

// The link to the room is made anew when somebody else has removed it: no server is to
// blame for that.
func TestDialServerMakesItsLinkAnew(t *testing.T) {
	l := newProbeLab(t, directortest.OneArmed)
	keys := []director.ServiceKey{
		l.add("tcp://192.0.2.10:8080", realserver.DR, nil), l.add("tcp://192.0.2.11:8080", realserver.NAT, nil), l.add("tcp://[2001:db8::10]:8080", realserver.DR, nil),
	}
	for _, key := range keys {
		l.wantAnswer("first", key)
	}
	l.removeOuterLinks()
	for _, key := range keys {
		l.wantAnswer("without its link", key)
	}
	if links := l.outerLinks(); len(links) != 1 {
		t.Errorf("links: %v, want one", links)
	}
}

// The link to the room is set up again when somebody else has set it down: but for a
// second, no server is to blame for that.
func TestDialServerRaisesItsLink(t *testing.T) {
	l := newProbeLab(t, directortest.OneArmed)
	keys := []director.ServiceKey{l.add("tcp://192.0.2.10:8080", realserver.DR, nil), l.add("tcp://192.0.2.11:8080", realserver.NAT, nil)}
	for _, key := range keys {
		l.wantAnswer("first", key)
	}
	for _, name := range l.outerLinks() {
		device, err := l.Director.Netlink().LinkByName(name)
		if err == nil {
			err = l.Director.Netlink().LinkSetDown(device)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	l.probing.mu.Lock()
	l.probing.looked = time.Time{}
	l.probing.mu.Unlock()
	for _, key := range keys {
		l.wantAnswer("after it was set down", key)
	}
}

// Whoever connects while another one has the link made anew does so too.
func TestDialServerMeanwhileMadeAnew(t *testing.T) {
	l := newProbeLab(t, directortest.OneArmed)
	key := l.add("tcp://192.0.2.10:8080", realserver.DR, nil)
	l.wantAnswer("first", key)
	way, err := l.wayTo(t.Context(), key, netip.AddrPortFrom(l.Servers[0].Addr4, probePort))
	if err != nil {
		t.Fatal(err)
	}
	port, err := l.probing.take(way.own)
	if err != nil {
		t.Fatal(err)
	}
	l.removeOuterLinks()
	if !l.probing.setUpAnew() {
		t.Fatal("the link is still there")
	}
	from := netip.AddrPortFrom(way.own, port)
	answers := probe.Answers{Protocol: uint8(conntrack.TCP), From: netip.MustParseAddrPort("192.0.2.10:8080"), To: from}
	if err := l.probing.await(port, answers); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("await: %v, want %v", err, unix.ENETUNREACH)
	}
	l.probing.endNow(port)
	l.wantAnswer("anew", key)
}

// What keeps the link from being set up is the director's own trouble, and over when that
// is.
func TestDialServerCannotSetUp(t *testing.T) {
	l := newProbeLab(t, directortest.OneArmed)
	key := l.add("tcp://192.0.2.10:8080", realserver.NAT, nil)
	room := l.probing.room.route
	taken := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: roomLink}, PeerName: "eth1"}
	if err := room.LinkAdd(taken); err != nil {
		t.Fatal(err)
	}
	if said, err := l.ask(key, time.Second); !errors.Is(err, director.ErrUnsupported) {
		t.Errorf("said %q, error %v; want %v", said, err, director.ErrUnsupported)
	}
	if err := room.LinkDel(taken); err != nil {
		t.Fatal(err)
	}
	l.wantAnswer("without it", key)
}

func (l *probeLab) removeOuterLinks() {
	l.t.Helper()
	for _, name := range l.outerLinks() {
		device, err := l.Director.Netlink().LinkByName(name)
		if err == nil {
			err = l.Director.Netlink().LinkDel(device)
		}
		if err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *probeLab) sweepNow() {
	l.t.Helper()
	if err := l.sweep(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
}

// cut removes the link between the director and a server; what it returns makes it anew.
func (l *probeLab) cut(name string, s *directortest.Server) (anew func()) {
	l.t.Helper()
	type held struct {
		in   *directortest.Namespace
		link string
		at   []netlink.Addr
	}
	ends := []held{{in: l.Director, link: name}, {in: s.Namespace, link: "eth0"}}
	must := func(err error) {
		l.t.Helper()
		if err != nil {
			l.t.Fatal(err)
		}
	}
	for i, e := range ends {
		device, err := e.in.Netlink().LinkByName(e.link)
		must(err)
		ends[i].at, err = e.in.Netlink().AddrList(device, netlink.FAMILY_ALL)
		must(err)
		if i == len(ends)-1 {
			must(e.in.Netlink().LinkDel(device))
		}
	}
	return func() {
		l.t.Helper()
		must(l.Director.AddVeth(name, s.Namespace, "eth0", 0))
		for _, e := range ends {
			for _, a := range e.at {
				if address, _ := netip.AddrFromSlice(a.IP); !address.IsLinkLocalUnicast() {
					ones, _ := a.Mask.Size()
					must(e.in.AddAddress(e.link, netip.PrefixFrom(address.Unmap(), ones)))
				}
			}
		}
		must(s.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), s.Addr4.Prev()))
		must(s.AddRoute(netip.MustParsePrefix("::/0"), s.Addr6.Prev()))
		must(s.SetOffload("eth0", directortest.TxChecksum, directortest.Off))
		pass, err := s.AttachPass("eth0")
		must(err)
		l.t.Cleanup(func() { pass.Close() })
	}
}
