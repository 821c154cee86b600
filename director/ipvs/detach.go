package ipvs

import (
	"context"
	"errors"
	"slices"

	"github.com/shunt-lb/shunt/director"
)

// Detach removes what the state has of services, addresses and sync daemons, and
// closes. Services of others, the timeouts and the modules stay.
func (d *Dataplane) Detach(ctx context.Context, state director.State) error {
	var errs []error
	for _, s := range state.Sync {
		errs = append(errs, d.Apply(ctx, []director.Operation{director.StopSync{Role: s.Role}}))
	}
	d.mu.Lock()
	for _, s := range state.Services { // after a restart, who put the address there is not known
		d.memory.service(s.Key).vip = s.VIP
	}
	d.mu.Unlock()
	var removals []director.Operation
	for _, s := range state.Services {
		removals = append(removals, director.RemoveService{Key: s.Key})
	}
	for len(removals) > 0 {
		err := d.Apply(ctx, removals)
		errs = append(errs, err)
		failed := (*director.OperationError)(nil)
		if !errors.As(err, &failed) {
			break
		}
		at := slices.IndexFunc(removals, func(op director.Operation) bool { return op == failed.Operation })
		removals = removals[at+1:]
	}
	return errors.Join(append(errs, d.Close())...)
}
