package ipvs

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/ipvs/kernel"
	"github.com/shunt-lb/shunt/realserver"
)

// setService gives the service its settings, its address first: the kernel is to
// take packets for a service whose address is refused from nobody.
func (a *application) setService(ctx context.Context, s *director.Service) error {
	if err := refuse(a.Features(), *s); err != nil {
		return err
	}
	has := kernel.Service{}
	entry := a.has[s.Key]
	if entry != nil {
		has = entry.Service
	}
	want, err := kernelService(s, has)
	if err != nil {
		return err
	}
	added := false
	address, managed := managedPrefix(s.Key, s.VIP)
	if managed {
		if added, err = a.vips.Add(address); err != nil {
			return err
		}
	}
	switch {
	case entry == nil:
		err = a.driver.NewService(ctx, want)
		entry = &kernel.ServiceEntry{}
	case want != has:
		err = a.driver.SetService(ctx, want)
	}
	if err != nil {
		err = explainService(err, want)
		if added {
			err = errors.Join(err, a.release(address))
		}
		return err
	}
	entry.Service = want
	a.has[s.Key] = entry
	a.memory.service(s.Key).name = s.Name
	return a.setOwner(s.Key, s.VIP)
}

// setOwner notes who puts the service's address on the host, and takes an address
// off that no service wants there any more.
func (a *application) setOwner(key director.ServiceKey, owner director.VIPOwner) error {
	r := a.memory.service(key)
	before, was := managedPrefix(key, r.vip)
	r.vip = owner
	if _, is := managedPrefix(key, owner); was && !is {
		return a.release(before)
	}
	return nil
}

// release takes the address off the host if no service wants it there.
func (a *application) release(p netip.Prefix) error {
	if a.memory.isManaged(p) {
		return nil
	}
	return a.vips.Remove(p)
}

// removeService removes the service with its servers, then its address.
func (a *application) removeService(ctx context.Context, key director.ServiceKey) error {
	id, err := serviceID(key)
	if err != nil {
		return err
	}
	if a.has[key] != nil {
		if err := a.driver.DeleteService(ctx, id); err != nil {
			return explain(err)
		}
		delete(a.has, key)
	}
	if r := a.memory.services[key]; r != nil {
		delete(a.memory.services, key)
		if p, ok := managedPrefix(key, r.vip); ok {
			return a.release(p)
		}
	}
	return nil
}

// presence says whether an operation needs its server to be there.
type presence bool

const (
	isNew   presence = false
	isThere presence = true
)

// setServer adds the server, at the head of the kernel's list, or gives one that is
// there its settings.
func (a *application) setServer(ctx context.Context, key director.ServiceKey, server realserver.Server, needs presence) error {
	entry := a.has[key]
	if entry == nil {
		return errNoService
	}
	if err := refuse(a.Features(), director.Service{Key: key, Servers: []realserver.Server{server}}); err != nil {
		return err // the kernel has a method of any number, which forwards nothing
	}
	want := kernelServer(server)
	at := place(entry, server.Address)
	var err error
	switch {
	case at < 0 && needs == isThere:
		return errNoServer
	case at < 0:
		if err = a.driver.NewServer(ctx, entry.ServiceID, want); err == nil {
			entry.Servers = slices.Insert(entry.Servers, 0, kernel.ServerEntry{Server: want})
		}
	case !sameServer(entry.Servers[at].Server, want):
		if err = a.driver.SetServer(ctx, entry.ServiceID, want); err == nil {
			entry.Servers[at].Server = want
		}
	}
	if err != nil {
		return explainServer(err, entry, want)
	}
	r := a.memory.service(key)
	delete(r.servers, server.Address)
	if server.Draining {
		r.servers[server.Address] = server
	}
	return nil
}

// sameServer says whether the kernel holds the server as it is to be. What it keeps
// of a tunnel for other methods is not looked at.
func sameServer(has, want kernel.Server) bool {
	if has.Method != kernel.Tunnelling {
		has.Tunnel = kernel.Tunnel{}
	}
	return has == want
}

// removeServer removes the server; one that is not there is gone.
func (a *application) removeServer(ctx context.Context, key director.ServiceKey, address netip.AddrPort) error {
	if entry := a.has[key]; entry != nil {
		if at := place(entry, address); at >= 0 {
			if err := a.driver.DeleteServer(ctx, entry.ServiceID, address); err != nil {
				return explain(err)
			}
			entry.Servers = slices.Delete(entry.Servers, at, at+1)
		}
	}
	if r := a.memory.services[key]; r != nil {
		delete(r.servers, address)
	}
	return nil
}

// place returns where in the kernel's list the server is, or -1.
func place(entry *kernel.ServiceEntry, address netip.AddrPort) int {
	return slices.IndexFunc(entry.Servers, func(s kernel.ServerEntry) bool { return s.Address == address })
}
