package bpf

import "fmt"

// Locals is how many addresses of a family can stand in for clients'.
const Locals = int(KernelLocalLayoutLOCALS6)

// IsFullNAT reports whether the recipe is of a connection by full NAT.
func IsFullNAT(recipe uint64) bool {
	both := RecipeBits(KernelRecipeLayoutRECIPE_WIDE, KernelRecipeLayoutRECIPE_FULLNAT)
	return recipe&both == both
}

// HasHopForSeen reports whether an entry with the recipe has the client's next hop, or
// what the client must acknowledge, where others have their last-seen (local.h).
func HasHopForSeen(recipe uint64) bool {
	return IsFullNAT(recipe) && recipe>>KernelRecipeLayoutRECIPE_REPLY&1 != 0
}

// FirstLocal returns the index of the first address of the family in Locals' map.
func FirstLocal(v6 bool) uint32 {
	if v6 {
		return uint32(KernelLocalLayoutLOCALS6)
	}
	return 0
}

// MakeLocal returns the hop word that names the address with the index and the port.
func MakeLocal(index uint32, port uint16) uint32 {
	return index<<KernelLocalLayoutLOCAL_INDEX | uint32(Port(port))<<KernelLocalLayoutLOCAL_PORT
}

// ParseLocal is the inverse of MakeLocal.
func ParseLocal(word uint32) (index uint32, port uint16) {
	return word >> KernelLocalLayoutLOCAL_INDEX, Port(uint16(word >> KernelLocalLayoutLOCAL_PORT))
}

// LocalAddresses reads the addresses of both families that stand in for clients', by
// index; those that never were are all zero.
func (p *Plane) LocalAddresses() ([]KernelLocalAddress, error) {
	all, err := ReadArray[KernelLocalAddress](p.KernelMaps.Locals)
	if err != nil {
		return nil, fmt.Errorf("read the addresses of full NAT: %w", err)
	}
	return all, nil
}

// PutLocalAddress writes an element.
func (p *Plane) PutLocalAddress(index uint32, k *KernelLocalAddress) error {
	if err := p.KernelMaps.Locals.Put(index, k); err != nil {
		return fmt.Errorf("write address %d of full NAT: %w", index, err)
	}
	return nil
}
