package offer

import (
	"net/netip"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// beginning is what a server is before anything is heard of it.
type beginning struct {
	up, known bool
	// recalled: the kernel says that it was down, though not by what: it takes as many
	// passes as at any other time to be up.
	recalled bool
	why      string
	carried  uint32 // the weight it has in the kernel where that is not its own; 0: it is
	ramp     uint8  // the share of its weight, per cent, that a slow start has come to; 0: none
	rising   time.Time
}

// carryFor is how long a weight that an earlier daemon left is kept for what made it
// to be told again: reports come more often.
const carryFor = 30 * time.Second

// begins returns what a server of the service begins as. found is what the kernel has
// of the service, nil if nothing or if that was not read; known is whether the service
// was in force before the server was there: then the kernel cannot know it.
func begins(service *director.Service, server realserver.Server, found *director.Service, known bool) beginning {
	h := &service.Health
	initial := beginning{up: true, known: true, why: "not checked"}
	if len(h.Checks) > 0 {
		initial = beginning{up: h.Initial == director.InitialUp, why: "not asked yet"}
	}
	if found == nil || known {
		return initial
	}
	was := beginning{up: true, known: true, why: "it was up before the start"}
	// Whoever was not asked yet before the start has no weight there either.
	down := beginning{recalled: true, why: "it was down before the start, and is not asked yet"}
	at := found.Server(server.Address)
	removes := h.Down == director.DownRemove
	switch {
	case len(h.Checks) == 0:
		was = initial // where nothing is asked, nothing would ever change it
	case at < 0 && removes:
		return down
	case at < 0:
		return initial
	case removes:
		// It was not removed: whatever took its weight, it was not down.
	case server.Weight == 0:
		return initial // its weight in the kernel says nothing
	case found.Servers[at].Weight == 0:
		return down
	}
	if at < 0 {
		return was
	}
	weight := found.Servers[at].Weight
	if weight == 0 || weight == server.Weight {
		return was
	}
	if was.ramp = rampOf(h, server.Weight, weight); was.ramp > 0 {
		was.rising = time.Now().Add(-h.SlowStart * time.Duration(was.ramp-firstShare) / full)
	} else if moves(h) {
		was.carried = weight
	}
	return was
}

// rampOf returns the step of a slow start, per cent, that leaves a server with this part
// of its weight; 0: none does, or something else may.
func rampOf(h *director.Health, weight, left uint32) uint8 {
	if h.SlowStart == 0 || h.Load.Kind != director.LoadNone || asksWeights(h) {
		return 0
	}
	for ramp := uint32(firstShare); ramp < full; ramp += firstShare {
		if part(weight, ramp) == left {
			return uint8(ramp)
		}
	}
	return 0
}

// moves reports whether the weights of servers that are up move by themselves.
func moves(h *director.Health) bool {
	return h.Load.Kind != director.LoadNone || h.SlowStart > 0 || asksWeights(h)
}

// asksWeights reports whether checks tell weights.
func asksWeights(h *director.Health) bool {
	for i := range h.Checks {
		if kind := h.Checks[i].Kind; kind == realserver.CheckScript || kind == realserver.CheckFile {
			return true
		}
	}
	return false
}

// beginning is begins for a server that is not in force yet: it is remembered until it
// is, as what it was before the first plan.
func (k *Keeper) beginning(service *director.Service, server realserver.Server, found *director.Service, known bool) beginning {
	all := k.begin[service.Key]
	if b, ok := all[server.Address]; ok {
		return b
	}
	if all == nil {
		all = make(map[netip.AddrPort]beginning)
		k.begin[service.Key] = all
	}
	b := begins(service, server, found, known)
	all[server.Address] = b
	return b
}

// start has the member be what it begins as.
func (m *member) start(b beginning) {
	m.begun = true
	m.alive, m.known, m.why = b.up, b.known, b.why
	m.recalled = b.recalled
	if m.early = m.early && !b.up && !b.recalled; b.carried > 0 {
		m.carried, m.carriedUntil = b.carried, time.Now().Add(carryFor)
	}
	if b.ramp > 0 {
		m.ramp, m.rising = b.ramp, b.rising
	}
}
