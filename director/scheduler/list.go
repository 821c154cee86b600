package scheduler

import (
	"net/netip"
	"slices"
)

// Entry is a server in the list.
type Entry struct {
	Address netip.AddrPort
	Weight  uint32
	// LastWeight is the weight the server was added with, then its latest that
	// was not zero. Only mh looks at it, so that weight 0 moves no other client.
	LastWeight uint32
	// Draining: by an operator's order, which the kernel has not; Weight is 0. The
	// hash schedulers lead the server's clients to others.
	Draining bool
}

// Edit returns the entry after its weight was set.
func (e Entry) Edit(weight uint32) Entry {
	e.Weight = weight
	if weight != 0 {
		e.LastWeight = weight
	}
	return e
}

// NewEntry returns the entry of a server just added.
func NewEntry(server netip.AddrPort, weight uint32) Entry {
	return Entry{Address: server, Weight: weight, LastWeight: weight}
}

// eligible reports whether the server may be chosen, where the kernel looks at
// both of weight and overload.
func (e Entry) eligible(loads Loads) bool { return e.Weight > 0 && loads[e.Address].isFit() }

// list is a service's servers, last added first.
type list []Entry

// Add is that of Model, as are Remove and Edit: models that keep nothing else
// about servers embed the list.
func (l *list) Add(server netip.AddrPort, weight uint32) {
	*l = slices.Insert(*l, 0, NewEntry(server, weight))
}

func (l *list) Remove(server netip.AddrPort) { l.remove(server) }

func (l *list) Edit(server netip.AddrPort, weight uint32) { l.edit(server, weight) }

// remove returns the index the server had, or -1.
func (l *list) remove(server netip.AddrPort) int {
	i := l.index(server)
	if i >= 0 {
		*l = slices.Delete(*l, i, i+1)
	}
	return i
}

// edit reports whether the server is there.
func (l list) edit(server netip.AddrPort, weight uint32) bool {
	i := l.index(server)
	if i >= 0 {
		l[i] = l[i].Edit(weight)
	}
	return i >= 0
}

// setDraining marks a server as draining or not; one that is not there is ignored.
func (l list) setDraining(server netip.AddrPort, draining bool) {
	if i := l.index(server); i >= 0 {
		l[i].Draining = draining
	}
}

func (l list) index(server netip.AddrPort) int {
	return slices.IndexFunc(l, func(e Entry) bool { return e.Address == server })
}

// best returns the eligible server that no eligible one before or after it
// beats; the first of equals, as all of the kernel's scans do.
func (l list) best(loads Loads, beats func(e, best Entry) bool) (Entry, bool) {
	var best Entry
	var found bool
	for _, e := range l {
		if e.eligible(loads) && (!found || beats(e, best)) {
			best, found = e, true
		}
	}
	return best, found
}
