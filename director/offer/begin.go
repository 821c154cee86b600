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
	why       string
	carried   uint32 // the weight it has in the kernel where that is not its own; 0: it is
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
	if found == nil || known || server.Weight == 0 {
		return initial
	}
	i := found.Server(server.Address)
	switch {
	case i >= 0 && found.Servers[i].Weight == 0, i < 0 && h.Down == director.DownRemove && len(found.Servers) > 0:
		if len(h.Checks) == 0 {
			return initial // nothing would ever have it up again
		}
		return beginning{known: true, why: "it was down before the start"}
	case i < 0:
		return initial
	}
	was := beginning{up: true, known: true, why: "it was up before the start"}
	if weight := found.Servers[i].Weight; weight != server.Weight && moves(h) {
		was.carried = weight
	}
	return was
}

// moves reports whether the weights of servers that are up move by themselves.
func moves(h *director.Health) bool {
	if h.Load.Kind != director.LoadNone || h.SlowStart > 0 {
		return true
	}
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
	if m.early = m.early && !b.up; b.carried > 0 {
		m.carried, m.carriedUntil = b.carried, time.Now().Add(carryFor)
	}
}
