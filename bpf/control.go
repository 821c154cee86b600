package bpf

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// ChangeSettings reads the settings, lets change edit them and writes them
// back. The program sees each changed member at once or a packet later.
func (p *Plane) ChangeSettings(change func(*KernelSettings)) error {
	p.control.Lock()
	defer p.control.Unlock()
	var s KernelSettings
	if err := p.settings.Lookup(uint32(0), &s); err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	change(&s)
	if err := p.settings.Put(uint32(0), &s); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}

// Settings reads the settings.
func (p *Plane) Settings() (KernelSettings, error) {
	var s KernelSettings
	if err := p.settings.Lookup(uint32(0), &s); err != nil {
		return s, fmt.Errorf("read settings: %w", err)
	}
	return s, nil
}

// PacketOptions reads what odd packets are handled by.
func (p *Plane) PacketOptions() (KernelPacketOptions, error) {
	var o KernelPacketOptions
	if err := p.Options.Lookup(uint32(0), &o); err != nil {
		return o, fmt.Errorf("read packet options: %w", err)
	}
	return o, nil
}

// SetPacketOptions writes what odd packets are handled by.
func (p *Plane) SetPacketOptions(o *KernelPacketOptions) error {
	if err := p.Options.Put(uint32(0), o); err != nil {
		return fmt.Errorf("write packet options: %w", err)
	}
	return nil
}

// SetFilter writes the address filter. Bits that stay set are never seen clear.
func (p *Plane) SetFilter(f *KernelFilter) error {
	if err := p.filter.Put(uint32(0), f); err != nil {
		return fmt.Errorf("write address filter: %w", err)
	}
	return nil
}

// Switch changes a service and puts a new schedule in force, in one step as
// seen by packets.
func (p *Plane) Switch(args *KernelSwitchArgs) error {
	return p.run(p.ShuntSwitch, func(prog *ebpf.Program) (int32, error) {
		err := runControl(prog, args)
		return args.Result, err
	})
}

// SetServer changes a server's members that change while it has connections.
func (p *Plane) SetServer(args *KernelServerArgs) error {
	return p.run(p.ShuntSetServer, func(prog *ebpf.Program) (int32, error) {
		err := runControl(prog, args)
		return args.Result, err
	})
}

// Absolve ends a server's suspension and forgets what led to it.
func (p *Plane) Absolve(server uint32) error {
	args := KernelAbsolveArgs{Server: server}
	return p.run(p.ShuntAbsolve, func(prog *ebpf.Program) (int32, error) {
		err := runControl(prog, &args)
		return args.Result, err
	})
}

// Sweep runs over a slice of the table: removes what has expired, counts what
// is left into recounts and hop_uses. args.FirstGroup and args.Groups say where.
func (p *Plane) Sweep(v6 bool, args *KernelSweepArgs) error {
	prog := p.ShuntSweep4
	if v6 {
		prog = p.ShuntSweep6
	}
	return p.run(prog, func(prog *ebpf.Program) (int32, error) { return 0, runOnTable(prog, args) })
}

// Explain says what would become of a packet, by the program's own way of
// deciding, and changes nothing.
func (p *Plane) Explain(v6 bool, args *KernelExplainArgs) error {
	prog := p.ShuntExplain4
	if v6 {
		prog = p.ShuntExplain6
	}
	return p.run(prog, func(prog *ebpf.Program) (int32, error) { return 0, runOnTable(prog, args) })
}

// RemoveConnection removes one connection or template; ErrNotFound if there is
// none, unix.EAGAIN if a packet was making, changing or removing it.
func (p *Plane) RemoveConnection(v6 bool, args *KernelRemoveArgs) error {
	prog := p.ShuntRemove4
	if v6 {
		prog = p.ShuntRemove6
	}
	return p.run(prog, func(prog *ebpf.Program) (int32, error) {
		err := runOnTable(prog, args)
		return args.Result, err
	})
}

// Correct adds to a server's counts of connections and templates.
func (p *Plane) Correct(args KernelCorrectArgs) error {
	return p.run(p.ShuntCorrect, func(prog *ebpf.Program) (int32, error) { return 0, runControl(prog, &args) })
}

func (p *Plane) run(prog *ebpf.Program, call func(*ebpf.Program) (int32, error)) error {
	p.control.Lock()
	defer p.control.Unlock()
	result, err := call(prog)
	if err != nil {
		return err
	}
	if errno := unix.Errno(-result); result < 0 {
		if errors.Is(errno, unix.ENOENT) {
			return ErrNotFound
		}
		return errno
	}
	return nil
}

// runOnTable runs a control program that takes its arguments as a packet, in and out.
func runOnTable[T any](prog *ebpf.Program, args *T) error {
	in := unsafe.Slice((*byte)(unsafe.Pointer(args)), unsafe.Sizeof(*args))
	out := make([]byte, len(in)+256) // the loader asks for some room beyond the packet
	opts := ebpf.RunOptions{Data: in, DataOut: out}
	code, err := prog.Run(&opts)
	if err != nil {
		return fmt.Errorf("run control program %s: %w", prog, err)
	}
	if code != xdpPass {
		return fmt.Errorf("run control program %s: it returned %d", prog, code)
	}
	copy(in, opts.DataOut)
	return nil
}

// xdpPass is XDP_PASS, kernel: include/uapi/linux/bpf.h.
const xdpPass = 2
