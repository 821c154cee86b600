package migrate

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/shunt-lb/shunt/director"
)

// Prepare is for the start of a director whose desired services the source may
// still serve, because that was the data plane of the last run. It returns those
// that both have, ready to be made in the target without cutting a connection;
// Finish moves them once they are. A host without a source has none. It refuses
// for the same reasons as Move, and ends migrations that were left half way and
// have nothing left to move.
//
// What the target has already is not moved, but for what such a migration left: if
// the source has it too, somebody put it there since, and it is left alone.
func (m *Mover) Prepare(ctx context.Context, desired director.State, force bool) ([]director.ServiceKey, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	source, err := m.opts.Open(ctx)
	if errors.Is(err, ErrNoSource) {
		return nil, m.endOthers(ctx, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("look for services in the kernel's IPVS: %w", err)
	}
	defer m.close(source)
	all, err := source.Services(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the services of the kernel's IPVS: %w", err)
	}
	shared, err := m.shared(ctx, all, desired)
	if err != nil {
		return nil, err
	}
	if err := m.endOthers(ctx, shared); err != nil {
		return nil, err
	}
	// Those that were on their way are on XDP in part: there is nothing to refuse.
	begun := m.opts.Target.Migrating()
	fresh := slices.DeleteFunc(slices.Clone(shared), func(s director.Service) bool { return slices.Contains(begun, s.Key) })
	if len(fresh) > 0 && !force {
		bypassed, err := m.bypassed(ctx, all, fresh)
		if err != nil {
			return nil, err
		}
		if len(bypassed) > 0 {
			return nil, fmt.Errorf("services that the kernel's IPVS serves still: %d: %w", len(fresh), &director.BypassedError{Rules: bypassed})
		}
	}
	var keys []director.ServiceKey
	for _, service := range shared {
		keys = append(keys, service.Key)
		if err := m.opts.Target.BeginMigration(ctx, service.Key); err != nil {
			return nil, fmt.Errorf("migrate service %s: %w", service.Key, err)
		}
	}
	return keys, nil
}

// shared returns the desired services among the source's that the target has not,
// or not as a whole.
func (m *Mover) shared(ctx context.Context, all []director.Service, desired director.State) ([]director.Service, error) {
	held, err := m.opts.Director.Found(ctx)
	if err != nil {
		return nil, err
	}
	begun := m.opts.Target.Migrating()
	var shared []director.Service
	for _, service := range all {
		wanted, ok := find(desired.Services, service.Key)
		if !ok {
			continue
		}
		if _, has := find(held.Services, service.Key); has && !slices.Contains(begun, service.Key) {
			m.opts.Log.Warn("the kernel's IPVS has a service that XDP serves: it is left alone", "service", service.Key.String())
			continue
		}
		shared = append(shared, wanted)
	}
	return shared, nil
}

// endOthers ends migrations that a daemon began which was killed, and of which
// nothing is left to move.
func (m *Mover) endOthers(ctx context.Context, shared []director.Service) error {
	for _, key := range m.opts.Target.Migrating() {
		if slices.ContainsFunc(shared, func(s director.Service) bool { return s.Key == key }) {
			continue
		}
		if err := m.opts.Target.EndMigration(ctx, key); err != nil {
			return fmt.Errorf("end the migration of service %s: %w", key, err)
		}
	}
	return nil
}

// Finish moves the services that Prepare named, which the director has made in
// the target since.
func (m *Mover) Finish(ctx context.Context, by director.Request, keys []director.ServiceKey) (Report, error) {
	if len(keys) == 0 {
		return Report{}, nil
	}
	return m.Move(ctx, by, Request{Services: keys, Force: true})
}
