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
// for the same reasons as Move, and ends migrations that were left half way.
func (m *Mover) Prepare(ctx context.Context, desired director.State, force bool) ([]director.ServiceKey, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	shared, err := m.shared(ctx, desired)
	if err != nil {
		return nil, err
	}
	if err := m.endOthers(ctx, shared); err != nil {
		return nil, err
	}
	if len(shared) == 0 {
		return nil, nil
	}
	bypassed, err := m.opts.Bypassed(ctx, shared)
	if err != nil {
		return nil, fmt.Errorf("look at the firewall: %w", err)
	}
	if len(bypassed) > 0 && !force {
		return nil, fmt.Errorf("services that the kernel's IPVS serves still: %d: %w", len(shared), &director.BypassedError{Rules: bypassed})
	}
	keys := make([]director.ServiceKey, len(shared))
	for i, service := range shared {
		keys[i] = service.Key
		if err := m.opts.Target.BeginMigration(ctx, service.Key); err != nil {
			return nil, fmt.Errorf("migrate service %s: %w", service.Key, err)
		}
	}
	return keys, nil
}

// shared returns the desired services that the source has too.
func (m *Mover) shared(ctx context.Context, desired director.State) ([]director.Service, error) {
	source, err := m.opts.Open(ctx)
	if errors.Is(err, ErrNoSource) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for services in the kernel's IPVS: %w", err)
	}
	defer m.close(source)
	all, err := source.Services(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the services of the kernel's IPVS: %w", err)
	}
	var shared []director.Service
	for _, service := range all {
		if i := desired.Service(service.Key); i >= 0 {
			shared = append(shared, desired.Services[i])
		}
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
