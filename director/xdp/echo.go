package xdp

import (
	"errors"
	"net/netip"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

// echoTable keeps the trie that says what becomes of echo requests to virtual
// addresses: each address, or prefix, that live services have is a key, and the
// longest that an address is in decides. A prefix of more addresses than the filter
// lists is a network's, whose hosts answer for themselves: the stack has it.
type echoTable struct {
	plane *bpf.Plane
	mode  director.EchoMode
	// services are those in force, by their addresses.
	services map[netip.Prefix]map[*service]bool
	// wide are the prefixes of services that are not one address.
	wide map[netip.Prefix]bool
	held map[netip.Prefix]bpf.KernelEcho // what the trie has, as far as we know
}

func newEchoTable(plane *bpf.Plane, mode director.EchoMode) *echoTable {
	return &echoTable{
		plane: plane, mode: mode, services: map[netip.Prefix]map[*service]bool{},
		wide: map[netip.Prefix]bool{}, held: map[netip.Prefix]bpf.KernelEcho{},
	}
}

// take counts the service among those in force, unless it was removed.
func (t *echoTable) take(svc *service) {
	p := svc.key.Prefix()
	if svc.removed {
		delete(t.services[p], svc)
		if len(t.services[p]) == 0 {
			delete(t.services, p)
			delete(t.wide, p)
		}
		return
	}
	if t.services[p] == nil {
		t.services[p] = map[*service]bool{}
	}
	t.services[p][svc] = true
	if !p.IsSingleIP() {
		t.wide[p] = true
	}
}

// want is what is to become of requests to addresses that no longer prefix has;
// false if the trie is to have no such key.
func (t *echoTable) want(p netip.Prefix) (bpf.KernelEcho, bool) {
	switch {
	case len(t.services[p]) == 0:
		return 0, false
	case t.mode == director.EchoStack || isLarge(p):
		return bpf.KernelEchoECHO_PASSED, true
	case t.mode == director.EchoAlways || t.hasOffer(p):
		return bpf.KernelEchoECHO_ANSWERED, true
	default:
		return bpf.KernelEchoECHO_DROPPED, true
	}
}

// hasOffer says whether a service that has the prefix's addresses has a server to
// offer, in the schedule in force.
func (t *echoTable) hasOffer(p netip.Prefix) bool {
	if anyOffers(t.services[p]) {
		return true
	}
	for around := range t.wide {
		if around.Bits() < p.Bits() && around.Contains(p.Addr()) && anyOffers(t.services[around]) {
			return true
		}
	}
	return false
}

func anyOffers(services map[*service]bool) bool {
	for svc := range services {
		for _, weight := range svc.weights {
			if weight > 0 {
				return true
			}
		}
	}
	return false
}

// update carries a change of a service's schedule, or of whether there is one, to its
// addresses and those within.
func (t *echoTable) update(svc *service) error {
	t.take(svc)
	p := svc.key.Prefix()
	errs := []error{t.write(p)}
	if p.IsSingleIP() {
		return errors.Join(errs...)
	}
	for q := range t.services {
		if q.Bits() > p.Bits() && p.Contains(q.Addr()) {
			errs = append(errs, t.write(q))
		}
	}
	return errors.Join(errs...)
}

// write makes the trie's key of the prefix what it is to be.
func (t *echoTable) write(p netip.Prefix) error {
	want, ok := t.want(p)
	if has, there := t.held[p]; there == ok && has == want {
		return nil
	}
	if !ok {
		if err := t.plane.ClearEcho(bpf.VirtualKey(p)); err != nil {
			return err
		}
		delete(t.held, p)
		return nil
	}
	if err := t.plane.SetEcho(p, want); err != nil {
		return err
	}
	t.held[p] = want
	return nil
}

// repair reads the trie and makes it what the services ask for; it says whether it was
// not.
func (t *echoTable) repair() (changed bool, err error) {
	entries, err := t.plane.EchoEntries()
	if err != nil {
		return false, err
	}
	clear(t.held)
	var errs []error
	for _, e := range entries {
		if p, ok := e.Key.Prefix(); ok {
			t.held[p] = e.Echo
			continue
		}
		changed = true
		errs = append(errs, t.plane.ClearEcho(e.Key))
	}
	for p := range t.services {
		want, _ := t.want(p)
		changed = changed || t.held[p] != want
		errs = append(errs, t.write(p))
	}
	for p := range t.held {
		if len(t.services[p]) == 0 {
			changed = true
			errs = append(errs, t.write(p))
		}
	}
	return changed, errors.Join(errs...)
}

// carryEcho lets the service's schedule decide on echo requests. What fails is no
// failure of the schedule, which is in force: the next review tries it again.
func (d *Dataplane) carryEcho(svc *service) {
	if err := d.echoes.update(svc); err != nil {
		d.opts.Log.Error("what becomes of pings to the service is not carried to the fast path: the next try is in two seconds", "service", svc.key, "err", err)
	}
}

// reviewEchoes repairs the trie.
func (d *Dataplane) reviewEchoes() error {
	changed, err := d.echoes.repair()
	if changed {
		d.opts.Log.Warn("what becomes of pings to virtual addresses was not as it should be: repaired")
	}
	return err
}
