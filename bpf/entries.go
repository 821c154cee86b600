package bpf

import (
	"encoding/binary"
	"iter"
	"net/netip"
	"unsafe"
)

// Entry is one key of the connection table, decoded: an observation.
type Entry struct {
	Source      netip.AddrPort // of a template: the client network's address, port 0
	Destination netip.AddrPort // invalid of a template
	Protocol    uint8
	Server      uint32 // index
	State       uint8
	Method      uint8  // METHOD_FULLNAT too
	Reply       bool   // the key is server to client
	Proven      bool   // in full
	ByReply     bool   // UDP, proven by a reply alone: it can be evicted, as what is not Proven
	Busy        bool   // being made or removed at this moment
	Seen        uint32 // tick of the last packet, two seconds behind at most; of a template: of its last new connection; of full NAT's reply: 0
	Born        uint16 // when it began: Clock.Age knows how long ago that is
	Hop         uint32 // reference to the client's next hop; 0 in the reply of a wide connection
	Wide        bool   // nat by a service of several addresses or ports, or full NAT
	Local       uint32 // of full NAT's client to server key: what stands in for the client (enum local_layout)
	Sequence    bool   // the hop is not known: the entry has what its client must acknowledge in its place
	// UnderTemplate: a template has the connection.
	UnderTemplate bool
	// Template: the entry is a persistence template (entry.h, enum template_layout) of
	// the service with index Service, with Controlled connections, or more if that
	// is the largest number it can hold.
	Template   bool
	Service    uint32
	Controlled uint32
	// Prolonged: the template has outlived its timeout, for its connections' sake; a
	// minute is its timeout now.
	Prolonged bool
}

// Entries iterates over the live keys of the IPv4 or the IPv6 table. Keys that
// come or go meanwhile may be seen or not; no other is missed or seen twice.
func (p *Plane) Entries(v6 bool) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		walk := p.Walk(v6)
		for {
			more, err := walk.Next()
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if !more || !walk.Slots(0, func(s *Slot) bool { return yield(s.Entry(), nil) }) {
				return
			}
		}
	}
}

// Entry decodes the slot.
func (s *Slot) Entry() Entry {
	e := decodeWords(s.ID, s.Recipe)
	source, destination := ports(s.ID)
	e.Source = netip.AddrPortFrom(ParseAddress(s.Source, s.V6), source)
	e.Destination = netip.AddrPortFrom(ParseAddress(s.Destination, s.V6), destination)
	e.Seen, e.Hop, e.Born = s.Seen, s.Hop, s.Born()
	switch {
	case HasHopForSeen(s.Recipe):
		e.Seen, e.Hop = 0, s.Seen
	case s.IsFullNAT():
		e.Local, e.Hop = s.Hop, 0
	}
	e.dropPlace()
	e.decodeTemplate(s.Destination[0])
	return e
}

// dropPlace makes no hop of what stands in its place: another entry's place (entry.h,
// enum place_layout), or what the client must acknowledge.
func (e *Entry) dropPlace() {
	if e.Wide && e.Reply && e.Method != uint8(KernelMethodMETHOD_FULLNAT) || e.Sequence {
		e.Hop = 0
	}
}

// decodeTemplate sets what a template has in the place of a connection's members.
func (e *Entry) decodeTemplate(destination uint32) {
	if e.Protocol != uint8(KernelTemplateLayoutPROTOCOL_TEMPLATE) {
		return
	}
	e.Template, e.Service = true, destination
	e.Controlled = Controlled(e.Hop)
	e.Destination, e.Hop = netip.AddrPort{}, 0
}

// Controlled is how many connections a template has by its hop word, at most 65535.
func Controlled(hop uint32) uint32 {
	return hop >> KernelTemplateLayoutTEMPLATE_CONTROLLED & uint32(KernelTemplateLayoutTEMPLATE_COUNT_MASK)
}

// RemoveArgs are the arguments by which RemoveConnection finds the entry, and the
// table it is in. The entry must not be a reply's.
func (e *Entry) RemoveArgs() (v6 bool, args KernelRemoveArgs) {
	args = KernelRemoveArgs{
		Client: Address(e.Source.Addr()), ClientPort: Port(e.Source.Port()), Protocol: e.Protocol,
	}
	if e.Template {
		args.VirtualAddress[0] = e.Service
	} else {
		args.VirtualAddress, args.VirtualPort = Address(e.Destination.Addr()), Port(e.Destination.Port())
	}
	return e.Source.Addr().Is6(), args
}

// decodeWords decodes what both families share.
func decodeWords(id, recipe uint64) Entry {
	bit := func(n KernelRecipeLayout) bool { return recipe>>n&1 != 0 }
	state := uint8(recipe >> KernelRecipeLayoutRECIPE_STATE & uint64(KernelMasksSTATE_MASK))
	proven := bit(KernelRecipeLayoutRECIPE_PROVEN)
	isFirm := proven && recipe>>KernelRecipeLayoutRECIPE_SPACED&uint64(KernelMasksSPACED_MASK) == 0
	isUDP := state == uint8(KernelConnStateSTATE_UDP)
	e := Entry{
		Protocol: uint8(id >> KernelIdLayoutID_PROTOCOL),
		Server:   uint32(recipe >> KernelRecipeLayoutRECIPE_SERVER & uint64(KernelMasksSERVER_MASK)),
		State:    state,
		Method:   uint8(recipe >> KernelRecipeLayoutRECIPE_METHOD & uint64(KernelMasksMETHOD_MASK)),
		Reply:    bit(KernelRecipeLayoutRECIPE_REPLY),
		Proven:   isFirm || proven && isUDP,
		ByReply:  proven && isUDP && !isFirm,
		Busy:     bit(KernelRecipeLayoutRECIPE_BUSY),
		Wide:     bit(KernelRecipeLayoutRECIPE_WIDE),
		Sequence: bit(KernelRecipeLayoutRECIPE_SEQUENCE),

		UnderTemplate: bit(KernelRecipeLayoutRECIPE_CONTROLLED),
	}
	if IsFullNAT(recipe) {
		e.Method = uint8(KernelMethodMETHOD_FULLNAT)
	} else {
		e.Prolonged = bit(KernelRecipeLayoutRECIPE_PROLONGED)
	}
	return e
}

// Follows decodes the recipe that a packet would follow, or that the connection or
// template has that decides on it: an entry without its key.
func Follows(recipe uint64) Entry {
	return decodeWords(0, recipe)
}

// ports decodes an id's ports, which are as on the wire.
func ports(id uint64) (source, destination uint16) {
	var wire [4]byte
	binary.NativeEndian.PutUint32(wire[:], uint32(id))
	return binary.BigEndian.Uint16(wire[:2]), binary.BigEndian.Uint16(wire[2:])
}

// Address converts an address to the ABI's form: four words as on the wire.
func Address(a netip.Addr) (words [4]uint32) {
	if a.Is4() {
		b := a.As4()
		words[0] = binary.NativeEndian.Uint32(b[:])
		return words
	}
	b := a.As16()
	for i := range words {
		words[i] = binary.NativeEndian.Uint32(b[i*4:])
	}
	return words
}

// ParseAddress is the inverse of Address.
func ParseAddress(words [4]uint32, v6 bool) netip.Addr {
	if v6 {
		return netip.AddrFrom16(addressBytes6(words))
	}
	return netip.AddrFrom4(addressBytes4(words[0]))
}

func addressBytes4(word uint32) (b [4]byte) {
	binary.NativeEndian.PutUint32(b[:], word)
	return b
}

func addressBytes6(words [4]uint32) (b [16]byte) {
	for i, w := range words {
		binary.NativeEndian.PutUint32(b[i*4:], w)
	}
	return b
}

// Port converts a port to the ABI's form: as on the wire.
func Port(p uint16) uint16 {
	var wire [2]byte
	binary.BigEndian.PutUint16(wire[:], p)
	return binary.NativeEndian.Uint16(wire[:])
}

// FilterBit is which bit of the address filter an address has (packet.h, filter_bit).
func FilterBit(a netip.Addr) uint32 {
	w := Address(a)
	fold := uint64(w[0]) * 0x9e3779b97f4a7c15
	if a.Is6() {
		fold += uint64(w[1])*0xc2b2ae3d27d4eb4f + uint64(w[2])*0x165667b19e3779f9 + uint64(w[3])*0xd6e8feb86659fd93
	}
	return uint32(fold >> 48)
}

// Delta returns the one's complement sum that an Internet checksum's words grow
// by when from is replaced by to (RFC 1624 eqn. 3), of words as loaded.
func Delta(from, to []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(from); i += 2 {
		sum += uint32(^binary.NativeEndian.Uint16(from[i:]))
	}
	for i := 0; i+1 < len(to); i += 2 {
		sum += uint32(binary.NativeEndian.Uint16(to[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// Memory returns the bytes the connection tables occupy.
func (p *Plane) Memory() uint64 {
	return uint64(p.Connections4.MaxEntries())*uint64(unsafe.Sizeof(KernelGroup4{})) +
		uint64(p.Connections6.MaxEntries())*uint64(unsafe.Sizeof(KernelGroup6{}))
}
