package directortest

import (
	"fmt"
	"net/netip"
	"strconv"
)

// The addressing plan. Clients share one network; the servers share one on the
// bridge and have one each behind a two-armed director. The director is host 1
// everywhere.
var (
	clientNet4 = netip.MustParsePrefix("10.1.0.0/16")
	clientNet6 = netip.MustParsePrefix("fd00:1::/64")
	default4   = netip.MustParsePrefix("0.0.0.0/0")
	default6   = netip.MustParsePrefix("::/0")
)

// serverNets returns the networks of server i, counted from 1 in two-armed
// labs; the bridge's servers are in number 0.
func serverNets(i int) (netip.Prefix, netip.Prefix) {
	v6 := netip.MustParseAddr("fd00:2::").As16()
	v6[5] = byte(i)
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 2, byte(i), 0}), 24), netip.PrefixFrom(netip.AddrFrom16(v6), 64)
}

// host returns the n-th address of a network with its length.
func host(network netip.Prefix, n int) netip.Prefix {
	addr := network.Addr().AsSlice()
	addr[len(addr)-1] += byte(n)
	addr[len(addr)-2] += byte(n >> 8)
	a, _ := netip.AddrFromSlice(addr)
	return netip.PrefixFrom(a, network.Bits())
}

// build makes the namespaces, then the links, then what is on them. Whatever
// it makes is in l.closers.
func (l *Lab) build() error {
	var err error
	if l.Client, err = l.namespace("client"); err != nil {
		return err
	}
	if l.Director, err = l.namespace("director"); err != nil {
		return err
	}
	for i := range l.Topology.Servers {
		n, err := l.namespace(fmt.Sprintf("server%d", i+1))
		if err != nil {
			return err
		}
		l.Servers = append(l.Servers, &Server{Namespace: n})
	}

	connect := map[Shape]func() error{TwoArmed: l.connectTwoArmed, OneArmed: l.connectOneArmed, Routed: l.connectRouted}
	if err := connect[l.Topology.Shape](); err != nil {
		return err
	}
	for _, knob := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if err := l.Director.Sysctl(knob, strconv.Itoa(int(l.Topology.Forwarding))); err != nil {
			return err
		}
	}
	if err := l.setUpClient(); err != nil {
		return err
	}
	for _, s := range l.Servers {
		if err := l.setUpServer(s); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) namespace(name string) (*Namespace, error) {
	n, err := NewNamespace(name)
	if err == nil {
		l.closeLater(n)
	}
	return n, err
}

func (l *Lab) connectTwoArmed() error {
	if err := l.Director.AddVeth("eth0", l.Client, "eth0", l.Topology.MTU); err != nil {
		return err
	}
	l.DirectorLinks = []string{"eth0"}
	if err := l.addPair(l.Director, "eth0", host(clientNet4, 1), host(clientNet6, 1)); err != nil {
		return err
	}
	if err := l.attachPass(l.Client, "eth0"); err != nil {
		return err
	}
	for i, s := range l.Servers {
		name := fmt.Sprintf("eth%d", i+1)
		if err := l.Director.AddVeth(name, s.Namespace, "eth0", l.Topology.MTU); err != nil {
			return err
		}
		l.DirectorLinks = append(l.DirectorLinks, name)
		net4, net6 := serverNets(i + 1)
		if err := l.addPair(l.Director, name, host(net4, 1), host(net6, 1)); err != nil {
			return err
		}
		if err := l.addServerAddresses(s, host(net4, 2), host(net6, 2)); err != nil {
			return err
		}
		if err := l.attachPass(s.Namespace, "eth0"); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) connectOneArmed() error {
	bridge, err := l.namespace("bridge")
	if err != nil {
		return err
	}
	ends := []*Namespace{l.Client, l.Director}
	if l.Topology.Standby {
		if l.Standby, err = l.namespace("standby"); err != nil {
			return err
		}
		ends = append(ends, l.Standby)
	}
	for _, s := range l.Servers {
		ends = append(ends, s.Namespace)
	}
	var ports []string
	for _, end := range ends {
		if err := bridge.AddVeth(end.Name, end, "eth0", l.Topology.MTU); err != nil {
			return err
		}
		ports = append(ports, end.Name)
	}
	if err := bridge.AddBridge("br0", ports...); err != nil {
		return err
	}
	// What the director's program sends by XDP_TX arrives at its peer only if
	// that has a native program too.
	if err := l.attachPass(bridge, l.Director.Name); err != nil {
		return err
	}
	if l.Standby != nil {
		if err := l.attachPass(bridge, l.Standby.Name); err != nil {
			return err
		}
		if err := l.setUpStandby(); err != nil {
			return err
		}
	}

	l.DirectorLinks = []string{"eth0"}
	net4, net6 := serverNets(0)
	if err := l.addPair(l.Director, "eth0", host(clientNet4, 1), host(clientNet6, 1)); err != nil {
		return err
	}
	if err := l.addPair(l.Director, "eth0", host(net4, 1), host(net6, 1)); err != nil {
		return err
	}
	for _, kind := range []string{"all", "eth0"} {
		if err := l.Director.Sysctl("net/ipv4/conf/"+kind+"/send_redirects", "0"); err != nil {
			return err
		}
	}
	for i, s := range l.Servers {
		if err := l.addServerAddresses(s, host(net4, 11+i), host(net6, 11+i)); err != nil {
			return err
		}
	}
	return nil
}

// setUpClient gives the client its addresses and the director as its router.
func (l *Lab) setUpClient() error {
	for i := range l.Topology.Clients {
		v4, v6 := host(clientNet4, 2+i), host(clientNet6, 2+i)
		if err := l.addPair(l.Client, "eth0", v4, v6); err != nil {
			return err
		}
		l.ClientAddrs4 = append(l.ClientAddrs4, v4.Addr())
		l.ClientAddrs6 = append(l.ClientAddrs6, v6.Addr())
	}
	if err := l.Client.AddRoute(default4, host(clientNet4, 1).Addr()); err != nil {
		return err
	}
	if err := l.Client.AddRoute(default6, host(clientNet6, 1).Addr()); err != nil {
		return err
	}
	return l.Client.SetOffload("eth0", TxChecksum, Off)
}

// setUpServer gives a server the virtual addresses without answering ARP for
// them, which would let traffic bypass the director.
func (l *Lab) setUpServer(s *Server) error {
	for knob, value := range map[string]string{"arp_ignore": "1", "arp_announce": "2"} {
		if err := s.Sysctl("net/ipv4/conf/all/"+knob, value); err != nil {
			return err
		}
	}
	for _, vip := range l.Topology.VIPs {
		if err := l.addVIP(s, vip); err != nil {
			return err
		}
	}
	return s.SetOffload("eth0", TxChecksum, Off)
}

func (l *Lab) addServerAddresses(s *Server, v4, v6 netip.Prefix) error {
	s.Addr4, s.Addr6 = v4.Addr(), v6.Addr()
	if err := l.addPair(s.Namespace, "eth0", v4, v6); err != nil {
		return err
	}
	if err := s.AddRoute(default4, host(v4.Masked(), 1).Addr()); err != nil {
		return err
	}
	return s.AddRoute(default6, host(v6.Masked(), 1).Addr())
}

func (l *Lab) addVIP(s *Server, vip netip.Addr) error {
	if err := s.AddAddress("lo", netip.PrefixFrom(vip, vip.BitLen())); err != nil {
		return err
	}
	if l.Topology.Shape == Routed {
		return l.routeVIP(s, vip)
	}
	if l.Topology.Shape != OneArmed {
		return nil
	}
	clients := clientNet4
	if vip.Is6() {
		clients = clientNet6
	}
	return s.AddRouteFrom(vip, clients, "eth0")
}

func (l *Lab) addPair(n *Namespace, name string, v4, v6 netip.Prefix) error {
	if err := n.AddAddress(name, v4); err != nil {
		return err
	}
	return n.AddAddress(name, v6)
}

func (l *Lab) attachPass(n *Namespace, name string) error {
	attached, err := n.AttachPass(name)
	if err == nil {
		l.closeLater(attached)
		l.passing[linkOf{n, name}] = attached
	}
	return err
}
