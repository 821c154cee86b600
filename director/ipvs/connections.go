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
		c.Server, c.Method = server.Address, realserver.Method(server.Method).String()
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
	var first *kernel.ServiceEntry
	for _, service := range candidates {
		if service == nil || service.ServiceID.Address.Addr().Is4() != k.Client.Addr().Is4() {
			continue
		}
		if server := findServer(service, k); server != nil {
			return service, server
		}
		if first == nil && (service.Mark == 0 || k.Mark != 0) {
			first = service
		}
	}
	return first, nil
}

// findServer returns the service's server of the connection's address, or the one
// without a port, whose connections have the client's.
func findServer(service *kernel.ServiceEntry, k *kernel.Connection) *kernel.ServerEntry {
	address := k.Server
	if at := place(service, address); at >= 0 {
		return &service.Servers[at]
	}
	if at := place(service, netip.AddrPortFrom(address.Addr(), 0)); at >= 0 && address.Port() == k.Virtual.Port() {
		return &service.Servers[at]
	}
	// A template of all ports has port 0, whatever the server's.
	at := slices.IndexFunc(service.Servers, func(s kernel.ServerEntry) bool { return s.Address.Addr() == address.Addr() })
	if address.Port() == 0 && at >= 0 {
		return &service.Servers[at]
	}
	return nil
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
