package scheduler

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/shunt-lb/shunt/director"
)

// Model chooses servers as one service's scheduler in the kernel does. Not safe
// for concurrent use.
type Model interface {
	// Pick returns the server for a client's new connection to vip, and whether
	// there is one.
	Pick(client, vip netip.AddrPort) (server netip.AddrPort, ok bool)

	// Add puts a server at the head of the list.
	Add(server netip.AddrPort, weight uint32)

	// Remove takes a server out of the list; one that is not there is ignored.
	Remove(server netip.AddrPort)

	// Edit sets a server's weight; one that is not there is ignored.
	Edit(server netip.AddrPort, weight uint32)
}

// models says how to make each scheduler's model: the one place to add one.
var models = map[director.Scheduler]func(director.SchedulerFlags) Model{
	director.RoundRobin:         newRoundRobin,
	director.WeightedRoundRobin: newWeightedRoundRobin,
	director.SourceHash:         newSourceHash,
	director.Maglev:             newMaglev,
}

// New returns a model with no servers. Unknown schedulers, and flags for one
// that has none, are director.ErrInvalid.
func New(name director.Scheduler, flags director.SchedulerFlags) (Model, error) {
	build, ok := models[name]
	if !ok {
		return nil, fmt.Errorf("scheduler %q: no model: %w", name, director.ErrInvalid)
	}
	if flags != (director.SchedulerFlags{}) && !name.HasFlags() {
		return nil, fmt.Errorf("scheduler %s has no flags: %w", name, director.ErrInvalid)
	}
	return build(flags), nil
}

// Entry is a server in the list.
type Entry struct {
	Address netip.AddrPort
	Weight  uint32
	// LastWeight is the weight the server was added with, then its latest that
	// was not zero. Only mh looks at it, so that weight 0 moves no other client.
	LastWeight uint32
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

// list is a service's servers, last added first.
type list []Entry

func (l *list) add(server netip.AddrPort, weight uint32) {
	*l = slices.Insert(*l, 0, NewEntry(server, weight))
}

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

func (l list) index(server netip.AddrPort) int {
	return slices.IndexFunc(l, func(e Entry) bool { return e.Address == server })
}
