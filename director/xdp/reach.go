package xdp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director/xdp/nexthop"
	"github.com/shunt-lb/shunt/realserver"
)

// resolveWait is how long an Apply waits at its end for new servers' neighbours
// to answer, so that a server that was just added can be used at once.
const resolveWait = 500 * time.Millisecond

// watch begins to follow the server's next hop. Called with mu held.
func (d *Dataplane) watch(s *server) {
	if s.watched || s.method == realserver.Local {
		return
	}
	s.watched = true
	d.settleHop(s, d.resolver.Watch(s.address.Addr()))
}

// unwatch ends that; the hop stays for connections that have it. Called with mu held.
func (d *Dataplane) unwatch(s *server) {
	if s.watched {
		s.watched = false
		d.resolver.Unwatch(s.address.Addr())
	}
}

// settleHop gives the server the resolution's hop in the model, not yet in the
// maps. While an address is being asked for again, the hop that worked stays.
// It returns whether anything changed. Called with mu held.
func (d *Dataplane) settleHop(s *server, r nexthop.Resolution) bool {
	s.resolving = r.Pending
	if r.Pending && s.hop != 0 {
		return false
	}
	hop := uint32(0)
	reason := r.Reason
	if reason == "" {
		h := r.Hop
		if d.opts.Generic {
			h.MTU = 0 // after GRO, frames are longer than any MTU
		}
		var err error
		if hop, err = d.hops.acquire(d.plane, h); err != nil {
			reason = err.Error()
		}
	}
	tunnel := s.tunnel
	if reason == "" {
		s.own, s.interfaceIndex = r.Source, r.Hop.Interface
		s.source = d.opts.outerSource(s.address.Addr(), r)
		reason = d.settleTunnel(s)
	}
	changed := hop != s.hop || reason != s.reason || tunnel != s.tunnel
	d.hops.release(s.hop)
	s.hop, s.reason = hop, reason
	return changed
}

// resolutionChanged carries a change of an address's next hop to its servers.
func (d *Dataplane) resolutionChanged(addr netip.Addr, r nexthop.Resolution) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.model == nil {
		return
	}
	for s := range d.model.byAddr[addr] {
		if !s.watched {
			continue
		}
		before := s.offered()
		if !d.settleHop(s, r) {
			continue
		}
		if err := d.carryHop(s, before); err != nil {
			d.opts.Log.Error("next hop of server not carried to the fast path", "server", s.address, "service", s.service.key, "err", err)
		}
	}
	close(d.resolved)
	d.resolved = make(chan struct{})
}

// carryHop writes the server's hop to the maps and, if that made it reachable or
// not, its service's schedule. Called with mu held.
func (d *Dataplane) carryHop(s *server, before uint32) error {
	// For operators, package watch tells it by an event.
	log := d.opts.Log.With("server", s.address, "service", s.service.key)
	if s.reason == "" {
		log.Debug("server is reachable")
	} else if before != 0 || !s.resolving {
		log.Debug("server is not reachable: it gets no new connections", "reason", s.reason)
	}
	if before == s.offered() || s.removed || s.service.removed {
		return d.writeServer(s)
	}
	if s.offered() == 0 {
		// First no new connections, then no packets. Should the schedule fail, the
		// sweep tries it again.
		return errors.Join(d.reschedule(s.service, s.service.list, false, weightStep(s.service.list)), d.writeServer(s))
	}
	if err := d.writeServer(s); err != nil {
		return err
	}
	return d.reschedule(s.service, s.service.list, false, weightStep(s.service.list))
}

// writeServer makes the server's entry what it is to be: as a whole if it is new
// or was spoilt, else what may change of one that packets read; and its thresholds.
// Called with mu held.
func (d *Dataplane) writeServer(s *server) error {
	want := kernelServer(s)
	var has [1]bpf.KernelServer
	var load [1]bpf.KernelServerLoad
	if err := errors.Join(bpf.ReadRange(d.plane.Servers, s.index, has[:]), bpf.ReadRange(d.plane.Loads, s.index, load[:])); err != nil {
		return err
	}
	sameThresholds := load[0].Upper == s.upper && load[0].Lower == s.lower
	if has[0] == want && sameThresholds {
		return nil
	}
	rest := has[0]
	rest.Hop, rest.Tunnel, rest.Weight, rest.LastWeight, rest.OfferedWeight = want.Hop, want.Tunnel, want.Weight, want.LastWeight, want.OfferedWeight
	rest.Life, rest.Method, rest.Flags = want.Life, want.Method, want.Flags
	if rest != want {
		if err := d.plane.Servers.Put(s.index, &want); err != nil {
			return fmt.Errorf("write server %s: %w", s.address, err)
		}
		if sameThresholds {
			return nil
		}
	}
	return d.plane.SetServer(&bpf.KernelServerArgs{
		Server: s.index, Hop: want.Hop, Tunnel: want.Tunnel, Weight: want.Weight, LastWeight: want.LastWeight, OfferedWeight: want.OfferedWeight,
		Upper: s.upper, Lower: s.lower, Life: want.Life, Method: want.Method, Flags: want.Flags,
	})
}

// awaitResolution waits a moment for servers that are new, while their neighbours
// are being asked for. Called with mu held; gives it up meanwhile.
func (d *Dataplane) awaitResolution(ctx context.Context, fresh []*server) {
	if len(fresh) == 0 {
		return
	}
	deadline := time.NewTimer(resolveWait)
	defer deadline.Stop()
	for slices.ContainsFunc(fresh, (*server).isResolving) && !d.closed {
		changed := d.resolved
		d.mu.Unlock()
		select {
		case <-changed:
		case <-deadline.C:
			d.mu.Lock()
			return
		case <-ctx.Done():
			d.mu.Lock()
			return
		}
		d.mu.Lock()
	}
}

func (s *server) isResolving() bool { return s.watched && s.resolving && s.hop == 0 }
