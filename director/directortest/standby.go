package directortest

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The standby director's own addresses: host 254 of the networks.
const standbyHost = 254

// routerAddresses are what client and servers have as their router on the bridge.
func routerAddresses() []netip.Prefix {
	net4, net6 := serverNets(0)
	return []netip.Prefix{host(clientNet4, 1), host(clientNet6, 1), host(net4, 1), host(net6, 1)}
}

// setUpStandby gives the standby director addresses of its own and the sysctls of the
// director.
func (l *Lab) setUpStandby() error {
	net4, net6 := serverNets(0)
	for _, pair := range [][2]netip.Prefix{
		{host(clientNet4, standbyHost), host(clientNet6, standbyHost)}, {host(net4, standbyHost), host(net6, standbyHost)},
	} {
		if err := l.addPair(l.Standby, "eth0", pair[0], pair[1]); err != nil {
			return err
		}
	}
	for _, kind := range []string{"all", "eth0"} {
		if err := l.Standby.Sysctl("net/ipv4/conf/"+kind+"/send_redirects", "0"); err != nil {
			return err
		}
	}
	for _, knob := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if err := l.Standby.Sysctl(knob, "0"); err != nil {
			return err
		}
	}
	return nil
}

// TakeOver moves the router's addresses from the director to the standby one, and has
// client and servers know it at once, as VRRP does by gratuitous ARP.
func (l *Lab) TakeOver() error {
	from, err := l.Director.link("eth0")
	if err != nil {
		return err
	}
	to, err := l.Standby.link("eth0")
	if err != nil {
		return err
	}
	for _, address := range routerAddresses() {
		if err := l.Director.route.AddrDel(from, &netlink.Addr{IPNet: ipNet(address)}); err != nil {
			return fmt.Errorf("take %s from %s: %w", address, l.Director.Name, err)
		}
		if err := l.Standby.AddAddress("eth0", address); err != nil {
			return err
		}
	}
	hosts := []*Namespace{l.Client}
	for _, s := range l.Servers {
		hosts = append(hosts, s.Namespace)
	}
	for _, n := range hosts {
		if err := n.learn(to.Attrs().HardwareAddr, routerAddresses()); err != nil {
			return err
		}
	}
	return nil
}

// learn tells the namespace who has the addresses, as far as it has asked for them.
func (n *Namespace) learn(mac net.HardwareAddr, addresses []netip.Prefix) error {
	l, err := n.link("eth0")
	if err != nil {
		return err
	}
	for _, address := range addresses {
		neighbour := &netlink.Neigh{
			LinkIndex: l.Attrs().Index, IP: address.Addr().AsSlice(), HardwareAddr: mac, State: unix.NUD_REACHABLE,
		}
		if err := n.route.NeighSet(neighbour); err != nil {
			return fmt.Errorf("tell %s who has %s: %w", n.Name, address, err)
		}
	}
	return nil
}
