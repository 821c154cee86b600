package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf/probe"
)

// attached returns the XDP program on an interface; 0 if there is none.
func attached(l netlink.Link) uint32 {
	if xdp := l.Attrs().Xdp; xdp != nil && xdp.Attached {
		return xdp.ProgId
	}
	return 0
}

// pin is a pinned link of ours.
type pin struct {
	path    string
	program uint32
	index   int // the interface's
}

// pins returns the XDP links in the pin directory: ours.
func (i *inspection) pins() ([]pin, error) {
	entries, err := os.ReadDir(i.PinDir)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the pins: %w", err)
	}
	var pins []pin
	for _, entry := range entries {
		path := filepath.Join(i.PinDir, entry.Name())
		pinned, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
				return nil, fmt.Errorf("open the pins: %w", err)
			}
			continue // not a link, but a map or a program
		}
		if info, err := pinned.Info(); err == nil && info.XDP() != nil {
			pins = append(pins, pin{path, uint32(info.Program), int(info.XDP().Ifindex)})
		}
		_ = pinned.Close() // only read
	}
	return pins, nil
}

// ours returns the pin of the program on an interface; false if it is not ours.
func ours(pins []pin, l netlink.Link) (pin, bool) {
	n := slices.IndexFunc(pins, func(p pin) bool { return p.index == l.Attrs().Index && p.program == attached(l) })
	if n < 0 {
		return pin{}, false
	}
	return pins[n], true
}

// describe names a program as well as it can be named.
func describe(id uint32) string {
	switch name := nameOf(id); {
	case name == "":
		return fmt.Sprintf("program %d", id)
	case strings.HasPrefix(name, "xdp_dispatcher"):
		return fmt.Sprintf("%s (program %d: libxdp's dispatcher, with the programs that xdp-loader status lists)", name, id)
	default:
		return fmt.Sprintf("%s (program %d)", name, id)
	}
}

// nameOf returns a program's name; empty: it has none, or cannot be looked at.
func nameOf(id uint32) string {
	program, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return ""
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		return ""
	}
	return info.Name
}

// checkXDPMode looks at how the fast path is, or can be, attached.
func checkXDPMode(i *inspection, r *report) {
	pins, err := i.pins()
	if err != nil {
		r.unknown("", err)
	}
	for _, l := range i.named() {
		name := l.Attrs().Name
		if own, found := ours(pins, l); found {
			if l.Attrs().Xdp.AttachMode == nl.XDP_ATTACHED_SKB {
				r.add(Warning, name, "Shunt is attached to "+name+" in generic mode",
					"packets take the slow way through the kernel first, and next hops' MTUs are not looked at: it is for trying things out",
					// A daemon leaves a pinned link the mode it has.
					fmt.Sprintf("systemctl stop shuntd; rm %s; systemctl start shuntd # with director.mode native, without --generic", quote(own.path)))
			}
			continue
		}
		can, err := features(l)
		if err != nil {
			if errors.Is(err, unix.EOPNOTSUPP) {
				continue // only attaching tells, before Linux 6.3
			}
			r.unknown(name, err)
			continue
		}
		switch {
		case can&featureBasic == 0 && !i.Generic:
			i.reportNoNative(r, l)
		case can&featureBasic != 0 && i.Generic:
			r.add(Warning, name, "generic mode is asked for, and "+name+" could do native",
				"packets take the slow way through the kernel first", "set director.mode to native (leave --generic out) and restart shuntd")
		}
	}
}

// reportNoNative says what to attach to in the place of an interface that has no
// native XDP.
func (i *inspection) reportNoNative(r *report, l netlink.Link) {
	name := l.Attrs().Name
	if l.Type() == "vlan" {
		parent := i.linkName(l.Attrs().ParentIndex)
		r.add(Error, name, fmt.Sprintf("%s is a VLAN on %s: VLAN interfaces have no native XDP", name, parent),
			"attaching fails. On "+parent+" Shunt sees the VLAN's packets with their tag, and answers with it",
			fmt.Sprintf("name %s in the place of %s in director.interfaces, then: ethtool -K %s rxvlan off; systemctl restart shuntd", parent, name, quote(parent)))
		return
	}
	driver, _ := i.NIC.Driver(name) // only for the message
	r.add(Error, name, strings.TrimSpace(fmt.Sprintf("the driver of %s has no native XDP %s", name, driver)),
		"attaching fails", "shuntd --generic # slow: for trying things out; else use a card whose driver has XDP")
}

// checkOtherXDP looks for programs that are not ours where ours belongs.
func checkOtherXDP(i *inspection, r *report) {
	pins, err := i.pins()
	if err != nil {
		r.unknown("", err)
		return
	}
	for _, l := range i.named() {
		id := attached(l)
		if _, found := ours(pins, l); id == 0 || found {
			continue
		}
		name := l.Attrs().Name
		r.add(Error, name, fmt.Sprintf("another XDP program is attached to %s: %s", name, describe(id)),
			"an interface has one XDP program: shuntd refuses to start beside it", detachXDP(l, id))
	}
}

// detachXDP is the command that takes a program off an interface. One held by a
// link cannot be taken off by name.
func detachXDP(l netlink.Link, program uint32) string {
	name := quote(l.Attrs().Name)
	var all link.Iterator
	defer all.Close()
	for all.Next() {
		info, err := all.Link.Info()
		if err != nil || info.XDP() == nil {
			continue
		}
		// Other network namespaces have interfaces of the same numbers.
		if info.XDP().Ifindex == uint32(l.Attrs().Index) && uint32(info.Program) == program {
			return fmt.Sprintf("bpftool link detach id %d", info.ID)
		}
	}
	command := "ip link set dev " + name + " xdp off"
	if l.Attrs().Xdp.AttachMode == nl.XDP_ATTACHED_SKB {
		command = "ip link set dev " + name + " xdpgeneric off"
	}
	if all.Err() != nil { // links are shown to CAP_SYS_ADMIN alone
		command += " # if it says busy: sudo shuntd doctor, which names the link that holds it"
	}
	return command
}

// checkTC looks for programs and filters that packets no longer come by.
func checkTC(i *inspection, r *report) {
	const why = "packets that Shunt forwards never reach traffic control: what it does to, counts of or drops from the services' traffic does not happen"
	for _, l := range i.named() {
		name := l.Attrs().Name
		for _, side := range []struct {
			name   string
			parent uint32
		}{{"ingress", netlink.HANDLE_MIN_INGRESS}, {"egress", netlink.HANDLE_MIN_EGRESS}} {
			filters, err := i.route.FilterList(l, side.parent)
			if err != nil {
				r.unknown(name, fmt.Errorf("list the %s filters of %s: %w", side.name, name, err))
				continue
			}
			var names []string
			for _, f := range filters {
				text := f.Type()
				if program, ok := f.(*netlink.BpfFilter); ok && program.Id > 0 {
					if nameOf(uint32(program.Id)) == probe.Name {
						continue // ours
					}
					text = describe(uint32(program.Id))
				}
				names = append(names, text)
			}
			if len(names) > 0 {
				r.add(Info, name, fmt.Sprintf("traffic control has %s filters on %s: %s", side.name, name, strings.Join(names, ", ")),
					why, fmt.Sprintf("tc filter del dev %s %s", quote(name), side.name))
			}
		}
		i.checkTCX(r, l, why)
	}
}

// checkTCX looks for programs attached by link. Requires Linux 6.6.
func (i *inspection) checkTCX(r *report, l netlink.Link, why string) {
	name := l.Attrs().Name
	for _, attach := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		found, err := link.QueryPrograms(link.QueryOptions{Target: l.Attrs().Index, Attach: attach})
		if errors.Is(err, unix.EINVAL) || errors.Is(err, link.ErrNotSupported) {
			return
		}
		if err != nil {
			r.unknown(name, fmt.Errorf("list the tcx programs of %s: %w", name, err))
			return
		}
		for _, p := range found.Programs {
			if nameOf(uint32(p.ID)) == probe.Name {
				continue // ours
			}
			fix := ""
			if id, ok := p.LinkID(); ok {
				fix = fmt.Sprintf("bpftool link detach id %d", id)
			}
			r.add(Info, name, fmt.Sprintf("a program is attached to %s by tcx: %s", name, describe(uint32(p.ID))), why, fix)
		}
	}
}
