package xdp

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

// matchPrefix is virtual addresses that services of one protocol have.
type matchPrefix struct {
	protocol uint8
	prefix   netip.Prefix
}

func matchPrefixOf(key director.ServiceKey) matchPrefix {
	return matchPrefix{uint8(key.Protocol), key.Prefix()}
}

func (p matchPrefix) key() bpf.KernelMatchKey { return bpf.MatchKey(p.protocol, p.prefix) }

// contains says whether the other prefix is the same or within.
func (p matchPrefix) contains(o matchPrefix) bool {
	return p.protocol == o.protocol && p.prefix.Bits() <= o.prefix.Bits() && p.prefix.Contains(o.prefix.Addr())
}

// run is what a prefix has in the maps.
type run struct {
	words   region
	match   bpf.KernelMatch
	content []uint32 // what the words that it names hold
}

// matchTable keeps the trie of prefixes, by which packets find services of several
// addresses or ports. A prefix names a run of words: the ranges of ports of its
// services, then those of the prefixes around it, the most specific first. A change
// of a service changes the runs of all prefixes within its own: each is written to
// fresh words, which one update of the trie puts in force.
type matchTable struct {
	plane    *bpf.Plane
	words    *arena
	services map[matchPrefix][]*service // in force, the narrowest range of ports first
	runs     map[matchPrefix]run
	// strays: there may be keys that are none of ours.
	strays bool
}

func newMatchTable(plane *bpf.Plane, words *arena) *matchTable {
	return &matchTable{plane: plane, words: words, services: map[matchPrefix][]*service{}, runs: map[matchPrefix]run{}}
}

// add counts the service among those in force.
func (t *matchTable) add(svc *service) {
	p := matchPrefixOf(svc.key)
	if slices.Contains(t.services[p], svc) {
		return
	}
	t.services[p] = append(t.services[p], svc)
	slices.SortFunc(t.services[p], func(a, b *service) int {
		firstA, lastA := a.key.Ports()
		firstB, lastB := b.key.Ports()
		return cmp.Or(cmp.Compare(lastA-firstA, lastB-firstB), cmp.Compare(firstA, firstB))
	})
}

func (t *matchTable) drop(svc *service) {
	p := matchPrefixOf(svc.key)
	t.services[p] = slices.DeleteFunc(t.services[p], func(s *service) bool { return s == svc })
	if len(t.services[p]) == 0 {
		delete(t.services, p)
	}
}

// ranges returns the prefix's run of words; none if no service has the prefix.
func (t *matchTable) ranges(p matchPrefix) []uint32 {
	if len(t.services[p]) == 0 {
		return nil
	}
	var words []uint32
	for bits := p.prefix.Bits(); bits >= 0; bits-- {
		around, err := p.prefix.Addr().Prefix(bits)
		if err != nil {
			return words
		}
		for _, svc := range t.services[matchPrefix{p.protocol, around}] {
			first, last := svc.key.Ports()
			words = append(words, bpf.PortsWord(first, last), svc.index)
			if first == 0 {
				return words // it has all ports: nothing that follows is reached
			}
		}
	}
	return words
}

// within returns the prefixes that services or runs have within this one.
func (t *matchTable) within(p matchPrefix) []matchPrefix {
	found := map[matchPrefix]bool{}
	for q := range t.services {
		found[q] = p.contains(q)
	}
	for q := range t.runs {
		found[q] = p.contains(q)
	}
	maps.DeleteFunc(found, func(_ matchPrefix, is bool) bool { return !is })
	return slices.SortedFunc(maps.Keys(found), func(a, b matchPrefix) int {
		return cmp.Or(a.prefix.Addr().Compare(b.prefix.Addr()), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()))
	})
}

// check says why there is no room for the service.
func (t *matchTable) check(svc *service) error {
	p := matchPrefixOf(svc.key)
	if slices.Contains(t.services[p], svc) {
		return nil
	}
	// One is left free: before Linux 6.13 a full trie refuses to replace a key.
	if limit := int(t.plane.Limits.Matches) - 1; len(t.services[p]) == 0 && len(t.services) >= limit {
		return fmt.Errorf("%w: services of several addresses or ports have %d prefixes, room is for %d", director.ErrFull, len(t.services), limit)
	}
	t.add(svc)
	defer t.drop(svc)
	for _, q := range t.within(p) {
		if n := len(t.ranges(q)) / 2; n > bpf.MaxRanges {
			return fmt.Errorf("%w: %s and the prefixes around it have %d services, at most %d can overlap", director.ErrFull, q.prefix, n, bpf.MaxRanges)
		}
	}
	return nil
}

// put lets packets find the service: whatever the trie holds of its prefix and those
// within, it is as it should be then.
func (t *matchTable) put(svc *service) error {
	t.add(svc)
	return t.write(matchPrefixOf(svc.key))
}

// remove ends that.
func (t *matchTable) remove(svc *service) error {
	t.drop(svc)
	return t.write(matchPrefixOf(svc.key))
}

// write makes the runs of the prefix and of those within what the services ask for.
func (t *matchTable) write(p matchPrefix) error {
	errs := []error{t.purge()}
	for _, q := range t.within(p) {
		errs = append(errs, t.writeRun(q))
	}
	return errors.Join(errs...)
}

func (t *matchTable) writeRun(p matchPrefix) error {
	content, old := t.ranges(p), t.runs[p]
	if len(content) == 0 {
		if err := t.plane.Matches.Delete(p.key()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete prefix %s of services: %w", p.prefix, err)
		}
		t.words.release(old.words)
		delete(t.runs, p)
		return nil
	}
	if slices.Equal(content, old.content) && t.isIntact(p, old) {
		return nil
	}
	words, err := t.words.alloc(uint32(len(content)))
	if err != nil {
		return err
	}
	next := run{words, bpf.KernelMatch{List: words.first, Ranges: uint32(len(content) / 2)}, content}
	err = bpf.WriteRange(t.plane.Words, words.first, content)
	if err == nil {
		// Point of no return.
		err = t.plane.Matches.Put(p.key(), &next.match)
	}
	if err != nil {
		t.words.release(words)
		return fmt.Errorf("write prefix %s of services: %w", p.prefix, err)
	}
	t.words.release(old.words)
	t.runs[p] = next
	return nil
}

// isIntact says whether the maps hold the prefix's run.
func (t *matchTable) isIntact(p matchPrefix, r run) bool {
	var match bpf.KernelMatch
	// Of a key that is not there, the trie finds the one around it: that names other words.
	if t.plane.Matches.Lookup(p.key(), &match) != nil || match != r.match {
		return false
	}
	return t.holds(r)
}

// holds says whether the words are the run's.
func (t *matchTable) holds(r run) bool {
	words := make([]uint32, len(r.content))
	return bpf.ReadRange(t.plane.Words, r.match.List, words) == nil && slices.Equal(words, r.content)
}
