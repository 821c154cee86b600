package xdp

import (
	"context"
	"fmt"
	"maps"
	"net/netip"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

// countLooks is how often the tables are counted in search of two times running
// between which nothing moved.
const countLooks = 4

// recounted is what one walk over the tables has counted, and what was counted of
// them before and after it.
type recounted struct {
	servers   []bpf.KernelRecount // active, inactive, templates
	services  []int64
	sources   map[bpf.KernelSourceKey]int64
	templates map[templateKey]*templateCount

	before, after counts
}

// counts are what the program has counted.
type counts struct {
	loads    []bpf.KernelServerLoad
	traffic  []bpf.KernelTraffic // by server
	lost     uint64              // packets dropped or answered, which may have changed a state before
	services []int64
	sources  map[bpf.KernelSourceKey]bpf.KernelSource
}

// templateKey is of a client network of a service.
type templateKey struct {
	service uint32
	network [4]uint32
	v6      bool
}

// templateCount is what was met under a template.
type templateCount struct {
	slot        bpf.Slot // of the template; not live: none was met
	connections []bornUnder
}

// bornUnder is how many connections that began at one time a template has.
type bornUnder struct {
	server uint32
	born   uint16
	count  uint32
}

// recount walks over both tables. The first walk judges each entry by itself too, and
// brings the halves of connections together.
func (c *checker) recount(ctx context.Context, isFirst bool) (*recounted, error) {
	var err error
	if c.view, err = c.lockedView(ctx); err != nil {
		return nil, err
	}
	limits := make([]bpf.KernelServiceLimits, len(c.view.services))
	if err := c.use(func() error { return bpf.ReadRange(c.plane.KernelMaps.Limits, 0, limits) }); err != nil {
		return nil, err
	}
	r := &recounted{
		servers: make([]bpf.KernelRecount, len(c.view.servers)), services: make([]int64, len(c.view.services)),
		sources: map[bpf.KernelSourceKey]int64{}, templates: map[templateKey]*templateCount{},
	}
	if r.before, err = c.readCounts(limits); err != nil {
		return nil, err
	}
	for i, family := range families {
		halves := newPairing()
		_, err := c.walkGroups(ctx, family.v6, nothingBeside, func(walk *bpf.Walk) bool {
			c.walks[i] = walk
			walk.Slots(0, func(s *bpf.Slot) bool {
				c.countSlot(r, s, limits)
				if isFirst {
					c.judge(s, halves)
				}
				return true
			})
			if isFirst {
				c.judgeSlots(walk, family.v6)
			}
			return true
		})
		if err != nil {
			return nil, err
		}
		for _, h := range halves.waiting {
			c.add(faultReply, h.where)
		}
	}
	r.after, err = c.readCounts(limits)
	return r, err
}

// countSlot counts the entry as the sweep does (sweep.h, recount).
func (c *checker) countSlot(r *recounted, s *bpf.Slot, limits []bpf.KernelServiceLimits) {
	server := c.view.server(s.Server())
	if server == nil || s.Is(bpf.KernelRecipeLayoutRECIPE_REPLY) || s.Is(bpf.KernelRecipeLayoutRECIPE_BUSY) {
		return
	}
	count := &r.servers[s.Server()]
	if s.IsTemplate() {
		count.Templates++
		r.template(templateKey{s.Destination[0], s.Source, s.V6}).slot = *s
		return
	}
	if stateOf(s.State()).Active() {
		count.Active++
	} else {
		count.Inactive++
	}
	service := server.service.index
	r.services[service]++
	if s.Is(bpf.KernelRecipeLayoutRECIPE_COUNTED) {
		key := bpf.KernelSourceKey{Service: service}
		for i, mask := range limits[service].SourceMask {
			key.Network[i] = s.Source[i] & mask
		}
		r.sources[key]++
	}
	if s.Is(bpf.KernelRecipeLayoutRECIPE_CONTROLLED) {
		r.countUnder(s, server.service)
	}
}

func (r *recounted) template(key templateKey) *templateCount {
	t := r.templates[key]
	if t == nil {
		t = &templateCount{}
		r.templates[key] = t
	}
	return t
}

// countUnder counts a connection under the template of its client's network.
func (r *recounted) countUnder(s *bpf.Slot, service *serviceView) {
	key := templateKey{service: service.index, v6: s.V6}
	for i, mask := range clientMask(s.V6, service.persistence.Prefix) {
		key.network[i] = s.Source[i] & mask
	}
	t := r.template(key)
	for i := range t.connections {
		if u := &t.connections[i]; u.server == s.Server() && u.born == s.Born() {
			u.count++
			return
		}
	}
	t.connections = append(t.connections, bornUnder{s.Server(), s.Born(), 1})
}

// readCounts reads what the program has counted.
func (c *checker) readCounts(limits []bpf.KernelServiceLimits) (n counts, err error) {
	err = c.use(func() (err error) {
		n, err = c.readUsed(limits)
		return err
	})
	return n, err
}

// readUsed is readCounts while the plane is in use.
func (c *checker) readUsed(limits []bpf.KernelServiceLimits) (counts, error) {
	n := counts{
		loads:    make([]bpf.KernelServerLoad, len(c.view.servers)),
		services: make([]int64, len(c.view.services)),
	}
	if err := bpf.ReadRange(c.plane.Loads, 0, n.loads); err != nil {
		return n, err
	}
	var err error
	if n.traffic, err = c.plane.AllTraffic(uint32(len(c.view.servers))); err != nil {
		return n, err
	}
	events, err := c.plane.EventCounts()
	if err != nil {
		return n, err
	}
	for i, count := range events {
		if kind := director.PacketKind(bpf.Events[i].Kind); kind == director.PacketDrop || kind == director.PacketAnswer {
			n.lost += count
		}
	}
	states := make([]bpf.KernelServiceState, len(c.view.services))
	if err := bpf.ReadRange(c.plane.ServiceStates, 0, states); err != nil {
		return n, err
	}
	isCounting := false
	for i := range states {
		n.services[i] = states[i].Connections
		isCounting = isCounting || limits[i].SourceConnections > 0
	}
	if isCounting {
		n.sources, err = c.plane.ReadSources()
	}
	return n, err
}

// compareCounts returns the counts that are not what the tables hold: of two walks
// running, without a change in between.
func (c *checker) compareCounts(ctx context.Context, first *recounted) ([]director.TableFault, error) {
	last, suspects := first, c.countFaults(first)
	for look := 1; look < countLooks && len(suspects) > 0; look++ {
		if err := sleep(ctx, c.pause); err != nil {
			return nil, err
		}
		next, err := c.recount(ctx, false)
		if err != nil {
			return nil, err
		}
		found := c.countFaults(next)
		maps.DeleteFunc(found, func(what countKey, f countFault) bool {
			return !c.isSteady(what, last, next)
		})
		var faults []director.TableFault
		for what, f := range found {
			if suspects[what] == f {
				faults = append(faults, f.fault(c.view, what))
			}
		}
		if len(faults) > 0 && look >= 2 {
			return faults, nil
		}
		last, suspects = next, c.countFaults(next)
	}
	return nil, nil
}

// countKey is what is counted: by a server, by a service, under a template, of a
// source network.
type countKey struct {
	kind     string
	index    uint32 // of the server or the service
	template templateKey
	source   bpf.KernelSourceKey
}

// countFault is a count that is not what the tables hold.
type countFault struct{ said, found int64 }

// countFaults compares what a walk has counted with what was counted.
func (c *checker) countFaults(r *recounted) map[countKey]countFault {
	faults := map[countKey]countFault{}
	compare := func(key countKey, said int64, found uint64) {
		if said != int64(found) {
			faults[key] = countFault{said, int64(found)}
		}
	}
	for i := range r.servers {
		index, count, load := uint32(i), &r.servers[i], &r.after.loads[i]
		compare(countKey{kind: faultActive, index: index}, load.Active, count.Active)
		compare(countKey{kind: faultInactive, index: index}, load.Inactive, count.Inactive)
		compare(countKey{kind: faultTemplates, index: index}, load.Templates, count.Templates)
	}
	for i, found := range r.services {
		compare(countKey{kind: faultTotal, index: uint32(i)}, r.after.services[i], uint64(found))
	}
	for key, source := range r.after.sources {
		// A network may have been forgotten since some of its connections were counted:
		// then it has fewer, and never more.
		if said := source.Connections; said < 0 || said > r.sources[key] {
			faults[countKey{kind: faultSource, source: key}] = countFault{said, r.sources[key]}
		}
	}
	for key, t := range r.templates {
		if f, wrong := t.fault(); wrong {
			faults[countKey{kind: faultControlled, template: key}] = f
		}
	}
	return faults
}

// fault compares a template's count with the connections met under it. Those that
// are not younger than it may have begun under the one before it.
func (t *templateCount) fault() (countFault, bool) {
	if !t.slot.IsLive() {
		return countFault{}, false
	}
	said := bpf.Controlled(t.slot.Hop)
	if said == uint32(bpf.KernelTemplateLayoutTEMPLATE_COUNT_MASK) {
		return countFault{}, false // as many, or more
	}
	var all, younger uint32
	for _, u := range t.connections {
		if u.server != t.slot.Server() {
			continue
		}
		all += u.count
		if int16(u.born-t.slot.Born()) > 0 {
			younger += u.count
		}
	}
	return countFault{int64(said), int64(all)}, said > all || said < younger
}

// isSteady says whether nothing moved from before the first walk to after the second
// that the count depends on: neither it nor a packet of the servers. A state may
// change and change back.
func (c *checker) isSteady(what countKey, first, second *recounted) bool {
	before, after := &first.before, &second.after
	if before.lost != after.lost {
		return false
	}
	if what.kind == faultControlled {
		a, b := first.templates[what.template], second.templates[what.template]
		if a == nil || b == nil || a.slot.Recipe != b.slot.Recipe || a.slot.Seen != b.slot.Seen {
			return false
		}
	}
	for i := range c.view.servers {
		if !c.concerns(what, uint32(i)) {
			continue
		}
		if i >= len(before.loads) || before.loads[i] != after.loads[i] || before.traffic[i] != after.traffic[i] {
			return false
		}
	}
	return true
}

// concerns says whether the count is one of the server's connections.
func (c *checker) concerns(what countKey, server uint32) bool {
	s := c.view.server(server)
	switch what.kind {
	case faultActive, faultInactive, faultTemplates:
		return server == what.index
	case faultTotal:
		return s != nil && s.service.index == what.index
	case faultSource:
		return s != nil && s.service.index == what.source.Service
	default:
		return s != nil && s.service.index == what.template.service
	}
}

func (f countFault) fault(v *view, what countKey) director.TableFault {
	fault := director.TableFault{Kind: what.kind, Found: fmt.Sprintf("%d are counted, the tables have %d", f.said, f.found)}
	switch what.kind {
	case faultActive, faultInactive, faultTemplates:
		fault.What = fmt.Sprintf("server %d", what.index)
		if s := v.server(what.index); s != nil {
			fault.What = fmt.Sprintf("%s of %s", s.address, s.service.key)
		}
	case faultTotal:
		fault.What = v.serviceName(what.index)
	case faultSource:
		fault.What = fmt.Sprintf("network %x of %s", what.source.Network, v.serviceName(what.source.Service))
	default:
		network := netip.AddrPortFrom(bpf.ParseAddress(what.template.network, what.template.v6), 0)
		fault.What = fmt.Sprintf("template of %s, %s", network.Addr(), v.serviceName(what.template.service))
	}
	return fault
}

func (v *view) serviceName(index uint32) string {
	if index < uint32(len(v.services)) && v.services[index] != nil {
		return v.services[index].key.String()
	}
	return fmt.Sprintf("service %d", index)
}
