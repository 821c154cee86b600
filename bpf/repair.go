package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/cilium/ebpf"
)

// RepairPins pins again what somebody else has unpinned, the settings last, and returns
// the names. Links are not among them: without its pin one is gone, see IsAttached.
func (p *Plane) RepairPins() (repaired []string, err error) {
	if _, err := os.Lstat(p.pinDir); errors.Is(err, fs.ErrNotExist) {
		lock, err := lockPinDir(p.pinDir)
		if err != nil {
			return nil, err
		}
		p.lock.Close() // of a directory that has no name any more
		p.lock = lock
	}
	maps := p.maps()
	settings := maps[".data.settings"]
	delete(maps, ".data.settings")
	for name, m := range maps {
		if !hasPin(name) {
			continue
		}
		if err := p.repairPin(pinName(name), m, &repaired); err != nil {
			return repaired, err
		}
	}
	for name, layout := range p.pins.carried {
		if as := carriedMaps[name]; as != "" {
			if err := p.repairPin(carriedPin(name, layout), maps[as], &repaired); err != nil {
				return repaired, err
			}
		}
	}
	return repaired, p.repairPin(pinSettings, settings, &repaired)
}

func (p *Plane) repairPin(pin string, m *ebpf.Map, repaired *[]string) error {
	_, err := os.Lstat(p.pins.path(pin))
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at pin %s: %w", p.pins.path(pin), err)
	}
	if err := p.pins.pin(m, pin); err != nil {
		return err
	}
	*repaired = append(*repaired, pin)
	return nil
}
