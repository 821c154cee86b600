package xdp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// load loads the connections and compares the report.
func (r *rig) load(key director.ServiceKey, connections []conntrack.Connection, want director.LoadReport) {
	r.t.Helper()
	if want.Skipped == nil {
		want.Skipped = map[string]uint64{}
	}
	got, err := r.Load(r.t.Context(), key, slices.Values(connections))
	if err != nil {
		r.t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		r.t.Errorf("report (-want +got):\n%s", diff)
	}
}

var compareAddresses = cmp.Options{
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// What one plane shows, another one takes over, and shows again: connections of all
// kinds of services, their states, templates and what these count. What is left of
// their time is the same but for what passed meanwhile.
func TestLoadTakesOverWhatConnectionsShows(t *testing.T) {
	r := newRig(t, Options{})
	sticky := newStickyService()
	v6 := testService(director.RoundRobin, director.SchedulerFlags{})
	v6.Key.Address = netip.MustParseAddrPort("[2001:db8::1]:443")
	v6.Timeouts.TCP = 100 * time.Second
	wide := testService(director.RoundRobin, director.SchedulerFlags{})
	wide.Key = wideKey(t, "udp://192.0.2.64/28:8000-8999")
	anyPort := realserver.Server{Address: netip.AddrPortFrom(reachable, 0), Method: realserver.NAT, Weight: 1}
	r.must(
		director.AddService{Service: sticky},
		director.AddServer{Key: sticky.Key, Server: local(1, 1)}, director.AddServer{Key: sticky.Key, Server: natServer()},
		director.AddService{Service: v6},
		director.AddServer{Key: v6.Key, Server: realserver.Server{Address: netip.MustParseAddrPort("[fd00::1]:443"), Method: realserver.Local, Weight: 1}},
		director.AddService{Service: wide}, director.AddServer{Key: wide.Key, Server: anyPort},
	)
	r.eventually("the servers are reachable", func() bool {
		return r.stats(sticky.Key).Servers[1].Reachable && r.stats(wide.Key).Servers[0].Reachable
	})
	for i := range byte(60) {
		client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, i % 5, i}), 4000)
		r.syn(client, sticky.Key.Address)
		if i%3 != 0 {
			r.send(bpftest.Packet{From: client, To: sticky.Key.Address, Flags: "A"})
		}
		if i%3 == 2 {
			r.send(bpftest.Packet{From: client, To: sticky.Key.Address, Flags: "FA"})
		}
		r.syn(netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 4: 1, 15: i}), 4000), v6.Key.Address)
		r.send(bpftest.Packet{
			From: client, To: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 64 + i%16}), 8000+uint16(i)), Protocol: bpftest.UDP,
		})
	}
	all := func() map[director.ServiceKey][]conntrack.Connection {
		found := map[director.ServiceKey][]conntrack.Connection{}
		for _, s := range []director.Service{sticky, v6, wide} {
			found[s.Key] = r.connections(director.ConnectionFilter{Service: s.Key})
		}
		return found
	}
	counts := func() (all []director.ServerStats) {
		for _, s := range []director.Service{sticky, v6, wide} {
			for _, server := range r.stats(s.Key).Servers {
				server.Counters, server.Rates, server.UDP = director.Counters{}, director.Rates{}, 0
				all = append(all, server)
			}
		}
		return all
	}
	before, counted := all(), counts()
	if n := len(before[sticky.Key]); n != 65 || len(before[v6.Key]) != 60 || len(before[wide.Key]) != 60 {
		t.Fatalf("%d, %d and %d connections, want 65, 60 and 60", n, len(before[v6.Key]), len(before[wide.Key]))
	}
	for range 2 { // back again, and then into what is there
		if _, err := r.Kill(t.Context(), director.ConnectionFilter{}); err != nil {
			t.Fatal(err)
		}
		for key, connections := range before {
			// As another source might have them: the templates last.
			slices.Reverse(connections)
			n := uint64(len(connections))
			r.load(key, connections, director.LoadReport{Loaded: n})
			r.load(key, connections, director.LoadReport{Known: n})
		}
		after := all()
		for key, connections := range before {
			slices.SortFunc(connections, func(a, b conntrack.Connection) int { return a.Client.Compare(b.Client) })
			for i, c := range connections {
				if i >= len(after[key]) {
					break
				}
				got := &after[key][i]
				// A tick is lost to rounding, more to time.
				if lost := c.Expires - got.Expires; lost < -r.plane.Clock.Tick() || lost > 30*time.Second {
					t.Errorf("%s: %s is left, it was loaded with %s", c.Client, got.Expires, c.Expires)
				}
				// A birth is known to eight ticks.
				if got.Age < c.Age-8*r.plane.Clock.Tick() || got.Age > c.Age+30*time.Second || got.Idle < c.Idle {
					t.Errorf("%s: %s old and %s idle, it was %s and %s", c.Client, got.Age, got.Idle, c.Age, c.Idle)
				}
				got.Expires, got.Age, got.Idle = c.Expires, c.Age, c.Idle
				// The kernel proves a client by the state alone, and with it its template.
				c.Proven = c.Proven || isProven(&c) || c.Template && slices.ContainsFunc(connections, func(under conntrack.Connection) bool {
					network := netip.PrefixFrom(c.Client.Addr(), int(c.Prefix))
					return under.UnderTemplate && isProven(&under) && network.Contains(under.Client.Addr())
				})
				connections[i] = c
			}
			if diff := cmp.Diff(connections, after[key], compareAddresses); diff != "" {
				t.Fatalf("%s (-before +after):\n%s", key, diff)
			}
		}
		if diff := cmp.Diff(counted, counts(), compareAddresses); diff != "" {
			t.Errorf("counts (-before +after):\n%s", diff)
		}
	}
}

// What a service cannot have is skipped, and the report says why.
func TestLoadSkips(t *testing.T) {
	r := newRig(t, Options{})
	sticky, plain := newStickyService(), testService(director.RoundRobin, director.SchedulerFlags{})
	plain.Key.Address = netip.MustParseAddrPort("192.0.2.2:80")
	udp := testService(director.RoundRobin, director.SchedulerFlags{})
	udp.Key.Protocol = conntrack.UDP
	for _, s := range []director.Service{sticky, plain, udp} {
		r.must(director.AddService{Service: s}, director.AddServer{Key: s.Key, Server: local(1, 1)}, director.AddServer{Key: s.Key, Server: local(2, 1)})
	}
	r.must(director.RemoveServer{Key: plain.Key, Address: local(2, 0).Address})
	connection := conntrack.Connection{
		Protocol: conntrack.TCP, Client: netip.MustParseAddrPort("198.51.100.7:40000"), Virtual: plain.Key.Address,
		Server: local(1, 0).Address, Method: "local", State: conntrack.Established, Expires: time.Minute,
	}
	template := conntrack.Connection{
		Protocol: conntrack.TCP, Client: netip.MustParseAddrPort("198.51.100.0:0"), Virtual: sticky.Key.Address,
		Server: local(1, 0).Address, Method: "local", Template: true, Prefix: 24, Expires: time.Minute,
	}
	with := func(c conntrack.Connection, change func(*conntrack.Connection)) conntrack.Connection {
		change(&c)
		return c
	}
	for _, test := range []struct {
		name   string
		key    director.ServiceKey
		from   conntrack.Connection
		change func(*conntrack.Connection)
		want   string
	}{
		{"expired", plain.Key, connection, func(c *conntrack.Connection) { c.Expires = -1 }, skipExpired},
		{"long expired", plain.Key, connection, func(c *conntrack.Connection) { c.Expires = -time.Hour }, skipExpired},
		{"protocol", plain.Key, connection, func(c *conntrack.Connection) { c.Protocol, c.State = conntrack.UDP, conntrack.UDPNormal }, skipOther},
		{"virtual address", plain.Key, connection, func(c *conntrack.Connection) { c.Virtual = sticky.Key.Address }, skipOther},
		{"port", plain.Key, connection, func(c *conntrack.Connection) { c.Virtual = netip.MustParseAddrPort("192.0.2.2:81") }, skipOther},
		{"family of the client", plain.Key, connection, func(c *conntrack.Connection) { c.Client = netip.MustParseAddrPort("[2001:db8::7]:1") }, skipOther},
		{"no client", plain.Key, connection, func(c *conntrack.Connection) { c.Client = netip.AddrPort{} }, skipOther},
		{"any port of the client", plain.Key, connection, func(c *conntrack.Connection) { c.Client = netip.MustParseAddrPort("198.51.100.7:0") }, skipOther},
		{"UDP's state", plain.Key, connection, func(c *conntrack.Connection) { c.State = conntrack.UDPNormal }, skipState},
		{"SCTP's state", plain.Key, connection, func(c *conntrack.Connection) { c.State = conntrack.SCTPInit1 }, skipState},
		{"no such state", plain.Key, connection, func(c *conntrack.Connection) { c.State = 200 }, skipState},
		{"TCP's state", udp.Key, connection, func(c *conntrack.Connection) { c.Protocol, c.Virtual = conntrack.UDP, udp.Key.Address }, skipState},
		{"tunnel", plain.Key, connection, func(c *conntrack.Connection) { c.Method = "tunnel" }, skipMethod},
		{"no method", plain.Key, connection, func(c *conntrack.Connection) { c.Method = "" }, skipMethod},
		{"server", plain.Key, connection, func(c *conntrack.Connection) { c.Server = local(3, 0).Address }, skipServer},
		{"server's port", plain.Key, connection, func(c *conntrack.Connection) { c.Server = netip.MustParseAddrPort("10.0.0.1:81") }, skipServer},
		{"removed server", plain.Key, connection, func(c *conntrack.Connection) { c.Server = local(2, 0).Address }, skipServer},
		{"no server", plain.Key, connection, func(c *conntrack.Connection) { c.Server = netip.AddrPort{} }, skipServer},
		{"template without persistence", plain.Key, template, func(c *conntrack.Connection) { c.Virtual = plain.Key.Address }, skipPersistence},
		{"template of other networks", sticky.Key, template, func(c *conntrack.Connection) { c.Prefix = 32 }, skipPersistence},
		{"template of an engine", sticky.Key, template, func(c *conntrack.Connection) { c.Engine = "sip" }, skipPersistence},
		{"template of a mark", sticky.Key, template, func(c *conntrack.Connection) { c.Mark = 7 }, skipOther},
		{"template of another address", sticky.Key, template, func(c *conntrack.Connection) { c.Virtual = plain.Key.Address }, skipOther},
	} {
		t.Run(test.name, func(t *testing.T) {
			r.t = t
			r.load(test.key, []conntrack.Connection{with(test.from, test.change)}, director.LoadReport{Skipped: map[string]uint64{test.want: 1}})
			if left := r.connections(director.ConnectionFilter{}); len(left) != 0 {
				t.Errorf("there is %+v", left)
			}
		})
	}
	r.t = t
	r.load(plain.Key, []conntrack.Connection{connection}, director.LoadReport{Loaded: 1})
	// Its port is not the template's: the kernel's have the service's, or 0.
	r.load(sticky.Key, []conntrack.Connection{with(template, func(c *conntrack.Connection) { c.State = conntrack.Assured })}, director.LoadReport{Loaded: 1})
	if got := r.connections(director.ConnectionFilter{Kind: director.KindTemplate}); len(got) != 1 || !got[0].Proven {
		t.Errorf("templates: %+v, want one, proven", got)
	}
	if _, err := r.Load(t.Context(), wideKey(t, "tcp://192.0.2.9:80"), slices.Values([]conntrack.Connection(nil))); !errors.Is(err, director.ErrNotFound) {
		t.Errorf("a service that is not there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if report, err := r.Load(ctx, plain.Key, slices.Values([]conntrack.Connection{connection})); !errors.Is(err, context.Canceled) || report.Known != 0 {
		t.Errorf("given up: %+v, %v", report, err)
	}
}

// A client network goes where its loaded template says, and a loaded connection's
// server has it in its counts.
func TestLoadedTemplateLeads(t *testing.T) {
	r := newRig(t, Options{})
	service := newStickyService()
	r.must(director.AddService{Service: service})
	for i := range 4 {
		r.must(director.AddServer{Key: service.Key, Server: local(i+1, 1)})
	}
	want := map[netip.AddrPort]netip.AddrPort{}
	var templates []conntrack.Connection
	for i := range byte(40) {
		network := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, i, 0}), 0)
		server := local(int(i*7%4)+1, 0).Address
		templates = append(templates, conntrack.Connection{
			Protocol: conntrack.TCP, Client: network, Virtual: service.Key.Address, Server: server, Method: "local",
			Template: true, Prefix: 24, Expires: time.Minute,
		})
		want[netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, i, 9}), 5000)] = server
	}
	r.load(service.Key, templates, director.LoadReport{Loaded: 40})
	got := map[netip.AddrPort]netip.AddrPort{}
	for client := range want {
		got[client], _ = r.syn(client, service.Key.Address)
	}
	if !maps.Equal(want, got) {
		t.Errorf("servers by client: %v, want %v", fmt.Sprint(got), fmt.Sprint(want))
	}
	for _, s := range r.stats(service.Key).Servers {
		if s.Templates != 10 || s.Active != 10 || s.Counters.Connections != 10 {
			t.Errorf("%s: %d templates, %d active, %d new connections; want 10 each", s.Server.Address, s.Templates, s.Active, s.Counters.Connections)
		}
	}
}
