package directortest

import "net/netip"

// The hosts of a routed lab's bridge, beside the director, 1, and the servers, from 11.
const (
	routerHost = 2
	farHost    = 3
)

// connectRouted builds
//
//	client - router --+-- director
//	                  +-- server, ...
//	                  +-- far - server
func (l *Lab) connectRouted() error {
	bridge, err := l.namespace("bridge")
	if err != nil {
		return err
	}
	if l.Router, err = l.namespace("router"); err != nil {
		return err
	}
	if l.Far, err = l.namespace("far"); err != nil {
		return err
	}
	near, far := l.Servers[:len(l.Servers)-1], l.Servers[len(l.Servers)-1]
	ends, links := []*Namespace{l.Director, l.Router, l.Far}, []string{"eth0", "eth1", "eth1"}
	for _, s := range near {
		ends, links = append(ends, s.Namespace), append(links, "eth0")
	}
	var ports []string
	for i, end := range ends {
		if err := bridge.AddVeth(end.Name, end, links[i], l.Topology.MTU); err != nil {
			return err
		}
		ports = append(ports, end.Name)
	}
	if err := bridge.AddBridge("br0", ports...); err != nil {
		return err
	}
	// See connectOneArmed.
	if err := l.attachPass(bridge, l.Director.Name); err != nil {
		return err
	}
	if err := l.Router.AddVeth("eth0", l.Client, "eth0", l.Topology.MTU); err != nil {
		return err
	}
	if err := l.Far.AddVeth("eth0", far.Namespace, "eth0", l.Topology.MTU); err != nil {
		return err
	}

	l.DirectorLinks = []string{"eth0"}
	net4, net6 := serverNets(0)
	far4, far6 := serverNets(1)
	for i, s := range near {
		if err := l.addServerAddresses(s, host(net4, 11+i), host(net6, 11+i)); err != nil {
			return err
		}
	}
	if err := l.addServerAddresses(far, host(far4, 2), host(far6, 2)); err != nil {
		return err
	}
	if err := l.addPair(l.Director, "eth0", host(net4, 1), host(net6, 1)); err != nil {
		return err
	}
	if err := l.setUpRouter(l.Router, host(clientNet4, 1), host(clientNet6, 1), routerHost); err != nil {
		return err
	}
	if err := l.setUpRouter(l.Far, host(far4, 1), host(far6, 1), farHost); err != nil {
		return err
	}
	for _, s := range l.Servers {
		if err := l.sendAllErrors(s.Namespace); err != nil {
			return err
		}
	}
	for _, kind := range []string{"all", "eth0"} {
		if err := l.Director.Sysctl("net/ipv4/conf/"+kind+"/send_redirects", "0"); err != nil {
			return err
		}
	}
	for _, r := range []struct {
		from    *Namespace
		to, via netip.Prefix
	}{
		{l.Director, far4, host(net4, farHost)},
		{l.Director, far6, host(net6, farHost)},
		{l.Director, default4, host(net4, routerHost)},
		{l.Director, default6, host(net6, routerHost)},
		{l.Router, default4, host(net4, 1)}, // the virtual addresses
		{l.Router, default6, host(net6, 1)},
		{l.Far, default4, host(net4, 1)},
		{l.Far, default6, host(net6, 1)},
	} {
		if err := r.from.AddRoute(r.to, r.via.Addr()); err != nil {
			return err
		}
	}
	return nil
}

// setUpRouter makes a router of a namespace: eth0 and the bridge, where it is that host.
func (l *Lab) setUpRouter(n *Namespace, v4, v6 netip.Prefix, number int) error {
	net4, net6 := serverNets(0)
	if err := l.addPair(n, "eth0", v4, v6); err != nil {
		return err
	}
	if err := l.addPair(n, "eth1", host(net4, number), host(net6, number)); err != nil {
		return err
	}
	for _, knob := range []struct{ name, value string }{
		{"net/ipv4/ip_forward", "1"},
		{"net/ipv6/conf/all/forwarding", "1"},
		{"net/ipv4/conf/all/send_redirects", "0"},
		{"net/ipv4/conf/default/send_redirects", "0"},
	} {
		if err := n.Sysctl(knob.name, knob.value); err != nil {
			return err
		}
	}
	if err := l.sendAllErrors(n); err != nil {
		return err
	}
	for _, name := range []string{"eth0", "eth1"} {
		// Also ends TSO: what a later link would drop is not hidden in a bundle.
		if err := n.SetOffload(name, TxChecksum, Off); err != nil {
			return err
		}
	}
	return nil
}

// sendAllErrors ends the limits of ICMP errors: in a test every one counts.
func (l *Lab) sendAllErrors(n *Namespace) error {
	for _, knob := range []string{"net/ipv4/icmp_ratelimit", "net/ipv6/icmp/ratelimit"} {
		if err := n.Sysctl(knob, "0"); err != nil {
			return err
		}
	}
	return nil
}

// routeVIP has a server's packets from a virtual address go to the clients by Router.
func (l *Lab) routeVIP(s *Server, vip netip.Addr) error {
	net4, net6 := serverNets(0)
	clients, gateway := clientNet4, host(net4, routerHost)
	if vip.Is6() {
		clients, gateway = clientNet6, host(net6, routerHost)
	}
	decides := s.Namespace
	if s == l.Servers[len(l.Servers)-1] {
		decides = l.Far
	}
	return decides.AddRouteFromVia(vip, clients, gateway.Addr())
}
