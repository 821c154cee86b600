package bpftest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
)

// lent is a plane that tests have one after the other, as New says.
type lent struct {
	*loaded
	size   size
	folder string // on the BPF file system, there only while a test has the plane
	soil   soil
}

// size is what of the options is fixed when a plane is loaded.
type size struct {
	connections uint64
	sources     uint32
	counts      bool
}

func (o Options) size() size { return size{o.Connections, o.Sources, o.CountConnections} }

// soil is what RunOn runs, and which plane's slots it goes on to.
type soil struct {
	program *ebpf.Program
	of      *ebpf.Map
}

func (s *soil) close() error {
	if s.program == nil {
		return nil
	}
	return s.program.Close()
}

// mostIdle bounds the memory of planes that no test has: a dozen MiB each.
const mostIdle = 4

// idle are the planes that no test has, the one that came back last at the end. The
// package's only variable: it is what the tests of a process have in common, as the
// kernel's verifier takes longer than most of them.
var idle struct {
	sync.Mutex
	planes []*lent
}

// takeIdle returns a plane of that size, nil if there is none.
func takeIdle(want size) *lent {
	idle.Lock()
	defer idle.Unlock()
	for i, l := range slices.Backward(idle.planes) {
		if l.size == want {
			idle.planes = slices.Delete(idle.planes, i, i+1)
			return l
		}
	}
	return nil
}

// giveBack keeps the plane for another test, and closes the one that has been
// waiting longest if they are too many.
func giveBack(l *lent) error {
	idle.Lock()
	defer idle.Unlock()
	idle.planes = append(idle.planes, l)
	if len(idle.planes) <= mostIdle {
		return nil
	}
	oldest := idle.planes[0]
	idle.planes = slices.Delete(idle.planes, 0, 1)
	return errors.Join(oldest.soil.close(), oldest.close(), oldest.plane.Close())
}

// lend gives the fixture a plane as if it had just been loaded.
func (f *Fixture) lend(o Options) {
	f.t.Helper()
	l := takeIdle(o.size())
	if l == nil {
		l = &lent{size: o.size(), folder: makePinFolder(f.t)}
	} else {
		f.must(os.Mkdir(l.folder, 0o700))
	}
	f.pinDir = filepath.Join(l.folder, "pins")
	t := f.t
	t.Cleanup(func() {
		f.t = t
		f.must(f.endLoan(l))
	})
	var err error
	if l.loaded == nil {
		f.open(o)
		l.loaded, err = lookAt(f.Plane)
	} else {
		f.Plane, f.soil = l.plane, l.soil
		_, err = f.Plane.RepairPins()
	}
	f.must(err)
}

// endLoan restores the plane for the next test. One that is not what it was, or of
// a test that failed, ends with the test.
func (f *Fixture) endLoan(l *lent) error {
	if f.t.Failed() || !l.isSame(f.Plane) {
		return errors.Join(f.remove(), l.close(), os.RemoveAll(l.folder))
	}
	// Links that are pinned end with their pins.
	if err := os.RemoveAll(l.folder); err != nil {
		return fmt.Errorf("remove pins: %w", err)
	}
	if err := l.restore(); err != nil {
		return err
	}
	l.soil = f.soil
	return giveBack(l)
}

// remove is the end of a plane that is not lent again, if the fixture has got one.
func (f *Fixture) remove() error {
	if f.Plane == nil {
		return nil
	}
	return errors.Join(f.soil.close(), f.Plane.Remove())
}
