package xdp

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

// adopt takes over what the trie holds for the model's live services, and the words
// that its keys name, before anything is written to words. What is not as it should
// be is put right by put and purge.
func (t *matchTable) adopt(entries []bpf.MatchEntry, m *model) {
	for _, svc := range m.services {
		if !svc.removed && svc.key.IsWide() {
			t.add(svc)
		}
	}
	for _, e := range entries {
		protocol, prefix, ok := e.Key.Prefix()
		p := matchPrefix{protocol, prefix}
		if !ok || len(t.services[p]) == 0 || e.Match.Ranges > uint32(bpf.MaxRanges) {
			t.strays = true
			continue
		}
		r := run{match: e.Match}
		if words := (region{e.Match.List, roundUp(2 * e.Match.Ranges)}); t.words.take(words) {
			content := make([]uint32, 2*e.Match.Ranges)
			if bpf.ReadRange(t.plane.Words, e.Match.List, content) == nil {
				r.words, r.content = words, content
			}
		}
		t.runs[p] = r
	}
}

// spoilt returns the services that packets do not find, or not with all their
// addresses and ports, as the trie is.
func (t *matchTable) spoilt(entries []bpf.MatchEntry, m *model) map[*service]bool {
	spoilt, there := map[*service]bool{}, make(map[matchPrefix]bool, len(entries))
	for _, e := range entries {
		protocol, prefix, ok := e.Key.Prefix()
		p := matchPrefix{protocol, prefix}
		if r, ours := t.runs[p]; ok && ours {
			there[p] = e.Match == r.match && t.holds(r)
			continue
		}
		// Somebody else's: packets to its addresses do not find what is around them.
		t.strays = true
		first := bpf.ParseAddress(e.Key.Address, e.Key.Head>>8 == 6)
		for around, services := range t.services {
			if around.protocol != protocol || !around.prefix.Contains(first) {
				continue
			}
			for _, svc := range services {
				spoilt[svc] = true
			}
		}
	}
	for p, r := range t.runs {
		if there[p] {
			continue
		}
		for i := 1; i < len(r.content); i += 2 {
			if svc := m.services[r.content[i]]; svc != nil {
				spoilt[svc] = true
			}
		}
	}
	for p, services := range t.services {
		for _, svc := range services {
			if _, written := t.runs[p]; !written {
				spoilt[svc] = true
			}
		}
	}
	return spoilt
}

// purge deletes the keys that are none of ours, if there may be any.
func (t *matchTable) purge() error {
	if !t.strays {
		return nil
	}
	entries, err := t.plane.MatchEntries()
	if err != nil {
		return err
	}
	for _, e := range entries {
		protocol, prefix, ok := e.Key.Prefix()
		if _, ours := t.runs[matchPrefix{protocol, prefix}]; ok && ours {
			continue
		}
		if err := t.plane.Matches.Delete(e.Key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete a stray prefix of services: %w", err)
		}
	}
	t.strays = false
	return nil
}

// index lets packets find the service.
func (d *Dataplane) index(svc *service) error {
	if svc.key.IsWide() {
		if err := d.matches.put(svc); err != nil {
			return fmt.Errorf("index service: %w", err)
		}
		return nil
	}
	if err := d.plane.ServiceIndex.Put(serviceKey(svc.key), svc.index); err != nil {
		return fmt.Errorf("index service: %w", err)
	}
	return nil
}

// unindex ends that, be it somebody else's service of that key. svc is nil if the
// model has none.
func (d *Dataplane) unindex(key director.ServiceKey, svc *service) error {
	var err error
	switch {
	case !key.IsWide():
		if err = d.plane.ServiceIndex.Delete(serviceKey(key)); errors.Is(err, ebpf.ErrKeyNotExist) {
			err = nil
		}
	case svc != nil:
		err = d.matches.remove(svc)
	}
	if err != nil {
		return fmt.Errorf("unindex service: %w", err)
	}
	return nil
}

// isIndexed says whether packets find the service, all its addresses and ports.
func (d *Dataplane) isIndexed(r *reading, svc *service, spoilt map[*service]bool) bool {
	if !svc.key.IsWide() {
		return r.isThere(svc.index)
	}
	k := &r.services[svc.index]
	return k.Life == uint8(bpf.KernelLifecycleLIFE_LIVE) && has(&r.filter.VirtualAddress, svc.key.Prefix()) && !spoilt[svc]
}
