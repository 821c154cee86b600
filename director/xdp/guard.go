package xdp

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"

	"github.com/shunt-lb/shunt/bpf"
)

// reviewPlane repairs what is no part of the director's state: the programs'
// slots, the settings from the options, the interfaces, and prefixes that no
// list or service has.
func (d *Dataplane) reviewPlane() error {
	errs := []error{d.reviewSettings(), d.reviewPacketOptions(), d.reviewSlots(), d.reviewPins()}
	for i := range d.interfaces {
		d.reviewInterface(&d.interfaces[i])
	}
	if d.access.strays {
		errs = append(errs, d.access.purge(d.model.setsInUse()))
	}
	errs = append(errs, d.matches.purge(), d.reviewEchoes(), d.locals.review())
	return errors.Join(errs...)
}

// reviewSettings writes the settings that are not the director's again if
// somebody else did.
func (d *Dataplane) reviewSettings() error {
	found, err := d.plane.Settings()
	if err != nil {
		return err
	}
	want := found
	d.setOptions(&want)
	d.plane.KeepSettings(&want)
	if want == found {
		return nil
	}
	d.opts.Log.Warn("settings were changed by somebody else: repaired")
	return d.plane.ChangeSettings(func(s *bpf.KernelSettings) {
		d.setOptions(s)
		d.plane.KeepSettings(s)
	})
}

// reviewPins pins the maps again that somebody else has unpinned: without their pins,
// the end of the daemon would be the end of the connections.
func (d *Dataplane) reviewPins() error {
	repaired, err := d.plane.RepairPins()
	if len(repaired) > 0 {
		d.opts.Log.Warn("pins were removed by somebody else: pinned again", "pins", d.opts.PinDir, "maps", len(repaired))
	}
	return err
}

func (d *Dataplane) reviewSlots() error {
	repaired, err := d.plane.RepairSlots()
	if repaired {
		d.opts.Log.Warn("programs were taken out of their slots by somebody else: repaired")
	}
	return err
}

// reviewInterface attaches the fast path again where it is attached no more: the
// link was detached, or the interface is another of the same name.
func (d *Dataplane) reviewInterface(a *attachment) {
	l, err := d.findLink(a)
	if err == nil {
		err = d.attachAgain(a, l)
	}
	switch {
	case err == nil && a.problem != "":
		d.opts.Log.Info("attached again", "interface", a.name, "mode", a.mode)
		a.problem = ""
	case err != nil && a.problem != err.Error():
		a.problem = err.Error()
		d.opts.Log.Error("the fast path is not on the interface: it is attached as soon as that is possible (traffic on the others flows on)",
			"interface", a.name, "err", err)
	}
}

// findLink returns the interface: the one of the name, or ours that was renamed.
func (d *Dataplane) findLink(a *attachment) (netlink.Link, error) {
	l, err := d.links.LinkByName(a.name)
	if err == nil {
		return l, nil
	}
	if renamed, byIndexErr := d.links.LinkByIndex(a.index); byIndexErr == nil {
		return renamed, nil
	}
	return nil, fmt.Errorf("interface %s is gone: %w", a.name, err)
}

// isAttached says whether the fast path is on the interface now.
func (d *Dataplane) isAttached(a *attachment) bool {
	l, err := d.findLink(a)
	if err != nil || l.Attrs().Index != a.index {
		return false
	}
	attached, err := d.plane.IsAttached(a.index, l.Attrs().Xdp)
	return err == nil && attached
}

func (d *Dataplane) attachAgain(a *attachment, l netlink.Link) error {
	attrs := l.Attrs()
	attached, err := d.plane.IsAttached(attrs.Index, attrs.Xdp)
	if err != nil || attached && attrs.Index == a.index {
		return err
	}
	if a.problem == "" {
		a.problem = "detached by somebody else"
		d.opts.Log.Warn("the fast path was taken off the interface", "interface", a.name)
	}
	var mode bpf.Mode
	err = d.namespace.do(func() (err error) {
		mode, err = d.plane.Attach(&net.Interface{Index: attrs.Index, Name: attrs.Name}, d.opts.mode())
		return err
	})
	if err != nil {
		return err
	}
	old := a.index
	a.index, a.mode = attrs.Index, mode
	if old == a.index {
		return nil
	}
	d.resolver.SetInterfaces(d.interfaceIndices())
	return d.namespace.do(func() error { return d.plane.DetachInterface(old) })
}

func (d *Dataplane) interfaceIndices() []int {
	indices := make([]int, len(d.interfaces))
	for i, a := range d.interfaces {
		indices[i] = a.index
	}
	return indices
}
