package xdp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/shunt-lb/shunt/bpf"
)

// adoptLocals takes over the addresses of full NAT and writes the packet options, which
// say how many there are.
func (d *Dataplane) adoptLocals() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var err error
	if d.locals, err = newLocalTable(d.plane, d.vips, &d.opts); err != nil {
		return err
	}
	err = d.locals.adopt()
	_, optionsErr := d.writePacketOptions()
	return errors.Join(err, optionsErr)
}

// sweepLocals acts on what a complete sweep has counted of the addresses of full NAT.
func (d *Dataplane) sweepLocals() error {
	managed := d.model.managedAddresses()
	changed, err := d.locals.finishSweep(func(p netip.Prefix) bool { return slices.Contains(managed, p) })
	if err != nil {
		return fmt.Errorf("free addresses of full NAT: %w", err)
	}
	if changed {
		_, err = d.writePacketOptions()
	}
	return err
}

// list returns the addresses by index, for those who must not lock; of an index that is
// free it is the zero address.
func (t *localTable) list() []netip.Addr {
	var all []netip.Addr
	for i, l := range t.held {
		all = grown(all, i)
		all[i] = l.address
	}
	return all
}

// local returns what stands in for the client of a connection by full NAT, by the hop
// word of its forward entry; the zero value if the view does not know it.
func (v *view) local(word uint32) netip.AddrPort {
	index, port := bpf.ParseLocal(word)
	if index >= uint32(len(v.locals)) || !v.locals[index].IsValid() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(v.locals[index], port)
}
