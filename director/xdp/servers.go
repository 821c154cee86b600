package xdp

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

func (d *Dataplane) checkServer(s realserver.Server) error {
	if !isSupported(s.Method) {
		return fmt.Errorf("method %s: %w by the XDP data plane", s.Method, director.ErrUnsupported)
	}
	v6 := s.Address.Addr().Is6()
	if s.Method == realserver.FullNAT && !d.locals.has(v6) {
		return fmt.Errorf("method %s: there is no address of %s that may stand in for clients': give some in director.fullnat.addresses: %w",
			s.Method, familyName(v6), director.ErrInvalid)
	}
	return nil
}

func isSupported(m realserver.Method) bool {
	switch m {
	case realserver.NAT, realserver.FullNAT, realserver.DR, realserver.Tunnel, realserver.Local:
		return true
	default:
		return false
	}
}

// addServer puts a server at the head of the list. One that was removed lately
// comes back with its counters and connections, as in the kernel (ip_vs_ctl.c,
// ip_vs_trash_get_dest); one that is there is written anew.
func (a *application) addServer(op director.AddServer) error {
	if err := a.checkServer(op.Server); err != nil {
		return err
	}
	svc, err := a.model.live(op.Key)
	if err != nil {
		return err
	}
	s := svc.members[op.Server.Address]
	if s != nil && !s.removed {
		return a.setServer(a.begin(svc, op), s, op.Server)
	}
	if s != nil && slices.Contains(svc.list, s) {
		// Removed a moment ago: rr's place must not follow it to the head.
		if err := a.flush(); err != nil {
			return err
		}
	}
	if s == nil {
		index, err := freeIndex(a.model.servers, &a.model.nextServer, a.plane.Limits.Servers, "servers")
		if err != nil {
			return err
		}
		s = &server{index: index, service: svc, address: op.Server.Address, removed: true}
		return a.insertServer(a.begin(svc, op), s, op.Server, true)
	}
	return a.insertServer(a.begin(svc, op), s, op.Server, false)
}

func (a *application) insertServer(b *batch, s *server, v realserver.Server, isNew bool) error {
	old := *s
	if isNew {
		a.model.addServer(s)
	}
	b.onFailure(func() error {
		a.retire(s)
		s.terms = old.terms
		if !isNew {
			return a.writeServer(s)
		}
		a.hops.release(s.hop)
		a.tunnels.release(s.tunnel)
		a.model.dropServer(s)
		return errors.Join(a.plane.Servers.Put(s.index, &bpf.KernelServer{}), a.writeFilter())
	})
	s.terms, s.removed = s.edited(v, true), false
	a.follow(s)
	a.retunnel(s)
	forget := func() error { return a.absolve(s) }
	if isNew {
		forget = func() error { return a.clearCounters(s.index) }
	}
	if err := forget(); err != nil {
		return err
	}
	if err := errors.Join(a.writeFilter(), a.writeServer(s)); err != nil {
		return err
	}
	b.list = slices.Insert(slices.Clone(b.list), 0, s)
	return nil
}

// follow begins to follow the server's next hop, or ends it for one that needs none.
func (a *application) follow(s *server) {
	if s.method == realserver.Local {
		a.unwatch(s)
		return
	}
	if !s.watched {
		a.fresh = append(a.fresh, s)
	}
	a.watch(s)
}

// clearCounters clears what an index's last server left, its thresholds included.
func (d *Dataplane) clearCounters(index uint32) error {
	perCPU := make([]bpf.KernelTraffic, ebpf.MustPossibleCPU())
	if err := d.plane.ServerTraffic.Put(index, perCPU); err != nil {
		return fmt.Errorf("clear counters: %w", err)
	}
	if err := d.plane.ZeroedTraffic.Put(index, &bpf.KernelTraffic{}); err != nil {
		return fmt.Errorf("clear counters: %w", err)
	}
	if err := d.plane.Evidence.Put(index, &bpf.KernelTestimony{}); err != nil {
		return fmt.Errorf("clear evidence: %w", err)
	}
	if err := d.plane.Loads.Put(index, &bpf.KernelServerLoad{}); err != nil {
		return fmt.Errorf("clear counts: %w", err)
	}
	delete(d.sweeps.udp, index)
	return nil
}

func (a *application) editServer(op director.EditServer) error {
	if err := a.checkServer(op.Server); err != nil {
		return err
	}
	svc, err := a.model.live(op.Key)
	if err != nil {
		return err
	}
	s := svc.members[op.Server.Address]
	if s == nil || s.removed {
		return director.ErrNotFound
	}
	return a.setServer(a.begin(svc, op), s, op.Server)
}

// setServer gives a live server its terms, and writes all of it that packets need.
func (a *application) setServer(b *batch, s *server, v realserver.Server) error {
	old := *s
	b.onFailure(func() error {
		s.terms = old.terms
		a.follow(s)
		a.retunnel(s)
		return a.writeServer(s)
	})
	s.terms = s.edited(v, false)
	a.follow(s)
	a.retunnel(s)
	return errors.Join(a.writeFilter(), a.hops.repair(a.plane, s.hop), a.tunnels.repair(a.plane, s.tunnel), a.writeServer(s))
}

func (a *application) removeServer(op director.RemoveServer) error {
	svc, err := a.model.live(op.Key)
	if err != nil {
		return nil // what is not there is removed
	}
	s := svc.members[op.Address]
	if s == nil || s.removed {
		return nil
	}
	b := a.begin(svc, op)
	b.list = slices.DeleteFunc(slices.Clone(b.list), func(m *server) bool { return m == s })
	b.onFailure(func() error { s.removed = false; return nil })
	s.removed = true
	// No new connections first, then no packets.
	b.then(func() error {
		if !s.removed {
			return nil // it was added again
		}
		a.retire(s)
		return a.writeServer(s)
	})
	return nil
}

// retire begins the server's end: its index is free when a sweep that began
// later found no key of it.
func (d *Dataplane) retire(s *server) {
	s.removed = true
	s.removedBefore = d.sweeps.started + 1
	d.unwatch(s)
}
