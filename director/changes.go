package director

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/realserver"
)

// AddService adds a service with its servers. ErrExists if its key is taken.
func (d *Director) AddService(ctx context.Context, service Service) error {
	return d.change(ctx, fmt.Sprintf("add service %s", service.Key), func(s *State) error {
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
func (d *Director) EditService(ctx context.Context, key ServiceKey, edit func(*Service) error) error {
	return d.changeService(ctx, fmt.Sprintf("edit service %s", key), key, edit)
}

// RemoveService removes a service and its servers. ErrNotFound if there is no
// such service.
func (d *Director) RemoveService(ctx context.Context, key ServiceKey) error {
	return d.change(ctx, fmt.Sprintf("remove service %s", key), func(s *State) error {
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
func (d *Director) AddServer(ctx context.Context, key ServiceKey, server realserver.Server) error {
	server = key.normalizeServer(server)
	act := fmt.Sprintf("add server %s to %s", server.Address, key)
	return d.changeService(ctx, act, key, func(s *Service) error {
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
func (d *Director) EditServer(ctx context.Context, key ServiceKey, addr netip.AddrPort, edit func(*realserver.Server) error) error {
	addr = key.ServerAddress(addr)
	return d.changeService(ctx, fmt.Sprintf("edit server %s of %s", addr, key), key, func(s *Service) error {
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
func (d *Director) RemoveServer(ctx context.Context, key ServiceKey, addr netip.AddrPort) error {
	addr = key.ServerAddress(addr)
	return d.changeService(ctx, fmt.Sprintf("remove server %s from %s", addr, key), key, func(s *Service) error {
		i := s.Server(addr)
		if i < 0 {
			return fmt.Errorf("server: %w", ErrNotFound)
		}
		s.Servers = slices.Delete(s.Servers, i, i+1)
		return nil
	})
}

// SetTimeouts sets the timeouts that are not zero and leaves the others, as
// ipvsadm --set does.
func (d *Director) SetTimeouts(ctx context.Context, timeouts conntrack.Timeouts) error {
	return d.change(ctx, "set timeouts", func(s *State) error {
		s.Timeouts = s.Timeouts.Merge(timeouts)
		return nil
	})
}

// changeService runs a change of one service.
func (d *Director) changeService(ctx context.Context, act string, key ServiceKey, edit func(*Service) error) error {
	return d.change(ctx, act, func(s *State) error {
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
