package xdp

import (
	"context"
	"iter"
	"net/netip"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/scheduler"
	"github.com/shunt-lb/shunt/realserver"
)

// Connections iterates over the tables' forward keys and templates.
func (d *Dataplane) Connections(ctx context.Context, filter director.ConnectionFilter) iter.Seq2[conntrack.Connection, error] {
	return func(yield func(conntrack.Connection, error) bool) {
		err := d.visit(ctx, filter, func(f *foundConnection) bool { return yield(f.connection, nil) })
		if err != nil {
			yield(conntrack.Connection{}, err)
		}
	}
}

// foundConnection is a connection with the entry it was read from.
type foundConnection struct {
	service    director.ServiceKey
	connection conntrack.Connection
	entry      bpf.Entry
}

// connections iterates over what the filter selects; it ends with the first error.
func (d *Dataplane) connections(ctx context.Context, filter director.ConnectionFilter) iter.Seq2[foundConnection, error] {
	return func(yield func(foundConnection, error) bool) {
		err := d.visit(ctx, filter, func(f *foundConnection) bool { return yield(*f, nil) })
		if err != nil {
			yield(foundConnection{}, err)
		}
	}
}

// visit visits what the filter selects, until visit says false. What that is given
// is overwritten by the next one, but for the traffic it points to.
func (d *Dataplane) visit(ctx context.Context, filter director.ConnectionFilter, visit func(*foundConnection) bool) error {
	view, err := d.lockedView(ctx)
	if err != nil {
		return err
	}
	var found foundConnection
	return d.walk(ctx, view.matcher(filter), func(s *bpf.Slot, traffic *conntrack.Traffic) bool {
		found.entry = s.Entry()
		found.service, found.connection, _ = view.connection(&found.entry)
		if traffic != nil {
			found.connection.Traffic = new(*traffic)
		}
		return visit(&found)
	})
}

// walk visits the entries of both tables that match, with what their connections
// have carried, nil if they are not counted, until visit says false. Packets wait for
// nothing, nor does the exchange of the tables: that ends the walk with an error.
func (d *Dataplane) walk(ctx context.Context, m *matcher, visit func(*bpf.Slot, *conntrack.Traffic) bool) error {
	for _, family := range families {
		if !m.hasFamily(family.v6) {
			continue
		}
		counts, err := d.newTrafficReader(ctx, family.v6)
		if err != nil {
			return err
		}
		whole, err := d.walkGroups(ctx, family.v6, counts.read, func(walk *bpf.Walk) bool {
			return walk.Slots(m.skip, func(s *bpf.Slot) bool { return !m.matches(s) || visit(s, counts.of(s, m.view)) })
		})
		if !whole {
			return err
		}
	}
	return nil
}

// view is what a walk over the tables needs and must not lock for.
type view struct {
	servers  []serverView   // by index; of an unknown one all zero
	services []*serviceView // by index; nil: unknown
	locals   []netip.Addr   // by index: what stands in for clients by full NAT
	clock    bpf.Clock
	now      uint32 // the tick it was made at
}

type serverView struct {
	address netip.AddrPort
	service *serviceView
}

type serviceView struct {
	index       uint32
	key         director.ServiceKey
	timeouts    conntrack.Timeouts // the director's where it has none of its own
	persistence director.Persistence
}

// lockedView makes a view of now.
func (d *Dataplane) lockedView(ctx context.Context) (*view, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.view(ctx)
}

// view is called with mu held.
func (d *Dataplane) view(ctx context.Context) (*view, error) {
	if err := d.check(ctx); err != nil {
		return nil, err
	}
	all, err := d.timeouts()
	if err != nil {
		return nil, err
	}
	v := &view{clock: d.plane.Clock, locals: d.locals.list()}
	for i, svc := range d.model.services {
		v.services = grown(v.services, i)
		v.services[i] = &serviceView{index: i, key: svc.key, timeouts: all.Merge(svc.timeouts), persistence: svc.persistence}
	}
	for i, s := range d.model.servers {
		v.servers = grown(v.servers, i)
		v.servers[i] = serverView{s.address, v.services[s.service.index]}
	}
	v.now, err = d.plane.Now()
	return v, err
}

// grown returns the slice with room for the index.
func grown[E any](s []E, index uint32) []E {
	if n := int(index) + 1 - len(s); n > 0 {
		return append(s, make([]E, n)...)
	}
	return s
}

// server returns the server with the index; nil if the view does not know it.
func (v *view) server(index uint32) *serverView {
	if index >= uint32(len(v.servers)) || v.servers[index].service == nil {
		return nil
	}
	return &v.servers[index]
}

// connection decodes an entry; false if it is a reply's, is being made or removed,
// or is of a server that came after the view was made.
func (v *view) connection(e *bpf.Entry) (director.ServiceKey, conntrack.Connection, bool) {
	server := v.server(e.Server)
	if e.Reply || e.Busy || server == nil {
		return director.ServiceKey{}, conntrack.Connection{}, false
	}
	service := server.service
	age, idle := v.times(e.Born, e.Seen)
	c := conntrack.Connection{
		Protocol: conntrack.Protocol(e.Protocol), Client: e.Source, Virtual: e.Destination,
		Server: server.address, Method: realserver.Method(e.Method).String(),
		State: conntrack.State(e.State), Proven: e.Proven, UnderTemplate: e.UnderTemplate,
		Expires: service.timeouts.Of(conntrack.State(e.State)) - idle,
		Age:     age, Idle: idle,
	}
	if !e.Template {
		if e.Method == uint8(bpf.KernelMethodMETHOD_FULLNAT) {
			c.Local = v.local(e.Local)
		}
		return service.key, c, true
	}
	c.Protocol, c.Virtual, c.State = service.key.Protocol, service.key.Address, conntrack.None
	c.Template, c.Prefix, c.Controlled = true, service.persistence.Prefix, e.Controlled
	c.Expires = v.templateTimeout(service, e.Prolonged) - idle
	return service.key, c, v.isOf(e.Service, service)
}

// times returns how long ago an entry began, and how long ago it had its last packet.
func (v *view) times(born uint16, seen uint32) (age, idle time.Duration) {
	idle = v.clock.Idle(seen, v.now)
	// Its birth is known to eight ticks: it may look younger than its last packet.
	return max(v.clock.Age(born, v.now), idle), idle
}

// isOf says whether the service has the index.
func (v *view) isOf(index uint32, service *serviceView) bool {
	return index < uint32(len(v.services)) && v.services[index] == service
}

func (v *view) templateTimeout(service *serviceView, isProlonged bool) time.Duration {
	if isProlonged {
		return scheduler.Prolonged
	}
	return service.persistence.Timeout
}
