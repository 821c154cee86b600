package xdp

import (
	"fmt"
	"slices"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/scheduler"
)

// reschedule writes the service's schedule for a list of servers, in kernel
// order, and puts it in force in one step together with all else of the
// service. restart: the scheduler begins anew. steps are what changes of servers
// make wrr count with on the way there; none: it stays where it is.
func (d *Dataplane) reschedule(svc *service, list []*server, restart bool, steps ...step) error {
	next, table := buildSchedule(svc, list)
	positions := mapPositions(svc.list, list)
	if svc.scheduler != director.WeightedRoundRobin {
		steps = nil
	}
	if len(steps) > 0 {
		positions = nil
		for _, s := range steps {
			positions = append(positions, s.maxWeight, s.gcd)
		}
	}
	words, err := d.words.alloc(uint32(2*len(list) + len(table)))
	if err != nil {
		return err
	}
	content := make([]uint32, 0, words.count)
	weights := make([]uint32, 0, len(list))
	for _, s := range list {
		content = append(content, s.index, s.offered())
		weights = append(weights, s.offered())
	}
	next.List = words.first
	next.Table = words.first + uint32(len(content))
	sum := addWords(addWords(0, content), table)
	if err := bpf.WriteRange(d.plane.Words, words.first, append(content, table...)); err != nil {
		d.words.release(words)
		return err
	}
	if err := bpf.WriteRange(d.plane.Words, 0, positions); err != nil {
		d.words.release(words)
		return err
	}
	args := switchArgs(svc)
	args.Schedule, args.OldServers, args.StepCount = next, uint32(len(svc.list)), uint32(len(steps))
	if restart {
		args.Restart = 1
	}
	// Point of no return.
	if err := d.plane.Switch(&args); err != nil {
		d.words.release(words)
		return fmt.Errorf("put the schedule of %s in force: %w", svc.key, err)
	}
	d.words.release(svc.words)
	svc.words, svc.schedule, svc.sum = words, next, sum
	svc.list, svc.weights = slices.Clone(list), weights
	d.carryEcho(svc)
	return nil
}

// switchArgs are the arguments that put a service's settings in force.
func switchArgs(svc *service) bpf.KernelSwitchArgs {
	k := kernelService(svc)
	return bpf.KernelSwitchArgs{
		Service: svc.index, Key: k.Key, Life: k.Life, Access: k.Access,
		Seconds: k.Seconds, Persistence: k.Persistence, Mss: k.Mss,
		LastPort: k.LastPort, Prefix: k.Prefix, ClientPrefix: k.ClientPrefix, Name: k.Name,
	}
}

// step is what wrr counts with.
type step struct{ maxWeight, gcd uint32 }

// maxSteps is for how many there is room where the positions go.
const maxSteps = positionWords / 2

func weightStep(list []*server) step {
	maxWeight, gcd := scheduler.WeightStep(entriesOf(list))
	return step{maxWeight, gcd}
}

func entriesOf(list []*server) []scheduler.Entry {
	entries := make([]scheduler.Entry, len(list))
	for i, s := range list {
		entries[i] = scheduler.Entry{Address: s.address, Weight: s.offered(), LastWeight: s.lastWeight, Draining: s.draining}
	}
	return entries
}

// maxSlots is how large the largest of the tables is.
const maxSlots = scheduler.MaglevSize

// buildSchedule computes what the fast path's scheduler looks at beside the list.
func buildSchedule(svc *service, list []*server) (bpf.KernelSchedule, []uint32) {
	entries := entriesOf(list)
	next := kernelSchedule(svc)
	next.Servers = uint32(len(list))
	var slots []int
	switch svc.scheduler {
	case director.WeightedRoundRobin:
		next.MaxWeight, next.Gcd = scheduler.WeightStep(entries)
	case director.DestinationHash:
		slots = scheduler.DestinationHashTable(entries)
	case director.SourceHash:
		slots = scheduler.SourceHashTable(entries)
	case director.Maglev:
		slots = scheduler.MaglevTable(svc.key.Address.Addr(), entries)
	}
	table := make([]uint32, len(slots))
	for i, position := range slots {
		if position >= 0 {
			table[i] = list[position].index
		}
	}
	next.Slots = uint32(len(table))
	return next, table
}

// isStale says whether the schedule in force is not what its servers ask for.
func isStale(svc *service) bool {
	for i, s := range svc.list {
		if svc.weights[i] != s.offered() {
			return true
		}
	}
	return false
}

// mapPositions says for each position of the old list where rr's cursor goes
// that stands there: one past its server in the new list, or past the nearest
// one before it that is left; 0 is the head (kernel: ip_vs_rr_del_dest).
func mapPositions(old, list []*server) []uint32 {
	place := map[*server]uint32{}
	for i, s := range list {
		place[s] = uint32(i) + 1
	}
	positions := make([]uint32, len(old))
	var last uint32
	for i, s := range old {
		if p, ok := place[s]; ok {
			last = p
		}
		positions[i] = last
	}
	return positions
}
