package director

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/director/event"
)

// change is what a commit is told besides the states.
type change struct {
	by     Request
	action string
	named  func() string // replaces action where the edit decides on it; nil: it stays
	always bool          // make a revision even if the state is the same
	guard  bool          // refuse to remove too large a share
	// refuse says why what the kernel holds forbids the change; nil: never.
	refuse func(found State) error
}

// failure says which change failed. The failure of a change of one step says so
// already.
func (c change) failure(err error) error {
	cause := err
	if left, ok := errors.AsType[*undoError](err); ok {
		cause = left.cause // what could not be undone may be of the change's name too
	}
	if step, ok := errors.AsType[*OperationError](cause); ok && step.Operation.String() == c.action {
		return err
	}
	return fmt.Errorf("%s: %w", c.action, err)
}

// undoError is the failure of a change that could not be undone.
type undoError struct{ cause, undo error }

func (e *undoError) Error() string   { return fmt.Sprintf("%v; roll back: %v", e.cause, e.undo) }
func (e *undoError) Unwrap() []error { return []error{e.cause, e.undo} }

// change runs one edit of the newest revision's state. edit is given a state of
// its own whose services are shared: it replaces services as a whole, by
// normalized ones.
func (d *Director) change(ctx context.Context, c change, edit func(*State) error) (Outcome, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	head := d.head.Load()
	if head == nil {
		return Outcome{}, fmt.Errorf("%s: the director is not started", c.action)
	}
	if c.by.Base != 0 && c.by.Base != head.Number {
		return Outcome{}, fmt.Errorf("%s: %w", c.action, &ConflictError{Base: c.by.Base, Head: head.Number})
	}
	next := State{Services: slices.Clone(head.State.Services), Timeouts: head.State.Timeouts, Sync: head.State.Sync, Drains: head.State.Drains, Overrides: head.State.Overrides}
	if err := edit(&next); err != nil {
		return Outcome{}, fmt.Errorf("%s: %w", c.action, err)
	}
	if c.named != nil {
		c.action = c.named()
	}
	outcome, err := d.commit(ctx, *head, next, c)
	if err != nil {
		return Outcome{}, c.failure(err)
	}
	return outcome, nil
}

// draft is a change that is found valid, and what it takes.
type draft struct {
	next    State // as it will be stored
	touched touched
	found   State // all that the kernel holds
	has     State // what it holds of what is touched
	offered State // what is touched as the kernel is to hold it
	ops     []Operation
	steps   []Step // the same for people, and what drains become
}

// draft validates next, which is normalized, and plans it. Only what differs
// from the head is looked at: the head is valid.
func (d *Director) draft(ctx context.Context, head, next State) (draft, error) {
	found, err := d.found(ctx)
	if err != nil {
		return draft{}, err
	}
	next = next.withoutOrdersOf(head)
	next.Drains = slices.Concat(next.Drains, d.foreignDrains(next, found))
	next = next.drained().overridden()
	next.Services = sortedServices(next)
	if len(next.Sync) == 0 {
		next.Sync = nil // whether it was given is not kept
	}
	p := draft{touched: differing(next, head), found: found}
	if err := errors.Join(next.validate(p.touched.services), d.features.check(next, &p.touched)); err != nil {
		return draft{}, err
	}
	p.found.Sync = ourSync(found.Sync, head, next)
	p.has = p.touched.of(p.found)
	settled := Settle(p.touched.of(next), p.has)
	p.next = State{Services: slices.Clone(next.Services), Timeouts: next.Timeouts, Sync: next.Sync, Drains: next.Drains, Overrides: next.Overrides}
	for _, service := range settled.Services {
		i, _ := slices.BinarySearchFunc(p.next.Services, service, compareServices)
		p.next.Services[i] = service
	}
	p.offered = d.offered(settled, p.has)
	p.ops = Plan(p.offered, withGone(p.has, p.touched.of(head), settled))
	p.steps = explainHealth(explainOverrides(explainDrains(Explain(p.ops, p.has), head, p.next), head, p.next), head, p.next)
	return p, nil
}

// withGone returns found with those services, empty, that are to be removed and that
// somebody else has removed already: what the data plane has besides for them, such
// as an address of the host, goes with the removal.
func withGone(found, head, next State) State {
	has, wanted := indexServices(found), indexServices(next)
	for _, service := range head.Services {
		_, isThere := has[service.Key]
		if _, stays := wanted[service.Key]; !isThere && !stays {
			found.Services = append(slices.Clip(found.Services), Service{Key: service.Key})
		}
	}
	return found
}

// commit validates next, carries to the kernel what differs from the head, and
// makes it a revision. After a failure the kernel is put back. d.mu is held.
func (d *Director) commit(ctx context.Context, head Revision, next State, c change) (Outcome, error) {
	p, err := d.draft(ctx, head.State, next)
	if err != nil {
		return Outcome{}, err
	}
	if p.touched.empty() && !c.always {
		return Outcome{Revision: head.RevisionInfo}, nil
	}
	if c.guard && !c.by.Force {
		if err := d.guard(p, head.State); err != nil {
			return Outcome{}, err
		}
	}
	if c.refuse != nil {
		if err := c.refuse(p.found); err != nil {
			return Outcome{}, err
		}
	}
	if err := d.intend(p); err != nil {
		return Outcome{}, err
	}
	left, err := d.carry(ctx, p.ops, p.next)
	if err != nil {
		return Outcome{}, d.undo(ctx, head.State, p, c, err)
	}
	var pending []Failure
	p.steps = slices.DeleteFunc(p.steps, func(s Step) bool {
		isLeft := len(left) > 0 && s.Operation != nil && left[s.Operation.String()]
		if isLeft {
			pending = append(pending, Failure{Step: s})
		}
		return isLeft
	})
	revision := Revision{
		RevisionInfo: RevisionInfo{
			Number: head.Number + 1, Time: time.Now().UTC(), Who: c.by.Who, Why: c.by.Why, Action: c.action,
		},
		State: p.next,
	}
	if err := d.store.Append(revision); err != nil {
		return Outcome{}, d.undo(ctx, head.State, p, c, fmt.Errorf("store revision %d: %w", revision.Number, err))
	}
	// Point of no return.
	d.head.Store(&revision)
	d.noteOffered(p.offered, revision.State, pending)
	d.opts.Events.Publish(event.Event{
		Name: event.Change, Revision: revision.Number, Service: p.touched.only(),
		Message: fmt.Sprintf("revision %d by %s: %s%s", revision.Number, orNobody(c.by.Who), c.action, because(c.by.Why)),
	})
	d.own(p)
	return Outcome{Revision: revision.RevisionInfo, Changed: true, Steps: p.steps}, nil
}

// found reads what the kernel holds.
func (d *Director) found(ctx context.Context) (State, error) {
	found, err := d.dp.Found(ctx)
	if err != nil {
		return State{}, fmt.Errorf("read what the data plane holds: %w", err)
	}
	return found, nil
}

// intend records services that will be ours before the kernel has them. Foreign
// ones that are taken over are not recorded: after a crash they are left alone.
func (d *Director) intend(p draft) error {
	var keys []ServiceKey
	has := indexServices(p.has)
	for _, service := range p.touched.of(p.next).Services {
		if _, foreign := has[service.Key]; !foreign && !d.ours[service.Key] {
			keys = append(keys, service.Key)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	if err := d.store.Intend(keys); err != nil {
		return fmt.Errorf("store what is intended: %w", err)
	}
	for _, key := range keys {
		d.ours[key] = true
	}
	return nil
}

// own sets what is ours after the store forgot what was intended. What an
// earlier change left in the kernel, because it failed and could not be undone,
// stays ours until it is removed.
func (d *Director) own(p draft) {
	wanted := indexServices(p.next)
	for key := range p.touched.services {
		if _, ok := wanted[key]; ok {
			d.ours[key] = true
		} else {
			delete(d.ours, key)
		}
	}
	if left := d.leftovers(p.next, p.found); len(left) > 0 {
		if err := d.store.Intend(left); err != nil {
			d.opts.Log.Error("store what a failed change left", "services", left, "err", err)
		}
	}
	drift := d.Drift()
	if foreign := slices.DeleteFunc(slices.Clone(drift.Foreign), func(s Service) bool { return d.ours[s.Key] }); len(foreign) < len(drift.Foreign) {
		d.tellForeign(drift.Foreign, foreign)
		drift.Foreign = foreign
		d.drift.Store(&drift)
	}
}

// leftovers returns the services that are ours but not wanted and still found;
// those that are gone are ours no more.
func (d *Director) leftovers(wanted, found State) []ServiceKey {
	if len(d.ours) == len(wanted.Services) {
		return nil // what is wanted is always ours
	}
	want, has := indexServices(wanted), indexServices(found)
	var left []ServiceKey
	for key := range d.ours {
		if _, ok := want[key]; ok {
			continue
		}
		if _, ok := has[key]; ok {
			left = append(left, key)
		} else {
			delete(d.ours, key)
		}
	}
	slices.SortFunc(left, ServiceKey.Compare)
	return left
}

// undo puts back what a failed change did to the kernel: ours as the head has
// it, foreign services and sync daemons as they were. It returns the cause, with what could not
// be put back; Run repairs that as it becomes possible. It works even if ctx was
// cancelled: that may be why the change failed.
func (d *Director) undo(ctx context.Context, before State, p draft, c change, cause error) error {
	ctx = context.WithoutCancel(ctx)
	service := p.touched.only()
	d.opts.Events.Publish(event.Event{Name: event.ChangeFailed, Service: service, Message: c.failure(cause).Error()})
	found, err := d.found(ctx)
	if err == nil {
		found.Sync = ourSync(found.Sync, before, p.next)
		_, foreign := d.split(p.has)
		old := p.touched.of(before)
		old.Services = append(old.Services, foreign...)
		old.Sync = slices.Concat(old.Sync, foreignSync(p.has.Sync, before))
		ops := Plan(d.offered(old, p.touched.of(found)), p.touched.of(found))
		if len(ops) == 0 {
			return cause
		}
		if _, err = d.carry(ctx, ops, before); err == nil {
			d.opts.Events.Publish(event.Event{
				Name: event.RolledBack, Service: service,
				Message: fmt.Sprintf("%s: undone; steps: %d", c.action, len(ops)),
			})
			return cause
		}
	}
	d.opts.Events.Publish(event.Event{
		Name: event.RolledBack, Service: service,
		Message: fmt.Sprintf("%s: could not be undone, will be repaired: %v", c.action, err),
	})
	return &undoError{cause: cause, undo: err}
}

// carry runs the operations of a change to what is wanted. No change of the
// configuration fails for a server that it does not have: if one that an agent
// registered, or a sorry server, cannot be offered, it and those after it are left to
// Run, and are returned by their texts.
func (d *Director) carry(ctx context.Context, ops []Operation, wanted State) (left map[string]bool, err error) {
	if len(ops) == 0 {
		return nil, nil
	}
	err = d.apply(ctx, ops)
	failed, ok := errors.AsType[*OperationError](err)
	if !ok || !offersBeside(failed.Operation, wanted) {
		return nil, err
	}
	left = make(map[string]bool)
	var rest []Operation
	text := failed.Operation.String() // no two operations of a plan have the same
	for _, op := range ops {
		if (len(left) > 0 || op.String() == text) && offersBeside(op, wanted) {
			left[op.String()] = true
		} else {
			rest = append(rest, op)
		}
	}
	// From the first again: what failed may have undone those that were done with it.
	return left, d.apply(ctx, rest)
}

// offersBeside reports whether the operation offers a server that a service wanted is
// not configured with.
func offersBeside(op Operation, wanted State) bool {
	switch op := op.(type) {
	case AddServer:
		return wanted.Service(op.Key) >= 0 && !wanted.configures(op.Key, op.Server.Address)
	case EditServer:
		return wanted.Service(op.Key) >= 0 && !wanted.configures(op.Key, op.Server.Address)
	}
	return false
}

// apply runs the operations, up to the first that the data plane does not have.
func (d *Director) apply(ctx context.Context, ops []Operation) error {
	for i, op := range ops {
		if lack := d.features.lacks(op); lack != nil {
			if err := d.dp.Apply(ctx, ops[:i]); err != nil {
				return err
			}
			return &OperationError{Operation: op, Err: lack}
		}
	}
	return d.dp.Apply(ctx, ops)
}

func orNobody(who string) string {
	if who == "" {
		return "nobody"
	}
	return who
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}
