package xdp

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/shunt-lb/shunt/director"
)

// Apply runs the operations in order. Those on one service that follow one
// another get one schedule: where that fails, the first of them is named and all
// of them are undone.
func (d *Dataplane) Apply(ctx context.Context, ops []director.Operation) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.vips.Forget()
	d.watching.isStale = true
	a := application{Dataplane: d}
	for _, op := range ops {
		if err := a.run(ctx, op); err != nil {
			return err
		}
	}
	if err := a.flush(); err != nil {
		return err
	}
	d.awaitResolution(ctx, a.fresh)
	return nil
}

var errClosed = errors.New("the data plane is closed")

// check says why no operation can run: the caller gave up, or we are closed.
func (d *Dataplane) check(ctx context.Context) error {
	if d.closed {
		return errClosed
	}
	return ctx.Err()
}

// application is one run of Apply.
type application struct {
	*Dataplane
	batch *batch
	fresh []*server // whose next hops were not followed before
}

// batch is operations on one service that its schedule does not show yet.
type batch struct {
	svc     *service
	first   director.Operation
	list    []*server // the schedule's to be
	restart bool      // the scheduler begins anew
	steps   []step    // what each operation on servers makes wrr count with
	undo    []func() error
	after   []func() error // once the schedule is in force
}

// begin returns the batch of the service for the operation.
func (a *application) begin(svc *service, op director.Operation) *batch {
	if a.batch == nil {
		a.batch = &batch{svc: svc, first: op, list: svc.list}
	}
	return a.batch
}

// onFailure notes how to undo what was just done.
func (b *batch) onFailure(undo func() error) { b.undo = append(b.undo, undo) }

// then notes what is to be done once the schedule is in force.
func (b *batch) then(act func() error) { b.after = append(b.after, act) }

// undone undoes the newest acts until only the given number is left.
func (b *batch) undone(left int) error {
	var errs []error
	for _, undo := range slices.Backward(b.undo[left:]) {
		errs = append(errs, undo())
	}
	b.undo = b.undo[:left]
	return errors.Join(errs...)
}

// run does one operation; its service's schedule may be left for flush.
func (a *application) run(ctx context.Context, op director.Operation) error {
	if a.batch != nil && a.batch.svc.key != operationKey(op) {
		if err := a.flush(); err != nil {
			return err
		}
	}
	var before batch
	if a.batch != nil {
		before = *a.batch
	}
	err := a.check(ctx)
	if err == nil {
		err = a.apply(op)
	}
	if err == nil {
		return a.ran(op)
	}
	err = &director.OperationError{Operation: op, Err: err}
	if a.batch == nil {
		return err
	}
	err = join(err, a.batch.undone(len(before.undo)))
	if before.svc == nil {
		a.batch = nil
		return err
	}
	*a.batch = before
	return join(err, a.flush()) // those before it stand
}

// ran notes what an operation that succeeded asks of the schedule. wrr goes
// through the schedules of all: the order of changes shows in its turn. Settings
// of the service leave it where it is (kernel: ip_vs_ctl.c, ip_vs_edit_service).
func (a *application) ran(op director.Operation) error {
	b := a.batch
	if b == nil || !isOnServer(op) {
		return nil
	}
	next := weightStep(b.list)
	if n := len(b.steps); n == 0 || b.steps[n-1] != next {
		b.steps = append(b.steps, next)
	}
	if len(b.steps) == maxSteps {
		return a.flush()
	}
	return nil
}

// isOnServer says whether the operation is on a server of a service.
func isOnServer(op director.Operation) bool {
	switch op.(type) {
	case director.AddServer, director.EditServer, director.RemoveServer:
		return true
	default:
		return false
	}
}

// join is errors.Join that leaves an error that is alone as it is.
func join(first, second error) error {
	if second == nil {
		return first
	}
	return errors.Join(first, second)
}

// flush puts the batch's schedule in force.
func (a *application) flush() error {
	b := a.batch
	if b == nil {
		return nil
	}
	a.batch = nil
	err := a.reschedule(b.svc, b.list, b.restart, b.steps...)
	if err != nil {
		err = errors.Join(err, b.undone(0))
	} else {
		for _, act := range b.after {
			err = errors.Join(err, act())
		}
	}
	if err != nil {
		return &director.OperationError{Operation: b.first, Err: err}
	}
	return nil
}

// operationKey is the service an operation is on.
func operationKey(op director.Operation) director.ServiceKey {
	switch op := op.(type) {
	case director.AddService:
		return op.Service.Key
	case director.EditService:
		return op.Service.Key
	case director.RemoveService:
		return op.Key
	case director.AddServer:
		return op.Key
	case director.EditServer:
		return op.Key
	case director.RemoveServer:
		return op.Key
	default:
		return director.ServiceKey{}
	}
}

func (a *application) apply(op director.Operation) error {
	switch op := op.(type) {
	case director.AddService:
		return a.addService(op)
	case director.EditService:
		return a.editService(op)
	case director.RemoveService:
		return a.removeService(op)
	case director.AddServer:
		return a.addServer(op)
	case director.EditServer:
		return a.editServer(op)
	case director.RemoveServer:
		return a.removeServer(op)
	case director.SetTimeouts:
		return a.setTimeouts(op.Timeouts)
	default:
		return fmt.Errorf("operation %T: %w", op, director.ErrUnsupported)
	}
}
