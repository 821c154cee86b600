package labtest

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director/directortest"
)

const bulk = 1_000_000 // octets of a transfer that must not stall

// TestPathMTU has bulk transfers meet a link that is too small for them, in either
// direction: the error that its router sends has to reach the side that is too long, and
// be believed there. Hosts do not probe by themselves (net.ipv4.tcp_mtu_probing).
func TestPathMTU(t *testing.T) {
	t.Parallel()
	r := startRouted(t, routing{clients: 8 * len(ways), forwarding: directortest.On})
	r.serve(t)
	hosts := []*directortest.Namespace{r.lab.Client}
	for _, s := range r.lab.Servers {
		hosts = append(hosts, s.Namespace)
	}
	for _, n := range hosts {
		if err := n.Sysctl("net/ipv4/tcp_mtu_probing", "0"); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("before_clients", func(t *testing.T) { r.smallBeforeClients(t) })
	t.Run("of_tunnels", func(t *testing.T) { r.smallByHeaders(t) })
	t.Run("before_servers", func(t *testing.T) { r.smallBeforeServers(t) })
	noChecksumErrors(t, r.lab)
	r.d.noFaults(t)
}

// smallBeforeClients: the client's router says to the virtual address that answers are
// too long for a link behind it.
func (r *routed) smallBeforeClients(t *testing.T) {
	const mtu = 1300
	for i, o := range r.targets {
		t.Run(o.name, func(t *testing.T) {
			client := r.client(o, i)
			if err := r.lab.Router.SetPathMTU(client, "eth0", mtu); err != nil {
				t.Fatal(err)
			}
			var peer netip.AddrPort // as the server sees the client
			events := r.between(t, func() {
				header := r.fetch(t, o, i, bulk, false)
				peer, _ = netip.ParseAddrPort(header.Get(directortest.HeaderClient)) // invalid, and so refused below
			})
			if !peer.IsValid() {
				t.FailNow()
			}
			if events["icmp-to-server"] == 0 {
				t.Errorf("no error went to the server: %v", nonzero(events))
			}
			local := o.at.Addr()
			if o.method == dr || o.isTunnel() {
				local = o.vip.Addr()
			}
			if got := learnedMTU(t, o.server.Namespace, peer.Addr(), local); got != mtu {
				t.Errorf("the server has learned an MTU of %d towards %s, want %d", got, peer.Addr(), mtu)
			}
			for _, other := range r.lab.Servers {
				if other != o.server && o.keepsClient() && learnedMTU(t, other.Namespace, peer.Addr(), other.Addr(peer.Addr())) != 0 {
					t.Errorf("%s has heard of it too", other.Name)
				}
			}
		})
	}
}

// smallByHeaders: what the client sends fits every link, but not with a tunnel's headers.
func (r *routed) smallByHeaders(t *testing.T) {
	for _, o := range r.targets {
		if !o.isTunnel() || o.isFar {
			continue
		}
		t.Run(o.name, func(t *testing.T) {
			forget(t, r.lab.Client)
			events := r.between(t, func() { r.fetch(t, o, 0, bulk, true) })
			if events["frag-needed"] == 0 {
				t.Errorf("the client was not told: %v", nonzero(events))
			}
			if got, want := learnedMTU(t, r.lab.Client, o.vip.Addr(), r.client(o, 0)), 1500-o.headers(); got != want {
				t.Errorf("the client has learned an MTU of %d, want %d", got, want)
			}
		})
	}
}

// smallBeforeServers: the servers' router says that what comes from the director is too
// long: to the client, as far as it knows, or to the tunnel's source.
func (r *routed) smallBeforeServers(t *testing.T) {
	const mtu = 1400
	known := map[string]bool{} // of a path, by the type of its tunnels
	for _, o := range r.targets {
		if !o.isFar {
			continue
		}
		t.Run(o.name, func(t *testing.T) {
			if err := r.lab.Far.SetPathMTU(o.at.Addr(), "eth0", mtu); err != nil {
				t.Fatal(err)
			}
			forget(t, r.lab.Client)
			forget(t, o.server.Namespace) // which announces segments by what it knows of full NAT's addresses
			events := r.between(t, func() { r.fetch(t, o, 0, bulk, true) })
			path := strings.TrimSuffix(o.way.name, "-full") + o.at.Addr().String()
			switch {
			case (!o.isTunnel() || !known[path]) && events["icmp-to-client"] == 0:
				t.Errorf("no error went to the client: %v", nonzero(events))
			case o.isTunnel() && ((events["path-mtu"] == 0) != known[path] || events["frag-needed"] == 0):
				t.Errorf("the path's MTU known: %t: %v", known[path], nonzero(events))
			}
			known[path] = true
			if got, want := learnedMTU(t, r.lab.Client, o.vip.Addr(), r.client(o, 0)), mtu-o.headers(); got != want {
				t.Errorf("the client has learned an MTU of %d, want %d", got, want)
			}
		})
	}
}

func nonzero(events map[string]uint64) map[string]uint64 {
	some := map[string]uint64{}
	for name, count := range events {
		if count != 0 {
			some[name] = count
		}
	}
	return some
}
