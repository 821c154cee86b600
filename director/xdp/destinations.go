package xdp

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director/scheduler"
)

// The set of servers that lblcr has in the maps is as large as that of its model.
var _ [scheduler.FastPathSetLimit]uint32 = bpf.KernelDestination{}.Servers

// destinationsState is what reviews of lblc's and lblcr's memory have found.
type destinationsState struct {
	reviewed time.Time      // when the last review was
	quiet    map[uint32]int // by service: reviews since all its entries were looked at
}

// forgetDestinations deletes what the service's scheduler remembers.
func (d *Dataplane) forgetDestinations(svc *service) error {
	entries, err := d.plane.DestinationEntries()
	if err != nil {
		return err
	}
	return d.deleteDestinations(slices.DeleteFunc(entries, func(e bpf.DestinationEntry) bool { return e.Key.Service != svc.index }))
}

func (d *Dataplane) deleteDestinations(entries []bpf.DestinationEntry) error {
	for i := range entries {
		if err := d.plane.Destinations.Delete(entries[i].Key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete a destination of service %d: %w", entries[i].Key.Service, err)
		}
	}
	return nil
}

// reviewDestinations deletes once a minute what the kernel would have forgotten.
// It returns the servers that are remembered, which keep their indices; nil, false
// if it was not the time for a look.
func (d *Dataplane) reviewDestinations(now time.Time) (named map[uint32]bool, looked bool, err error) {
	if now.Sub(d.destinations.reviewed) < scheduler.CacheInterval || !d.model.remembersDestinations() {
		return nil, false, nil
	}
	d.destinations.reviewed = now
	entries, err := d.plane.DestinationEntries()
	if err != nil {
		return nil, false, err
	}
	tick, err := d.plane.Now()
	if err != nil {
		return nil, false, err
	}
	byService := map[uint32][]bpf.DestinationEntry{}
	for i := range entries {
		byService[entries[i].Key.Service] = append(byService[entries[i].Key.Service], entries[i])
	}
	named = map[uint32]bool{}
	quiet := map[uint32]int{}
	for index, all := range byService {
		var gone []bpf.DestinationEntry
		if svc := d.model.services[index]; svc == nil || svc.removed || !hasDestinations(svc.scheduler) {
			gone = all
		} else {
			gone, quiet[index] = forgotten(all, tick, d.plane.Clock, d.destinations.quiet[index])
		}
		if err := d.deleteDestinations(gone); err != nil {
			return nil, false, err
		}
		deleted := map[bpf.KernelDestinationKey]bool{}
		for i := range gone {
			deleted[gone[i].Key] = true
		}
		for i := range all {
			if deleted[all[i].Key] {
				continue
			}
			for _, server := range all[i].Servers() {
				named[server] = true
			}
		}
	}
	d.destinations.quiet = quiet
	return named, true, nil
}

// forgotten returns which of a service's entries go at this review, and how many
// reviews it is since all of them were looked at.
func forgotten(entries []bpf.DestinationEntry, tick uint32, clock bpf.Clock, quiet int) ([]bpf.DestinationEntry, int) {
	idle := func(e bpf.DestinationEntry) int64 { return int64(int32(tick - e.Value.Used)) }
	if quiet+1 >= scheduler.CacheFull {
		return slices.DeleteFunc(slices.Clone(entries), func(e bpf.DestinationEntry) bool {
			return idle(e) < int64(clock.Ticks(scheduler.CacheExpiration))
		}), 0
	}
	if len(entries) <= scheduler.CacheSize {
		return nil, quiet + 1
	}
	goal := min((len(entries)-scheduler.CacheSize)*4/3, scheduler.CacheSize/2)
	// The kernel takes them as its buckets come; here those go first that are idle longest.
	candidates := slices.DeleteFunc(slices.Clone(entries), func(e bpf.DestinationEntry) bool {
		return idle(e) < int64(clock.Ticks(scheduler.CacheIdle))
	})
	slices.SortFunc(candidates, func(a, b bpf.DestinationEntry) int { return cmp.Compare(idle(b), idle(a)) })
	return candidates[:min(goal, len(candidates))], quiet
}

// remembersDestinations says whether any service, a removed one too, has such a scheduler.
func (m *model) remembersDestinations() bool {
	for _, svc := range m.services {
		if hasDestinations(svc.scheduler) {
			return true
		}
	}
	return false
}
