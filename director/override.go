package director

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Override is an operator's word on a server: up or down whatever the checks say. It is
// part of the desired state, as a Drain is, so that it outlives the daemon, and not of
// the configuration.
//
// The first of two of a server counts.
type Override struct {
	Service ServiceKey
	Server  netip.AddrPort
	Up      bool
	Since   time.Time // UTC, whole seconds
	Until   time.Time // zero: until it is withdrawn. UTC, whole seconds
	Who     string
	Why     string
}

// compare orders overrides by service and server, which identify them.
func (o Override) compare(p Override) int {
	return cmp.Or(o.Service.Compare(p.Service), o.Server.Compare(p.Server))
}

// Equal reports whether the orders are the same.
func (o Override) Equal(p Override) bool {
	return o.compare(p) == 0 && o.Up == p.Up && o.Since.Equal(p.Since) && o.Until.Equal(p.Until) && o.Who == p.Who && o.Why == p.Why
}

// Ended reports whether the order counts no more: it is withdrawn soon.
func (o Override) Ended(now time.Time) bool { return !o.Until.IsZero() && !now.Before(o.Until) }

// Override returns the server's override, and whether it has one.
func (s State) Override(key ServiceKey, server netip.AddrPort) (Override, bool) {
	i, ok := slices.BinarySearchFunc(s.Overrides, Override{Service: key, Server: server}, Override.compare)
	if !ok {
		return Override{}, false
	}
	return s.Overrides[i], true
}

// overridden returns s with its overrides in order, without those of servers that
// cannot be there; of two of a server the first counts. s is not changed.
func (s State) overridden() State {
	if len(s.Overrides) == 0 {
		s.Overrides = nil
		return s
	}
	places := indexServices(s)
	s.Overrides = slices.DeleteFunc(slices.Clone(s.Overrides), func(o Override) bool {
		i, ok := places[o.Service]
		return !ok || !s.Services[i].mayHave(o.Server)
	})
	slices.SortStableFunc(s.Overrides, Override.compare)
	s.Overrides = slices.CompactFunc(s.Overrides, func(a, b Override) bool { return a.compare(b) == 0 })
	return s
}

// SetOverride has a server up or down whatever its checks say, from now on until
// Until or ClearOverride; port 0 of its server is the service's. Who is by's, and Why
// too if the order has none. An order that is there is replaced. ErrNotFound if there
// is no such service or server, ErrInvalid if its end is past. A service with a pool
// takes orders for any address: who asks knows what is registered.
func (d *Director) SetOverride(ctx context.Context, by Request, order Override) (Outcome, error) {
	order.Server = order.Service.ServerAddress(order.Server)
	now := time.Now().UTC().Truncate(time.Second)
	order.Since, order.Until = now, order.Until.UTC().Truncate(time.Second)
	order.Who, order.Why = by.Who, cmp.Or(order.Why, by.Why)
	verb := "set down"
	if order.Up {
		verb = "set up"
	}
	return d.changeOverride(ctx, by, verb, order.Service, order.Server, func(s *State) error {
		if order.Ended(now) {
			return fmt.Errorf("until %s, which is past: %w", order.Until.Format(time.RFC3339), ErrInvalid)
		}
		if old, ok := s.Override(order.Service, order.Server); ok {
			s.Overrides = slices.DeleteFunc(s.Overrides, func(o Override) bool { return o.compare(old) == 0 })
		}
		s.Overrides = append(s.Overrides, order)
		return nil
	})
}

// ClearOverride leaves a server to its checks. ErrNotFound if it has no override.
func (d *Director) ClearOverride(ctx context.Context, by Request, key ServiceKey, addr netip.AddrPort) (Outcome, error) {
	addr = key.ServerAddress(addr)
	return d.changeOverride(ctx, by, "leave to its checks", key, addr, func(s *State) error {
		old, ok := s.Override(key, addr)
		if !ok {
			return fmt.Errorf("override: %w", ErrNotFound)
		}
		s.Overrides = slices.DeleteFunc(s.Overrides, func(o Override) bool { return o.compare(old) == 0 })
		return nil
	})
}

// changeOverride runs a change of a server's override; edit is given overrides of its
// own.
func (d *Director) changeOverride(ctx context.Context, by Request, verb string, key ServiceKey, addr netip.AddrPort, edit func(*State) error) (Outcome, error) {
	action := fmt.Sprintf("%s: server %s of %s", verb, addr, key)
	return d.order(ctx, change{by: by, action: action}, key, addr, func(s *State) error {
		s.Overrides = slices.Clone(s.Overrides)
		return edit(s)
	})
}
