package bpf

import (
	"bytes"
	_ "embed"

	"github.com/cilium/ebpf"
)

// LBLCRExpiration is what the programs are loaded with.
const LBLCRExpiration = lblcrExpiration

// OpenNext is Open by a version to come, whose entries have another layout.
func OpenNext(pinDir string, limits Limits) (*Plane, error) {
	return openObject(pinDir, limits, func() (*ebpf.CollectionSpec, error) {
		return ebpf.LoadCollectionSpecFromReader(bytes.NewReader(nextObject))
	})
}

//go:embed shunt_next_bpfel.o
var nextObject []byte

// PinChange is the first step of Commit, of as many maps as it says.
func (p *Plane) PinChange(c *Change, setAside, promote int) error {
	maps := p.maps()
	for i, name := range replaceable {
		if next := c.made[name]; next != nil && i < setAside {
			if err := p.pins.setAside(name, p.version, next, maps[name]); err != nil {
				return err
			}
		}
	}
	for i, name := range replaceable {
		if i < promote {
			if err := p.pins.promote(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// EnterChange is the step after that: the switch, and nothing else.
func (p *Plane) EnterChange(c *Change) error {
	var programs KernelPrograms
	if err := c.coll.Assign(&programs); err != nil {
		return err
	}
	return p.enter(&programs, c.set)
}

// EndCarry is PrepareEnd and Commit, for who has the Plane to itself.
func (p *Plane) EndCarry() error {
	c, err := p.PrepareEnd()
	if err != nil {
		return err
	}
	return p.Commit(c)
}

// Replaceable is how many maps PinChange can be asked for.
var Replaceable = len(replaceable)

// LayoutEvents are the events of a version of before.
var LayoutEvents = layoutEvents

// Version is that of the layout.
const Version = uint32(KernelAbiVersionABI_VERSION)
