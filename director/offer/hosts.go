package offer

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/snmp"
)

// HostAsker is what asks hosts for their load: an snmp.Poller.
type HostAsker interface {
	Set(keys []snmp.Key)
	Status(k snmp.Key) (snmp.Status, bool)
}

var _ HostAsker = (*snmp.Poller)(nil)

// ReportLoad takes in what a host's agent said of its load in a pool: it counts for all
// servers with its address, of services of the pool whose weights follow loads, but for
// configured servers whose hosts are asked (director.LoadPolicy.SNMP). An agent may speak
// in its pools alone: nobody has proved that the address is its own. It returns an error
// if the report is of no use to one of them.
func (k *Keeper) ReportLoad(pool string, host netip.Addr, report LoadReport) error {
	return k.takeLoad(host, report, func(e *entry) []realserver.Server {
		if pool == "" || e.service.Health.Pool != pool {
			return nil
		}
		if e.service.Health.Load.SNMP != nil {
			return e.leased
		}
		return slices.Concat(e.service.Servers, e.leased)
	})
}

// HostLoad is snmp.Options.Loaded: it takes in what a host said when it was asked, for
// the configured servers that it is asked for.
func (k *Keeper) HostLoad(key snmp.Key, load float64, at time.Time) {
	report := LoadReport{At: at, Load: load, Every: key.Terms.Pace()}
	err := k.takeLoad(key.Host, report, func(e *entry) []realserver.Server {
		if terms, asks := e.asks(); !asks || terms != key.Terms {
			return nil
		}
		return e.service.Servers
	})
	if err != nil { // one that came late: the next one counts
		k.opts.Log.Debug("a load was of no use", "host", key.Host, "err", err)
	}
}

// HostChanged is snmp.Options.Changed: why a host tells nothing is looked at by Run.
func (k *Keeper) HostChanged(key snmp.Key) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.entries {
		terms, asks := e.asks()
		e.dirty = e.dirty || asks && terms == key.Terms && e.hasHost(key.Host)
	}
	k.stir()
}

// takeLoad takes in a report for those of each service's servers that are the host's.
func (k *Keeper) takeLoad(host netip.Addr, report LoadReport, of func(*entry) []realserver.Server) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var problems []error
	for _, e := range k.entries {
		if e.loads == nil {
			continue
		}
		for _, server := range of(e) {
			if server.Address.Addr() != host || server.Weight == 0 {
				continue
			}
			if err := e.loads.Report(server.Address, server.Weight, report); err != nil {
				problems = append(problems, fmt.Errorf("service %s: %w", e.service.Key, err))
				continue
			}
			e.dirty = true
		}
	}
	k.stir()
	return errors.Join(problems...)
}

// hosts returns who is to be asked for their load. Servers of one address share what is
// asked, of however many services they are.
func (k *Keeper) hosts() []snmp.Key {
	all := make(map[snmp.Key]bool)
	for _, e := range k.entries {
		terms, asks := e.asks()
		if !asks {
			continue
		}
		for _, server := range e.service.Servers {
			if server.Weight > 0 {
				all[snmp.Key{Host: server.Address.Addr(), Terms: terms}] = true
			}
		}
	}
	keys := make([]snmp.Key, 0, len(all))
	for key := range all {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b snmp.Key) int {
		return cmp.Or(a.Host.Compare(b.Host), cmp.Compare(a.Terms.Port, b.Terms.Port))
	})
	return keys
}

// asks returns how the hosts of the service's servers are asked for their load, with the
// defaults, and whether they are.
func (e *entry) asks() (realserver.SNMP, bool) {
	if p := &e.service.Health.Load; p.Kind != director.LoadNone && p.SNMP != nil {
		return p.SNMP.WithDefaults(), true
	}
	return realserver.SNMP{}, false
}

func (e *entry) hasHost(host netip.Addr) bool {
	return slices.ContainsFunc(e.service.Servers, func(s realserver.Server) bool { return s.Address.Addr() == host })
}

// silence returns why a server's host tells no load, as far as it was asked; "": it
// answers, or is not asked.
func (t *telling) silence(s seat) string {
	terms, asks := t.asks()
	if !asks || t.opts.Hosts == nil || s.origin != FromConfiguration {
		return ""
	}
	status, _ := t.opts.Hosts.Status(snmp.Key{Host: s.server.Address.Addr(), Terms: terms})
	if status.Err == nil {
		return ""
	}
	return fmt.Sprintf("snmp: %v", status.Err)
}
