package xdp

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// fullNATRig has a TCP service of full NAT with one server, and a pool of addresses of
// which the last is on the interface by somebody else's doing.
type fullNATRig struct {
	*rig
	service director.Service
}

func newFullNATRig(t *testing.T) *fullNATRig {
	t.Helper()
	return newFullNATRigOf(t, Options{LocalAddresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.128/30"), netip.MustParsePrefix("10.0.0.254/32")}})
}

func newFullNATRigOf(t *testing.T, opts Options) *fullNATRig {
	t.Helper()
	r := &fullNATRig{rig: newRig(t, opts), service: testService(director.RoundRobin, director.SchedulerFlags{})}
	server := natServer()
	server.Method = realserver.FullNAT
	r.must(director.AddService{Service: r.service}, director.AddServer{Key: r.service.Key, Server: server})
	r.eventually("the server is reachable", func() bool { return r.stats(r.service.Key).Servers[0].Reachable })
	return r
}

// establish makes the connections of clients from the first on, each with its handshake.
func (r *fullNATRig) establish(first, n byte) {
	r.t.Helper()
	for i := first; i < first+n; i++ {
		client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, i}), 4000)
		r.syn(client, r.service.Key.Address)
		r.replyTo(client, "SA")
		r.send(bpftest.Packet{From: client, To: r.service.Key.Address, Flags: "A", Seq: 1, Ack: 1001})
	}
}

// replyTo sends a segment of the server to what stands in for the client.
func (r *fullNATRig) replyTo(client netip.AddrPort, flags string) {
	r.t.Helper()
	c := r.connections(director.ConnectionFilter{Client: host(client.Addr())})
	if len(c) != 1 || !c[0].Local.IsValid() {
		r.t.Fatalf("connections of %s: %+v", client, c)
	}
	p := bpftest.Packet{From: natServer().Address, To: c[0].Local, Flags: flags, Seq: 1000, Ack: 1}
	if action := r.send(p); action == bpftest.Pass || action == bpftest.Drop {
		r.t.Errorf("a reply to %s, %s: %v", client, c[0].Local, action)
	}
}

// pairs says of each client what stands in for it.
func (r *fullNATRig) pairs() (all []string) {
	r.t.Helper()
	for _, c := range r.connections(director.ConnectionFilter{}) {
		all = append(all, fmt.Sprintf("%s %s %s %s %t", c.Client, c.Local, c.Method, c.State, c.Proven))
	}
	slices.Sort(all)
	return all
}

func (r *fullNATRig) expect(what string, want []string) {
	r.t.Helper()
	if got := r.pairs(); !slices.Equal(got, want) {
		r.t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if faults := r.faults(); len(faults) > 0 {
		r.t.Errorf("%s: faults %v", what, faults)
	}
}

// onLo says whether the address is on the loopback interface by our doing.
func (r *fullNATRig) onLo(a string) bool {
	r.t.Helper()
	ours, err := r.vips.Addresses()
	if err != nil {
		r.t.Fatal(err)
	}
	return ours[host(netip.MustParseAddr(a))]
}

// Connections by full NAT are listed and checked with what stands in for their clients,
// and have it still when they were dumped and loaded, and in tables of another size.
func TestFullNATConnections(t *testing.T) {
	r := newFullNATRig(t)
	if f := r.Features(); f.NoLocal4 || !f.NoLocal6 {
		t.Errorf("addresses of IPv4 alone stand in for clients': %+v", f)
	}
	r.establish(1, 30)
	before := r.pairs()
	if len(before) != 30 || !strings.Contains(before[0], "fullnat ESTABLISHED true") || !strings.Contains(before[0], "10.0.0.") {
		t.Fatalf("connections: %v", before)
	}
	r.expect("made", before)
	if d := r.decide(director.Question{Protocol: conntrack.TCP, Client: netip.MustParseAddrPort("198.51.100.99:77"), Virtual: r.service.Key.Address}); d.Method != realserver.FullNAT {
		t.Errorf("decided %+v", d)
	}
	dump, n := r.dumpRecords(director.ConnectionFilter{})
	if n != 30 {
		t.Fatalf("dumped %d", n)
	}
	if _, err := r.Resize(t.Context(), 20000, 0); err != nil {
		t.Fatal(err)
	}
	r.expect("in larger tables", before)
	for i := range byte(30) {
		r.replyTo(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, 1 + i}), 4000), "A")
	}
	if _, err := r.Kill(t.Context(), director.ConnectionFilter{}); err != nil {
		t.Fatal(err)
	}
	r.expect("killed", nil)
	report, err := r.LoadRecords(t.Context(), bytes.NewReader(dump))
	if err != nil || report.Loaded != 30 {
		t.Fatalf("loaded %+v, %v", report, err)
	}
	r.expect("loaded", before)
	// What stands in for one client cannot for another, nor can what is not in the pool.
	c := r.connections(director.ConnectionFilter{Client: netip.MustParsePrefix("198.51.100.30/32")})[0]
	taken, strange, known, none := c, c, c, c
	taken.Client, strange.Client, none.Client = netip.MustParseAddrPort("198.51.100.31:4000"), netip.MustParseAddrPort("198.51.100.31:4000"), netip.MustParseAddrPort("198.51.100.31:4000")
	strange.Local, none.Local = netip.MustParseAddrPort("10.0.0.133:4000"), netip.AddrPort{}
	r.load(r.service.Key, []conntrack.Connection{taken, strange, known, none}, director.LoadReport{
		Known: 1, Skipped: map[string]uint64{skipCollision: 1, skipLocal: 2},
	})
	for i := range byte(30) { // by the route there is none: the client shows the way
		client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, 1 + i}), 4000)
		r.send(bpftest.Packet{From: client, To: r.service.Key.Address, Flags: "A", Seq: 1, Ack: 1001})
		r.replyTo(client, "A")
	}
}

// An address that is not in the pool any more is kept for its connections, and goes when
// they have gone; what was on the host before stays there.
func TestFullNATPool(t *testing.T) {
	r := newFullNATRig(t)
	r.establish(1, 30)
	before := r.pairs()
	for a, want := range map[string]bool{"10.0.0.128": true, "10.0.0.131": true, "10.0.0.254": false, "10.0.0.132": false} {
		if r.onLo(a) != want {
			t.Errorf("%s is on lo: %t", a, !want)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.opts.LocalAddresses = []netip.Prefix{netip.MustParsePrefix("10.0.0.132/32"), netip.MustParsePrefix("10.0.0.129/32")}
	r.open()
	r.expect("after a restart", before)
	// What new connections may have is the second element and the sixth: they have the first two places.
	if got, err := r.plane.LocalAddresses(); err != nil || got[0].Skip != 1 || got[1].Skip != 4 || got[5].Offered != 1 {
		t.Errorf("local addresses: %+v, %v", got[:6], err)
	}
	if o, err := r.plane.PacketOptions(); err != nil || o.Locals4 != 2 || o.Locals6 != 0 {
		t.Errorf("places: %d, %d, %v", o.Locals4, o.Locals6, err)
	}
	r.establish(101, 40)
	for _, c := range r.connections(director.ConnectionFilter{Client: netip.MustParsePrefix("198.51.100.0/24")}) {
		is := c.Local.Addr().String()
		if isNew := c.Client.Addr().As4()[3] > 100; isNew && is != "10.0.0.129" && is != "10.0.0.132" {
			t.Errorf("%s stands in for %s", is, c.Client)
		}
		r.replyTo(c.Client, "A")
	}
	for range 3 {
		if err := r.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if !r.onLo("10.0.0.128") {
		t.Error("an address that connections have was taken away")
	}
	if _, err := r.Kill(t.Context(), director.ConnectionFilter{}); err != nil {
		t.Fatal(err)
	}
	for n := range 2 {
		if n == 1 && !r.onLo("10.0.0.128") {
			t.Error("gone after one sweep")
		}
		if err := r.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for a, want := range map[string]bool{"10.0.0.128": false, "10.0.0.129": true, "10.0.0.131": false, "10.0.0.132": true} {
		if r.onLo(a) != want {
			t.Errorf("%s is on lo: %t", a, !want)
		}
	}
	// What somebody else does to it is put right.
	if err := errors.Join(r.plane.PutLocalAddress(r.locals.index[netip.MustParseAddr("10.0.0.129")], &bpf.KernelLocalAddress{}),
		r.plane.PutLocalAddress(77, &bpf.KernelLocalAddress{Address: bpf.Address(netip.MustParseAddr("10.9.9.9")), Offered: 1, Skip: 7}),
		r.vips.Remove(netip.MustParsePrefix("10.0.0.129/32"))); err != nil {
		t.Fatal(err)
	}
	if err := r.review(); err != nil {
		t.Fatal(err)
	}
	held, err := localsOf(r.plane)
	if err != nil || fmt.Sprint(slices.SortedFunc(slices.Values(held), netip.Prefix.Compare)) != "[10.0.0.129/32 10.0.0.132/32]" || !r.onLo("10.0.0.129") {
		t.Errorf("after the repair: %v, %v", held, err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.ns.Do(func() error { return Detach(r.opts.PinDir, r.opts.withDefaults().Log) }); err != nil {
		t.Fatal(err)
	}
}

// Connections that find no port are counted by their service, and are an event of the whole.
func TestFullNATPortsExhausted(t *testing.T) {
	r := newFullNATRigOf(t, Options{LocalAddresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.128/32")}, LocalFirst: 5000, LocalLast: 5001})
	for i := range byte(5) {
		client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, 1 + i}), 4000)
		if server, ok := r.syn(client, r.service.Key.Address); ok != (i < 2) {
			t.Errorf("client %d: server %v", i, server)
		}
	}
	drops, err := r.Drops(t.Context())
	if err != nil || len(drops) != 1 || drops[0].Reason != "local-ports" || drops[0].Service != r.service.Key || drops[0].Packets != 3 {
		t.Errorf("drops: %+v, %v", drops, err)
	}
	stats, err := r.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(stats.PacketEvents, func(p director.PacketEvent) bool { return p.Name == "local-ports" }); i < 0 || stats.PacketEvents[i].Count != 3 || stats.PacketEvents[i].Kind != director.PacketDrop {
		t.Errorf("packet events: %+v", stats.PacketEvents)
	}
}

// A pool that cannot be is refused, and a server that no address of the pool can reach.
func TestFullNATPoolIsRefused(t *testing.T) {
	for text, want := range map[string]Options{
		"more than 2048":        {LocalAddresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/20")}},
		"more than 2048 of a f": {LocalAddresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/21"), netip.MustParsePrefix("10.1.0.0/32")}},
		"more than 2048:":       {LocalAddresses: []netip.Prefix{netip.MustParsePrefix("2001:db8::/64")}},
		"from 9 to 8":           {LocalFirst: 9, LocalLast: 8},
		"from 0 to 8":           {LocalLast: 8},
	} {
		want = want.withDefaults()
		if _, err := newLocalTable(nil, nil, &want); !errors.Is(err, director.ErrInvalid) || !strings.Contains(fmt.Sprint(err), text) {
			t.Errorf("want %q, got %v", text, err)
		}
	}
	r := newFullNATRig(t)
	v6 := testService(director.RoundRobin, director.SchedulerFlags{})
	v6.Key.Address = netip.MustParseAddrPort("[2001:db8::1]:443")
	r.must(director.AddService{Service: v6})
	err := r.Apply(t.Context(), []director.Operation{director.AddServer{Key: v6.Key, Server: realserver.Server{
		Address: netip.MustParseAddrPort("[fd00::1]:443"), Method: realserver.FullNAT, Weight: 1,
	}}})
	if !errors.Is(err, director.ErrInvalid) || !strings.Contains(err.Error(), "no address of ipv6") {
		t.Errorf("a server without a pool: %v", err)
	}
	if bpf.Locals != 2048 {
		t.Errorf("%d addresses of a family", bpf.Locals)
	}
}
