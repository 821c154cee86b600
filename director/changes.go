package director

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/realserver"
)

// Apply makes the desired state equal to next. Timeouts of next that are zero
// stay what they are, and so do the sync daemons if Sync is nil: empty, it stops
// them. *GuardError if it removes too much and by does not force
// it. Foreign services that next names are taken over, with the servers that are
// drained in them still draining.
func (d *Director) Apply(ctx context.Context, by Request, next State) (Outcome, error) {
	return d.change(ctx, change{by: by, action: "apply", guard: true}, func(s *State) error {
		*s = completed(next, *s)
		return nil
	})
}

// Rollback makes the desired state equal to that of an earlier revision, as a new
// revision. Drains stay as they are; a server that comes back and was drained in
// the earlier revision is drained, without a deadline. ErrNotFound if there is no
// revision of the number.
func (d *Director) Rollback(ctx context.Context, by Request, number uint64) (Outcome, error) {
	c := change{by: by, action: fmt.Sprintf("rollback to revision %d", number), guard: true}
	return d.change(ctx, c, func(s *State) error {
		old, err := d.store.Revision(number)
		if err != nil {
			return err
		}
		if old.State.Sync == nil {
			old.State.Sync = []SyncDaemon{} // there was none
		}
		*s = completed(old.State, *s)
		return nil
	})
}

// PlanOf is what Apply would do.
type PlanOf struct {
	Base  uint64 // the revision it was made against
	Steps []Step
	// Guard is why Apply would want force; nil if it would not.
	Guard *GuardError
}

// Plan returns what Apply of the state, or Rollback to it, would do now, and
// changes nothing. The steps that repair drift of services that next leaves alone
// are not in it.
func (d *Director) Plan(ctx context.Context, next State) (PlanOf, error) {
	d.mu.Lock() // in the middle of a change, half of it would be found
	defer d.mu.Unlock()
	head := d.head.Load()
	if head == nil {
		return PlanOf{}, fmt.Errorf("plan: the director is not started")
	}
	p, err := d.draft(ctx, head.State, completed(next, head.State))
	if err != nil {
		return PlanOf{}, fmt.Errorf("plan: %w", err)
	}
	return PlanOf{
		Base:  head.Number,
		Steps: p.steps,
		Guard: d.guard(p, head.State),
	}, nil
}

// completed returns next normalized, with the timeouts and sync daemons it does not
// give, and with the drains that are in force then.
func completed(next, current State) State {
	if next.Sync == nil {
		next.Sync = current.Sync
	}
	next = next.Normalize()
	next.Timeouts = current.Timeouts.Merge(next.Timeouts)
	next.Drains = drainsAfter(next, current)
	next.Overrides = current.Overrides // orders of now; an earlier revision's were of then
	return next
}

// AddService adds a service with its servers. ErrExists if its key is taken, be
// it by a foreign service.
func (d *Director) AddService(ctx context.Context, by Request, service Service) (Outcome, error) {
	c := change{by: by, action: fmt.Sprintf("add service %s", service.Key), refuse: func(found State) error {
		if found.Service(service.Key) >= 0 && !d.ours[service.Key] {
			return fmt.Errorf("the kernel has one that Shunt does not manage: adopt it, or remove it there: %w", ErrExists)
		}
		return nil
	}}
	return d.change(ctx, c, func(s *State) error {
		if s.Service(service.Key) >= 0 {
			return ErrExists
		}
		service := service.Normalize()
		if err := service.Validate(); err != nil {
			return err
		}
		s.Services = append(s.Services, service)
		return nil
	})
}

// EditService changes what edit changes, servers included; only the key cannot
// be. ErrNotFound if there is no such service; edit's error is passed on.
func (d *Director) EditService(ctx context.Context, by Request, key ServiceKey, edit func(*Service) error) (Outcome, error) {
	return d.changeService(ctx, by, fmt.Sprintf("edit service %s", key), key, edit)
}

// RemoveService removes a service and its servers. ErrNotFound if there is no
// such service.
func (d *Director) RemoveService(ctx context.Context, by Request, key ServiceKey) (Outcome, error) {
	return d.change(ctx, change{by: by, action: fmt.Sprintf("remove service %s", key)}, func(s *State) error {
		i := s.Service(key)
		if i < 0 {
			return ErrNotFound
		}
		s.Services = slices.Delete(s.Services, i, i+1)
		return nil
	})
}

// AddServer adds a server to a service; port 0 is the service's. ErrNotFound if
// there is no such service, ErrExists if it has the server.
func (d *Director) AddServer(ctx context.Context, by Request, key ServiceKey, server realserver.Server) (Outcome, error) {
	server = key.normalizeServer(server)
	act := fmt.Sprintf("add server %s to %s", server.Address, key)
	return d.changeService(ctx, by, act, key, func(s *Service) error {
		if s.Server(server.Address) >= 0 {
			return ErrExists
		}
		s.Servers = append(s.Servers, server)
		return nil
	})
}

// EditServer changes what edit changes; the address, which identifies the
// server, cannot be. Port 0 in addr is the service's. ErrNotFound if there is
// no such service or server; edit's error is passed on.
func (d *Director) EditServer(ctx context.Context, by Request, key ServiceKey, addr netip.AddrPort, edit func(*realserver.Server) error) (Outcome, error) {
	addr = key.ServerAddress(addr)
	return d.changeService(ctx, by, fmt.Sprintf("edit server %s of %s", addr, key), key, func(s *Service) error {
		i := s.Server(addr)
		if i < 0 {
			return fmt.Errorf("server: %w", ErrNotFound)
		}
		if err := edit(&s.Servers[i]); err != nil {
			return err
		}
		if now := s.Servers[i].Address; now != addr {
			return fmt.Errorf("%w: the address cannot be changed to %s: add that server and remove this one", ErrInvalid, now)
		}
		return nil
	})
}

// RemoveServer removes a server from a service. Port 0 in addr is the
// service's. ErrNotFound if there is no such service or server.
func (d *Director) RemoveServer(ctx context.Context, by Request, key ServiceKey, addr netip.AddrPort) (Outcome, error) {
	addr = key.ServerAddress(addr)
	return d.changeService(ctx, by, fmt.Sprintf("remove server %s from %s", addr, key), key, func(s *Service) error {
		i := s.Server(addr)
		if i < 0 {
			return fmt.Errorf("server: %w", ErrNotFound)
		}
		s.Servers = slices.Delete(s.Servers, i, i+1)
		return nil
	})
}

// StartSync starts the sync daemon of its role. ErrExists if one of the role runs
// or is desired.
func (d *Director) StartSync(ctx context.Context, by Request, daemon SyncDaemon) (Outcome, error) {
	daemon = daemon.Normalize()
	c := change{by: by, action: fmt.Sprintf("start sync daemon %s", daemon.Role)}
	return d.change(ctx, c, func(s *State) error {
		found, err := d.found(ctx)
		if err != nil {
			return err
		}
		if s.hasSync(daemon.Role) || found.hasSync(daemon.Role) {
			return ErrExists
		}
		s.Sync = append(slices.Clone(s.Sync), daemon)
		slices.SortFunc(s.Sync, compareSync)
		return nil
	})
}

// StopSync stops the sync daemon of the role. ErrNotFound if none is desired.
func (d *Director) StopSync(ctx context.Context, by Request, role SyncRole) (Outcome, error) {
	return d.change(ctx, change{by: by, action: fmt.Sprintf("stop sync daemon %s", role)}, func(s *State) error {
		left := slices.DeleteFunc(slices.Clone(s.Sync), func(s SyncDaemon) bool { return s.Role == role })
		if len(left) == len(s.Sync) {
			return ErrNotFound
		}
		s.Sync = left
		return nil
	})
}

// SetTimeouts sets the timeouts that are not zero and leaves the others, as
// ipvsadm --set does.
func (d *Director) SetTimeouts(ctx context.Context, by Request, timeouts conntrack.Timeouts) (Outcome, error) {
	return d.change(ctx, change{by: by, action: "set timeouts"}, func(s *State) error {
		s.Timeouts = s.Timeouts.Merge(timeouts)
		return nil
	})
}

// ApplyShared makes the timeouts and sync daemons those of next, as Apply does, and
// leaves the services as they are.
func (d *Director) ApplyShared(ctx context.Context, by Request, next State) (Outcome, error) {
	return d.change(ctx, change{by: by, action: "apply timeouts and sync daemons"}, func(s *State) error {
		shared := completed(State{Timeouts: next.Timeouts, Sync: next.Sync}, *s)
		s.Timeouts, s.Sync = shared.Timeouts, shared.Sync
		return nil
	})
}

// changeService runs a change of one service.
func (d *Director) changeService(ctx context.Context, by Request, act string, key ServiceKey, edit func(*Service) error) (Outcome, error) {
	return d.change(ctx, change{by: by, action: act}, func(s *State) error {
		i := s.Service(key)
		if i < 0 {
			return fmt.Errorf("service: %w", ErrNotFound)
		}
		service := s.Services[i].Clone()
		if err := edit(&service); err != nil {
			return err
		}
		if service.Key != key {
			return fmt.Errorf("%w: the key cannot be changed to %s: add that service and remove this one", ErrInvalid, service.Key)
		}
		service = service.Normalize()
		if err := service.Validate(); err != nil {
			return err
		}
		s.Services[i] = service
		return nil
	})
}
