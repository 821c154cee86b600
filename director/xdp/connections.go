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
		for found, err := range d.connections(ctx, filter) {
			if !yield(found.connection, err) || err != nil {
				return
			}
		}
	}
}

// foundConnection is a connection with the entry it was read from.
type foundConnection struct {
	connection conntrack.Connection
	entry      bpf.Entry
}

// connections iterates over what the filter selects; it ends with the first error.
func (d *Dataplane) connections(ctx context.Context, filter director.ConnectionFilter) iter.Seq2[foundConnection, error] {
	return func(yield func(foundConnection, error) bool) {
		d.mu.Lock()
		view, err := d.view(ctx)
		d.mu.Unlock()
		if err != nil {
			yield(foundConnection{}, err)
			return
		}
		for _, v6 := range []bool{false, true} {
			for e, err := range d.plane.Entries(v6) {
				if err == nil {
					err = ctx.Err()
				}
				if err != nil {
					yield(foundConnection{}, err)
					return
				}
				service, c, ok := view.connection(&e)
				if ok && filter.Matches(service, c) && !yield(foundConnection{c, e}, nil) {
					return
				}
			}
		}
	}
}

// view is what a walk over the tables needs and must not lock for.
type view struct {
	servers  map[uint32]serverView
	services map[uint32]*serviceView
	clock    bpf.Clock
	now      uint32 // the tick it was made at
}

type serverView struct {
	address netip.AddrPort
	service *serviceView
}

type serviceView struct {
	key         director.ServiceKey
	timeouts    conntrack.Timeouts // the director's where it has none of its own
	persistence director.Persistence
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
	v := &view{servers: map[uint32]serverView{}, services: map[uint32]*serviceView{}, clock: d.plane.Clock}
	for i, svc := range d.model.services {
		v.services[i] = &serviceView{key: svc.key, timeouts: all.Merge(svc.timeouts), persistence: svc.persistence}
	}
	for i, s := range d.model.servers {
		v.servers[i] = serverView{s.address, v.services[s.service.index]}
	}
	v.now, err = d.plane.Now()
	return v, err
}

// connection decodes an entry; false if it is a reply's, is being made or removed,
// or is of a server that came after the view was made.
func (v *view) connection(e *bpf.Entry) (director.ServiceKey, conntrack.Connection, bool) {
	server, known := v.servers[e.Server]
	if e.Reply || e.Busy || !known {
		return director.ServiceKey{}, conntrack.Connection{}, false
	}
	service := server.service
	idle := time.Duration(max(0, int32(v.now-e.Seen))) * v.clock.Tick()
	c := conntrack.Connection{
		Protocol: conntrack.Protocol(e.Protocol), Client: e.Source, Virtual: e.Destination,
		Server: server.address, Method: realserver.Method(e.Method).String(),
		State: conntrack.State(e.State), Proven: e.Proven, UnderTemplate: e.UnderTemplate,
		Expires: service.timeouts.Of(conntrack.State(e.State)) - idle,
	}
	if !e.Template {
		return service.key, c, true
	}
	c.Protocol, c.Virtual, c.State = service.key.Protocol, service.key.Address, conntrack.None
	c.Template, c.Prefix, c.Controlled = true, service.persistence.Prefix, e.Controlled
	if c.Expires = service.persistence.Timeout - idle; e.Prolonged {
		c.Expires = scheduler.Prolonged - idle
	}
	return service.key, c, v.services[e.Service] == service
}
