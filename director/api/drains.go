package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/shunt-lb/shunt/director"
)

// minDrain is the shortest time that a drain can be given: deadlines are whole
// seconds.
const minDrain = time.Second

// DrainServer answers drainServer.
func (e endpoints) DrainServer(w http.ResponseWriter, r *http.Request, ref Ref, address Address, p DrainServerParams) {
	e.changeServer(w, r, ref, address, terms{p.IfMatch, p.ShuntWhy, nil}, func(ctx context.Context, by director.Request, key director.ServiceKey, addr netip.AddrPort) (director.Outcome, error) {
		var body DrainOrder
		if err := e.readBody(w, r, &body, maxEdit); err != nil {
			return director.Outcome{}, err
		}
		standing, stands := e.director.State().Drain(key, key.ServerAddress(addr))
		deadline, err := body.deadlineAt(time.Now(), standing.Deadline)
		if err != nil {
			return director.Outcome{}, err
		}
		if !stands && !e.offersServer(key, addr) {
			return director.Outcome{}, fmt.Errorf("drain server %s of %s: server: %w", key.ServerAddress(addr), key, director.ErrNotFound)
		}
		return e.director.DrainServer(ctx, by, director.Drain{Service: key, Server: addr, Deadline: deadline, Kill: body.Kill})
	})
}

// deadlineAt returns the deadline that the order gives now; zero for none. Only the
// standing one may have passed: an order of other terms leaves it.
func (o DrainOrder) deadlineAt(now, standing time.Time) (time.Time, error) {
	switch {
	case o.Deadline != nil && o.Within != nil:
		return time.Time{}, invalid("drain: deadline and within exclude each other", "")
	case o.Within != nil:
		if *o.Within < Duration(minDrain) {
			return time.Time{}, invalid(fmt.Sprintf("drain: within %s is out of range: want %s or more", o.Within, minDrain), "leave it out for no deadline, or with kill for at once")
		}
		// What is kept are whole seconds: no less than was asked for.
		return now.Add(time.Duration(*o.Within) + time.Second - time.Nanosecond).Truncate(time.Second), nil
	case o.Deadline != nil:
		deadline, err := time.Parse(time.RFC3339, *o.Deadline)
		if err != nil {
			return time.Time{}, invalid(fmt.Sprintf("drain: deadline %.80q is not a time", *o.Deadline), "write it as 2026-11-22T04:00:00Z, or give a duration: within")
		}
		if !deadline.After(now) && !deadline.Equal(standing) {
			return time.Time{}, invalid(fmt.Sprintf("drain: deadline %s has passed", *o.Deadline), "leave it out for no deadline, or with kill for at once")
		}
		return deadline, nil
	}
	return time.Time{}, nil
}

// CancelDrain answers cancelDrain.
func (e endpoints) CancelDrain(w http.ResponseWriter, r *http.Request, ref Ref, address Address, p CancelDrainParams) {
	e.changeServer(w, r, ref, address, terms{p.IfMatch, p.ShuntWhy, nil}, func(ctx context.Context, by director.Request, key director.ServiceKey, addr netip.AddrPort) (director.Outcome, error) {
		outcome, err := e.director.CancelDrain(ctx, by, key, addr)
		if errors.Is(err, director.ErrNotFound) && e.offersServer(key, addr) {
			err = newProblem(http.StatusNotFound, "not-draining", fmt.Sprintf("server %s of %s is not being drained", key.ServerAddress(addr), key), "`shunt drains` shows those that are")
		}
		return outcome, err
	})
}

// ListDrains answers listDrains.
func (e endpoints) ListDrains(w http.ResponseWriter, r *http.Request) {
	e.readAt(w, func() (any, uint64, error) {
		// Before the drains: a change made after an earlier revision than they are
		// of is refused, and none is lost.
		revision := e.director.Head().Number
		drains, err := e.director.Drains(r.Context())
		if err != nil {
			return nil, 0, err
		}
		names := e.names()
		list := DrainList{Drains: make([]DrainStatus, 0, len(drains)), Revision: revision}
		for _, d := range drains {
			list.Drains = append(list.Drains, DrainStatus{
				Service: d.Service.String(), Name: names[d.Service], Server: d.Server.String(),
				Since: d.Since, Deadline: given(d.Deadline), Kill: d.Kill, Phase: string(d.Phase),
				Active: d.Active, Inactive: d.Inactive, UDP: d.UDP, Templates: d.Templates,
			})
		}
		return list, revision, nil
	})
}

// drainModel returns the terms on which a server with so many connections left is
// being drained; nil if it is not.
func (o observation) drainModel(key director.ServiceKey, server netip.AddrPort, left uint64) *Drain {
	d, ok := o.state.Drain(key, server)
	if !ok {
		return nil
	}
	return &Drain{Since: d.Since, Deadline: given(d.Deadline), Kill: d.Kill, Phase: string(d.Phase(left, time.Now()))}
}
