package decap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
)

// Interface is one that packets are taken out of tunnels on.
type Interface struct {
	Index int
	Name  string
	Mode  Mode // wanted: "" is native, or generic where the driver has no native XDP
}

// Start has the packets of the interfaces taken out of tunnels as the configuration
// says, and those of no others that an earlier Start was for. It outlives the
// process: links and counters are pinned in pinDir, which must be on a BPF file
// system and is made with mode 0700.
//
// An interface that has a program of an earlier Start goes over to the new one
// without a gap, and keeps its mode. On an error everything is as before. Returned
// are the interfaces with the modes they have.
//
// Errors wrap ErrInUse, ErrForeign, ErrNoBPFFS, ErrNoNative, ErrKernel or the
// kernel's errno.
//
// Requires Linux 6.1.
func Start(pinDir string, c Config, wanted []Interface) ([]Interface, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if len(wanted) == 0 {
		return nil, errors.New("no interface to attach to")
	}
	p, err := lockPins(pinDir)
	if err != nil {
		return nil, err
	}
	running, err := p.start(c, wanted)
	return running, errors.Join(err, p.close())
}

func (p *pins) start(c Config, wanted []Interface) ([]Interface, error) {
	counters, err := p.openCounters()
	if err != nil {
		return nil, err
	}
	defer counters.Close()
	program, err := load(c, counters)
	if err != nil {
		return nil, err
	}
	defer program.Close()
	change := &change{pins: p, program: program}
	defer change.close()
	if err := change.prepare(wanted); err != nil {
		return nil, errors.Join(err, change.undo())
	}
	if err := p.keepCounters(program); err != nil {
		return nil, errors.Join(err, change.undo())
	}
	// Point of no return.
	if err := change.commit(); err != nil {
		return nil, errors.Join(err, change.undo())
	}
	return change.running, change.drop(wanted)
}

// change is one Start: what it has made, and what it replaces.
type change struct {
	pins    *pins
	program *Program
	running []Interface
	made    []link.Link // attached and pinned by this change
	kept    []*held     // of an earlier one
}

// held is an attached link whose program is replaced.
type held struct {
	link.Link

	before   *ebpf.Program
	replaced bool
}

// prepare attaches to the interfaces that are new, and finds the links of the others.
func (c *change) prepare(wanted []Interface) error {
	for _, iface := range wanted {
		l, err := c.find(iface)
		if err != nil {
			return err
		}
		if l == nil {
			if iface.Mode, err = c.attach(iface); err != nil {
				return err
			}
		} else if iface.Mode, err = attachedMode(iface, l); err != nil {
			return err
		}
		c.running = append(c.running, iface)
	}
	return nil
}

// find returns the interface's link; nil: it has none. The link of one that is gone
// is removed: the number has become another's.
func (c *change) find(iface Interface) (link.Link, error) {
	if !slices.Contains(c.pins.links, iface.Index) {
		return nil, nil
	}
	path := c.pins.linkPath(iface.Index)
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return nil, fmt.Errorf("open pinned link %s: %w", path, err)
	}
	if linkIndex(l) != iface.Index {
		return nil, errors.Join(l.Unpin(), l.Close())
	}
	program, err := programOf(l)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	c.kept = append(c.kept, &held{Link: l, before: program})
	return l, nil
}

// attach attaches and pins; it returns the mode.
func (c *change) attach(iface Interface) (Mode, error) {
	mode := iface.Mode
	if mode == "" {
		mode = Native
	}
	l, err := c.program.Attach(iface.Index, mode)
	if errors.Is(err, ErrNoNative) && iface.Mode == "" {
		mode = Generic
		l, err = c.program.Attach(iface.Index, mode)
	}
	if err != nil {
		return "", err
	}
	c.made = append(c.made, l)
	if err := l.Pin(c.pins.linkPath(iface.Index)); err != nil {
		return "", fmt.Errorf("pin the link to %s: %w", iface.Name, err)
	}
	return mode, nil
}

// commit lets the links that there were go over to the program.
func (c *change) commit() error {
	for _, h := range c.kept {
		if err := h.Update(c.program.Entry); err != nil {
			return fmt.Errorf("replace the program: %w", err)
		}
		h.replaced = true
	}
	return nil
}

// undo takes away what was attached, and puts back what was replaced.
func (c *change) undo() error {
	var errs []error
	for _, l := range c.made {
		if err := l.Unpin(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	for _, h := range c.kept {
		if h.replaced {
			errs = append(errs, h.Update(h.before))
		}
	}
	if !c.pins.counters {
		if err := os.Remove(c.pins.countersPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// drop detaches from the interfaces that are wanted no more.
func (c *change) drop(wanted []Interface) error {
	var errs []error
	for _, index := range c.pins.links {
		if !slices.ContainsFunc(wanted, func(i Interface) bool { return i.Index == index }) {
			errs = append(errs, c.pins.removeLink(index))
		}
	}
	return errors.Join(errs...)
}

func (c *change) close() {
	for _, l := range c.made {
		l.Close()
	}
	for _, h := range c.kept {
		h.Close()
		h.before.Close()
	}
}

// removeLink takes the program off an interface: the link's last reference goes.
func (p *pins) removeLink(index int) error {
	l, err := link.LoadPinnedLink(p.linkPath(index), nil)
	if err != nil {
		return fmt.Errorf("open pinned link %s: %w", p.linkPath(index), err)
	}
	return errors.Join(l.Unpin(), l.Close())
}

// programOf opens the program that the link runs.
func programOf(l link.Link) (*ebpf.Program, error) {
	info, err := l.Info()
	if err != nil {
		return nil, fmt.Errorf("look at the pinned link: %w", err)
	}
	program, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		return nil, fmt.Errorf("open the attached program: %w", err)
	}
	return program, nil
}

// linkIndex returns the interface a link is attached to; 0 if that is gone.
func linkIndex(l link.Link) int {
	info, err := l.Info()
	if err != nil || info.XDP() == nil {
		return 0
	}
	return int(info.XDP().Ifindex)
}

// attachedMode asks the kernel how the link's program is attached to the interface.
// Another network namespace has interfaces of the same numbers.
func attachedMode(iface Interface, l link.Link) (Mode, error) {
	found, err := netlink.LinkByIndex(iface.Index)
	if err != nil {
		return "", fmt.Errorf("look at %s: %w", iface.Name, err)
	}
	info, err := l.Info()
	if err != nil {
		return "", fmt.Errorf("look at the link to %s: %w", iface.Name, err)
	}
	xdp := found.Attrs().Xdp
	if xdp == nil || xdp.ProgId != uint32(info.Program) {
		return "", fmt.Errorf("look at %s: %w: the pins are of another network namespace; give this one its own --pin-dir", iface.Name, ErrForeign)
	}
	if xdp.AttachMode == nl.XDP_ATTACHED_SKB {
		return Generic, nil
	}
	return Native, nil
}
