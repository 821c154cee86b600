package offer

import (
	"context"
	"net"
	"net/netip"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/health"
)

// assignments returns what is to be asked of whom. Servers of several services that
// want the same of one address share what is asked.
func (k *Keeper) assignments() []health.Assignment {
	var all []health.Assignment
	places := make(map[health.Key]int)
	k.askers = make(map[health.Key]map[*entry]bool)
	for _, e := range k.entries {
		checks := make([]realserver.Check, len(e.service.Health.Checks))
		keys := make([]string, len(checks))
		for i, check := range e.service.Health.Checks {
			checks[i] = check.WithDefaults()
			keys[i] = checks[i].Key()
		}
		for addr, m := range e.members {
			m.questions = nil
			server := seatOf(e, addr, e.service.Server(addr))
			for i, check := range checks {
				q := k.question(e.service.Key, server, check, keys[i])
				m.questions = append(m.questions, q)
				if k.askers[q.key] == nil {
					k.askers[q.key] = make(map[*entry]bool)
				}
				k.askers[q.key][e] = true
				assignment := health.Assignment{Key: q.key, Check: check, Dial: q.dial, Up: m.alive, Known: m.known || m.recalled}
				if at, ok := places[q.key]; !ok {
					places[q.key] = len(all)
					all = append(all, assignment)
				} else if a := all[at]; assignment.Known && (!a.Known || m.alive && !a.Up) {
					// What is known says more than what is assumed, and who is up has passed this
					// check: who is down may have failed another one.
					all[at] = assignment
				}
			}
		}
		e.dirty = true
	}
	return all
}

// question says where to ask, and which way.
func (k *Keeper) question(key director.ServiceKey, server realserver.Server, check realserver.Check, text string) question {
	q := question{check: check, key: health.Key{Check: text, Target: health.Target{Server: server.Address}}}
	if k.isVirtual(key, server, check) {
		q.key.Target.Virtual, q.key.Target.Via = key.Address, key.String()
		q.dial = func(ctx context.Context, network string, port uint16) (net.Conn, error) {
			return dialServer(ctx, k.opts.Dialer, check.Via, network, key, server.Address, port)
		}
	} else if check.Kind == realserver.CheckScript {
		q.key.Target.Virtual = virtualOf(key) // it is told of it
	}
	return q
}

// isVirtual reports whether a check goes the way of a client's packet.
func (k *Keeper) isVirtual(key director.ServiceKey, server realserver.Server, check realserver.Check) bool {
	if check.Protocol() == "" || k.opts.Dialer == nil || key.IsWide() {
		return false // no connection of the director's, or none that could be a client's
	}
	unchanged := server.Method == realserver.DR || server.Method == realserver.Tunnel
	return check.Via == realserver.ViaVirtual || check.Via == realserver.ViaAuto && unchanged
}

// virtualOf returns the virtual address, none of a firewall mark's.
func virtualOf(key director.ServiceKey) netip.AddrPort {
	if key.IsMark() {
		return netip.AddrPort{}
	}
	return key.Address
}
