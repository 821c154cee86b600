package bpf_test

import (
	gocmp "cmp"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// estate is connections of every kind, each with packets that it may have at any time.
type estate struct {
	*bpftest.Fixture
	dir     string // with the pins
	servers []*bpftest.Server
	calls   []call
	// answered are TCP connections whose clients have yet to acknowledge the server's
	// sequence number: their next packet proves them.
	answered []call
}

// call is one connection of the estate.
type call struct {
	name              string
	request, reply    bpftest.Packet // reply: NAT's
	to, back          bpftest.Result // what becomes of them
	isPersistent      bool
	requestOfAnother  bpftest.Packet // of the same client network
	serverIfPersisted netip.AddrPort
}

// newEstate makes, for both families and protocols, connections to NAT, DR and local
// servers and by full NAT, of a service of several ports, under a template, and such as
// have only begun or wait for their client's proof.
func newEstate(t *testing.T, connections uint64) *estate {
	t.Helper()
	return newEstateOf(t, connections, true)
}

// newEstateOf is newEstate with full NAT, or without it: as it was before layout 6.
func newEstateOf(t *testing.T, connections uint64, withFullNAT bool) *estate {
	t.Helper()
	dir := bpftest.PinDir(t)
	w := &estate{Fixture: bpftest.NewAt(t, dir, bpftest.Options{Connections: connections}), dir: dir}
	w.ChangeSettings(func(k *bpf.KernelSettings) {
		// Of those that wait for their proof: opening the plane again takes its time.
		k.Timeout[bpf.KernelConnStateSTATE_SYN_RECV] = w.Plane.Clock.Ticks(time.Hour)
	})
	hop := w.AddHop(serverLink(w.Outside))
	w.SetLocals(1024, 65535, families[0].localAddress(), families[1].localAddress())
	for _, a := range families {
		for i, protocol := range protocols {
			at := func(n int) *scene {
				s := &scene{Fixture: w.Fixture, family: a, protocol: protocol.number}
				s.virtual, s.server = withHost(a.virtual, 100+20*i+n), withHost(a.server, 100+20*i+n)
				s.secondServer = withHost(a.server, 110+20*i+n)
				s.service = &bpftest.Service{Listen: s.virtual, Protocol: s.protocol}
				return s
			}
			w.open(t, at(1), "nat", nat, hop)
			w.open(t, at(2), "dr", dr, hop)
			w.open(t, at(3), "local", local, hop)
			wide := at(4)
			wide.service.LastPort = wide.virtual.Port() + 9
			w.open(t, wide, "wide", nat, hop)
			persistent := at(5)
			persistent.service.Flags = bpf.KernelServiceFlagsSERVICE_PERSISTENT
			persistent.service.ClientPrefix = persistent.bits(24)
			persistent.service.Timeouts = map[bpf.KernelConnState]time.Duration{bpf.KernelConnStateSTATE_TEMPLATE: persistence}
			w.open(t, persistent, "persistent", nat, hop)
			w.open(t, at(6), "begun", nat, hop)
			if withFullNAT {
				full := at(8)
				full.standIn = netip.AddrPortFrom(a.localAddress(), a.client.Port())
				w.open(t, full, "full NAT", fullNAT, hop)
			}
			if protocol.number == bpftest.TCP {
				w.open(t, at(7), "answered", nat, hop)
			}
		}
	}
	w.talk(t, w.calls, false) // what the first packets leave to later ones is done
	w.talk(t, w.calls, true)
	w.Events()
	return w
}

// withHost gives an address another last octet.
func withHost(a netip.AddrPort, host int) netip.AddrPort {
	b := a.Addr().AsSlice()
	b[len(b)-1] = byte(host)
	address, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(address, a.Port())
}

// open makes the scene's service, with a server and one more, and a connection to it.
func (w *estate) open(t *testing.T, s *scene, name string, method bpf.KernelMethod, hop uint32) {
	t.Helper()
	port := s.server.Port()
	isNAT := method == nat || method == fullNAT
	if !isNAT {
		port = s.virtual.Port()
	}
	s.server = netip.AddrPortFrom(s.server.Addr(), port)
	s.service.Servers = []*bpftest.Server{
		{Address: s.server, Method: method, Weight: 1, Hop: hop},
		{Address: netip.AddrPortFrom(s.secondServer.Addr(), port), Method: method, Weight: 1, Hop: hop},
	}
	w.Apply(s.service)
	w.servers = append(w.servers, s.service.Servers...)
	c := call{name: strings.Join([]string{s.family.name, protocolName(s.protocol), name}, " ")}
	opening := []bpftest.Packet{s.request()}
	if name == "begun" {
		c.request = opening[0]
	} else {
		if isNAT {
			opening = append(opening, s.reply())
		}
		if s.protocol == bpftest.TCP && name != "answered" {
			ack := s.request()
			ack.Flags, ack.Seq, ack.Ack = "A", 1001, 5001
			opening = append(opening, ack)
		}
		c.request, c.reply = s.later()
	}
	switch method {
	case nat:
		c.to = sent(forwarded(c.request, s.server))
		if name != "begun" {
			c.back = sent(returned(c.reply, s.virtual))
		}
	case fullNAT:
		c.to, c.back = sent(s.toServer(c.request)), sent(s.toClient(c.reply))
	case dr:
		c.to = sent(routed(c.request))
	default:
		c.to = passed(c.request.Bytes())
	}
	for i, p := range opening {
		if got := w.Run(p.Bytes()); got.Action == bpftest.Drop {
			t.Fatalf("%s: packet %d: %v", c.name, i, w.Events())
		}
	}
	if name == "persistent" {
		c.isPersistent, c.serverIfPersisted = true, s.server
		c.requestOfAnother = s.request()
		c.requestOfAnother.From = withHost(s.client, 99)
	}
	if name == "answered" {
		w.answered = append(w.answered, c)
		return
	}
	w.calls = append(w.calls, c)
}

func protocolName(number uint8) string {
	if number == bpftest.TCP {
		return "tcp"
	}
	return "udp"
}

// talk sends each connection's packets; replyFirst says which comes first.
func (w *estate) talk(t *testing.T, calls []call, replyFirst bool) {
	t.Helper()
	for _, c := range calls {
		request := func() { w.check(t, c.name+" request", c.request, c.to) }
		reply := func() {
			if c.back.Packet != nil {
				w.check(t, c.name+" reply", c.reply, c.back)
			}
		}
		if replyFirst {
			reply()
			request()
		} else {
			request()
			reply()
		}
	}
}

func (w *estate) check(t *testing.T, name string, p bpftest.Packet, want bpftest.Result) {
	t.Helper()
	got := w.Run(p.Bytes())
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: %v (-want +got):\n%s", name, w.Events(), diff)
	}
}

// look is what the tables hold, without when packets last came.
func (w *estate) look() []bpf.Entry {
	entries := w.Entries()
	for i := range entries {
		entries[i].Seen = 0
	}
	slices.SortFunc(entries, func(a, b bpf.Entry) int {
		return gocmp.Or(flag(a.Reply)-flag(b.Reply), a.Source.Compare(b.Source), a.Destination.Compare(b.Destination),
			int(a.Protocol)-int(b.Protocol), int(a.Service)-int(b.Service))
	})
	return entries
}

// lasting is what packets that come now and then do not change in entries: not how far a
// proof has come, nor what is in place of the next hop until there is one.
func lasting(entries []bpf.Entry) []bpf.Entry {
	entries = slices.Clone(entries)
	for i := range entries {
		e := &entries[i]
		e.Proven, e.ByReply, e.Sequence, e.Hop = false, false, false, 0
	}
	return entries
}

// diff compares the tables with what they held before, and the counts with them.
func (w *estate) diff(t *testing.T, before []bpf.Entry) {
	t.Helper()
	if diff := cmp.Diff(lasting(before), lasting(w.look()), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("tables (-before +after):\n%s", diff)
	}
	diffLoads(t, w.Fixture, w.servers...)
	diffPairs(t, w.Fixture)
	diffStrays(t, w.Fixture)
	w.diffTemplates(t)
	if removed := w.Sweep(); removed > 0 {
		t.Errorf("the sweep removed %d", removed)
	}
}

// diffTemplates holds that templates are counted with their servers, and connections with theirs.
func (w *estate) diffTemplates(t *testing.T) {
	t.Helper()
	want := map[uint32]int64{}
	for _, e := range w.Entries() {
		if e.Template {
			want[e.Server]++
			if e.Controlled == 0 {
				t.Errorf("a template of server %d counts no connection", e.Server)
			}
		}
	}
	for _, s := range w.servers {
		if got := w.Load(s).Templates; got != want[s.Index] {
			t.Errorf("server %v counts %d templates, has %d", s.Address, got, want[s.Index])
		}
	}
}

// begin puts tables for so many connections in force, to which those there are come over.
func (w *estate) begin(t *testing.T, connections uint64) {
	t.Helper()
	change, err := w.Plane.PrepareResize(connections, connections)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Plane.Commit(change); err != nil {
		t.Fatal(err)
	}
	if !w.Plane.Carrying() {
		t.Error("nothing comes over")
	}
}

// end brings over what no packet has, and ends it.
func (w *estate) end(t *testing.T) bpf.CarryReport {
	t.Helper()
	report, err := w.Plane.Carry(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Plane.EndCarry(); err != nil {
		t.Fatal(err)
	}
	if w.Plane.Carrying() {
		t.Error("connections still come over")
	}
	for _, name := range names(t, w.dir) {
		if strings.HasPrefix(name, "carried_") || strings.HasPrefix(name, "next_") {
			t.Errorf("still pinned: %s", name)
		}
	}
	return report
}

// Connections of every kind come over to larger and smaller tables, by their next
// packet or without one, and go on as they were.
func TestResize(t *testing.T) {
	w := newEstate(t, 4096)
	for i, connections := range []uint64{20000, 600} {
		before := w.look()
		w.begin(t, connections)
		if got := uint64(w.Plane.Connections4.MaxEntries()) * 126 / 5; got+25 < connections || got > connections+25 {
			t.Errorf("a table for %d connections has room for %d", connections, got)
		}
		half := len(w.calls) / 2
		w.talk(t, w.calls[:half], i == 0)
		report := w.end(t)
		if report.Lost+report.Expired+report.Left > 0 {
			t.Errorf("brought over: %+v", report)
		}
		events, all := w.Events(), uint64(len(w.calls)+len(w.answered))
		if events["carried"] != all || events["carry-lost"]+events["midstream"]+events["busy"]+events["table-full"] > 0 {
			t.Errorf("events: %v, of %d connections", events, all)
		}
		w.diff(t, before)
		w.talk(t, w.calls, i == 1)
		w.diff(t, before)
		w.Events()
	}
	w.prove(t)
}

// Without a packet, nothing of any entry changes.
func TestResizeKeepsEntries(t *testing.T) {
	w := newEstate(t, 4096)
	before := w.look()
	for _, connections := range []uint64{600, 4096} {
		w.begin(t, connections)
		w.end(t)
		if diff := cmp.Diff(before, w.look(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("%d: tables (-before +after):\n%s", connections, diff)
		}
	}
}

// prove has the clients of answered connections prove themselves.
func (w *estate) prove(t *testing.T) {
	t.Helper()
	w.talk(t, w.answered, false)
	proven := map[netip.AddrPort]bool{}
	for _, e := range w.Entries() {
		if !e.Reply && e.Proven {
			proven[e.Destination] = true
		}
	}
	for _, c := range w.answered {
		if !proven[c.request.To] {
			t.Errorf("%s is not proven", c.name)
		}
	}
}
