package labtest

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/shunt-lb/shunt/director/directortest"
)

// own is the director's address beside the servers of a routed lab.
func own(vip netip.Addr) netip.Addr {
	if vip.Is4() {
		return netip.MustParseAddr("10.2.0.1")
	}
	return netip.MustParseAddr("fd00:2::1")
}

// TestHairpin has clients in the servers' own network and, of full NAT, on the server
// itself, and traffic of the director's own beside all that.
func TestHairpin(t *testing.T) {
	t.Parallel()
	r := startRouted(t, routing{among: target.isPlain})
	r.serve(t)
	for _, o := range r.targets {
		if o.method != nat {
			continue
		}
		// A server has to answer by the director, whoever asks: there are clients for that.
		client := host(own(o.vip.Addr()), 4)
		for _, err := range []error{
			r.lab.Router.AddAddress("eth1", netip.PrefixFrom(client, client.BitLen())),
			o.server.AddRoute(netip.PrefixFrom(client, client.BitLen()), own(o.vip.Addr())),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, o := range r.targets {
		t.Run(o.name, func(t *testing.T) {
			client := host(own(o.vip.Addr()), 2)
			if o.method == nat {
				client = host(client, 4)
			}
			for _, upload := range []bool{false, true} {
				j := job{service: o.name, from: netip.AddrPortFrom(client, 0), address: o.vip, size: 100_000, upload: upload}
				if got, err := j.run(r.lab.Router); err != nil || got != o.server.Name {
					t.Errorf("from the network of the server: answered by %q, %v", got, err)
				}
			}
			total, _ := r.d.counters(t, "tcp-"+o.name)
			if total.Connections != 2 || total.In.Bytes < 100_000 {
				t.Errorf("the director counted %+v for two connections", total)
			}
		})
	}
	t.Run("server_asks_itself", func(t *testing.T) { r.askItself(t) })
	t.Run("own_traffic", func(t *testing.T) { r.ownTraffic(t) })
	t.Run("local", func(t *testing.T) { r.localServer(t) })
	t.Run("virtual_address_of_others", func(t *testing.T) { r.elsewhere(t) })
	noChecksumErrors(t, r.lab)
	r.d.noFaults(t)
}

// askItself has a server be a client of itself by full NAT, at an address that it has not.
func (r *routed) askItself(t *testing.T) {
	for _, o := range r.targets {
		if o.method != fullnat {
			continue
		}
		vip := netip.AddrPortFrom(host(o.vip.Addr(), 99), 80)
		r.d.do(t, fmt.Sprintf("service add tcp://%s\nserver add tcp://%s %s --method fullnat", vip, vip, o.at))
		j := job{service: o.name, address: vip, size: 100_000}
		if got, err := j.run(o.server.Namespace); err != nil || got != o.server.Name {
			t.Errorf("%s: a server that asks itself is answered by %q, %v", o.name, got, err)
		}
		r.d.do(t, fmt.Sprintf("service remove tcp://%s --yes", vip))
	}
}

// ownTraffic is TCP to and from the director's own addresses: that of its interface, and
// ports of the virtual one that no service has. No connection of ours is made for it.
func (r *routed) ownTraffic(t *testing.T) {
	const port = 22
	web, err := r.lab.Director.StartWeb(netip.AddrPortFrom(netip.IPv6Unspecified(), port))
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	before := r.d.connections(t)
	for _, o := range r.targets {
		for _, way := range []struct {
			from *directortest.Namespace
			to   netip.AddrPort
			want string
		}{
			{r.lab.Client, netip.AddrPortFrom(own(o.vip.Addr()), port), web.Name()},
			{r.lab.Client, netip.AddrPortFrom(own(o.vip.Addr()), o.vip.Port()), ""},
			{r.lab.Client, netip.AddrPortFrom(o.vip.Addr(), port), web.Name()},
			{o.server.Namespace, netip.AddrPortFrom(own(o.vip.Addr()), port), web.Name()},
			{r.lab.Director, o.at, o.server.Name},
		} {
			got, err := job{address: way.to, size: 20_000}.run(way.from)
			if got != way.want || (err != nil) != (way.want == "") {
				t.Errorf("%s to %s: answered by %q, %v, want %q", way.from.Name, way.to, got, err, way.want)
			}
		}
	}
	if now := r.d.connections(t); now != before {
		t.Errorf("%d connections, %d before: the director's own are not ours", now, before)
	}
}

// localServer is a server on the director itself.
func (r *routed) localServer(t *testing.T) {
	web, err := r.lab.Director.StartWeb(netip.AddrPortFrom(netip.IPv6Unspecified(), 88))
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	for i, vip := range []netip.Addr{vip4, vip6} {
		to := netip.AddrPortFrom(vip, 88)
		r.d.do(t, fmt.Sprintf("service add tcp://%s\nserver add tcp://%s %s --method local", to, to, netip.AddrPortFrom(own(vip), 88)))
		for _, upload := range []bool{false, true} {
			j := job{address: to, size: 100_000, upload: upload}
			if got, err := j.run(r.lab.Client); err != nil || got != web.Name() {
				t.Errorf("%s: answered by %q, %v", to, got, err)
			}
		}
		total, _ := r.d.counters(t, "tcp://"+to.String())
		if total.Connections != 2 || total.In.Bytes < 100_000 {
			t.Errorf("%s: the director counted %+v for two connections", to, total)
		}
		if got := r.d.events(t)["local"]; got < uint64(20*(i+1)) {
			t.Errorf("%s: %d packets counted as local", to, got)
		}
	}
}

// elsewhere has services at addresses that are on the director's interface, on its lo
// put there by somebody else, and on none: only routed to it.
func (r *routed) elsewhere(t *testing.T) {
	for _, o := range r.targets {
		if o.method == dr || o.isTunnel() {
			continue // whose servers have to have them; the director does the same
		}
		for i, where := range []string{"eth0", "lo", ""} {
			vip := netip.AddrPortFrom(host(o.vip.Addr(), 100+i), 80)
			if where != "" {
				if err := r.lab.Director.AddAddress(where, netip.PrefixFrom(vip.Addr(), vip.Addr().BitLen())); err != nil {
					t.Fatal(err)
				}
			}
			r.d.do(t, fmt.Sprintf("service add tcp://%s --vip external\nserver add tcp://%s %s --method %s", vip, vip, o.at, o.method))
			j := job{service: o.name, address: vip, size: 100_000}
			if got, err := j.run(r.lab.Client); err != nil || got != o.server.Name {
				t.Errorf("%s at %s on %q: answered by %q, %v", o.name, vip, where, got, err)
			}
			if total, _ := r.d.counters(t, "tcp://"+vip.String()); total.Connections != 1 || total.Out.Bytes < 100_000 {
				t.Errorf("%s at %s on %q: the director counted %+v", o.name, vip, where, total)
			}
			r.d.do(t, fmt.Sprintf("service remove tcp://%s --yes", vip))
		}
	}
}

// host is another address of the network of one, by its last octet.
func host(addr netip.Addr, last int) netip.Addr {
	octets := addr.AsSlice()
	octets[len(octets)-1] = byte(last)
	other, _ := netip.AddrFromSlice(octets) // of a length that an address has
	return other
}
