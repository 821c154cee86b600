package bench

import (
	"cmp"
	"fmt"
	"math"
	"runtime"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
)

// listSizes are how many servers a row's service has.
var listSizes = []uint32{4, 64, 1024}

const (
	schedulerPackets = 500 // of a run, at most: more servers cost a scan each more
	wordsOfService   = 2*1024 + 4093
	evenWeight       = 1 << 16 // busy for no number of connections made here
)

// Schedulers measures the first packets of connections, new-SCHED-N/tcp4, by
// every scheduler with N servers: DR, so that the scheduler is what differs. No
// server is ever busy: lblc and lblcr find what they remember. It needs root, and
// keeps the goroutine on its thread.
func Schedulers(o Options) ([]Row, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b := bench{Options: o.withDefaults(), counter: OpenCounter()}
	defer b.counter.Close()
	rows := uint32((len(bpf.Schedulers) - 1) * len(listSizes))
	coll, err := load(worldOptions{
		connections4: 1 << 18, connections6: 1, refresh: forever,
		services: 1 + rows, servers: rows * listSizes[len(listSizes)-1], words: rows * wordsOfService,
	})
	if err != nil {
		return nil, err
	}
	defer coll.Close()
	h, err := newHarness(b.counter, 1, false)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	next := selection{Collection: coll, service: 1, server: 1, word: 1}
	for _, size := range listSizes {
		b.Log("new connections by each scheduler, %d servers", size)
		g := group{packets: min(b.Packets, schedulerPackets)}
		for number, name := range bpf.Schedulers {
			if name == "" {
				continue
			}
			s := next
			s.size, s.scheduler = size, bpf.KernelScheduler(number)
			if err := s.configure(); err != nil {
				return nil, fmt.Errorf("configure a service of %s: %w", name, err)
			}
			s.subject(&g, fmt.Sprintf("new-%s-%d/tcp4", name, size))
			next.service++
			next.server += size
			next.word += wordsOfService
		}
		if err := b.take(h, &g); err != nil {
			return nil, err
		}
	}
	return b.rows, nil
}

// selection is one row's service: where its own elements of the maps begin.
type selection struct {
	*ebpf.Collection
	service, server, word uint32
	size                  uint32 // servers
	scheduler             bpf.KernelScheduler
}

// world has what plans are made from.
func (s *selection) world() *world {
	return &world{
		Collection: s.Collection, family: family4, virtual: offset(family4.virtual, s.service),
		protocol: tcp, method: bpf.KernelMethodMETHOD_DR, connections: 1, index: s.service,
	}
}

// configure writes the service. Which server a table names makes no difference to
// the cost: they take slots in turn.
func (s *selection) configure() error {
	w := s.world()
	words := make([]uint32, 0, wordsOfService)
	for i := range s.size {
		weight := uint32(evenWeight)
		if s.scheduler == bpf.KernelSchedulerSCHEDULER_WRR {
			weight = 1 + i%4
		}
		server := w.server(offset(family4.servers, i))
		server.Weight, server.LastWeight, server.OfferedWeight = weight, weight, weight
		if err := s.Maps[bpf.KernelMapServers].Put(s.server+i, server); err != nil {
			return err
		}
		words = append(words, s.server+i, weight)
	}
	schedule := bpf.KernelSchedule{
		List: s.word, Servers: s.size, Table: s.word + 2*s.size, Gcd: 1, MaxWeight: 4, Scheduler: uint8(s.scheduler),
	}
	switch s.scheduler {
	case bpf.KernelSchedulerSCHEDULER_DH, bpf.KernelSchedulerSCHEDULER_SH:
		schedule.Slots = 256
	case bpf.KernelSchedulerSCHEDULER_MH:
		schedule.Slots = 4093
	}
	for i := range schedule.Slots {
		words = append(words, s.server+i%s.size)
	}
	if err := bpf.WriteRange(s.Maps[bpf.KernelMapWords], s.word, words); err != nil {
		return err
	}
	key := bpf.KernelServiceKey{Address: bpf.Address(w.virtual), Port: bpf.Port(virtualPort), Protocol: tcp, Family: 4}
	service := bpf.KernelService{
		Cursor: 4, Schedule: [2]bpf.KernelSchedule{schedule}, Key: key, Life: uint8(bpf.KernelLifecycleLIFE_LIVE),
	}
	if s.scheduler == bpf.KernelSchedulerSCHEDULER_RR {
		service.Cursor = 0 // not wrr's current weight
	}
	var filter bpf.KernelFilter
	if err := s.Maps[".data.filter"].Lookup(uint32(0), &filter); err != nil {
		return err
	}
	bit := bpf.FilterBit(w.virtual)
	filter.VirtualAddress[bit/32] |= 1 << (bit % 32)
	return cmp.Or(
		s.Maps[".data.filter"].Put(uint32(0), &filter),
		s.Maps[bpf.KernelMapServices].Put(s.service, &service),
		s.Maps[bpf.KernelMapServiceIndex].Put(&key, s.service),
	)
}

// subject adds the row. Every packet must have made a connection that one of the
// servers counts.
func (s *selection) subject(g *group, name string) {
	plan := newPlan(s.world(), toService, flagSYN, inOrder)
	plan.Index, plan.Mask = 1, math.MaxUint32
	var before int64
	row := g.add(name, s.Programs[bpf.KernelProgShuntMain], plan, xdpTX, func(packets int) error {
		now, err := s.connections()
		if err == nil && now-before != int64(packets) {
			err = fmt.Errorf("%d of %d packets made a connection", now-before, packets)
		}
		return err
	})
	row.begin = func() (err error) {
		before, err = s.connections()
		return err
	}
}

// connections are those that the servers count.
func (s *selection) connections() (sum int64, err error) {
	loads := make([]bpf.KernelServerLoad, s.size)
	err = bpf.ReadRange(s.Maps[bpf.KernelMapLoads], s.server, loads)
	for i := range loads {
		sum += loads[i].Active
	}
	return sum, err
}
