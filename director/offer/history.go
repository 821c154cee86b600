package offer

import (
	"net/netip"

	"github.com/shunt-lb/shunt/director"
)

// historySize is how many changes are kept, of all services together.
const historySize = 4096

// history keeps the last changes. Not safe for concurrent use.
type history struct {
	kept []Change // a ring once it is full
	next int      // where the next one goes
}

func (h *history) add(c Change) {
	if len(h.kept) < historySize {
		h.kept = append(h.kept, c)
		return
	}
	h.kept[h.next] = c
	h.next = (h.next + 1) % historySize
}

// last returns up to limit of those that match, newest first; 0: all.
func (h *history) last(key director.ServiceKey, server netip.AddrPort, limit int) []Change {
	var all []Change
	for i := range h.kept {
		c := h.kept[(h.next+len(h.kept)-1-i)%len(h.kept)]
		if key != (director.ServiceKey{}) && c.Service != key || server.IsValid() && c.Server != server {
			continue
		}
		if all = append(all, c); len(all) == limit {
			break
		}
	}
	return all
}
