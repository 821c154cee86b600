package nexthop

import (
	"errors"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// hold is a neighbour that watched addresses need.
type hold struct {
	users   map[*watch]struct{}
	asked   time.Time // when the kernel was last asked to resolve it
	claimed bool      // the kernel manages it, because of us or a former run
	unheard bool      // the kernel has it already, which no event has told yet
	problem string    // why the kernel refused it
}

const (
	askInterval  = 100 * time.Millisecond // of one neighbour at most
	keepInterval = 5 * time.Second        // between two looks at all neighbours
)

// retain makes the watched address a user of its neighbour.
func (r *Resolver) retain(w *watch) {
	key := w.route.neighbour(w.addr)
	h := r.holds[key]
	if h == nil {
		h = &hold{users: map[*watch]struct{}{}}
		r.holds[key] = h
	}
	h.users[w] = struct{}{}
	r.keep(key, h)
}

// keep has the kernel resolve a neighbour and keep it so, where it does not.
// Managed neighbours it probes again by itself, whatever their state; others we
// have it probe whenever they are not known to be good.
func (r *Resolver) keep(key neighbourKey, h *hold) {
	if !r.links[key.iface].up {
		return // link up is an event
	}
	n := r.neighbours.get(key)
	switch {
	case n.isStatic():
		// Managing a permanent neighbour would make it an ordinary one
		// (kernel: net/core/neighbour.c, __neigh_update).
		h.problem = ""
		return
	case n.managed && (n.usable() || !h.asked.IsZero()):
		h.claimed, h.problem = true, ""
		return
	case !r.managed && n.state&(unix.NUD_INCOMPLETE|unix.NUD_REACHABLE|unix.NUD_DELAY|unix.NUD_PROBE) != 0:
		return
	}
	if time.Since(h.asked) < askInterval {
		r.recheck = true
		return
	}
	h.asked = time.Now()
	write := r.routes.NeighSet
	if n == (neighbour{}) && !h.unheard {
		write = r.routes.NeighAdd // refuses where there is one: it may be permanent
	}
	err := r.ask(key, h, write)
	if errors.Is(err, unix.EEXIST) {
		h.unheard, r.recheck = true, true
		err = nil
	}
	r.setProblem(key, h, err)
}

// ask makes the neighbour a managed one, or where the kernel refuses that has it
// probed once. write creates or replaces the entry, or creates it alone.
func (r *Resolver) ask(key neighbourKey, h *hold, write func(*netlink.Neigh) error) error {
	neigh := &netlink.Neigh{
		LinkIndex: key.iface, Family: key.family(), IP: key.addr.AsSlice(), Flags: netlink.NTF_USE,
	}
	if r.managed {
		managed := *neigh
		// Externally learned ones are not thrown out when the table fills
		// (kernel: net/core/neighbour.c, neigh_periodic_work).
		managed.Flags |= netlink.NTF_EXT_LEARNED
		managed.FlagsExt = netlink.NTF_EXT_MANAGED // Linux 5.16
		err := write(&managed)
		if err == nil {
			h.claimed = true
			return nil
		}
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	if err := write(neigh); err != nil {
		return err
	}
	if r.managed {
		r.managed = false
		r.opts.Log.Info("kernel has no managed neighbours: probing them ourselves", "period", keepInterval)
	}
	return nil
}

func (r *Resolver) setProblem(key neighbourKey, h *hold, err error) {
	before := h.problem
	switch {
	case err == nil:
		h.problem = ""
	case errors.Is(err, unix.ENOBUFS):
		h.problem = "the kernel's neighbour table is full: raise net.ipv4.neigh.default.gc_thresh3"
		if key.addr.Is6() {
			h.problem = "the kernel's neighbour table is full: raise net.ipv6.neigh.default.gc_thresh3"
		}
	default:
		h.problem = err.Error()
	}
	if h.problem != "" && h.problem != before {
		r.opts.Log.Warn("resolve neighbour", "neighbour", key.addr, "interface", r.links[key.iface].name, "err", h.problem)
	}
}

// release ends the use of a neighbour by an address. One without users is given
// back: what is known of it stays, as an ordinary entry that may grow old.
func (r *Resolver) release(w *watch) {
	if !r.mayHold(w.route) {
		return
	}
	key := w.route.neighbour(w.addr)
	h := r.holds[key]
	if h == nil {
		return
	}
	delete(h.users, w)
	if len(h.users) > 0 {
		return
	}
	delete(r.holds, key)
	n := r.neighbours.get(key)
	if !h.claimed || n.isStatic() {
		return
	}
	neigh := &netlink.Neigh{LinkIndex: key.iface, Family: key.family(), IP: key.addr.AsSlice()}
	giveBack := r.routes.NeighDel
	if n.usable() {
		// Written without the flags, they are taken off.
		neigh.State, neigh.HardwareAddr = netlink.NUD_STALE, n.mac[:]
		giveBack = r.routes.NeighSet
	}
	err := giveBack(neigh)
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENETDOWN) {
		r.opts.Log.Warn("give back neighbour", "neighbour", key.addr, "interface", r.links[key.iface].name, "err", err)
	}
}

// keepAll looks after all neighbours in use.
func (r *Resolver) keepAll() []change {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recheck = false
	var changes []change
	for key, h := range r.holds {
		before := h.problem
		r.keep(key, h)
		if h.problem != before {
			changes = r.evaluateUsers(changes, h)
		}
	}
	return changes
}
