package xdp

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// Each filter ends what it selects and nothing else.
func TestKill(t *testing.T) {
	r := newRig(t, Options{})
	sticky, other := newStickyService(), testService(director.RoundRobin, director.SchedulerFlags{})
	other.Key.Address, other.Name = netip.MustParseAddrPort("[2001:db8::1]:443"), "other"
	v6 := realserver.Server{Address: netip.MustParseAddrPort("[fd00::1]:443"), Method: realserver.Local, Weight: 1}
	r.must(
		director.AddService{Service: sticky},
		director.AddServer{Key: sticky.Key, Server: local(1, 1)}, director.AddServer{Key: sticky.Key, Server: natServer()},
		director.AddService{Service: other}, director.AddServer{Key: other.Key, Server: v6},
	)
	r.eventually("the server is reachable", func() bool { return r.stats(sticky.Key).Servers[1].Reachable })
	fill := func() {
		for network := range byte(4) {
			for host := byte(1); host < 4; host++ {
				r.syn(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, network, host}), 4000), sticky.Key.Address)
			}
		}
		for n := range uint16(3) {
			r.syn(netip.AddrPortFrom(netip.MustParseAddr("2001:db8:1::9"), 4000+n), other.Key.Address)
		}
	}
	keys := func() (keys int) {
		t.Helper()
		for _, v6 := range []bool{false, true} {
			for _, err := range r.plane.Entries(v6) {
				if err != nil {
					t.Fatal(err)
				}
				keys++
			}
		}
		return keys
	}
	for _, test := range []struct {
		name   string
		filter director.ConnectionFilter
		want   uint64
	}{
		{"service", director.ConnectionFilter{Service: sticky.Key}, 16},
		{"other service", director.ConnectionFilter{Service: other.Key}, 3},
		{"templates", director.ConnectionFilter{Kind: director.KindTemplate}, 4},
		{"connections", director.ConnectionFilter{Kind: director.KindConnection}, 15},
		{"server", director.ConnectionFilter{Server: local(1, 1).Address}, 8},
		{"server by nat", director.ConnectionFilter{Server: natServer().Address}, 8},
		{"server's templates", director.ConnectionFilter{Server: natServer().Address, Kind: director.KindTemplate}, 2},
		{"client, with the template of its network", director.ConnectionFilter{Client: netip.MustParsePrefix("198.51.2.2/32")}, 2},
		{"client's connection", director.ConnectionFilter{Client: netip.MustParsePrefix("198.51.2.2/32"), Kind: director.KindConnection}, 1},
		{"client network", director.ConnectionFilter{Client: netip.MustParsePrefix("198.51.2.0/24")}, 4},
		{"IPv6 client", director.ConnectionFilter{Client: netip.MustParsePrefix("2001:db8:1::/48")}, 3},
		{"state", director.ConnectionFilter{State: "SYN_RECV"}, 15},
		{"state of templates", director.ConnectionFilter{State: "NONE"}, 4},
		{"state of none", director.ConnectionFilter{State: "ESTABLISHED"}, 0},
		{"nobody", director.ConnectionFilter{Client: netip.MustParsePrefix("203.0.113.0/24")}, 0},
		{"all", director.ConnectionFilter{}, 19},
	} {
		t.Run(test.name, func(t *testing.T) {
			r.t = t
			fill()
			before := r.connections(director.ConnectionFilter{})
			if len(before) != 19 {
				t.Fatalf("%d connections and templates before, want 19", len(before))
			}
			selected := len(r.connections(test.filter))
			killed, err := r.Kill(t.Context(), test.filter)
			if err != nil || killed != test.want || uint64(selected) != test.want {
				t.Errorf("%d of %d killed, %v; want %d", killed, selected, err, test.want)
			}
			if left := r.connections(test.filter); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
			if left := len(r.connections(director.ConnectionFilter{})); left != 19-int(test.want) {
				t.Errorf("%d are left, want %d", left, 19-int(test.want))
			}
			if _, err := r.Kill(t.Context(), director.ConnectionFilter{}); err != nil {
				t.Error(err)
			}
			if n := keys(); n != 0 {
				t.Errorf("%d keys in the tables after all were killed", n)
			}
			for _, s := range slices.Concat(r.stats(sticky.Key).Servers, r.stats(other.Key).Servers) {
				if s.Active+s.Inactive+s.Templates != 0 {
					t.Errorf("%s has %s", s.Server.Address, fmt.Sprint(s.Active, s.Inactive, s.Templates))
				}
			}
		})
	}
}
