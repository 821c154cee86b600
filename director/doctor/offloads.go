package doctor

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
)

// checkLRO looks for packets that the card merges before XDP sees them.
func checkLRO(i *inspection, r *report) {
	for _, l := range i.named() {
		name := l.Attrs().Name
		on, err := i.NIC.Features(name)
		if err != nil {
			r.unknown(name, err)
			continue
		}
		if on["rx-lro"] {
			r.add(Error, name, "large receive offload is on for "+name,
				"the card merges packets into ones that are longer than any MTU and cannot be forwarded; many drivers refuse XDP with it", "ethtool -K "+quote(name)+" lro off")
		}
		// Native XDP comes before GRO; generic XDP after it.
		if on["rx-gro"] && (i.Generic || i.isGeneric(l)) {
			r.add(Warning, name, "generic receive offload is on for "+name+" in generic mode",
				"generic XDP is given merged packets, longer than the MTU, which are dropped or cut anew by the next hop", "ethtool -K "+quote(name)+" gro off")
		}
	}
}

// isGeneric reports whether a program is attached to the interface after the
// driver.
func (i *inspection) isGeneric(l netlink.Link) bool {
	return attached(l) != 0 && l.Attrs().Xdp.AttachMode == nl.XDP_ATTACHED_SKB
}

// checkVLANStripping looks for tags that are taken off before XDP sees them.
func checkVLANStripping(i *inspection, r *report) {
	const why = "XDP sees a packet without its tag: a tagged client is answered without one, and never hears of it"
	for _, l := range i.named() {
		name := l.Attrs().Name
		if veth, ok := l.(*netlink.Veth); ok {
			// A veth strips nothing; its peer puts the tag beside the packet.
			peer := i.peer(veth)
			if peer == nil {
				continue
			}
			on, err := i.NIC.Features(peer.Attrs().Name)
			if err != nil {
				r.unknown(name, err)
			} else if on["tx-vlan-hw-insert"] {
				p := peer.Attrs().Name
				r.add(Info, p, fmt.Sprintf("VLAN tags are sent beside the packet by %s, the peer of %s", p, name), why, "ethtool -K "+quote(p)+" txvlan off")
			}
			continue
		}
		on, err := i.NIC.Features(name)
		if err != nil {
			r.unknown(name, err)
		} else if on["rx-vlan-hw-parse"] {
			r.add(Warning, name, "the card takes VLAN tags off what "+name+" receives", why, "ethtool -K "+quote(name)+" rxvlan off")
		}
	}
}

// peer returns the other end of a veth if it is in this network namespace.
func (i *inspection) peer(l *netlink.Veth) netlink.Link {
	index := l.Attrs().ParentIndex // IFLA_LINK: of a veth, its peer
	for _, other := range i.byName {
		a := other.Attrs()
		if other.Type() == "veth" && a.Index == index && a.ParentIndex == l.Attrs().Index && l.Attrs().NetNsID < 0 {
			return other
		}
	}
	return nil
}

// checkVeth looks at what a veth lacks for XDP.
func checkVeth(i *inspection, r *report) {
	for _, l := range i.named() {
		veth, ok := l.(*netlink.Veth)
		if !ok {
			continue
		}
		if peer := i.peer(veth); peer != nil {
			i.checkPeer(r, l, peer)
			continue
		}
		// The peer is in another network namespace: the kernel says of this end
		// whether that one receives what XDP sends.
		name := l.Attrs().Name
		can, err := features(l)
		if err != nil {
			r.unknown(name, err)
		} else if can&featureTransmit == 0 {
			r.add(Error, name, name+" is a veth, and its peer has neither an XDP program nor GRO", lostWithout(name),
				"ethtool -K eth0 gro on # in the peer's network namespace, by the name it has there")
		}
	}
}

func lostWithout(name string) string {
	return "what the director sends or redirects out of " + name + " is lost without an error"
}

// checkPeer looks at a veth's other end.
func (i *inspection) checkPeer(r *report, l, peer netlink.Link) {
	name, other := l.Attrs().Name, peer.Attrs().Name
	on, err := i.NIC.Features(other)
	if err != nil {
		r.unknown(other, err)
		return
	}
	if attached(peer) == 0 && !on["rx-gro"] {
		r.add(Error, name, fmt.Sprintf("%s is a veth, and its peer %s has neither an XDP program nor GRO", name, other), lostWithout(name),
			"ethtool -K "+quote(other)+" gro on")
	}
	if on["tx-checksum-ip-generic"] {
		r.add(Warning, other, fmt.Sprintf("%s, the peer of %s, leaves checksums to a card that is not there", other, name),
			"XDP sees packets before their checksums are filled in, and a redirected packet never gets one: whoever receives it drops it", "ethtool -K "+quote(other)+" tx off")
	}
}
