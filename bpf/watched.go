package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Watch has all interfaces run the program in the place of the root program, which it
// must go on to, for that long from now; again, as long as it is to be. It is to heed
// the map watched_until. A process that dies meanwhile leaves the program there: the
// next one's Open takes it away. Packets do not notice.
func (p *Plane) Watch(program *ebpf.Program, lasts time.Duration) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("read the clock: %w", err)
	}
	// Before the first link: who finds a time here finds all that has to be put back.
	if err := p.WatchedUntil.Put(uint32(0), uint64(now.Nano())+uint64(lasts)); err != nil {
		return fmt.Errorf("write how long packets are watched: %w", err)
	}
	return p.runRoot(program)
}

// Unwatch puts the root program back.
func (p *Plane) Unwatch() error {
	if err := p.runRoot(p.ShuntRoot); err != nil {
		return err
	}
	if err := p.WatchedUntil.Put(uint32(0), uint64(0)); err != nil {
		return fmt.Errorf("write that packets are watched no more: %w", err)
	}
	return nil
}

// endWatch puts the root program back where a process that died has watched packets.
func (p *Plane) endWatch() error {
	var until uint64
	if err := p.WatchedUntil.Lookup(uint32(0), &until); err != nil {
		return fmt.Errorf("read whether packets are watched: %w", err)
	}
	if until == 0 {
		return nil
	}
	return p.Unwatch()
}

// runRoot has all interfaces run the program.
func (p *Plane) runRoot(program *ebpf.Program) error {
	want, err := programID(program)
	if err != nil {
		return err
	}
	indices, err := pinnedLinks(p.pinDir)
	if err != nil {
		return err
	}
	for _, index := range indices {
		has, err := p.linkedProgram(index)
		if err != nil {
			return err
		}
		if has == want || has == 0 {
			continue
		}
		if err := p.updateLink(index, program); err != nil {
			return err
		}
	}
	return nil
}

// linkedProgram returns the number of the program that the interface's link runs; 0
// without a link.
func (p *Plane) linkedProgram(index int) (uint32, error) {
	l, err := link.LoadPinnedLink(p.linkPath(index), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("open pinned link %s: %w", p.linkPath(index), err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return 0, fmt.Errorf("look at pinned link %s: %w", p.linkPath(index), err)
	}
	return uint32(info.Program), nil
}
