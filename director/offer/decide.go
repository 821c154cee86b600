package offer

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// decision is what is offered of a service's servers, and why. It follows from the
// seats alone: times are theirs.
type decision struct {
	rulings []ruling // as the seats
	quorum  bool
	weight  uint64 // that is up
	needed  uint64
	panic   bool
	sorry   []realserver.Server // that stand in
}

// ruling is what is decided about one server.
type ruling struct {
	server realserver.Server
	origin Origin
	up     bool // for what orders and health say
	serves bool // it is offered: up, or the checks are doubted
	doubt  bool // down by what may be doubted
	// accused: out by the word of packets alone, which no check has confirmed: what is
	// established with it may be well.
	accused bool
	known   bool
	why     string // of the step that decided on up
	weight  uint32
	steps   [4]Step
}

// decide takes the steps, in their order; had is whether the service had its quorum.
func decide(service *director.Service, seats []seat, had bool) decision {
	h := &service.Health
	d := decision{rulings: make([]ruling, len(seats))}
	for i := range seats {
		r := &d.rulings[i]
		r.server, r.origin, r.known = seats[i].server, seats[i].origin, seats[i].known
		r.steps[0] = Step{Name: StepConfigured, Weight: r.server.Weight}
		ordered := r.override(seats[i].override)
		r.health(seats[i].member, ordered)
	}
	d.doubt(h)
	d.count(service, had)
	for i := range seats {
		d.rulings[i].settle(seats[i].member, &d)
	}
	return d
}

// override takes an operator's word, and reports whether there is one.
func (r *ruling) override(order *director.Override) bool {
	step := Step{Name: StepOverride, Weight: r.server.Weight}
	if order != nil {
		if r.up = order.Up; !r.up {
			step.Weight = 0
		}
		step.Why = orderText(order)
		r.why = step.Why
	}
	r.steps[1] = step
	return order != nil
}

// health takes what checks, packets and the maintenance folder say of a server that
// has no order.
func (r *ruling) health(m *member, ordered bool) {
	step := &r.steps[2]
	*step = Step{Name: StepHealth}
	switch {
	case ordered:
		step.Why = "does not count: it has an order"
		r.serves = r.up
		return
	case m.away != "":
		r.why = "in maintenance: " + m.away
	case !m.alive:
		r.why, r.doubt = m.why, true
	case !m.held.IsZero():
		r.why, r.doubt = heldText(m), true
	case !m.suspended.IsZero():
		r.why, r.doubt, r.accused = "suspended: "+m.evidence, true, true
	default:
		r.up, r.why = true, m.why
	}
	r.serves, step.Why = r.up, r.why
}

// count says whether what is up is enough; sorry servers stand in if it is not.
func (d *decision) count(service *director.Service, had bool) {
	h := &service.Health
	for i := range d.rulings {
		if r := &d.rulings[i]; r.serves && !r.server.Draining {
			d.weight += uint64(r.server.Weight)
		}
	}
	d.needed = uint64(max(h.Quorum, 1))
	if !had {
		d.needed += uint64(h.Hysteresis)
	}
	if d.quorum = d.weight >= d.needed; d.quorum {
		return
	}
	for _, server := range h.Sorry {
		server.Address = service.Key.ServerAddress(server.Address)
		taken := func(r ruling) bool { return r.server.Address == server.Address }
		if !slices.ContainsFunc(d.rulings, taken) {
			d.sorry = append(d.sorry, server)
		}
	}
}

// settle says what weight follows.
func (r *ruling) settle(m *member, d *decision) {
	health, load := &r.steps[2], &r.steps[3]
	*load = Step{Name: StepLoad}
	switch {
	case !r.serves:
		return
	case len(d.sorry) > 0:
		health.Why = fmt.Sprintf("%s; but %s: sorry servers stand in", health.Why, d.quorumText())
		return
	case r.server.Weight == 0:
		return
	}
	health.Weight = r.server.Weight
	if r.server.Draining {
		health.Why += drainingText
	}
	if m.override == nil {
		health.Weight = m.weight.of(health.Weight)
		// Whoever is down, and serves as the checks are doubted, has no slow start any more.
		if r.up && m.ramp < full && health.Weight > 0 {
			health.Weight = part(health.Weight, uint32(m.ramp))
			health.Why += fmt.Sprintf("; slow start: %d %% of its weight", m.ramp)
		}
	}
	load.Weight = health.Weight
	switch {
	case load.Weight == 0:
	case m.load != nil:
		load.Weight, load.Why = m.load.of(load.Weight), m.load.why
	case m.carried > 0:
		load.Weight, load.Why = m.carried, fmt.Sprintf("as before the start, for %s unless it is told anew", carryFor)
	}
	r.weight = load.Weight
}

// drainingText follows why a server is up that has no new connections all the same.
const drainingText = "; draining: it gets no new connections"

func (d *decision) quorumText() string {
	return fmt.Sprintf("the quorum is lost, with a weight of %d of %d", d.weight, d.needed)
}

// withdrawn reports whether the server is not offered at all.
func (r *ruling) withdrawn(h *director.Health) bool {
	return !r.keeps() && h.Down == director.DownRemove
}

// keeps reports whether nothing but packets speaks against what is established with it.
// Packets can come of anybody: they have a server passed over, and end nothing.
func (r *ruling) keeps() bool { return r.serves || r.accused }

// offers returns the decision as the director takes it.
func (d decision) offers(h *director.Health) director.Offers {
	o := director.Offers{}
	for i := range d.rulings {
		r := &d.rulings[i]
		gone := r.withdrawn(h)
		switch {
		case r.origin == FromLease:
			if server := r.server; !gone {
				server.Weight = r.weight
				o.Extra = append(o.Extra, server)
			}
		case gone || r.weight != r.server.Weight:
			if o.Servers == nil {
				o.Servers = make(map[netip.AddrPort]director.Offer)
			}
			o.Servers[r.server.Address] = director.Offer{Weight: r.weight, Withdrawn: gone}
		}
	}
	o.Extra = append(o.Extra, d.sorry...)
	return o
}
