package xdp

import (
	"fmt"
	"slices"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

// guardModes are the modes by their numbers in the ABI.
var guardModes = [...]director.GuardMode{
	bpf.KernelGuardModeGUARD_OFF:  director.GuardOff,
	bpf.KernelGuardModeGUARD_AUTO: director.GuardAuto,
	bpf.KernelGuardModeGUARD_ON:   director.GuardOn,
}

// kernelLimits is what the limits map is to hold of a service's settings, which have
// their defaults filled in (director.Service.Normalize).
func kernelLimits(s *settings, clock bpf.Clock, v6 bool) bpf.KernelServiceLimits {
	l, g := s.limits, s.guard
	k := bpf.KernelServiceLimits{
		Connections: l.Connections, SourceConnections: l.Source.Connections,
		Rate: l.Rate, SourceRate: l.Source.Rate, SourcePrefix: uint32(l.Source.Prefix),
		Guard: uint32(max(0, slices.Index(guardModes[:], g.Mode))),
	}
	k.Cost, k.Burst = clock.Rate(l.Rate)
	k.SourceCost, k.SourceBurst = clock.Rate(l.Source.Rate)
	if !l.Source.IsZero() {
		k.SourceMask = clientMask(v6, l.Source.Prefix)
	}
	if g.Mode == director.GuardAuto {
		k.GuardOn, k.GuardOff = g.On, g.Off
	}
	return k
}

// parseLimits is the inverse of kernelLimits, of what is in force by the schedule's
// flags.
func parseLimits(k *bpf.KernelServiceLimits, flags uint16) (l director.Limits, g director.SourceGuard) {
	if flags&uint16(bpf.KernelServiceFlagsSERVICE_LIMITED) != 0 {
		l = director.Limits{
			Rate: k.Rate, Connections: k.Connections,
			Source: director.SourceLimits{
				Prefix: uint8(min(k.SourcePrefix, 128)), Rate: k.SourceRate, Connections: k.SourceConnections,
			},
		}
	}
	if flags&uint16(bpf.KernelServiceFlagsSERVICE_GUARDED) != 0 && int(k.Guard) < len(guardModes) {
		g = director.SourceGuard{Mode: guardModes[k.Guard], On: k.GuardOn, Off: k.GuardOff}
	}
	return l, g
}

// hasLimits says whether packets look into the limits map for the service.
func (s *settings) hasLimits() bool { return !s.limits.IsZero() || s.guard.Mode != director.GuardOff }

// hasLimits says whether the map holds the limits that the service was read with.
func (r *reading) hasLimits(svc *service) bool {
	return !svc.hasLimits() || r.limits[svc.index] == kernelLimits(&svc.settings, r.plane.Clock, svc.isV6())
}

func (svc *service) isV6() bool { return svc.key.Address.Addr().Is6() }

// writeLimits writes the service's limits. Where it has none, zeros are as good.
func (d *Dataplane) writeLimits(svc *service) error {
	k := kernelLimits(&svc.settings, d.plane.Clock, svc.isV6())
	if err := d.plane.KernelMaps.Limits.Put(svc.index, &k); err != nil {
		return fmt.Errorf("write limits of %s: %w", svc.key, err)
	}
	return nil
}

// carryLimits writes the service's limits before its flags say that there are some.
// What is remembered of source networks by another prefix than theirs is forgotten:
// nobody would count it down.
func (d *Dataplane) carryLimits(svc *service, old *settings) error {
	if err := d.writeLimits(svc); err != nil {
		return err
	}
	if old.limits.Source.IsZero() || (old.limits.Source.Prefix == svc.limits.Source.Prefix && !svc.limits.Source.IsZero()) {
		return nil
	}
	return d.forgetSources(svc)
}

func (d *Dataplane) forgetSources(svc *service) error {
	return d.plane.ForgetSources(func(service uint32) bool { return service == svc.index })
}

// clearLimits takes the limits of a service that is removed out of the maps. The
// count of its connections stays until they have ended.
func (d *Dataplane) clearLimits(svc *service) error {
	if !svc.hasLimits() {
		return nil
	}
	if err := d.plane.KernelMaps.Limits.Put(svc.index, &bpf.KernelServiceLimits{}); err != nil {
		return fmt.Errorf("clear limits of %s: %w", svc.key, err)
	}
	if svc.limits.Source.IsZero() {
		return nil
	}
	return d.forgetSources(svc)
}

// adoptLimits writes the limits of all services as they were read, and forgets source
// networks of services that do not limit any.
func (d *Dataplane) adoptLimits() error {
	for _, svc := range d.model.services {
		if svc.removed || !svc.hasLimits() {
			continue
		}
		if err := d.writeLimits(svc); err != nil {
			return err
		}
	}
	return d.plane.ForgetSources(func(service uint32) bool {
		svc := d.model.services[service]
		return svc == nil || svc.removed || svc.limits.Source.IsZero()
	})
}
