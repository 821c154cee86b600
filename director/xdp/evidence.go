package xdp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

var _ director.Witness = (*Dataplane)(nil)

const (
	defaultWithin  = 10 * time.Second
	defaultSuspend = 30 * time.Second
	// longestSuspend bounds what only a daemon can end before its time.
	longestSuspend = time.Hour
)

// SetPassive writes the limits to where the program finds them; what is counted and
// suspended stays, unless they are zero. With method dr and tunnel no replies are seen:
// no reset is counted, and a first segment that is sent again counts although it was
// answered, as forged ones may be.
func (d *Dataplane) SetPassive(ctx context.Context, key director.ServiceKey, limits director.Passive) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(ctx); err != nil {
		return err
	}
	svc, err := d.model.live(key)
	if err != nil {
		return fmt.Errorf("set what suspends servers of %s: %w", key, err)
	}
	return d.writePassive(svc, limits)
}

func kernelPassive(p director.Passive, clock bpf.Clock) bpf.KernelPassiveLimits {
	if p.IsZero() {
		return bpf.KernelPassiveLimits{}
	}
	k := bpf.KernelPassiveLimits{
		Within:  clock.Ticks(cmp.Or(p.Within, defaultWithin)),
		Suspend: clock.Ticks(min(cmp.Or(p.Suspend, defaultSuspend), longestSuspend)),
	}
	k.Most[bpf.KernelEvidenceKindEVIDENCE_UNANSWERED] = p.Unanswered
	k.Most[bpf.KernelEvidenceKindEVIDENCE_RESET] = p.Resets
	k.Most[bpf.KernelEvidenceKindEVIDENCE_UNREACHABLE] = p.Unreachable
	return k
}

// writePassive writes the service's limits; the zero value ends suspensions too.
func (d *Dataplane) writePassive(svc *service, limits director.Passive) error {
	k := kernelPassive(limits, d.plane.Clock)
	if err := d.plane.Passive.Put(svc.index, &k); err != nil {
		return fmt.Errorf("write what suspends servers of %s: %w", svc.key, err)
	}
	svc.passive = &k
	if !limits.IsZero() {
		return nil
	}
	var errs []error
	for _, s := range svc.members {
		errs = append(errs, d.absolve(s))
	}
	return errors.Join(errs...)
}

// reviewPassive writes services' limits again that somebody else changed. Those of a
// daemon before stay until this one is told some.
func (d *Dataplane) reviewPassive() error {
	limits := make([]bpf.KernelPassiveLimits, d.model.usedServices())
	if err := bpf.ReadRange(d.plane.Passive, 0, limits); err != nil {
		return fmt.Errorf("read what suspends servers: %w", err)
	}
	for _, svc := range d.model.services {
		if svc.removed || svc.passive == nil || *svc.passive == limits[svc.index] {
			continue
		}
		if err := d.plane.Passive.Put(svc.index, svc.passive); err != nil {
			return fmt.Errorf("write what suspends servers of %s: %w", svc.key, err)
		}
		d.opts.Log.Warn("what suspends a service's servers was changed by somebody else: repaired", "service", svc.key)
	}
	return nil
}

// Evidence reads what the program counted. A server whose time is over is not suspended,
// also if no packet has come since that would end it.
func (d *Dataplane) Evidence(ctx context.Context) ([]director.Evidence, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(ctx); err != nil {
		return nil, err
	}
	limits := make([]bpf.KernelPassiveLimits, d.model.usedServices())
	told := make([]bpf.KernelTestimony, d.model.usedServers())
	loads := make([]bpf.KernelServerLoad, len(told))
	now, err := d.plane.Now()
	err = errors.Join(err,
		bpf.ReadRange(d.plane.Passive, 0, limits), bpf.ReadRange(d.plane.Evidence, 0, told), bpf.ReadRange(d.plane.Loads, 0, loads))
	if err != nil {
		return nil, fmt.Errorf("read what packets told of servers: %w", err)
	}
	var all []director.Evidence
	for _, svc := range d.model.sorted() {
		if svc.removed || limits[svc.index] == (bpf.KernelPassiveLimits{}) {
			continue
		}
		for _, s := range slices.Backward(svc.list) {
			t := &told[s.index]
			all = append(all, director.Evidence{
				Service: svc.key, Server: s.address,
				Unanswered:  t.Told[bpf.KernelEvidenceKindEVIDENCE_UNANSWERED],
				Resets:      t.Told[bpf.KernelEvidenceKindEVIDENCE_RESET],
				Unreachable: t.Told[bpf.KernelEvidenceKindEVIDENCE_UNREACHABLE],
				Suspended:   isSuspended(&loads[s.index]) && int32(t.Until-now) > 0,
			})
		}
	}
	return all, nil
}

// Absolve has the server get connections again from the next packet on.
func (d *Dataplane) Absolve(ctx context.Context, key director.ServiceKey, address netip.AddrPort) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(ctx); err != nil {
		return err
	}
	svc, err := d.model.live(key)
	if err != nil {
		return fmt.Errorf("absolve a server of %s: %w", key, err)
	}
	s := svc.members[address]
	if s == nil || s.removed {
		return fmt.Errorf("absolve server %s of %s: %w", address, key, director.ErrNotFound)
	}
	return d.absolve(s)
}

func (d *Dataplane) absolve(s *server) error {
	if err := d.plane.Absolve(s.index); err != nil {
		return fmt.Errorf("absolve server %s: %w", s.address, err)
	}
	return nil
}

func isOverloaded(load *bpf.KernelServerLoad) bool {
	return load.Unfit&uint32(bpf.KernelUnfitUNFIT_OVERLOADED) != 0
}

func isSuspended(load *bpf.KernelServerLoad) bool {
	return load.Unfit&uint32(bpf.KernelUnfitUNFIT_SUSPENDED) != 0
}
