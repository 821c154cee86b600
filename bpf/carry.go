package bpf

import (
	"context"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
)

// carrySlice is how long one run of the program brings connections over: packets wait
// for it on its CPU.
const carrySlice = 50 * time.Microsecond

// What is claimed by programs that were in force before is theirs for microseconds.
const (
	carryRounds = 20
	carryPause  = 10 * time.Millisecond
)

// CarryReport says what became of the connections, and templates, of the tables before.
type CarryReport struct {
	Carried uint64
	Lost    uint64 // there was no room for them, or another connection had their place
	Expired uint64 // their time was over
	Left    uint64 // could not be brought over; they end with Commit
}

// Carrying says whether connections still come over from tables before these: by an
// upgrade, a resize, or one of those that an earlier process had begun. Until Carry has
// brought them all over and PrepareEnd's change is in force, Entries and all that names
// connections know only of some.
func (p *Plane) Carrying() bool {
	for name := range p.pins.carried {
		if carriedMaps[name] != "" {
			return true
		}
	}
	return false
}

// Carry brings over all connections that no packet has brought over yet: templates
// first, so that connections whose time is over can be counted off.
func (p *Plane) Carry(ctx context.Context) (report CarryReport, err error) {
	for _, v6 := range []bool{false, true} {
		if err := p.carryTable(ctx, v6, KernelCarryWhatCARRY_TEMPLATES, &report); err != nil {
			return report, err
		}
	}
	for range carryRounds {
		report.Left = 0
		for _, v6 := range []bool{false, true} {
			if err := p.carryTable(ctx, v6, KernelCarryWhatCARRY_ALL, &report); err != nil {
				return report, err
			}
		}
		if report.Left == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return report, ctx.Err()
		case <-time.After(carryPause):
		}
	}
	return report, nil
}

// carryTable goes once through the old table of a family, if there is one.
func (p *Plane) carryTable(ctx context.Context, v6 bool, what KernelCarryWhat, report *CarryReport) error {
	name, prog := KernelMapConnections4, p.ShuntBring4
	table := p.Carried4
	if v6 {
		name, prog, table = KernelMapConnections6, p.ShuntBring6, p.Carried6
	}
	if _, ok := p.pins.carried[name]; !ok {
		return nil
	}
	slots := table.MaxEntries() * uint32(KernelLayoutLAYOUT_SLOTS)
	for first := uint32(0); first < slots; {
		if err := ctx.Err(); err != nil {
			return err
		}
		args := KernelCarryArgs{FirstSlot: first, Slots: min(slots-first, carryMost), Limit: uint32(carrySlice), What: uint32(what)}
		if err := p.run(prog, func(prog *ebpf.Program) (int32, error) { return 0, runOnTable(prog, &args) }); err != nil {
			return err
		}
		if args.NextSlot <= first {
			return fmt.Errorf("bring connections over: the program stays at slot %d", first)
		}
		first = args.NextSlot
		report.Carried += uint64(args.Carried)
		report.Lost += uint64(args.Lost)
		report.Expired += uint64(args.Expired)
		if what == KernelCarryWhatCARRY_ALL {
			report.Left += uint64(args.Left)
		}
	}
	return nil
}

// carryMost is less than bpf_loop's most rounds (kernel: include/linux/bpf.h, BPF_MAX_LOOPS).
const carryMost = 1 << 20

// endCarry removes the last of what connections came over from.
func (p *Plane) endCarry() error {
	if err := p.takeEvents(); err != nil {
		return err
	}
	for name, layout := range p.pins.carried {
		if err := p.pins.remove(carriedPin(name, layout)); err != nil {
			return err
		}
	}
	return nil
}
