package ipvs

import (
	"context"
	"errors"
	"fmt"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/ipvs/kernel"
)

// Apply runs the operations in order. What the kernel has already as it is to be is
// not written again.
func (d *Dataplane) Apply(ctx context.Context, ops []director.Operation) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.vips.Forget()
	a := application{Dataplane: d, keys: keysOf(ops)}
	for _, op := range ops {
		if err := a.run(ctx, op); err != nil {
			return &director.OperationError{Operation: op, Err: err}
		}
	}
	return nil
}

// application is one run of Apply.
type application struct {
	*Dataplane
	// keys are the services that the operations are about.
	keys map[director.ServiceKey]bool
	// has is what the kernel holds of them, with what was written since; nil: not
	// read.
	has map[director.ServiceKey]*kernel.ServiceEntry
}

// keysOf returns the services that the operations are about.
func keysOf(ops []director.Operation) map[director.ServiceKey]bool {
	keys := make(map[director.ServiceKey]bool)
	for _, op := range ops {
		switch op := op.(type) {
		case director.AddService:
			keys[op.Service.Key] = true
		case director.EditService:
			keys[op.Service.Key] = true
		case director.RemoveService:
			keys[op.Key] = true
		case director.AddServer:
			keys[op.Key] = true
		case director.EditServer:
			keys[op.Key] = true
		case director.RemoveServer:
			keys[op.Key] = true
		}
	}
	return keys
}

// run does one operation; again, with what is there now, if somebody else changed
// meanwhile what it is about.
func (a *application) run(ctx context.Context, op director.Operation) error {
	if err := a.check(ctx); err != nil {
		return err
	}
	if a.has == nil {
		if err := a.read(ctx); err != nil {
			return err
		}
	}
	err := a.apply(ctx, op)
	if !isSurprise(err) {
		return err
	}
	if err := a.read(ctx); err != nil {
		return err
	}
	return a.apply(ctx, op)
}

// fewServices is how many services are read one by one: each takes two requests,
// all of them one for each that there is.
const fewServices = 8

// read reads the services that the operations are about; all, if they are many.
func (a *application) read(ctx context.Context) error {
	var entries []kernel.ServiceEntry
	var err error
	if len(a.keys) <= fewServices {
		entries, err = a.readEach(ctx)
	} else {
		entries, err = a.driver.Services(ctx)
	}
	if err != nil {
		return err
	}
	a.has = make(map[director.ServiceKey]*kernel.ServiceEntry, len(entries))
	for i := range entries {
		a.has[serviceKey(entries[i].ServiceID)] = &entries[i]
	}
	return nil
}

// readEach reads the services one by one.
func (a *application) readEach(ctx context.Context) ([]kernel.ServiceEntry, error) {
	var entries []kernel.ServiceEntry
	for key := range a.keys {
		id, err := serviceID(key)
		if err != nil {
			continue // the kernel can have none: the operation says so
		}
		entry, err := a.driver.Service(ctx, id)
		switch {
		case err == nil:
			entries = append(entries, entry)
		case !errors.Is(err, kernel.ErrNoService):
			return nil, err
		}
	}
	return entries, nil
}

// isSurprise says whether the kernel holds something else than was read.
func isSurprise(err error) bool {
	for _, sign := range []error{kernel.ErrServiceExists, kernel.ErrNoService, kernel.ErrServerExists, kernel.ErrNoServer} {
		if errors.Is(err, sign) {
			return true
		}
	}
	return false
}

func (a *application) apply(ctx context.Context, op director.Operation) error {
	switch op := op.(type) {
	case director.AddService:
		return a.setService(ctx, &op.Service)
	case director.EditService:
		if a.has[op.Service.Key] == nil {
			return errNoService
		}
		return a.setService(ctx, &op.Service)
	case director.RemoveService:
		return a.removeService(ctx, op.Key)
	case director.AddServer:
		return a.setServer(ctx, op.Key, op.Server, isNew)
	case director.EditServer:
		return a.setServer(ctx, op.Key, op.Server, isThere)
	case director.RemoveServer:
		return a.removeServer(ctx, op.Key, op.Address)
	case director.SetTimeouts:
		return a.setTimeouts(ctx, op.Timeouts)
	case director.StartSync:
		return a.startSync(ctx, op)
	case director.StopSync:
		return a.stopSync(ctx, op)
	default:
		return fmt.Errorf("operation %T: %w", op, director.ErrUnsupported)
	}
}

// setTimeouts writes those that are not zero and not as they are to be.
func (a *application) setTimeouts(ctx context.Context, want conntrack.Timeouts) error {
	k, err := a.driver.Timeouts(ctx)
	if err != nil {
		return err
	}
	if has := foundTimeouts(k); has.Merge(want) == has {
		return nil
	}
	return explain(a.driver.SetTimeouts(ctx, kernel.Timeouts{TCP: want.TCP, TCPFin: want.TCPFin, UDP: want.UDP}))
}
