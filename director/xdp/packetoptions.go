package xdp

import (
	"fmt"
	"time"

	"github.com/shunt-lb/shunt/bpf"
)

const (
	// firstFragmentRemembered is how long a datagram's first fragment is remembered, as
	// long as the kernel waits for the rest (kernel: include/net/ip.h, IP_FRAG_TIME).
	firstFragmentRemembered = 30 * time.Second
	// pathBelieved is how long a router's word of a path's MTU is (kernel:
	// net/ipv4/route.c, ip_rt_mtu_expires).
	pathBelieved = 10 * time.Minute
)

// setPacketOptions carries what odd packets are handled by: all that is not zero follows
// from the options and the model.
func (d *Dataplane) setPacketOptions(o *bpf.KernelPacketOptions) {
	o.FragmentTicks = d.plane.Clock.Ticks(firstFragmentRemembered)
	o.LocalFirst, o.LocalLast = d.opts.LocalFirst, d.opts.LocalLast
	o.Locals4, o.Locals6 = d.locals.offered(false), d.locals.offered(true)
	o.PathTicks = d.plane.Clock.Ticks(pathBelieved)
}

// writePacketOptions writes the packet options where they are not what they should be,
// and says whether they were not.
func (d *Dataplane) writePacketOptions() (changed bool, err error) {
	found, err := d.plane.PacketOptions()
	if err != nil {
		return false, err
	}
	want := bpf.KernelPacketOptions{}
	d.setPacketOptions(&want)
	if want == found {
		return false, nil
	}
	return true, d.plane.SetPacketOptions(&want)
}

// reviewPacketOptions writes them again if somebody else did.
func (d *Dataplane) reviewPacketOptions() error {
	changed, err := d.writePacketOptions()
	if err != nil {
		return fmt.Errorf("repair packet options: %w", err)
	}
	if changed {
		d.opts.Log.Warn("packet options were changed by somebody else: repaired")
	}
	return nil
}
