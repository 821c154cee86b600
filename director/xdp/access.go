package xdp

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

// accessList is a service's list as it was written.
type accessList struct {
	word     uint32 // the service's member access; 0: no list
	prefixes director.Access
}

func (l accessList) set() uint32 {
	set, _ := bpf.ParseAccessWord(l.word)
	return set
}

// accessSets keeps the trie of prefixes. A list is written as a set of its own
// beside the one in force; the service's word is the switch; then the old set's
// keys are deleted. A set's number is not used again while keys of it are left.
type accessSets struct {
	plane *bpf.Plane
	last  uint32         // the number handed out last
	keys  map[uint32]int // by set: how many it has in the trie
	total int
	// strays: there may be keys of sets that no service names.
	strays bool
}

func newAccessSets(plane *bpf.Plane) *accessSets {
	return &accessSets{plane: plane, keys: map[uint32]int{}}
}

// build writes the list as a new set. ErrFull, and nothing is changed, if there
// is no room for it beside those in force.
func (a *accessSets) build(list director.Access) (accessList, error) {
	if list.IsZero() {
		return accessList{}, nil
	}
	n, limit := len(list.Allow)+len(list.Deny), int(a.plane.Limits.Prefixes)
	if a.total+n > limit {
		return accessList{}, fmt.Errorf("%w: %d access prefixes beside %d, room is for %d (a list that is replaced needs its room twice): raise limits.access-prefixes",
			director.ErrFull, n, a.total, limit)
	}
	set := a.number()
	written := accessList{bpf.AccessWord(set, len(list.Allow) > 0), list.Clone()}
	a.count(set, n)
	for _, part := range []struct {
		prefixes []netip.Prefix
		verdict  bpf.KernelAccessVerdict
	}{{list.Allow, bpf.KernelAccessVerdictACCESS_ALLOW}, {list.Deny, bpf.KernelAccessVerdictACCESS_DENY}} {
		if err := a.put(set, part.prefixes, part.verdict); err != nil {
			return accessList{}, errors.Join(err, a.remove(written))
		}
	}
	return written, nil
}

func (a *accessSets) put(set uint32, prefixes []netip.Prefix, verdict bpf.KernelAccessVerdict) error {
	if len(prefixes) == 0 {
		return nil
	}
	keys, verdicts := make([]bpf.KernelAccessKey, len(prefixes)), make([]uint32, len(prefixes))
	for i, p := range prefixes {
		keys[i], verdicts[i] = bpf.AccessKey(set, p), uint32(verdict)
	}
	if _, err := a.plane.Access.BatchUpdate(keys, verdicts, nil); err != nil {
		return fmt.Errorf("write access list: %w", err)
	}
	return nil
}

// number returns one that no key has.
func (a *accessSets) number() uint32 {
	for {
		a.last = a.last%bpf.MaxAccessSet + 1
		if _, used := a.keys[a.last]; !used {
			return a.last
		}
	}
}

func (a *accessSets) count(set uint32, n int) {
	a.total += n
	if a.keys[set] += n; a.keys[set] <= 0 {
		delete(a.keys, set)
	}
}

// remove deletes the keys of a list that no service names any more. What cannot
// be deleted is tried again by purge.
func (a *accessSets) remove(list accessList) error {
	set := list.set()
	for _, prefixes := range [][]netip.Prefix{list.prefixes.Allow, list.prefixes.Deny} {
		for _, p := range prefixes {
			if err := a.plane.Access.Delete(bpf.AccessKey(set, p)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				a.strays = true
				return fmt.Errorf("delete access prefix %s: %w", p, err)
			}
			a.count(set, -1)
		}
	}
	return nil
}

// isIntact says whether the trie holds the list, all of it and no more.
func (a *accessSets) isIntact(list accessList, v6 bool) (bool, error) {
	sets, err := readAccess(a.plane)
	if err != nil {
		return false, err
	}
	return foundAccess(sets, list.word, v6).Equal(list.prefixes), nil
}

// purge deletes the keys of all sets but those in use, and counts the others.
func (a *accessSets) purge(inUse map[uint32]bool) error {
	sets, err := readAccess(a.plane)
	if err != nil {
		return err
	}
	a.keys, a.total, a.strays = map[uint32]int{}, 0, false
	for _, set := range slices.Sorted(maps.Keys(sets)) {
		a.count(set, len(sets[set]))
		if inUse[set] {
			a.last = max(a.last, set)
			continue
		}
		for _, e := range sets[set] {
			if err := a.plane.Access.Delete(e.Key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				a.strays = true
				return fmt.Errorf("delete stray access prefix: %w", err)
			}
			a.count(set, -1)
		}
	}
	return nil
}

// readAccess reads the trie by sets.
func readAccess(plane *bpf.Plane) (map[uint32][]bpf.AccessEntry, error) {
	entries, err := plane.AccessEntries()
	if err != nil {
		return nil, err
	}
	sets := map[uint32][]bpf.AccessEntry{}
	for _, e := range entries {
		sets[e.Key.Set] = append(sets[e.Key.Set], e)
	}
	return sets, nil
}

// foundAccess is the list that the trie makes of a service's word. Where the word
// decides otherwise about the rest than a list of these prefixes would, the rest
// is in the list too.
func foundAccess(sets map[uint32][]bpf.AccessEntry, word uint32, v6 bool) director.Access {
	var list director.Access
	if word == 0 {
		return list
	}
	set, denyRest := bpf.ParseAccessWord(word)
	whole, decided := netip.PrefixFrom(bpf.ParseAddress([4]uint32{}, v6), 0), false
	for _, e := range sets[set] {
		p, ok := e.Key.Prefix(v6)
		if !ok { // longer than an address: it stands for one, and makes the list another
			p = netip.PrefixFrom(bpf.ParseAddress(e.Key.Address, v6), whole.Addr().BitLen())
		}
		decided = decided || p == whole
		if e.Verdict == uint32(bpf.KernelAccessVerdictACCESS_ALLOW) {
			list.Allow = append(list.Allow, p)
		} else {
			list.Deny = append(list.Deny, p)
		}
	}
	switch {
	case decided:
	case denyRest && len(list.Allow) == 0:
		list.Deny = append(list.Deny, whole)
	case !denyRest && len(list.Allow) > 0:
		list.Allow = append(list.Allow, whole)
	}
	slices.SortFunc(list.Allow, director.ComparePrefixes)
	slices.SortFunc(list.Deny, director.ComparePrefixes)
	return list
}

// setsInUse are those that services name.
func (m *model) setsInUse() map[uint32]bool {
	used := map[uint32]bool{}
	for _, svc := range m.services {
		if set := svc.access.set(); set != 0 {
			used[set] = true
		}
	}
	return used
}
