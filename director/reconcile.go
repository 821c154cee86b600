package director

import (
	"context"
	"fmt"
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

// Drift returns what the last reconciliation saw.
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
// differs. It returns an error only if the kernel could not be read; Drift says
// what could not be repaired.
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
	ours, foreign := d.split(found)
	drift := *d.drift.Load()
	known := make(map[string]string, len(drift.Pending))
	for _, failure := range drift.Pending {
		known[failure.Step.String()] = failure.Cause
	}
	d.tellForeign(drift.Foreign, foreign)
	drift.Checked, drift.Foreign, drift.Pending = time.Now().UTC(), foreign, nil
	// Each service by itself, so that one that cannot be repaired stops no other.
	for _, ops := range byService(Plan(head.State, ours)) {
		steps := Explain(ops, ours)
		for _, step := range steps {
			if _, told := known[step.String()]; !told {
				drift.Found++
				d.opts.Events.Publish(step.event(event.Drift, "the kernel differs; to repair: "+step.String()))
			}
		}
		for i := range ops {
			err := d.dp.Apply(ctx, ops[i:i+1])
			if err == nil {
				drift.Repaired++
				d.opts.Events.Publish(steps[i].event(event.Repaired, "repaired: "+steps[i].String()))
				continue
			}
			drift.Failed++
			for _, step := range steps[i:] {
				drift.Pending = append(drift.Pending, Failure{Step: step, Cause: err.Error()})
			}
			if known[steps[i].String()] != err.Error() {
				d.opts.Events.Publish(steps[i].event(event.RepairFailed, fmt.Sprintf("not repaired: %v", err)))
			}
			break
		}
	}
	d.drift.Store(&drift)
	return nil
}

// split tells what is ours of the found state from what is not.
func (d *Director) split(found State) (ours State, foreign []Service) {
	ours.Timeouts = found.Timeouts
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

// byService splits a plan into the plans of single services, in the order of
// their first operations. Those of one service keep their order.
func byService(ops []Operation) [][]Operation {
	var groups [][]Operation
	place := make(map[ServiceKey]int)
	for _, op := range ops {
		key := operationKey(op)
		i, ok := place[key]
		if !ok {
			i = len(groups)
			place[key] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], op)
	}
	return groups
}

func operationKey(op Operation) ServiceKey {
	switch op := op.(type) {
	case AddService:
		return op.Service.Key
	case EditService:
		return op.Service.Key
	case RemoveService:
		return op.Key
	case AddServer:
		return op.Key
	case EditServer:
		return op.Key
	case RemoveServer:
		return op.Key
	default:
		return ServiceKey{}
	}
}

// event returns an event about the step.
func (s Step) event(name event.Name, message string) event.Event {
	e := event.Event{Name: name, Message: message}
	if s.Service != (ServiceKey{}) {
		e.Service = s.Service.String()
	}
	if s.Server.IsValid() {
		e.Server = s.Server.String()
	}
	return e
}
