package xdp

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// TestConnectionsAfter: parts of a list have every connection of both families once,
// also while others come and go; a place of other tables is refused.
func TestConnectionsAfter(t *testing.T) {
	r := newRig(t, Options{})
	v4 := testService(director.RoundRobin, director.SchedulerFlags{})
	v6 := testService(director.RoundRobin, director.SchedulerFlags{})
	v6.Key.Address = netip.MustParseAddrPort("[2001:db8::1]:443")
	server6 := realserver.Server{Address: netip.MustParseAddrPort("[fd00::1]:443"), Method: realserver.Local, Weight: 1}
	r.must(
		director.AddService{Service: v4}, director.AddServer{Key: v4.Key, Server: local(1, 1)},
		director.AddService{Service: v6}, director.AddServer{Key: v6.Key, Server: server6},
	)
	const each = 300
	fill := func(key director.ServiceKey, server netip.AddrPort, client netip.Addr, first uint16) {
		var all []conntrack.Connection
		for i := range uint16(each) {
			all = append(all, conntrack.Connection{
				Protocol: conntrack.TCP, Client: netip.AddrPortFrom(client, first+i), Virtual: key.Address, Server: server,
				Method: realserver.Local.String(), State: conntrack.Established, Proven: true, Expires: 10 * time.Minute,
			})
		}
		r.load(key, all, director.LoadReport{Loaded: each})
	}
	stay, come := netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("203.0.113.9")
	fill(v4.Key, local(1, 1).Address, stay, 1000)
	fill(v6.Key, server6.Address, netip.MustParseAddr("2001:db8:9::1"), 1000)
	seen := map[netip.AddrPort]int{}
	var last director.Place
	for part := 0; ; part++ {
		n := 0
		for c, err := range r.ConnectionsAfter(t.Context(), director.ConnectionFilter{}, last) {
			if err != nil {
				t.Fatal(err)
			}
			if c.Place <= last {
				t.Fatalf("place %x behind %x", c.Place, last)
			}
			last = c.Place
			if c.Client.Addr() != come {
				seen[c.Client]++
			}
			if n++; n == 70 {
				break
			}
		}
		if n < 70 {
			break
		}
		switch part {
		case 1:
			fill(v4.Key, local(1, 1).Address, come, 5000)
		case 3:
			if _, err := r.Kill(t.Context(), director.ConnectionFilter{Client: netip.PrefixFrom(come, 32)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(seen) != 2*each {
		t.Errorf("%d connections of %d", len(seen), 2*each)
	}
	for client, n := range seen {
		if n != 1 {
			t.Errorf("%s is listed %d times", client, n)
		}
	}
	for _, err := range r.ConnectionsAfter(t.Context(), director.ConnectionFilter{}, last^1<<placeTables) {
		if !errors.Is(err, director.ErrInvalid) {
			t.Errorf("other tables: %v", err)
		}
	}
}
