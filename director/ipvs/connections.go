package ipvs

import (
	"context"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/ipvs/kernel"
	"github.com/shunt-lb/shunt/realserver"
)

// Connections iterates over the kernel's connections and templates as they are
// read. The kernel tells neither by which service a connection came nor its method:
// both follow from the services as they are now, the method from the server's. That
// a template has a connection, and how many, it does not tell either.
func (d *Dataplane) Connections(ctx context.Context, filter director.ConnectionFilter) iter.Seq2[conntrack.Connection, error] {
	return func(yield func(conntrack.Connection, error) bool) {
		v, err := d.view(ctx)
		if err != nil {
			yield(conntrack.Connection{}, err)
			return
		}
		for k, err := range d.driver.Connections(ctx) {
			var service director.ServiceKey
			var c conntrack.Connection
			if err == nil {
				service, c, err = v.connection(&k)
			}
			if err != nil {
				yield(conntrack.Connection{}, err)
				return
			}
			if filter.Matches(service, c) && !yield(c, nil) {
				return
			}
		}
	}
}

// view is what a walk over the connections needs and must not lock for.
type view struct {
	services map[director.ServiceKey]*kernel.ServiceEntry
	marks    []*kernel.ServiceEntry // those of firewall marks, sorted by key
}

func (d *Dataplane) view(ctx context.Context) (*view, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(ctx); err != nil {
		return nil, err
	}
	entries, err := d.driver.Services(ctx)
	if err != nil {
		return nil, err
	}
	v := &view{services: make(map[director.ServiceKey]*kernel.ServiceEntry, len(entries))}
	for i := range entries {
		v.services[serviceKey(entries[i].ServiceID)] = &entries[i]
		if entries[i].Mark != 0 {
			v.marks = append(v.marks, &entries[i])
		}
	}
	slices.SortFunc(v.marks, func(a, b *kernel.ServiceEntry) int { return serviceKey(a.ServiceID).Compare(serviceKey(b.ServiceID)) })
	return v, nil
}

// connection returns the connection and the service it is of, zero if there is no
// such service any more.
func (v *view) connection(k *kernel.Connection) (director.ServiceKey, conntrack.Connection, error) {
	protocol := conntrack.Protocol(k.Protocol)
	state, err := conntrack.ParseStateOf(protocol, k.State)
	if err != nil {
		return director.ServiceKey{}, conntrack.Connection{}, fmt.Errorf("connection of %s to %s: %w", k.Client, k.Virtual, err)
	}
	c := conntrack.Connection{
		Protocol: protocol, Client: k.Client, Virtual: k.Virtual, Server: k.Server, State: state, Proven: isProven(state),
		Template: k.Template, Mark: k.Mark, Engine: k.Engine, EngineData: k.EngineData, Expires: k.Expires,
	}
	service, server := v.find(k)
	if server != nil {
		c.Method = realserver.Method(server.Method).String()
		if server.Address.Port() == 0 || k.Template {
			c.Server = server.Address
		}
	}
	if k.Template { // its client is shown masked, and by what mask the service alone tells
		c.Prefix = uint8(k.Client.Addr().BitLen())
	}
	if service == nil {
		return director.ServiceKey{}, c, nil
	}
	if k.Template {
		c.Prefix = service.Prefix
	}
	return serviceKey(service.ServiceID), c, nil
}

// find returns the service that the connection is of, and its server; nil where
// there is none. Packets of a service of a firewall mark have any address: where no
// service of the address has the server, one of a mark that has it is taken, the
// first of them if there are several.
func (v *view) find(k *kernel.Connection) (*kernel.ServiceEntry, *kernel.ServerEntry) {
	candidates := make([]*kernel.ServiceEntry, 0, 2+len(v.marks))
	switch {
	case k.Mark != 0:
		candidates = append(candidates, v.services[director.ServiceKey{Mark: k.Mark, Address: k.Virtual}])
	default:
		key := director.ServiceKey{Protocol: conntrack.Protocol(k.Protocol), Address: k.Virtual}
		candidates = append(candidates, v.services[key])
		key.Address = netip.AddrPortFrom(k.Virtual.Addr(), 0) // as the kernel: ip_vs_ctl.c, ip_vs_service_find
		candidates = append(candidates, v.services[key])
		candidates = append(candidates, v.marks...)
	}
	candidates = slices.DeleteFunc(candidates, func(s *kernel.ServiceEntry) bool {
		return s == nil || s.ServiceID.Address.Addr().Is4() != k.Client.Addr().Is4()
	})
	for _, has := range []func(*kernel.ServiceEntry, netip.AddrPort) int{place, placeOfAddress} {
		for _, service := range candidates {
			if at := has(service, k.Server); at >= 0 {
				return service, &service.Servers[at]
			}
		}
	}
	for _, service := range candidates { // its server was removed
		if service.Mark == k.Mark {
			return service, nil
		}
	}
	return nil, nil
}

// placeOfAddress returns where in the kernel's list a server is that has another port
// than its connections: one without a port, or one of a persistent service of several
// ports, for which the kernel leaves the client's as it is and whose templates have
// none (kernel: ip_vs_core.c, ip_vs_sched_persist). -1 for none.
func placeOfAddress(service *kernel.ServiceEntry, address netip.AddrPort) int {
	return slices.IndexFunc(service.Servers, func(s kernel.ServerEntry) bool {
		return s.Address.Addr() == address.Addr() && (s.Address.Port() == 0 || service.ServiceID.Address.Port() == 0)
	})
}

// isProven says whether the state shows that the client is real. Of UDP the kernel
// does not tell whether there was a reply.
func isProven(state conntrack.State) bool {
	switch state {
	case conntrack.None, conntrack.SynSent, conntrack.SynRecv, conntrack.SynAck, conntrack.Listen, conntrack.UDPNormal,
		conntrack.SCTPInit1, conntrack.SCTPInit, conntrack.SCTPCookieSent, conntrack.SCTPCookieReplied,
		conntrack.SCTPCookieWait, conntrack.SCTPCookie, conntrack.SCTPCookieEchoed, conntrack.SCTPRejected:
		return false
	default:
		return true
	}
}
