package conformance

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

// A service's counters outlive its servers; rates rise with the traffic.
func testCounters(b *bench) {
	s := b.service(udp(b.vip4), realserver.NAT)
	b.apply(adding(s)...)
	for i := range requests {
		b.query(b.vip4, i)
	}
	counted := func() bool { return b.stats(s.Key).Counters.InPackets == requests }
	b.eventually("all is counted", counted)
	b.apply(director.RemoveServer{Key: s.Key, Address: s.Servers[0].Address})
	if stats := b.stats(s.Key); !counted() || len(stats.Servers) != 1 || stats.Servers[0].Counters.InPackets != requests/2 {
		b.Errorf("counted %+v after a server was removed", stats)
	}

	// Another one: a client's port that was the removed server's would be again.
	s = b.service(udp(b.vip6), realserver.NAT)
	b.apply(adding(s)...)
	id := 0
	b.eventually("rates rise", func() bool {
		for range 50 {
			id++
			b.query(b.vip6, id)
		}
		stats := b.stats(s.Key)
		for _, r := range []director.Rates{stats.Rates, stats.Servers[0].Rates} {
			if r.Connections == 0 || r.InPackets == 0 || r.OutPackets == 0 || r.InBytes < r.InPackets || r.OutBytes < r.OutPackets {
				return false
			}
		}
		return true
	})
	stats, err := b.Stats(b.Context())
	if err != nil || stats.Info.Version == "" || stats.Info.TableSize == 0 {
		b.Errorf("info %+v, %v: want a version and a size", stats.Info, err)
	}
}

// Zero is for one service or for all, and for counters and rates alone.
func testZero(b *bench) {
	one, other := b.service(udp(b.vip4), realserver.NAT), b.service(udp(b.vip6), realserver.NAT)
	b.apply(adding(one, other)...)
	id, first := 0, 0
	flow := func() {
		b.Helper()
		b.eventually("rates rise", func() bool {
			for range 50 {
				id++
				b.query(b.vip4, id)
				b.query(b.vip6, id)
			}
			return b.stats(one.Key).Rates.InPackets > 0 && b.stats(other.Key).Rates.InPackets > 0
		})
		// What is not counted yet would be counted after (kernel: ip_vs_est.c).
		b.eventually("all is counted", func() bool { return b.stats(one.Key).Counters.InPackets == uint64(id-first) })
		first = id
	}
	wantZero := func(key director.ServiceKey) {
		b.Helper()
		stats := b.stats(key)
		if stats.Counters != (director.Counters{}) || stats.Rates != (director.Rates{}) {
			b.Errorf("%s: %+v and %+v, want zero", key, stats.Counters, stats.Rates)
		}
		for _, s := range stats.Servers {
			if s.Counters != (director.Counters{}) || s.Rates != (director.Rates{}) {
				b.Errorf("%s of %s: %+v and %+v, want zero", s.Server.Address, key, s.Counters, s.Rates)
			}
		}
	}
	zero := func(key director.ServiceKey) {
		b.Helper()
		if err := b.Zero(b.Context(), key); err != nil {
			b.Error(err)
		}
	}
	flow()
	connections := b.count(director.ConnectionFilter{})
	zero(one.Key)
	wantZero(one.Key)
	if b.stats(other.Key).Counters.InPackets == 0 {
		b.Errorf("%s was set to zero with the other", other.Key)
	}
	if now := b.count(director.ConnectionFilter{}); now < connections {
		b.Errorf("%d connections, were %d", now, connections)
	}
	b.holds(one, other)
	flow()
	zero(director.ServiceKey{})
	wantZero(one.Key)
	wantZero(other.Key)
	b.query(b.vip4, 0)
	b.eventually("counts from zero", func() bool { return b.stats(one.Key).Counters.InPackets == 1 })
	if err := b.Zero(b.Context(), key("tcp://192.0.2.99:1")); !errors.Is(err, director.ErrNotFound) {
		b.Errorf("zero of no service: %v, want %v", err, director.ErrNotFound)
	}
}

// list returns what matches, sorted by client.
func (b *bench) list(filter director.ConnectionFilter) []conntrack.Connection {
	b.Helper()
	var all []conntrack.Connection
	if err := b.walk(b.Context(), filter, func(c conntrack.Connection) { all = append(all, c) }); err != nil {
		b.Fatal(err)
	}
	slices.SortFunc(all, func(x, y conntrack.Connection) int { return x.Client.Compare(y.Client) })
	return all
}

func (b *bench) count(filter director.ConnectionFilter) int { return len(b.list(filter)) }

// Connections are listed with what they are, and filtered by every field; their
// number is that of the counts.
func testConnections(b *bench) {
	const held = 4
	for _, s := range []director.Service{b.service(tcp(b.vip4), realserver.NAT), b.service(tcp(b.vip6), realserver.DR)} {
		vip := s.Key.Address.Addr()
		b.apply(adding(s)...)
		var want []conntrack.Connection
		for i := range held {
			// Last added first, and in turn.
			server := s.Servers[len(s.Servers)-1-i%len(s.Servers)]
			want = append(want, conntrack.Connection{
				Protocol: conntrack.TCP, Client: b.hold(vip, i), Virtual: s.Key.Address, Server: server.Address,
				Method: server.Method.String(), State: conntrack.Established,
				Proven: s.Servers[0].Method == realserver.NAT,
			})
		}
		slices.SortFunc(want, func(x, y conntrack.Connection) int { return x.Client.Compare(y.Client) })
		mine := director.ConnectionFilter{Service: s.Key}
		b.eventually("all are established", func() bool {
			return !slices.ContainsFunc(b.list(mine), func(c conntrack.Connection) bool { return c.State != conntrack.Established })
		})
		got := b.list(mine)
		for i := range got {
			if left := got[i].Expires; left <= 0 || left > 15*time.Minute {
				b.Errorf("%s expires in %s, want 15 minutes at most", got[i].Client, left)
			}
			got[i].Expires, got[i].Age, got[i].Idle = 0, 0, 0
			// A handshake of which one half is seen proves what the data plane wants it to.
			got[i].Proven = got[i].Proven && s.Servers[0].Method == realserver.NAT
		}
		b.same("connections of "+s.Key.String(), want, got)

		one := netip.PrefixFrom(want[0].Client.Addr(), want[0].Client.Addr().BitLen())
		around, _ := one.Addr().Prefix(one.Bits() - 8)
		for name, test := range map[string]struct {
			filter director.ConnectionFilter
			want   int
		}{
			"server":            {director.ConnectionFilter{Service: s.Key, Server: s.Servers[0].Address}, held / 2},
			"no server":         {director.ConnectionFilter{Service: s.Key, Server: netip.MustParseAddrPort("10.9.9.9:80")}, 0},
			"client":            {director.ConnectionFilter{Service: s.Key, Client: one}, 1},
			"client's network":  {director.ConnectionFilter{Service: s.Key, Client: around}, held},
			"connections alone": {director.ConnectionFilter{Service: s.Key, Kind: director.KindConnection}, held},
			"templates":         {director.ConnectionFilter{Service: s.Key, Kind: director.KindTemplate}, 0},
			"state":             {director.ConnectionFilter{Service: s.Key, State: "ESTABLISHED"}, held},
			"another state":     {director.ConnectionFilter{Service: s.Key, State: "SYN_RECV"}, 0},
			"another service":   {director.ConnectionFilter{Service: key("tcp://192.0.2.99:1")}, 0},
		} {
			if got := b.count(test.filter); got != test.want {
				b.Errorf("%s: %s: %d connections, want %d", s.Key, name, got, test.want)
			}
		}
		b.eventually("the counts agree", func() bool {
			for _, server := range b.stats(s.Key).Servers {
				if server.Active != held/2 || server.Inactive != 0 || server.Templates != 0 {
					return false
				}
			}
			return true
		})
		stopped := 0
		for range b.Connections(b.Context(), mine) {
			stopped++
			break
		}
		if stopped != 1 {
			b.Errorf("%d connections before the walk was broken off", stopped)
		}
	}
}

// Persistent services keep a client's network on one server, by a template.
func testTemplates(b *bench) {
	for _, vip := range []netip.Addr{b.vip4, b.vip6} {
		s := b.service(tcp(vip), realserver.NAT)
		s.Persistence = director.Persistence{Timeout: 10 * time.Minute, Prefix: s.Key.FullPrefix()}
		b.apply(adding(s)...)
		servers := map[string]int{}
		for n := range 2 {
			client := b.client(vip, n, directortest.Off)
			name := b.get(client, vip, 1)
			servers[name]++
			for range 3 {
				if again := b.get(client, vip, 1); again != name {
					b.Errorf("client %d went to %s, then to %s", n, name, again)
				}
			}
		}
		if len(servers) != 2 {
			b.Errorf("two clients went to %v", servers)
		}
		templates := b.list(director.ConnectionFilter{Service: s.Key, Kind: director.KindTemplate})
		if len(templates) != 2 {
			b.Fatalf("templates %+v, want 2", templates)
		}
		for i, c := range templates {
			source := b.lab.ClientAddrs4[i]
			if vip.Is6() {
				source = b.lab.ClientAddrs6[i]
			}
			if c.Client != netip.AddrPortFrom(source, 0) || c.Prefix != s.Key.FullPrefix() || !c.Template || s.Server(c.Server) < 0 ||
				c.Protocol != conntrack.TCP || c.Virtual != s.Key.Address || c.Expires <= 0 || c.Expires > s.Persistence.Timeout {
				b.Errorf("template %+v of %s", c, source)
			}
		}
		b.eventually("the counts agree", func() bool {
			for _, server := range b.stats(s.Key).Servers {
				if server.Templates != 1 {
					return false
				}
			}
			return true
		})
	}
}
