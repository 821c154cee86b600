package offer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/shunt-lb/shunt/director"
)

const (
	// defaultSuspend is how long a suspension lasts at most where nothing is set.
	defaultSuspend = 30 * time.Second
	// evidenceInterval is how often packets are asked what they tell.
	evidenceInterval = 200 * time.Millisecond
)

// watchPackets has the data plane count what services want counted, and asks what it
// counted. It reports whether any service wants it.
func (k *Keeper) watchPackets(ctx context.Context) bool {
	if k.opts.Packet == nil {
		return false
	}
	for key, limits := range k.uncounted() {
		err := k.opts.Packet.SetPassive(ctx, key, limits)
		if errors.Is(err, director.ErrNotFound) {
			continue // it is there soon
		}
		k.mu.Lock()
		if e := k.entries[key]; e != nil && err == nil {
			e.passive, e.counted = limits, true
		}
		k.mu.Unlock()
		k.troubled("count what packets tell of "+key.String(), err)
	}
	if !k.wantsEvidence() {
		return false
	}
	all, err := k.opts.Packet.Evidence(ctx)
	k.troubled("read what packets tell", err)
	if err == nil {
		k.noteEvidence(all, time.Now())
	}
	return true
}

// uncounted returns the services whose limits the data plane does not have yet.
func (k *Keeper) uncounted() map[director.ServiceKey]director.Passive {
	k.mu.Lock()
	defer k.mu.Unlock()
	wanted := make(map[director.ServiceKey]director.Passive)
	for key, e := range k.entries {
		if limits := e.service.Health.Passive; !e.counted || limits != e.passive {
			wanted[key] = limits
		}
	}
	return wanted
}

func (k *Keeper) wantsEvidence() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.entries {
		if !e.service.Health.Passive.IsZero() {
			return true
		}
	}
	return false
}

// noteEvidence suspends what the data plane has suspended, and asks the checks.
func (k *Keeper) noteEvidence(all []director.Evidence, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	heard := make(map[director.ServiceKey]map[netip.AddrPort]*director.Evidence)
	for i := range all {
		if heard[all[i].Service] == nil {
			heard[all[i].Service] = make(map[netip.AddrPort]*director.Evidence)
		}
		heard[all[i].Service][all[i].Server] = &all[i]
	}
	for key, e := range k.entries {
		if e.service.Health.Passive.IsZero() {
			continue
		}
		if heard[key] == nil && len(e.members) > 0 {
			e.counted = false // the service was made anew: it is to be told again
		}
		for addr, m := range e.members {
			k.weigh(e, m, heard[key][addr], now)
		}
	}
}

// weigh takes in what packets tell of a server; nil: nothing.
func (k *Keeper) weigh(e *entry, m *member, evidence *director.Evidence, now time.Time) {
	switch {
	case evidence == nil || !evidence.Suspended:
		if m.absolved = false; !m.suspended.IsZero() {
			m.suspended, e.dirty = time.Time{}, true // the data plane ended it by itself
		}
	case m.absolved || !m.suspended.IsZero():
	case m.isOrderedUp():
		m.absolved = true // the operator's word is above the packets': they are not to pass it over
	default:
		m.suspended, m.evidence, e.dirty = now, evidenceText(*evidence, m.counts), true
		m.suspends++
		if k.opts.Checks != nil {
			for _, q := range m.questions {
				k.opts.Checks.Suspect(q.key)
			}
		}
	}
	if m.counted = evidence != nil; m.counted {
		m.counts = *evidence
	}
}

// evidenceText says what was counted since before.
func evidenceText(now, before director.Evidence) string {
	var parts []string
	for _, count := range []struct {
		now, before uint64
		what        string
	}{
		{now.Unanswered, before.Unanswered, "unanswered"},
		{now.Resets, before.Resets, "reset"},
		{now.Unreachable, before.Unreachable, "answered by icmp unreachable"},
	} {
		if count.now > count.before {
			parts = append(parts, fmt.Sprintf("%d %s", count.now-count.before, count.what))
		}
	}
	return "first packets: " + cmp.Or(strings.Join(parts, ", "), "too many without an answer")
}

// absolveInPlane ends the suspensions that are to end in the data plane too; what
// cannot be done now is tried with the next look. It reports whether something is left.
func (k *Keeper) absolveInPlane(ctx context.Context) bool {
	if k.opts.Packet == nil {
		return false
	}
	left := false
	for _, p := range k.absolvedHere() {
		err := k.opts.Packet.Absolve(ctx, p.service, p.server)
		k.troubled(fmt.Sprintf("absolve server %s of %s", p.server, p.service), err)
		k.mu.Lock()
		if e := k.entries[p.service]; e != nil && e.members[p.server] != nil {
			e.members[p.server].absolved = err != nil && !errors.Is(err, director.ErrNotFound)
			left = left || e.members[p.server].absolved
		}
		k.mu.Unlock()
	}
	return left
}

// absolvedHere returns the servers whose suspension is over, but not in the data plane.
func (k *Keeper) absolvedHere() []place {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []place
	for key, e := range k.entries {
		if e.service.Health.Passive.IsZero() {
			continue
		}
		for addr, m := range e.members {
			if m.absolved {
				all = append(all, place{key, addr})
			}
		}
	}
	return all
}
