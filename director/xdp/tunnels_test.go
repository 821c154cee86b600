package xdp

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

func tunnelServer(o realserver.TunnelOptions) realserver.Server {
	return realserver.Server{
		Address: netip.AddrPortFrom(reachable, 80), Method: realserver.Tunnel, Weight: 1, Tunnel: o,
	}
}

func tunnelService(key string) director.Service {
	k, err := director.ParseServiceKey(key)
	if err != nil {
		panic(err)
	}
	return director.Service{Key: k, Scheduler: director.RoundRobin, VIP: director.VIPExternal}
}

func (r *rig) found() director.State {
	r.t.Helper()
	state, err := r.Found(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return state
}

// kernelTunnels returns the tunnels that the map has, by their indices.
func (r *rig) kernelTunnels() map[uint32]bpf.KernelTunnel {
	r.t.Helper()
	all, err := bpf.ReadArray[bpf.KernelTunnel](r.plane.Tunnels)
	if err != nil {
		r.t.Fatal(err)
	}
	found := map[uint32]bpf.KernelTunnel{}
	for i, k := range all {
		if k != (bpf.KernelTunnel{}) {
			found[uint32(i)] = k
		}
	}
	return found
}

// tunnelOf returns what the kernel has for the only server of the service.
func (r *rig) tunnelOf(key director.ServiceKey) bpf.KernelTunnel {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	svc, err := r.model.live(key)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, s := range svc.members {
		var k [1]bpf.KernelServer
		var t [1]bpf.KernelTunnel
		if err := bpf.ReadRange(r.plane.Servers, s.index, k[:]); err != nil {
			r.t.Fatal(err)
		}
		if err := bpf.ReadRange(r.plane.Tunnels, uint32(k[0].Tunnel), t[:]); err != nil {
			r.t.Fatal(err)
		}
		return t[0]
	}
	r.t.Fatal("no server")
	return bpf.KernelTunnel{}
}

// indexed returns the tunnels that an error about packets of that kind leads to.
func (r *rig) indexed(t bpf.KernelTunnel) (chain []uint32) {
	r.t.Helper()
	key := bpf.KernelTunnelKey{Address: t.Address, Port: t.Port, Type: t.Type, Family: t.Family}
	var i uint32
	if r.plane.TunnelIndex.Lookup(key, &i) != nil {
		return nil
	}
	for all := r.kernelTunnels(); i != 0; i = all[i].Next {
		chain = append(chain, i)
	}
	return chain
}

func wantTunnel(source, prefix string, o realserver.TunnelOptions) bpf.KernelTunnel {
	k := kernelTunnel(tunnel{address: reachable, options: o, source: netip.MustParsePrefix(prefix)}, 0)
	k.Source = bpf.Address(netip.MustParseAddr(source))
	return k
}

var (
	ipip   = realserver.TunnelOptions{}
	gue    = realserver.TunnelOptions{Type: realserver.TunnelGUE, Port: 6080}
	summed = realserver.TunnelOptions{Type: realserver.TunnelGUE, Port: 6080, Checksum: realserver.TunnelChecksumOn}
)

// Servers of one address and the same options share a tunnel, which lives as long as
// one of them; a restart takes it over, what a router has told of its path included.
func TestTunnels(t *testing.T) {
	r := newRig(t, Options{})
	one, two, six := tunnelService("tcp://192.0.2.1:80"), tunnelService("udp://192.0.2.2:80"), tunnelService("tcp://[2001:db8::1]:80")
	for _, s := range []director.Service{one, two, six} {
		r.must(director.AddService{Service: s}, director.AddServer{Key: s.Key, Server: tunnelServer(ipip)})
	}
	want := wantTunnel("10.0.0.254", "10.0.0.254/32", ipip)
	if want.Overhead != 20 || want.Spread != 0 {
		t.Fatalf("the test's own mistake: %+v", want)
	}
	if diff := cmp.Diff(map[uint32]bpf.KernelTunnel{1: want}, r.kernelTunnels(), cmp.AllowUnexported(bpf.KernelTunnel{})); diff != "" {
		t.Fatalf("tunnels (-want +got):\n%s", diff)
	}
	told := want
	told.Mtu, told.MtuTick = 1400, 77
	if err := r.plane.Tunnels.Put(uint32(1), &told); err != nil {
		t.Fatal(err)
	}

	before := r.found()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	if diff := cmp.Diff(before, r.found(), cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{})); diff != "" {
		t.Errorf("after a restart (-before +after):\n%s", diff)
	}
	for _, s := range []director.Service{one, two, six} {
		if got := r.tunnelOf(s.Key); got != told {
			t.Errorf("%s: after a restart %+v", s.Key, got)
		}
	}

	// An edit of a live server, and back: other options are another tunnel of the same key.
	r.must(director.EditServer{Key: one.Key, Server: tunnelServer(gue)}, director.EditServer{Key: two.Key, Server: tunnelServer(summed)})
	for key, o := range map[director.ServiceKey]realserver.TunnelOptions{one.Key: gue, two.Key: summed, six.Key: ipip} {
		got := r.tunnelOf(key)
		if got.Type != uint8(o.Type) || got.Checksum != uint8(o.Checksum) || got.Port != bpf.Port(o.Port) {
			t.Errorf("%s by %s: %+v", key, o, got)
		}
	}
	if got := r.indexed(r.tunnelOf(one.Key)); len(got) != 2 {
		t.Errorf("an error about gue leads to tunnels %v, want both", got)
	}

	for _, s := range []director.Service{one, two} {
		r.must(director.RemoveService{Key: s.Key})
	}
	r.eventually("unused tunnels are gone", func() bool {
		r.sweepNow()
		return len(r.kernelTunnels()) == 1
	})
	if got := r.indexed(wantTunnel("10.0.0.254", "10.0.0.254/32", gue)); got != nil {
		t.Errorf("an error about gue leads to tunnels %v still", got)
	}
	if got := r.indexed(told); len(got) != 1 {
		t.Errorf("an error about ipip leads to tunnels %v", got)
	}
}

// What is damaged is found and repaired as a server's entry is.
func TestTunnelRepair(t *testing.T) {
	r := newRig(t, Options{})
	s := tunnelService("tcp://192.0.2.1:80")
	r.must(director.AddService{Service: s}, director.AddServer{Key: s.Key, Server: tunnelServer(gue)})
	want := r.tunnelOf(s.Key)
	for name, damage := range map[string]func() error{
		"another address": func() error {
			k := want
			k.Address[0]++
			return r.plane.Tunnels.Put(uint32(1), &k)
		},
		"no tunnel": func() error { return r.plane.Tunnels.Put(uint32(1), &bpf.KernelTunnel{}) },
		"no index": func() error {
			return r.plane.TunnelIndex.Delete(bpf.KernelTunnelKey{Address: want.Address, Port: want.Port, Type: want.Type, Family: want.Family})
		},
		"a server that names another": func() error {
			var k [1]bpf.KernelServer
			if err := bpf.ReadRange(r.plane.Servers, 1, k[:]); err != nil {
				return err
			}
			k[0].Tunnel = 9
			return r.plane.Servers.Put(uint32(1), &k[0])
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := damage(); err != nil {
				t.Fatal(err)
			}
			if got := r.found(); len(got.Services) != 1 || len(got.Services[0].Servers) != 0 {
				t.Errorf("found as if it were whole: %+v", got.Services)
			}
			r.must(director.AddServer{Key: s.Key, Server: tunnelServer(gue)})
			if got := r.found(); len(got.Services) != 1 || len(got.Services[0].Servers) != 1 || got.Services[0].Servers[0] != tunnelServer(gue) {
				t.Errorf("not repaired: %+v", got.Services)
			}
			if got := r.tunnelOf(s.Key); got != want || len(r.indexed(want)) != 1 {
				t.Errorf("repaired to %+v, want %+v", got, want)
			}
		})
	}
}

// The outer source is what is configured, its host bits spread, or what the route says,
// and follows that.
func TestTunnelSource(t *testing.T) {
	s := tunnelService("tcp://192.0.2.1:80")
	t.Run("configured", func(t *testing.T) {
		r := newRig(t, Options{TunnelSources: []netip.Prefix{netip.MustParsePrefix("fd00:5::/64"), netip.MustParsePrefix("10.9.0.0/20")}})
		r.must(director.AddService{Service: s}, director.AddServer{Key: s.Key, Server: tunnelServer(ipip)})
		if got, want := r.tunnelOf(s.Key), wantTunnel("10.9.0.0", "10.9.0.0/20", ipip); got != want || got.Spread != 0xff0f0000 {
			t.Errorf("%+v, want %+v", got, want)
		}
	})
	t.Run("the route's", func(t *testing.T) {
		r := newRig(t, Options{})
		r.must(director.AddService{Service: s}, director.AddServer{Key: s.Key, Server: tunnelServer(ipip)})
		if got, want := r.tunnelOf(s.Key), wantTunnel("10.0.0.254", "10.0.0.254/32", ipip); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		other := netip.MustParseAddr("10.0.0.77")
		if err := r.ns.AddAddress("eth0", host(other)); err != nil {
			t.Fatal(err)
		}
		l, err := r.ns.Netlink().LinkByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		route := netlink.Route{
			LinkIndex: l.Attrs().Index, Scope: netlink.SCOPE_LINK, Src: other.AsSlice(),
			Dst: &net.IPNet{IP: reachable.AsSlice(), Mask: net.CIDRMask(32, 32)},
		}
		if err := r.ns.Netlink().RouteReplace(&route); err != nil {
			t.Fatal(err)
		}
		want := wantTunnel("10.0.0.77", "10.0.0.77/32", ipip)
		r.eventually("the tunnel follows the route", func() bool { return r.tunnelOf(s.Key) == want })
	})
}

// Connections of a v6 service to a v4 server, and what is said of them.
func TestTunnelMixedFamilies(t *testing.T) {
	r := newRig(t, Options{})
	s := tunnelService("tcp://[2001:db8::1]:80")
	r.must(director.AddService{Service: s}, director.AddServer{Key: s.Key, Server: tunnelServer(ipip)})
	client := netip.MustParseAddrPort("[2001:db8:c::7]:1000")
	if server, ok := r.syn(client, s.Key.Address); !ok || server != tunnelServer(ipip).Address {
		t.Fatalf("paired with %v, %v", server, ok)
	}
	d, err := r.Decide(t.Context(), director.Question{Protocol: conntrack.TCP, Client: client, Virtual: s.Key.Address})
	if err != nil || !strings.Contains(d.Server.String(), reachable.String()) {
		t.Errorf("decided: %+v, %v", d, err)
	}
}

// What is not wrapped for, because there is no way to it, keeps its options all the same.
func TestTunnelOptionsOfTheUnreachable(t *testing.T) {
	r := newRig(t, Options{})
	s := tunnelService("tcp://192.0.2.1:80")
	server := tunnelServer(realserver.TunnelOptions{Type: realserver.TunnelGUE, Port: 5555})
	server.Address = netip.MustParseAddrPort("198.51.100.9:80")
	r.must(director.AddService{Service: s}, director.AddServer{Key: s.Key, Server: server})
	state, err := r.Found(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if found := state.Services; len(found) != 1 || len(found[0].Servers) != 1 || found[0].Servers[0] != server {
		t.Errorf("found %+v, want the server %+v", found, server)
	}
}
