package xdp

import (
	"errors"
	"hash/maphash"
	"unsafe"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

// reading is what the maps hold at one time.
type reading struct {
	plane    *bpf.Plane
	services []bpf.KernelService
	servers  []bpf.KernelServer
	tunnels  []bpf.KernelTunnel
	loads    []bpf.KernelServerLoad
	timeouts []bpf.KernelTimeoutSet
	limits   []bpf.KernelServiceLimits
	index    map[bpf.KernelServiceKey]uint32
	filter   *bpf.KernelFilter
	settings bpf.KernelSettings
	access   map[uint32][]bpf.AccessEntry
	matches  []bpf.MatchEntry
	buffer   []uint32
	// failed are the errors of words: what was made of them is to be thrown away.
	failed error
}

func read(plane *bpf.Plane) (*reading, error) {
	r := &reading{plane: plane}
	var err error
	if r.services, err = bpf.ReadArray[bpf.KernelService](plane.Services); err != nil {
		return nil, err
	}
	if r.servers, err = bpf.ReadArray[bpf.KernelServer](plane.Servers); err != nil {
		return nil, err
	}
	if r.tunnels, err = bpf.ReadArray[bpf.KernelTunnel](plane.Tunnels); err != nil {
		return nil, err
	}
	if r.loads, err = bpf.ReadArray[bpf.KernelServerLoad](plane.Loads); err != nil {
		return nil, err
	}
	if r.timeouts, err = bpf.ReadArray[bpf.KernelTimeoutSet](plane.Timeouts); err != nil {
		return nil, err
	}
	if r.limits, err = bpf.ReadArray[bpf.KernelServiceLimits](plane.KernelMaps.Limits); err != nil {
		return nil, err
	}
	if r.index, err = plane.ReadServiceIndex(); err != nil {
		return nil, err
	}
	if r.filter, err = plane.Filter(); err != nil {
		return nil, err
	}
	if r.settings, err = plane.Settings(); err != nil {
		return nil, err
	}
	if r.access, err = readAccess(plane); err != nil {
		return nil, err
	}
	if r.matches, err = plane.MatchEntries(); err != nil {
		return nil, err
	}
	return r, nil
}

// hasTimeouts says whether the map holds the service's set of timeouts, if it has one.
func (r *reading) hasTimeouts(svc *service) bool {
	return !svc.hasTimeouts() || r.timeouts[svc.index] == timeoutSet(&svc.settings, r.plane.Clock, readTimeouts(&r.settings))
}

// parse reads a service's key and settings, its limits included.
func (r *reading) parse(index uint32) *service {
	k := &r.services[index]
	svc := parseService(index, k)
	svc.limits, svc.guard = parseLimits(&r.limits[index], schedule(k).Flags)
	return svc
}

// schedule returns the one in force.
func schedule(k *bpf.KernelService) *bpf.KernelSchedule {
	return &k.Schedule[k.Cursor>>bpf.KernelCursorLayoutCURSOR_HALF&1]
}

// words reads a run of words, valid until the next call; false if the map has
// no such run or a schedule would not name it, or if it failed.
func (r *reading) words(first, count uint32) ([]uint32, bool) {
	const longest = 2*director.MaxServers + maxSlots
	if count > longest || uint64(first)+uint64(count) > uint64(r.plane.Words.MaxEntries()) {
		return nil, false
	}
	if r.buffer == nil {
		r.buffer = make([]uint32, longest)
	}
	words := r.buffer[:count]
	if err := bpf.ReadRange(r.plane.Words, first, words); err != nil {
		r.failed = errors.Join(r.failed, err)
		return nil, false
	}
	return words, true
}

// list returns the server indices and weights of a schedule in force.
func (r *reading) list(s *bpf.KernelSchedule) (indices, weights []uint32) {
	if s.Servers > director.MaxServers {
		return nil, nil
	}
	words, ok := r.words(s.List, 2*s.Servers)
	if !ok {
		return nil, nil
	}
	for i := 0; i < len(words); i += 2 {
		indices = append(indices, words[i])
		weights = append(weights, words[i+1])
	}
	return indices, weights
}

// holds says whether the service's entry has the schedule that was written, its
// words included.
func (r *reading) holds(svc *service, k *bpf.KernelService) bool {
	if *schedule(k) != svc.schedule {
		return false
	}
	if svc.scheduler == director.WeightedRoundRobin && uint32(k.Cursor) > svc.schedule.MaxWeight {
		return false // a weight that no server has: it would never be reached
	}
	list, ok := r.words(svc.schedule.List, 2*svc.schedule.Servers)
	if !ok {
		return false
	}
	sum := addWords(0, list)
	table, ok := r.words(svc.schedule.Table, svc.schedule.Slots)
	return ok && addWords(sum, table) == svc.sum
}

// sumSeed makes sums comparable within the process.
var sumSeed = maphash.MakeSeed()

// addWords goes on with a sum of words.
func addWords(sum uint64, words []uint32) uint64 {
	if len(words) == 0 {
		return sum
	}
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), 4*len(words))
	return sum*0x9e3779b97f4a7c15 + maphash.Bytes(sumSeed, bytes)
}
