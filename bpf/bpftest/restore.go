package bpftest

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
)

// loaded is a plane as it was right after loading.
type loaded struct {
	plane *bpf.Plane
	is    identity
	maps  []*content
}

// identity is what a plane is made of. A resize, an upgrade or a restart changes it.
type identity struct {
	bpf.KernelMaps
	bpf.KernelPrograms
	limits  bpf.Limits
	clock   bpf.Clock
	adopted bool
}

func identityOf(p *bpf.Plane) identity {
	return identity{p.KernelMaps, p.KernelPrograms, p.Limits, p.Clock, p.Adopted}
}

// lookAt notes what a plane is, which has just been loaded: all maps that its
// programs name, and those that are user space's alone. Constants are left out.
func lookAt(p *bpf.Plane) (*loaded, error) {
	ids, err := mapsOf(p)
	if err != nil {
		return nil, err
	}
	l := &loaded{plane: p, is: identityOf(p)}
	for id := range ids {
		if err := l.add(id); err != nil {
			return nil, errors.Join(err, l.close())
		}
	}
	return l, nil
}

func (l *loaded) add(id ebpf.MapID) error {
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return fmt.Errorf("open map %d of the plane: %w", id, err)
	}
	info, err := m.Info()
	if err != nil || info.Frozen() {
		return errors.Join(err, m.Close())
	}
	c, err := contentOf(m)
	if err != nil {
		return errors.Join(err, m.Close())
	}
	l.maps = append(l.maps, c)
	return nil
}

// isSame is whether the plane is still made of what it was made of, and open.
func (l *loaded) isSame(p *bpf.Plane) bool {
	return p == l.plane && identityOf(p) == l.is && p.ShuntRoot.FD() >= 0
}

// restore brings all maps back to what they held. No packet must run meanwhile.
func (l *loaded) restore() error {
	for _, c := range l.maps {
		if err := c.restore(); err != nil {
			return err
		}
	}
	// A ring can only be read; a reader that is opened reads what is in it.
	news, err := l.plane.OpenNews()
	if err != nil {
		return err
	}
	return news.Close()
}

// close lets go of the maps; of none, if l is nil. The plane stays open.
func (l *loaded) close() error {
	if l == nil {
		return nil
	}
	var errs []error
	for _, c := range l.maps {
		errs = append(errs, c.of.Close())
	}
	return errors.Join(errs...)
}

// mapsOf returns the numbers of the plane's maps.
func mapsOf(p *bpf.Plane) (map[ebpf.MapID]bool, error) {
	ids := map[ebpf.MapID]bool{}
	for m := range fields[*ebpf.Map](&p.KernelMaps) {
		info, err := m.Info()
		if err != nil {
			return nil, fmt.Errorf("look at map %s: %w", m, err)
		}
		id, _ := info.ID()
		ids[id] = true
	}
	for program := range fields[*ebpf.Program](&p.KernelPrograms) {
		info, err := program.Info()
		if err != nil {
			return nil, fmt.Errorf("look at program %s: %w", program, err)
		}
		named, _ := info.MapIDs()
		for _, id := range named {
			ids[id] = true
		}
	}
	return ids, nil
}

// fields yields the fields of a struct of nothing else.
func fields[F any](of any) func(yield func(F) bool) {
	return func(yield func(F) bool) {
		all := reflect.ValueOf(of).Elem()
		for i := range all.NumField() {
			if !yield(all.Field(i).Interface().(F)) {
				return
			}
		}
	}
}
