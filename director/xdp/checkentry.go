package xdp

import (
	"fmt"
	"net/netip"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/conntrack"
)

// examineSlot says what is wrong with what is in the slot, if anything is; other is
// the recipe of the connection's other half, if it was looked at.
func (c *checker) examineSlot(s *bpf.Slot) (kind, found string, other uint64, err error) {
	const generationMask = uint64(bpf.KernelMasksGENERATION_MASK)
	switch {
	case s.IsFree():
		return "", "", 0, nil
	case !s.IsLive() || s.Recipe&generationMask == 0:
		return faultGeneration, fmt.Sprintf("id %#x and recipe %#x are not of one entry", s.ID, s.Recipe), 0, nil
	case s.Is(bpf.KernelRecipeLayoutRECIPE_BUSY):
		return faultBusy, "it is being made or removed, and nobody does", 0, nil
	case !c.isPlaced(s):
		return faultPlace, "its key belongs elsewhere", 0, nil
	case c.view.server(s.Server()) == nil:
		return faultServer, fmt.Sprintf("there is no server %d", s.Server()), 0, nil
	}
	if s.IsTemplate() {
		kind, found = c.examineTemplate(s)
		return kind, found, 0, nil
	}
	if found := c.oddEntry(s); found != "" {
		return faultEntry, found, 0, nil
	}
	switch {
	case s.Is(bpf.KernelRecipeLayoutRECIPE_REPLY):
		return c.examineReply(s)
	case s.Method() == uint8(bpf.KernelMethodMETHOD_NAT):
		return c.examineForward(s)
	default:
		return "", "", 0, nil
	}
}

// isPlaced says whether a lookup of the entry's key looks into its slot.
func (c *checker) isPlaced(s *bpf.Slot) bool {
	key := s.Key()
	place := c.plane.Place(s.V6, &key)
	return place.Group == s.Group && place.Has(s.Index)
}

func (c *checker) examineTemplate(s *bpf.Slot) (kind, found string) {
	service := s.Destination[0]
	of := c.view.server(s.Server()).service
	switch {
	case service >= uint32(len(c.view.services)) || c.view.services[service] == nil:
		return faultService, fmt.Sprintf("there is no service %d", service)
	case c.view.services[service] != of:
		return faultService, fmt.Sprintf("its server is of %s, not of %s", of.key, c.view.services[service].key)
	case s.State() != uint8(bpf.KernelConnStateSTATE_TEMPLATE):
		return faultEntry, fmt.Sprintf("a template in state %d", s.State())
	}
	return "", ""
}

// oddEntry says what no connection can be.
func (c *checker) oddEntry(s *bpf.Slot) string {
	protocol, state := conntrack.Protocol(s.Protocol()), s.State()
	switch {
	case protocol != conntrack.TCP && protocol != conntrack.UDP:
		return fmt.Sprintf("a connection of protocol %d", protocol)
	case state > uint8(bpf.KernelConnStateSTATE_UDP) || (state == uint8(bpf.KernelConnStateSTATE_UDP)) != (protocol == conntrack.UDP):
		return fmt.Sprintf("a connection of %s in state %d", protocol, state)
	case s.Is(bpf.KernelRecipeLayoutRECIPE_REPLY) && s.Method() != uint8(bpf.KernelMethodMETHOD_NAT):
		return "a reply key of a connection that is not by nat"
	}
	return ""
}

// examineForward looks at both halves of a NAT connection, from its forward one.
func (c *checker) examineForward(s *bpf.Slot) (kind, found string, other uint64, err error) {
	key := c.view.replyKey(s)
	reply, ok, err := c.plane.Find(s.V6, &key)
	switch {
	case err != nil:
		return "", "", 0, err
	case !ok || !reply.Is(bpf.KernelRecipeLayoutRECIPE_REPLY):
		return faultReply, "replies from " + c.endpoint(&key, s.V6).String() + " have no entry", 0, nil
	case reply.Server() != s.Server():
		return faultReply, fmt.Sprintf("the entry of its replies is of server %d, its own is %d", reply.Server(), s.Server()), reply.Recipe, nil
	}
	if reply.Is(bpf.KernelRecipeLayoutRECIPE_WIDE) && reply.Hop != widePlace(s) {
		return faultHalves, fmt.Sprintf("the entry of its replies is of slot %d of group %d", reply.Hop&placeSlot, reply.Hop>>bpf.KernelPlaceLayoutPLACE_GROUP), reply.Recipe, nil
	}
	kind, found = differing(s, &reply)
	return kind, found, reply.Recipe, nil
}

// placeSlot is the slot's part of a place (entry.h, enum place_layout).
const placeSlot = 1<<bpf.KernelPlaceLayoutPLACE_GROUP - 1

// widePlace returns the place of the entry, as a wide connection's reply names it.
func widePlace(s *bpf.Slot) uint32 { return s.Group<<bpf.KernelPlaceLayoutPLACE_GROUP | s.Index }

// differing says in what a connection's halves differ that must not; empty if in
// nothing.
func differing(forward, reply *bpf.Slot) (kind, found string) {
	differs := func(bit bpf.KernelRecipeLayout) bool { return forward.Is(bit) != reply.Is(bit) }
	switch {
	case forward.Method() != reply.Method():
		return faultHalves, fmt.Sprintf("methods %d and %d", forward.Method(), reply.Method())
	case forward.IsFullNAT() != reply.IsFullNAT():
		return faultHalves, "one is by full NAT, the other is not"
	case differs(bpf.KernelRecipeLayoutRECIPE_WIDE):
		return faultHalves, "one is of a service of many addresses or ports, the other is not"
	case !forward.Is(bpf.KernelRecipeLayoutRECIPE_PROVEN) || forward.Is(bpf.KernelRecipeLayoutRECIPE_KILLED):
		return "", "" // the forward one's state alone counts; replies find a kill out by themselves
	case forward.State() == uint8(bpf.KernelConnStateSTATE_ESTABLISHED) && reply.State() == uint8(bpf.KernelConnStateSTATE_SYN_RECV) &&
		!reply.Is(bpf.KernelRecipeLayoutRECIPE_PROVEN):
		return "", "" // proven in place: the next reply, or the client's packet after a second, tells the other half
	case differs(bpf.KernelRecipeLayoutRECIPE_PROVEN):
		return faultStates, "the connection is proven, the entry of its replies is not"
	case forward.State() != reply.State():
		return faultStates, fmt.Sprintf("%s and %s", stateOf(forward.State()), stateOf(reply.State()))
	}
	return "", ""
}

// examineReply looks for the connection of a reply key.
func (c *checker) examineReply(s *bpf.Slot) (kind, found string, other uint64, err error) {
	forward, err := c.forwardOf(s)
	if err != nil {
		return "", "", 0, err
	}
	if !forward.IsLive() || forward.Is(bpf.KernelRecipeLayoutRECIPE_REPLY) || forward.Server() != s.Server() ||
		c.view.replyKey(&forward) != s.Key() {
		return faultOrphan, fmt.Sprintf("its connection has no entry; it is of server %d", s.Server()), forward.Recipe, nil
	}
	return "", "", 0, nil
}

// forwardOf returns the forward entry of the connection that the reply entry is of; no
// live slot if there is none.
func (c *checker) forwardOf(s *bpf.Slot) (bpf.Slot, error) {
	if s.Is(bpf.KernelRecipeLayoutRECIPE_WIDE) {
		return c.plane.SlotAt(s.V6, s.Hop>>bpf.KernelPlaceLayoutPLACE_GROUP, s.Hop&placeSlot)
	}
	key := s.Key()
	_, client := key.PortsBE()
	virtual := c.view.servers[s.Server()].service.key.Address
	forward := bpf.MakeKey(key.Destination, bpf.Address(virtual.Addr()), client, bpf.Port(virtual.Port()), s.Protocol())
	found, _, err := c.plane.Find(s.V6, &forward)
	return found, err
}

// endpoint is the source of a key.
func (c *checker) endpoint(key *bpf.Key, v6 bool) netip.AddrPort {
	port, _ := key.PortsBE()
	return netip.AddrPortFrom(bpf.ParseAddress(key.Source, v6), bpf.Port(port))
}
