package decap

import (
	"errors"
	"fmt"
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Mode is how a program is attached to an interface.
type Mode string

// The modes.
const (
	Native  Mode = "native"  // in the driver
	Generic Mode = "generic" // in the stack, after the driver: slower, and every interface has it
)

// Names in the object.
const (
	mapCounters  = "decap_counters"
	mapPrefixes  = "decap_prefixes"
	mapConstants = ".rodata.config"
	constants    = "config"
)

// Program is a loaded program. Closing it ends nothing where a link holds it.
type Program struct {
	// Entry is what is attached to interfaces.
	Entry *ebpf.Program

	counters *ebpf.Map
	goesOn   bool // the counters are those of a program before
}

// Load loads a program that does what the configuration says. It attaches
// nothing. Errors wrap ErrKernel or the kernel's errno.
//
// Requires Linux 6.1.
func Load(c Config) (*Program, error) { return load(c, nil) }

// load is Load with the counters of a program before; nil: new ones.
func load(c Config, counters *ebpf.Map) (*Program, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	spec, err := loadKernel()
	if err != nil {
		return nil, fmt.Errorf("read the program in this binary: %w", err)
	}
	spec.Maps[mapPrefixes].MaxEntries = uint32(len(c.To) + len(c.From) + len(c.Virtual))
	if err := spec.Variables[constants].Set(c.encode()); err != nil {
		return nil, fmt.Errorf("set the program's configuration: %w", err)
	}
	options := ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{}}
	goesOn := counters != nil && spec.Maps[mapCounters].Compatible(counters) == nil
	if goesOn {
		options.MapReplacements[mapCounters] = counters
	}
	var objects kernelObjects
	if err := spec.LoadAndAssign(&objects, &options); err != nil {
		return nil, explainLoad(err)
	}
	defer objects.DecapPrefixes.Close() // the program holds it
	defer objects.DecapScratch.Close()
	p := &Program{Entry: objects.ShuntDecap, counters: objects.DecapCounters, goesOn: goesOn}
	if err := c.fill(objects.DecapPrefixes); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// explainLoad turns the loader's error into one that says what to do.
func explainLoad(err error) error {
	var verifier *ebpf.VerifierError
	switch {
	case errors.As(err, &verifier):
		// Not %w: the verifier says EACCES, which is not for want of a right.
		return fmt.Errorf("%w: load the program (Linux 6.1 or newer is needed): %v", ErrKernel, err)
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%w: load the program (Linux 6.1 or newer is needed): %w", ErrKernel, err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("load the program (needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON): %w", err)
	default:
		return fmt.Errorf("load the program: %w", err)
	}
}

// Attach attaches the program to an interface of the calling thread's network
// namespace until the link is closed. Errors wrap ErrInUse or ErrNoNative.
func (p *Program) Attach(index int, mode Mode) (link.Link, error) {
	flags := link.XDPDriverMode
	if mode == Generic {
		flags = link.XDPGenericMode
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: p.Entry, Interface: index, Flags: flags})
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		return nil, fmt.Errorf("attach to %s: %w by another XDP program (see: ip link show dev %s): %w", name(index), ErrInUse, name(index), err)
	case errors.Is(err, unix.EOPNOTSUPP) && mode == Native:
		return nil, fmt.Errorf("attach to %s: %w: %w", name(index), ErrNoNative, err)
	case mode == Native:
		// Of a large MTU or too few queues, which the kernel's log says.
		return nil, fmt.Errorf("attach to %s (its driver refuses native XDP as the interface is set up now; generic mode works everywhere): %w", name(index), err)
	default:
		return nil, fmt.Errorf("attach to %s: %w", name(index), err)
	}
}

// Counts reads the counters, summed over CPUs.
func (p *Program) Counts() ([]Count, error) { return readCounts(p.counters) }

// Close releases the handles.
func (p *Program) Close() error { return errors.Join(p.Entry.Close(), p.counters.Close()) }

// name is an interface's name for messages; that of one that is gone is its number.
func name(index int) string {
	if iface, err := net.InterfaceByIndex(index); err == nil {
		return iface.Name
	}
	return fmt.Sprintf("interface %d", index)
}
