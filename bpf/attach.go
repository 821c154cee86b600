package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Mode is how a program is attached to an interface.
type Mode string

// The modes.
const (
	Native  Mode = "native"  // in the driver
	Generic Mode = "generic" // in the stack, after the driver: for trying things out
)

// Attach runs the fast path on an interface and lets packets be redirected to
// it. The link is pinned: it outlives the process. An interface that has our
// pinned link already is left as it is, its mode included.
//
// Errors wrap ErrInUse if another XDP program is there.
func (p *Plane) Attach(iface *net.Interface, mode Mode) (Mode, error) {
	index := uint32(iface.Index)
	if err := p.Ports.Put(index, index); err != nil {
		return "", fmt.Errorf("register %s for redirects: %w", iface.Name, err)
	}
	path := p.linkPath(iface.Index)
	if l, err := link.LoadPinnedLink(path, nil); err == nil {
		defer l.Close()
		if linkIndex(l) == iface.Index {
			return attachedMode(iface, l)
		}
		// The interface it was made for is gone.
		if err := os.Remove(path); err != nil {
			return "", fmt.Errorf("remove the link of a vanished interface: %w", err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("open pinned link %s: %w", path, err)
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: p.ShuntRoot, Interface: iface.Index, Flags: mode.flags()})
	if err != nil {
		return "", explainAttach(iface, mode, err)
	}
	defer l.Close()
	if err := l.Pin(path); err != nil {
		return "", fmt.Errorf("pin link to %s: %w", path, err)
	}
	return mode, nil
}

// AttachOwn runs the fast path on an interface that is this process's own, of the
// calling thread's network namespace, and lets packets be redirected to it, until the
// link is closed or the process ends. The port for redirects goes with the interface.
func (p *Plane) AttachOwn(index int, mode Mode) (link.Link, error) {
	if err := p.Ports.Put(uint32(index), uint32(index)); err != nil {
		return nil, fmt.Errorf("register interface %d for redirects: %w", index, err)
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: p.ShuntRoot, Interface: index, Flags: mode.flags()})
	if err != nil {
		return nil, fmt.Errorf("attach to interface %d: %w", index, err)
	}
	return l, nil
}

// attachedMode asks the kernel how our link's program is attached to the
// interface. Another network namespace has interfaces of the same numbers.
func attachedMode(iface *net.Interface, l link.Link) (Mode, error) {
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
		return "", fmt.Errorf("attach to %s: %w: the pins are of a daemon in another network namespace; give this one its own --pin-dir", iface.Name, ErrForeign)
	}
	if xdp.AttachMode == nl.XDP_ATTACHED_SKB {
		return Generic, nil
	}
	return Native, nil
}

// IsAttached reports whether the interface, of which the kernel says xdp (nil for
// none), runs the fast path by our pinned link and may be redirected to.
func (p *Plane) IsAttached(index int, xdp *netlink.LinkXdp) (bool, error) {
	var port uint32
	err := p.Ports.Lookup(uint32(index), &port)
	if errors.Is(err, ebpf.ErrKeyNotExist) || err == nil && port != uint32(index) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the ports for redirects: %w", err)
	}
	path := p.linkPath(index)
	l, err := link.LoadPinnedLink(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open pinned link %s: %w", path, err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return false, fmt.Errorf("look at pinned link %s: %w", path, err)
	}
	return linkIndex(l) == index && xdp != nil && xdp.ProgId == uint32(info.Program), nil
}

func (m Mode) flags() link.XDPAttachFlags {
	if m == Generic {
		return link.XDPGenericMode
	}
	return link.XDPDriverMode
}

// dispatcherName is the program by which libxdp runs several on one interface
// (xdp-tools: lib/libxdp/xdp-dispatcher.c.in).
const dispatcherName = "xdp_dispatcher"

func explainAttach(iface *net.Interface, mode Mode, err error) error {
	name := iface.Name
	switch {
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		return fmt.Errorf("attach to %s: %w: %s: %w", name, ErrInUse, describeAttached(iface), err)
	case errors.Is(err, unix.EOPNOTSUPP) && mode == Native:
		return fmt.Errorf("attach to %s: its driver has no native XDP (mode: generic works everywhere, slowly): %w", name, err)
	default:
		return fmt.Errorf("attach to %s: %w", name, err)
	}
}

// describeAttached says which XDP program is on the interface, and how to take it off.
func describeAttached(iface *net.Interface) string {
	other := fmt.Sprintf("another XDP program is attached (see: ip link show dev %s)", iface.Name)
	found, err := netlink.LinkByIndex(iface.Index)
	if err != nil || found.Attrs().Xdp == nil || !found.Attrs().Xdp.Attached {
		return other
	}
	id := found.Attrs().Xdp.ProgId
	prog, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return other
	}
	defer prog.Close()
	info, err := prog.Info()
	if err != nil {
		return other
	}
	if info.Name == dispatcherName {
		return fmt.Sprintf("libxdp's dispatcher (program %s, id %d) is attached, with the programs loaded through it (see: xdp-loader status %s); "+
			"Shunt needs the interface to itself: xdp-loader unload %s --all", info.Name, id, iface.Name, iface.Name)
	}
	return fmt.Sprintf("the XDP program %q, id %d, is attached (see: bpftool prog show id %d); take it off by what put it there, or with: ip link set dev %s xdp off",
		info.Name, id, id, iface.Name)
}

func (p *Plane) linkPath(index int) string {
	return filepath.Join(p.pinDir, linkPrefix+strconv.Itoa(index))
}

// linkIndex returns the interface a link is attached to; 0 if that is gone.
func linkIndex(l link.Link) int {
	info, err := l.Info()
	if err != nil || info.XDP() == nil {
		return 0
	}
	return int(info.XDP().Ifindex)
}

// Attached returns the indices of the interfaces that have our pinned link.
func (p *Plane) Attached() ([]int, error) { return pinnedLinks(p.pinDir) }

func pinnedLinks(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read pin directory: %w", err)
	}
	var indices []int
	for _, entry := range entries {
		digits, ok := strings.CutPrefix(entry.Name(), linkPrefix)
		if index, err := strconv.Atoi(digits); ok && err == nil {
			indices = append(indices, index)
		}
	}
	return indices, nil
}

// DetachInterface takes the fast path off an interface.
func (p *Plane) DetachInterface(index int) error {
	if err := p.Ports.Delete(uint32(index)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("unregister interface %d: %w", index, err)
	}
	return removeLink(p.linkPath(index))
}

func removeLink(path string) error {
	l, err := link.LoadPinnedLink(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open pinned link %s: %w", path, err)
	}
	// The link's last reference detaches the program.
	return errors.Join(l.Unpin(), l.Close())
}

// Remove detaches everything and removes all pins, the directory included. The
// Plane is closed. There is no way back: connections are gone.
func (p *Plane) Remove() error {
	if err := p.Slots.Delete(uint32(KernelSlotSLOT_MAIN)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("empty the program slot: %w", err)
	}
	return errors.Join(removeAll(p.pinDir), p.Close())
}

// Remove detaches and unpins what a daemon that is not running left in pinDir.
// Errors wrap ErrInUse if one is running.
func Remove(pinDir string) error {
	lock, err := lockPinDir(pinDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	return removeAll(pinDir)
}

func removeAll(dir string) error {
	indices, err := pinnedLinks(dir)
	if err != nil {
		return err
	}
	for _, index := range indices {
		if err := removeLink(filepath.Join(dir, linkPrefix+strconv.Itoa(index))); err != nil {
			return err
		}
	}
	if err := removePins(dir); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil {
		return fmt.Errorf("remove pin directory (it holds something else): %w", err)
	}
	return nil
}
