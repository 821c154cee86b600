package director

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/director/event"
)

// Drift is what reconciliation has seen. Counts are totals since the daemon
// started.
type Drift struct {
	Checked  time.Time // when the kernel was last compared; zero: never
	Found    uint64    // differences found
	Repaired uint64
	Failed   uint64    // attempts to repair that failed
	Pending  []Failure // differences that could not be repaired yet
	Foreign  []Service // services in the kernel that Shunt does not manage
}

// Failure is a step that could not be done and why.
type Failure struct {
	Step  Step
	Cause string
}

// Drift returns what the last reconciliation saw. What it points to is not to
// be changed.
func (d *Director) Drift() Drift { return *d.drift.Load() }

// Run compares the kernel with what is desired from time to time, and repairs
// what differs, until the context ends.
func (d *Director) Run(ctx context.Context) error {
	ticker := time.NewTicker(d.opts.Reconcile)
	defer ticker.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		err := d.Reconcile(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !failing {
			d.opts.Events.Publish(event.Event{Name: event.ObserveFailed, Message: err.Error()})
		}
		failing = err != nil
	}
}

// Reconcile compares the kernel with what is desired once, and repairs what
// differs. It returns an error only if the kernel could not be read or ctx ended;
// Drift says what could not be repaired.
func (d *Director) Reconcile(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reconcile(ctx)
}

// reconcile does that with d.mu held.
func (d *Director) reconcile(ctx context.Context) error {
	head := d.head.Load()
	if head == nil {
		return nil
	}
	found, err := d.found(ctx)
	if err != nil {
		return err
	}
	d.leftovers(head.State, found) // forget those that are gone
	ours, foreign := d.split(found)
	ours.Sync = ourSync(found.Sync, head.State)
	drift := d.Drift()
	r := repair{director: d, drift: drift, told: make(map[string]string, len(drift.Pending))}
	for _, failure := range drift.Pending {
		r.told[failure.Step.String()] = failure.Cause
	}
	d.tellForeign(drift.Foreign, foreign)
	r.drift.Checked, r.drift.Foreign, r.drift.Pending = time.Now().UTC(), foreign, nil
	offered := d.offered(head.State, ours)
	ops := Plan(offered, ours)
	if len(ops) > 0 {
		r.moved = d.moved(offered)
	}
	if err = r.run(ctx, Explain(ops, ours)); err == nil {
		d.noteOffered(offered, head.State, r.drift.Pending)
	}
	d.drift.Store(&r.drift)
	return err
}

// repair is one attempt to repair what differs.
type repair struct {
	director *Director
	drift    Drift
	told     map[string]string // causes of steps that could not be done before, by the step's text
	moved    map[string]bool   // operations that follow a change of offers, and no drift
}

// run does the steps. One that fails stops no other, except those that cannot
// be done without it.
func (r *repair) run(ctx context.Context, steps []Step) error {
	for _, step := range steps {
		if _, told := r.told[step.String()]; !told && !r.moved[step.Operation.String()] {
			r.drift.Found++
			r.publish(step, event.Drift, "the kernel differs; to repair: "+step.String())
		}
	}
	for len(steps) > 0 {
		done, err := r.apply(ctx, steps)
		for _, step := range steps[:done] {
			if r.moved[step.Operation.String()] {
				continue
			}
			r.drift.Repaired++
			r.publish(step, event.Repaired, "repaired: "+step.String())
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err() // no failure of the kernel's
		}
		steps = r.fail(steps[done], steps[done+1:], err)
	}
	return nil
}

// apply runs the steps and returns how many were done.
func (r *repair) apply(ctx context.Context, steps []Step) (int, error) {
	ops := make([]Operation, len(steps))
	for i, step := range steps {
		ops[i] = step.Operation
	}
	err := r.director.apply(ctx, ops)
	if err == nil {
		return len(ops), nil
	}
	failed := (*OperationError)(nil)
	if !errors.As(err, &failed) {
		return 0, err
	}
	// No two steps of a plan have the same text.
	text := failed.Operation.String()
	return max(0, slices.IndexFunc(ops, func(op Operation) bool { return op.String() == text })), err
}

// fail notes that a step could not be done, and returns those that can be tried
// after it.
func (r *repair) fail(failed Step, rest []Step, err error) []Step {
	r.drift.Failed++
	r.drift.Pending = append(r.drift.Pending, Failure{Step: failed, Cause: err.Error()})
	if r.told[failed.String()] != err.Error() {
		r.publish(failed, event.RepairFailed, fmt.Sprintf("not repaired: %v", err))
	}
	var others []Step
	for _, step := range rest {
		if needs(step, failed) {
			r.drift.Pending = append(r.drift.Pending, Failure{Step: step, Cause: err.Error()})
		} else {
			others = append(others, step)
		}
	}
	return others
}

// needs reports whether a step of a plan cannot be done without an earlier one:
// without a service there is no adding of its servers, and beside a sync daemon
// none of its role starts.
func needs(step, earlier Step) bool {
	switch done := earlier.Operation.(type) {
	case AddService:
		return step.Service == earlier.Service
	case StopSync:
		start, ok := step.Operation.(StartSync)
		return ok && start.Daemon.Role == done.Role
	}
	return false
}

// publish publishes an event about the step.
func (r *repair) publish(step Step, name event.Name, message string) {
	e := event.Event{Name: name, Message: message}
	if step.Service != (ServiceKey{}) {
		e.Service = step.Service.String()
	}
	if step.Server.IsValid() {
		e.Server = step.Server.String()
	}
	r.director.opts.Events.Publish(e)
}

// split tells what is ours of the found state from what is not.
func (d *Director) split(found State) (ours State, foreign []Service) {
	ours.Timeouts = found.Timeouts
	ours.Services = make([]Service, 0, len(found.Services))
	for _, service := range found.Services {
		if d.ours[service.Key] {
			ours.Services = append(ours.Services, service)
		} else {
			foreign = append(foreign, service)
		}
	}
	return ours, foreign
}

// tellForeign publishes which foreign services came and went.
func (d *Director) tellForeign(before, now []Service) {
	was, is := indexServices(State{Services: before}), indexServices(State{Services: now})
	for _, service := range now {
		if _, known := was[service.Key]; !known {
			d.opts.Events.Publish(event.Event{
				Name: event.ForeignFound, Service: service.Key.String(),
				Message: fmt.Sprintf("service %s is in the kernel, but not Shunt's: it is left alone", service.Key),
			})
		}
	}
	for _, service := range before {
		if _, still := is[service.Key]; !still {
			d.opts.Events.Publish(event.Event{
				Name: event.ForeignGone, Service: service.Key.String(),
				Message: fmt.Sprintf("foreign service %s is gone or was adopted", service.Key),
			})
		}
	}
}
