package doctor

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"

	"github.com/shunt-lb/shunt/director"
)

// checkInterfaces looks at whether the named interfaces are there, up, and the
// ones that packets come in by first.
func checkInterfaces(i *inspection, r *report) {
	if len(i.Interfaces) == 0 && i.Dataplane != director.PlaneIPVS {
		r.add(Error, "", "no interface is named", "shuntd attaches to the interfaces it is told: without one it does not start",
			"shuntd --interface eth0 # or set director.interfaces")
	}
	for _, name := range i.Interfaces {
		l, found := i.byName[name]
		if !found {
			r.add(Error, name, "there is no interface "+name, "packets that come by it are not seen; shuntd does not start with a name that is not there",
				"ip link show # name one that exists in director.interfaces")
			continue
		}
		a := l.Attrs()
		if a.Flags&net.FlagUp == 0 {
			r.add(Error, name, name+" is down", "nothing is received or sent by it", "ip link set dev "+quote(name)+" up")
		} else if a.OperState == netlink.OperDown || a.OperState == netlink.OperLowerLayerDown {
			r.add(Warning, name, name+" has no carrier", "nothing is received or sent by it: look at cable and peer", "ethtool "+quote(name))
		}
		if a.MasterIndex != 0 {
			i.checkMaster(r, l)
		}
		i.checkUpper(r, l)
	}
}

// checkMaster reports an interface that is part of a bridge or a bond.
func (i *inspection) checkMaster(r *report, l netlink.Link) {
	name := l.Attrs().Name
	master := i.linkName(l.Attrs().MasterIndex)
	kind := "another interface"
	if m, found := i.byName[master]; found {
		kind = m.Type()
	}
	if i.isNamed(master) {
		r.add(Error, name, fmt.Sprintf("%s and its master %s (%s) are both named", name, master, kind),
			"packets are seen twice, or attaching to one of the two is refused", "name only one of the two in director.interfaces")
		return
	}
	if kind == "bond" {
		// Kernel commit 9e2ee5c7e7c3 ("net, bonding: Add XDP support to the bonding driver"), 5.15.
		r.add(Error, name, fmt.Sprintf("%s is a port of the bond %s", name, master),
			"the route to a server leads out of "+master+", which is not named, and packets of its other ports are not seen. A bond has native XDP if its ports' drivers have, in the modes balance-rr, active-backup, balance-xor and 802.3ad",
			"name "+master+" in director.interfaces in the place of its ports, then: systemctl restart shuntd")
		return
	}
	r.add(Warning, name, fmt.Sprintf("%s is part of %s (%s)", name, master, kind),
		"XDP sees packets before "+master+" does: the route to a server leads out of "+master+", which is not named, and other ports of it are not looked at",
		"ip link set dev "+quote(name)+" nomaster # or name "+master+" in director.interfaces instead")
}

// checkUpper reports VLANs on a named interface: their packets are seen here,
// with the tag, and servers behind them are not reached.
func (i *inspection) checkUpper(r *report, l netlink.Link) {
	for name, upper := range i.byName {
		if upper.Type() != "vlan" || upper.Attrs().ParentIndex != l.Attrs().Index || !i.isNamed(name) {
			continue
		}
		r.add(Error, name, fmt.Sprintf("%s and the VLAN %s on it are both named", l.Attrs().Name, name),
			"packets of the VLAN are seen on "+l.Attrs().Name+" first, with their tag, and never come to "+name,
			"leave "+name+" out of director.interfaces: clients' tags are understood")
	}
}
