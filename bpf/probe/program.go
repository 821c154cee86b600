package probe

import (
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// FirstPort is the first of the ports of the director's own that answers can be awaited
// at; the last is 65535. The kernel gives none of them to those who name none
// (Documentation/networking/ip-sysctl.rst, ip_local_port_range).
const FirstPort = uint16(kernelAwaitedShapeAWAITED_FIRST_PORT)

// Program is the loaded program. It ends with the process. Its methods may
// be called concurrently.
type Program struct {
	objects kernelObjects
}

// Load loads the program and attaches it nowhere.
func Load() (*Program, error) {
	p := new(Program)
	if err := loadKernelObjects(&p.objects, nil); err != nil {
		return nil, explain("load the program that hands over servers' answers", err)
	}
	return p, nil
}

// Attach runs the program on what comes in by an interface of the calling thread's
// network namespace, which is that of links too, until what it returns is closed: by a
// link, which ends with the process, or, before Linux 6.6, by a filter of traffic control,
// which does not. A later Attach replaces the filter, and Sweep removes it.
//
// Errors wrap ebpf.ErrNotSupported if the kernel has neither.
func (p *Program) Attach(links *netlink.Handle, index int) (Attached, error) {
	l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: p.objects.ShuntProbe, Attach: ebpf.AttachTCXIngress})
	attached := Attached(tcx{l})
	if errors.Is(err, ebpf.ErrNotSupported) {
		attached, err = addFilter(links, p.objects.ShuntProbe, index)
	}
	if err != nil {
		return nil, explain(fmt.Sprintf("attach to the ingress of interface %d", index), err)
	}
	return attached, nil
}

// Attached is the program on an interface. Closing it takes it off.
type Attached interface {
	io.Closer
	// Holds reports whether it is still there: others may take it off too, as by removing
	// the queueing discipline that a filter is in.
	Holds() bool
}

// tcx is the program on an interface by a link.
type tcx struct{ link.Link }

func (t tcx) Holds() bool {
	info, err := t.Info()
	return err == nil && info.TCX() != nil && info.TCX().Ifindex != 0
}

// explain adds what is needed to an error of the kernel's.
func explain(act string, err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%s (needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON): %w", act, err)
	}
	return fmt.Errorf("%s: %w", act, err)
}

// Answers are the packets of one connection that come from a server.
type Answers struct {
	Protocol uint8
	From, To netip.AddrPort // of one family; To's port is FirstPort or above
}

func (a Answers) key() kernelAwaitedKey {
	k := kernelAwaitedKey{Protocol: uint32(a.Protocol), SourcePort: swap(a.From.Port()), DestinationPort: swap(a.To.Port())}
	k.Source, k.Destination = words(a.From.Addr()), words(a.To.Addr())
	return k
}

// Await has the program hand the packets to the other end of a veth pair, of which
// index is this end's, in another network namespace.
func (p *Program) Await(a Answers, index int) error {
	if err := p.objects.Awaited.Put(a.key(), uint32(index)); err != nil {
		return fmt.Errorf("await packets from %s to %s: %w", a.From, a.To, err)
	}
	return nil
}

// Forget leaves the packets to the host. It is no error if they were not awaited.
func (p *Program) Forget(a Answers) error {
	if err := p.objects.Awaited.Delete(a.key()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("await packets from %s to %s no more: %w", a.From, a.To, err)
	}
	return nil
}

// Close releases the program, which its links hold.
func (p *Program) Close() error { return p.objects.Close() }

// swap turns a port into network order, on the little-endian machines that the object
// is for.
func swap(port uint16) uint16 { return port<<8 | port>>8 }

// words returns the address in the kernel's form: IPv4 in the first word.
func words(a netip.Addr) (w [4]uint32) {
	b := a.AsSlice()
	for i := range b {
		w[i/4] |= uint32(b[i]) << (8 * (i % 4))
	}
	return w
}
