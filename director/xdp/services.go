package xdp

import (
	"errors"
	"fmt"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// checkService refuses what the fast path does not have.
func checkService(s director.Service) error {
	if schedulerNumber(s.Scheduler) == 0 {
		return fmt.Errorf("scheduler %s: %w by the XDP data plane", s.Scheduler, director.ErrUnsupported)
	}
	if s.Key.IsMark() {
		return fmt.Errorf("a service of a firewall mark: %w by the XDP data plane", director.ErrUnsupported)
	}
	if s.Persistence.Engine != "" {
		return fmt.Errorf("persistence engine %s: %w by the XDP data plane", s.Persistence.Engine, director.ErrUnsupported)
	}
	switch s.Key.Protocol {
	case conntrack.UDP:
	case conntrack.TCP:
		if s.OnePacket {
			return fmt.Errorf("one-packet scheduling of a TCP service: %w: its packets would go to one server each", director.ErrInvalid)
		}
	default:
		return fmt.Errorf("protocol %s: %w by the XDP data plane", s.Key.Protocol, director.ErrUnsupported)
	}
	if p := s.Persistence; p.Timeout < 0 || p.Timeout%time.Second != 0 || p.Timeout == 0 && p.Prefix != 0 {
		return fmt.Errorf("persistence of %s by a prefix of %d bits: %w: want whole seconds, or neither", p.Timeout, p.Prefix, director.ErrInvalid)
	}
	if bits := s.Key.Address.Addr().BitLen(); int(s.Persistence.Prefix) > bits {
		return fmt.Errorf("persistence by a prefix of %d bits: %w: addresses have %d", s.Persistence.Prefix, director.ErrInvalid, bits)
	}
	return nil
}

// addService adds the service, takes one back whose connections have not all
// ended, or writes one anew that we know and the kernel does not.
func (a *application) addService(op director.AddService) error {
	if err := checkService(op.Service); err != nil {
		return err
	}
	svc := a.model.byKey[op.Service.Key]
	if svc == nil {
		index, err := freeIndex(a.model.services, &a.model.nextService, a.plane.Limits.Services, "services")
		if err != nil {
			return err
		}
		svc = &service{index: index, key: op.Service.Key, settings: settings{scheduler: op.Service.Scheduler}}
		b := a.begin(svc, op)
		if err := a.makeService(b); err != nil {
			return err
		}
		return a.setService(b, op.Service)
	}
	b := a.begin(svc, op)
	if svc.removed {
		a.takeBack(b)
	}
	return a.setService(b, op.Service)
}

// makeService gives a new service its place in the model and the maps. Packets do
// not find it before the batch's end.
func (a *application) makeService(b *batch) error {
	svc := b.svc
	a.model.addService(svc)
	b.onFailure(func() error {
		a.model.dropService(svc)
		return errors.Join(a.plane.Services.Put(svc.index, &bpf.KernelService{}), a.writeFilter())
	})
	if err := a.plane.ServiceStates.Put(svc.index, &bpf.KernelServiceState{}); err != nil {
		return fmt.Errorf("clear the state of limits: %w", err)
	}
	if err := a.writePassive(svc, director.Passive{}); err != nil {
		return err
	}
	if err := a.plane.RetiredTraffic.Put(svc.index, &bpf.KernelTraffic{}); err != nil {
		return fmt.Errorf("clear counters: %w", err)
	}
	if err := a.plane.Services.Put(svc.index, &bpf.KernelService{Key: serviceKey(svc.key)}); err != nil {
		return fmt.Errorf("write service: %w", err)
	}
	return nil
}

// takeBack makes a removed service live; its servers come back as they are added.
// What it counted is the old one's (kernel: ip_vs_ctl.c, __ip_vs_update_dest, sets
// a server's counters to zero where it comes back to another service).
func (a *application) takeBack(b *batch) {
	svc := b.svc
	svc.removed = false
	b.restart, b.list = true, nil
	b.onFailure(func() error { svc.removed = true; return nil })
	b.then(func() error { return errors.Join(a.writeMembers(svc), a.zero(svc)) })
}

// writeMembers writes all servers of the service, removed ones included.
func (d *Dataplane) writeMembers(svc *service) error {
	var errs []error
	for _, member := range svc.members {
		errs = append(errs, d.writeServer(member))
	}
	return errors.Join(errs...)
}

func (a *application) editService(op director.EditService) error {
	if err := checkService(op.Service); err != nil {
		return err
	}
	svc, err := a.model.live(op.Service.Key)
	if err != nil {
		return err
	}
	return a.setService(a.begin(svc, op), op.Service)
}

// setService gives the service its settings, and packets the way to it: whatever
// the kernel holds of that, it is written.
func (a *application) setService(b *batch, s director.Service) error {
	svc, old := b.svc, *b.svc
	if svc.key.IsWide() {
		if err := a.matches.check(svc); err != nil {
			return err
		}
	}
	if s.VIP == director.VIPManaged {
		added, err := a.vips.Add(s.Key.Prefix())
		if err != nil {
			return err
		}
		if added {
			b.onFailure(func() error { return a.dropVIP(svc) })
		}
	}
	if err := a.setAccess(b, s.Access); err != nil {
		return err
	}
	svc.settings = settingsOf(s)
	a.takeMigration(b)
	if svc.scheduler != old.scheduler {
		b.restart, b.steps = true, []step{weightStep(b.list)}
		if hasDestinations(old.scheduler) {
			b.then(func() error { return a.forgetDestinations(svc) })
		}
	}
	b.onFailure(func() error {
		svc.settings = old.settings
		return errors.Join(a.rewriteTimeouts(svc), a.writeLimits(svc))
	})
	if err := a.carryTimeouts(b); err != nil {
		return err
	}
	if err := a.carryLimits(svc, &old.settings); err != nil {
		return err
	}
	if err := a.writeFilter(); err != nil {
		return err
	}
	b.then(func() error { return a.index(svc) })
	if old.vip == director.VIPManaged && s.VIP != director.VIPManaged {
		b.then(func() error { return a.dropVIP(&old) })
	}
	return nil
}

// carryTimeouts writes the service's set of timeouts before its settings are in
// force, so that no template of it is made without; servers forget a set that is
// no more after.
func (a *application) carryTimeouts(b *batch) error {
	if b.svc.hasTimeouts() {
		return a.rewriteTimeouts(b.svc)
	}
	b.then(func() error { return a.writeMembers(b.svc) })
	return nil
}

// setAccess builds the list aside unless the kernel has it.
func (a *application) setAccess(b *batch, list director.Access) error {
	svc, old := b.svc, b.svc.access
	if list.IsZero() && old.word == 0 {
		return nil
	}
	if old.word != 0 && old.prefixes.Equal(list) {
		if intact, err := a.access.isIntact(old, svc.key.Address.Addr().Is6()); err != nil || intact {
			return err
		}
	}
	next, err := a.access.build(list)
	if err != nil {
		return err
	}
	svc.access = next
	b.onFailure(func() error {
		svc.access = old
		return a.access.remove(next)
	})
	b.then(func() error { return a.access.remove(old) })
	return nil
}

func (a *application) removeService(op director.RemoveService) error {
	svc, err := a.model.live(op.Key)
	if err != nil {
		// What is not there is removed; also somebody else's entry of that key.
		return a.unindex(op.Key, nil)
	}
	if err := a.unindex(op.Key, svc); err != nil {
		return errors.Join(err, a.index(svc))
	}
	b, access, migration := a.begin(svc, op), svc.access, svc.migration
	b.onFailure(func() error {
		svc.removed, svc.access, svc.migration = false, access, migration
		return a.index(svc)
	})
	svc.removed, svc.access, svc.migration = true, accessList{}, settled
	b.list, b.restart = nil, true
	// The service first: what dies in between is adopted as removed.
	b.then(func() error {
		for _, s := range svc.members {
			a.retire(s)
		}
		err := errors.Join(a.writeMembers(svc), a.access.remove(access), a.clearLimits(svc), a.writePassive(svc, director.Passive{}), a.dropVIP(svc))
		if hasDestinations(svc.scheduler) {
			err = errors.Join(err, a.forgetDestinations(svc))
		}
		return err
	})
	return nil
}

// dropVIP takes the service's address off the host if no other live service has
// it, be it one whose address somebody else manages.
func (d *Dataplane) dropVIP(svc *service) error {
	if svc.vip != director.VIPManaged || d.model.needsAddress(svc) {
		return nil
	}
	return d.vips.Remove(svc.key.Prefix())
}
