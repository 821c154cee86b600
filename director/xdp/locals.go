package xdp

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/vip"
)

// localTable keeps the addresses that stand in for clients' by full NAT. An address
// keeps its index while a connection names it, whatever becomes of the pool: one that
// is not in the pool any more is not offered, and goes when two sweeps in a row have
// found no connection with it. Guarded by Dataplane.mu.
type localTable struct {
	plane *bpf.Plane
	vips  *vip.Host
	log   *slog.Logger
	// pool is what is to be offered, in the order that it was given.
	pool  []netip.Addr
	index map[netip.Addr]uint32
	held  map[uint32]*localAddress
}

// localAddress is one that has an index.
type localAddress struct {
	address netip.Addr
	offered bool
	uses    uint32 // connections, in the last complete sweep
	unused  bool   // that one has found none
}

// newLocalTable expands the pool.
func newLocalTable(plane *bpf.Plane, vips *vip.Host, opts *Options) (*localTable, error) {
	t := &localTable{plane: plane, vips: vips, log: opts.Log, index: map[netip.Addr]uint32{}, held: map[uint32]*localAddress{}}
	if opts.LocalFirst == 0 || opts.LocalLast < opts.LocalFirst {
		return nil, fmt.Errorf("ports of full NAT from %d to %d: %w", opts.LocalFirst, opts.LocalLast, director.ErrInvalid)
	}
	seen, counts := map[netip.Addr]bool{}, map[bool]int{}
	for _, p := range opts.LocalAddresses {
		if free := p.Addr().BitLen() - p.Bits(); !p.IsValid() || free > 31 || 1<<free > bpf.Locals {
			return nil, fmt.Errorf("addresses %s of full NAT: more than %d: %w", p, bpf.Locals, director.ErrInvalid)
		}
		for a := p.Masked().Addr(); p.Contains(a); a = a.Next() {
			if seen[a] {
				continue
			}
			seen[a] = true
			if counts[a.Is6()]++; counts[a.Is6()] > bpf.Locals {
				return nil, fmt.Errorf("addresses of full NAT: more than %d of a family: %w", bpf.Locals, director.ErrInvalid)
			}
			t.pool = append(t.pool, a)
		}
	}
	return t, nil
}

// adopt takes over what the map has and offers the pool; the host has its addresses
// then. One that has no index left is offered when a sweep has freed one.
func (t *localTable) adopt() error {
	found, err := t.plane.LocalAddresses()
	if err != nil {
		return err
	}
	for i := range found {
		index := uint32(i)
		a, ok := parseLocal(index, &found[i])
		if !ok {
			continue
		}
		if _, twice := t.index[a]; twice {
			continue // the first one stays
		}
		t.held[index] = &localAddress{address: a, offered: slices.Contains(t.pool, a)}
		t.index[a] = index
	}
	t.fill()
	return errors.Join(t.repair(found), t.host())
}

// parseLocal returns the address of an element; false if it is none.
func parseLocal(index uint32, k *bpf.KernelLocalAddress) (netip.Addr, bool) {
	return bpf.ParseAddress(k.Address, index >= bpf.FirstLocal(true)), k.Address != [4]uint32{}
}

// localsOf returns the addresses of full NAT that a plane has, each as a prefix.
func localsOf(plane *bpf.Plane) ([]netip.Prefix, error) {
	found, err := plane.LocalAddresses()
	var all []netip.Prefix
	for i := range found {
		if a, ok := parseLocal(uint32(i), &found[i]); ok {
			all = append(all, host(a))
		}
	}
	return all, err
}

// fill gives the pool's addresses that have none an index, which repair writes.
func (t *localTable) fill() {
	waiting := 0
	for _, a := range t.pool {
		if _, ok := t.index[a]; ok {
			continue
		}
		index, ok := t.free(a.Is6())
		if !ok {
			waiting++
			continue
		}
		t.held[index], t.index[a] = &localAddress{address: a, offered: true}, index
	}
	if waiting > 0 {
		t.log.Warn("addresses of full NAT are not offered until connections of those before them have ended", "addresses", waiting)
	}
}

// free returns the lowest index of the family that no address has.
func (t *localTable) free(v6 bool) (uint32, bool) {
	for i := bpf.FirstLocal(v6); i < bpf.FirstLocal(v6)+uint32(bpf.Locals); i++ {
		if t.held[i] == nil {
			return i, true
		}
	}
	return 0, false
}

// wanted is what the map is to hold, with uses at zero. Offered addresses are found by
// their places, which have no gaps: what is not offered costs new connections nothing.
func (t *localTable) wanted() []bpf.KernelLocalAddress {
	all := make([]bpf.KernelLocalAddress, 2*bpf.Locals)
	for i, l := range t.held {
		all[i].Address, all[i].Offered = bpf.Address(l.address), uint32(flag(l.offered))
	}
	for _, v6 := range []bool{false, true} {
		place := bpf.FirstLocal(v6)
		for i := place; i < bpf.FirstLocal(v6)+uint32(bpf.Locals); i++ {
			if all[i].Offered != 0 {
				all[place].Skip = i - place
				place++
			}
		}
	}
	return all
}

// repair writes what the map has other than it should.
func (t *localTable) repair(found []bpf.KernelLocalAddress) error {
	for i, want := range t.wanted() {
		found[i].Uses = 0
		if found[i] == want {
			continue
		}
		if err := t.plane.PutLocalAddress(uint32(i), &want); err != nil {
			return err
		}
	}
	return nil
}

// host puts the addresses on the host. What is there by somebody else's doing is used
// as it is.
func (t *localTable) host() error {
	var errs []error
	t.vips.Forget()
	for _, l := range t.held {
		if _, err := t.vips.Add(host(l.address)); err != nil && !errors.Is(err, director.ErrExists) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// review puts right what somebody else has changed.
func (t *localTable) review() error {
	if len(t.held) == 0 {
		return nil
	}
	found, err := t.plane.LocalAddresses()
	if err != nil {
		return err
	}
	if err := errors.Join(t.repair(found), t.host()); err != nil {
		return fmt.Errorf("repair the addresses of full NAT: %w", err)
	}
	return nil
}

// offered is how many addresses of the family new connections may have.
func (t *localTable) offered(v6 bool) (n uint32) {
	for i, l := range t.held {
		if l.offered && (i >= bpf.FirstLocal(true)) == v6 {
			n++
		}
	}
	return n
}

// has says whether the pool has an address of the family.
func (t *localTable) has(v6 bool) bool {
	return slices.ContainsFunc(t.pool, func(a netip.Addr) bool { return a.Is6() == v6 })
}

// beginSweep sets the counts of connections to zero.
func (t *localTable) beginSweep() error {
	if len(t.held) == 0 {
		return nil
	}
	wanted := t.wanted()
	for i := range t.held {
		if err := t.plane.PutLocalAddress(i, &wanted[i]); err != nil {
			return err
		}
	}
	return nil
}

// finishSweep takes the counts of a complete sweep and frees what is no more used,
// unless managed has it: a virtual address that services have put there.
func (t *localTable) finishSweep(managed func(netip.Prefix) bool) (changed bool, err error) {
	if len(t.held) == 0 {
		return false, nil
	}
	found, err := t.plane.LocalAddresses()
	if err != nil {
		return false, err
	}
	var errs []error
	for i, l := range t.held {
		l.uses = found[i].Uses
		wasUnused := l.unused
		l.unused = !l.offered && l.uses == 0
		if l.unused && wasUnused {
			errs, changed = append(errs, t.drop(i, managed)), true
		}
	}
	if !changed {
		return false, nil
	}
	t.fill()
	return true, errors.Join(append(errs, t.repair(found), t.host())...)
}

// drop frees the index, and takes the address off the host if it is there by our doing.
func (t *localTable) drop(index uint32, managed func(netip.Prefix) bool) error {
	l := t.held[index]
	delete(t.held, index)
	delete(t.index, l.address)
	ours, err := t.vips.Addresses()
	if err != nil || !ours[host(l.address)] || managed(host(l.address)) {
		return err
	}
	return t.vips.Remove(host(l.address))
}

// remove takes all addresses off the host that are there by our doing.
func (t *localTable) remove() error {
	var errs []error
	for _, l := range t.held {
		errs = append(errs, t.vips.Remove(host(l.address)))
	}
	return errors.Join(errs...)
}
