package bpf

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/cilium/ebpf"
)

// Change is a set of programs that is loaded and not in force: Commit puts it there,
// or Discard gives it up.
type Change struct {
	coll   *ebpf.Collection
	limits Limits
	set    uint32
	// made are new maps by their names, which have the places of those there are.
	made map[string]*ebpf.Map
	// ends is whether nothing comes over any more.
	ends bool
}

// Discard gives the change up. Nothing has changed.
func (c *Change) Discard() {
	closeAll(c.made)
	c.coll.Close()
}

// PrepareResize makes tables for so many connections, 0 for as many as now, and loads
// programs for them that bring the connections over from the present ones. It is an
// error while connections come over.
func (p *Plane) PrepareResize(v4, v6 uint64) (_ *Change, err error) {
	if p.Carrying() {
		return nil, fmt.Errorf("resize the connection tables: connections still come over from those before: %w", ErrInUse)
	}
	limits := p.Limits
	if v4 != 0 {
		limits.Connections4 = connections(groups(v4))
	}
	if v6 != 0 {
		limits.Connections6 = connections(groups(v6))
	}
	if err := checkLimits(limits); err != nil {
		return nil, err
	}
	spec, err := p.newSpec()
	if err != nil {
		return nil, fmt.Errorf("read the programs in this binary: %w", err)
	}
	resize(spec, limits)
	c := &Change{limits: limits, set: p.otherSet(), made: map[string]*ebpf.Map{}}
	defer func() {
		if err != nil {
			closeAll(c.made)
		}
	}()
	maps := p.maps()
	for name, as := range carriedMaps {
		delete(maps, as)
		if !isResized(name, p.Limits, limits) {
			continue
		}
		maps[as] = maps[name]
		if c.made[name], err = ebpf.NewMap(spec.Maps[name]); err != nil {
			return nil, fmt.Errorf("make map %s: %w", name, err)
		}
		maps[name] = c.made[name]
	}
	c.coll, err = p.loadPrograms(maps, limits, c.set)
	return c, err
}

// isResized says whether the map of that name is another one with the new limits.
func isResized(name string, old, now Limits) bool {
	is4, is6 := groups(old.Connections4) != groups(now.Connections4), groups(old.Connections6) != groups(now.Connections6)
	switch name {
	case KernelMapConnections4:
		return is4
	case KernelMapConnections6:
		return is6
	case KernelMapConnectionTraffic4:
		return is4 && now.CountConnections
	case KernelMapConnectionTraffic6:
		return is6 && now.CountConnections
	}
	return false
}

// PrepareEnd loads programs that do not look into the tables before these any more.
func (p *Plane) PrepareEnd() (*Change, error) {
	maps := p.maps()
	for _, as := range carriedMaps {
		delete(maps, as)
	}
	c := &Change{limits: p.Limits, set: p.otherSet(), ends: true}
	var err error
	c.coll, err = p.loadPrograms(maps, c.limits, c.set)
	return c, err
}

// Commit puts the change in force, by one write. It replaces programs of the Plane, and
// the tables among its maps: nobody may use the Plane meanwhile. A process that dies in
// it leaves what the next one's Open goes on with. The change cannot be used again.
func (p *Plane) Commit(c *Change) error {
	defer closeAll(c.made)
	defer c.coll.Close()
	if err := p.pinChange(c); err != nil {
		return errors.Join(err, p.unpinChange(c))
	}
	var programs KernelPrograms
	if err := c.coll.Assign(&programs); err != nil {
		return errors.Join(err, p.unpinChange(c))
	}
	if err := p.enter(&programs, c.set); err != nil {
		return errors.Join(err, p.unpinChange(c), programs.Close())
	}
	p.control.Lock()
	errs := []error{p.KernelPrograms.Close()}
	p.KernelPrograms, p.Limits = programs, c.limits
	for name, field := range p.mapFields() {
		if isTable(name) {
			errs = append(errs, (*field).Close())
			*field = c.coll.DetachMap(name)
		}
	}
	p.control.Unlock()
	if c.ends {
		errs = append(errs, p.endCarry())
	}
	return errors.Join(errs...)
}

// isTable says whether Commit replaces the map of that name.
func isTable(name string) bool {
	for table, as := range carriedMaps {
		if name == table || name == as {
			return true
		}
	}
	return false
}

// pinChange pins the new maps in the places of those of before, which are pinned as
// carried. It is what a crash leaves: the next Open goes on from there, whichever
// programs are in force.
func (p *Plane) pinChange(c *Change) error {
	maps := p.maps()
	for _, name := range replaceable {
		if next := c.made[name]; next != nil {
			if err := p.pins.setAside(name, p.version, next, maps[name]); err != nil {
				return err
			}
		}
	}
	for _, name := range replaceable {
		if err := p.pins.promote(name); err != nil {
			return err
		}
	}
	return nil
}

// unpinChange undoes pinChange; the programs are those of before.
func (p *Plane) unpinChange(c *Change) error {
	var errs []error
	for name := range c.made {
		errs = append(errs, p.pins.demote(name))
	}
	return errors.Join(errs...)
}

// mapFields are the Plane's maps by their names in the object, without data sections.
func (p *Plane) mapFields() map[string]**ebpf.Map {
	fields := map[string]**ebpf.Map{}
	all := reflect.ValueOf(&p.KernelMaps).Elem()
	for i := range all.NumField() {
		fields[all.Type().Field(i).Tag.Get("ebpf")] = all.Field(i).Addr().Interface().(**ebpf.Map)
	}
	return fields
}

// maps are all maps that programs are loaded over, by their names in the object.
func (p *Plane) maps() map[string]*ebpf.Map {
	all := map[string]*ebpf.Map{".data.settings": p.settings, ".data.filter": p.filter}
	for name, field := range p.mapFields() {
		all[name] = *field
	}
	return all
}

// setCarried tells the programs what comes over, and from which layout.
func (p *Plane) setCarried(spec *ebpf.CollectionSpec, maps map[string]*ebpf.Map) error {
	sizes := map[string]uint32{}
	layout := p.version
	for name, as := range carriedMaps {
		if has, ok := p.pins.carried[name]; ok {
			layout = has
		}
		if m := maps[as]; m != nil {
			sizes[as] = m.MaxEntries()
			spec.Maps[as].MaxEntries = m.MaxEntries()
		}
	}
	counts := uint8(0)
	if max(sizes[KernelMapCarriedTraffic4], sizes[KernelMapCarriedTraffic6]) > 1 {
		counts = 1
	}
	for name, value := range map[string]any{
		"carried_groups4": sizes[KernelMapCarried4], "carried_groups6": sizes[KernelMapCarried6],
		"carried_layout": layout, "carried_counts": counts,
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set constant %s: %w", name, err)
		}
	}
	return nil
}

// fitTraffic makes the tables' counters anew if they are not of the tables' size, or
// connections are counted now and were not, or the other way round.
func (p *Plane) fitTraffic(spec *ebpf.CollectionSpec, maps map[string]*ebpf.Map, limits Limits) error {
	resize(spec, limits)
	for name := range tableOf {
		if maps[name].MaxEntries() == spec.Maps[name].MaxEntries {
			continue
		}
		made, err := ebpf.NewMap(spec.Maps[name])
		if err != nil {
			return fmt.Errorf("make map %s: %w", name, explainLoad(err))
		}
		maps[name].Close()
		maps[name] = made
		if err := errors.Join(p.pins.remove(nextPrefix+name), p.pins.pin(made, nextPrefix+name), p.pins.promote(name)); err != nil {
			return err
		}
	}
	return nil
}
