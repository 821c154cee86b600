package offer

import (
	"net/netip"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/health"
)

// member is what is known of a server of a service, besides what it is configured as.
type member struct {
	// begun is whether the rest counts: not before the kernel was asked what it was.
	begun bool
	// alive is what its checks say together, or what it began as; known whether that is
	// more than an assumption.
	alive, known bool
	recalled     bool // the kernel said that it was down, before this daemon began
	why          string
	weight       told // what scripts and files say of its weight
	questions    []question

	away      string            // the file that has it in maintenance; "": none
	suspended time.Time         // since when packets speak against it; zero: they do not
	evidence  string            // what they tell
	absolved  bool              // its suspension is to end in the data plane too
	counts    director.Evidence // as it was told last
	counted   bool              // counts is of packets that are counted now
	spoken    bool              // its suspension was told
	changes   []time.Time
	held      time.Time // until when it is held down; zero: it is not
	rising    time.Time // since when its weight grows; zero: it does not
	suspends  uint64    // how often packets had it out
	ramp      uint8     // the share of its weight that it has come to, per cent
	early     bool      // it is there since the service is, and has not been up yet

	carried      uint32 // the weight that an earlier daemon left it with; 0: none
	carriedUntil time.Time
	load         *share
	override     *director.Override
}

// isOrderedUp reports whether an operator's word has the server up, whatever is known of it.
func (m *member) isOrderedUp() bool { return m.override != nil && m.override.Up }

// question is what is asked of a member.
type question struct {
	check realserver.Check
	key   health.Key
	dial  health.Dial
}

// share is the part of its weight that a server's load leaves it.
type share struct {
	parts uint32 // of shareWhole
	why   string
}

const shareWhole = 10000

// told are weights that checks told.
type told struct {
	delta    int64
	absolute *int64
}

// seat is a server with what is known of it. Its origin may be about to change: who is
// configured no more can stay by a lease.
type seat struct {
	server realserver.Server
	origin Origin
	*member
}

// entry is a service in force.
type entry struct {
	service *director.Service
	leased  []realserver.Server
	members map[netip.AddrPort]*member
	begun   bool // the kernel was asked what it had of it
	quorum  bool // it has its quorum
	since   time.Time
	last    *decision // nil: none yet
	strayed bool      // something else than last was offered since, as for an order
	loads   *Loads    // nil: weights do not follow loads
	ups     map[netip.AddrPort]standing
	dirty   bool
	wake    time.Time // when it is to be looked at by itself; zero: not

	passive director.Passive // what the data plane was told to count
	counted bool             // that was done
}

// standing is what was told of a server last.
type standing struct {
	up    bool
	why   string
	since time.Time

	weight  uint32 // that it was offered with
	keeps   bool   // what is established with it
	changes uint64 // of up
}

func newEntry() *entry {
	return &entry{members: make(map[netip.AddrPort]*member), ups: make(map[netip.AddrPort]standing), dirty: true}
}

// adopt takes over the service as it is in force now; begin is what servers that are
// new to it begin as, where that is known.
func (e *entry) adopt(service *director.Service, leased []realserver.Server, begin map[netip.AddrPort]beginning) {
	first := e.service == nil
	if first || !service.Health.Load.Equal(e.service.Health.Load) {
		if e.loads = nil; service.Health.Load.Kind != director.LoadNone {
			e.loads = NewLoads(service.Health.Load)
		}
	}
	e.service, e.leased, e.dirty = service, leased, true
	before := e.members
	e.members = make(map[netip.AddrPort]*member, len(service.Servers)+len(leased))
	add := func(addr netip.AddrPort) {
		m := before[addr]
		if m == nil {
			m = &member{ramp: full, early: first}
			if b, ok := begin[addr]; ok {
				m.start(b)
				if !e.begun {
					// As it was planned: a quorum that was not lost is not to be regained.
					e.begun, e.quorum = true, true
				}
			}
		}
		e.members[addr] = m
	}
	for i := range service.Servers {
		add(service.Servers[i].Address)
	}
	for i := range leased {
		add(leased[i].Address)
	}
	for addr := range e.ups {
		if e.members[addr] == nil {
			delete(e.ups, addr)
			if e.loads != nil {
				e.loads.Forget(addr)
			}
		}
	}
}

// plain reports whether the service is offered as configured whatever happens.
func (e *entry) plain() bool {
	if !e.service.Health.IsZero() {
		return false
	}
	for _, m := range e.members {
		if m.override != nil {
			return false
		}
	}
	return true
}

// hadQuorum returns whether the service has its quorum, before what changes now; of
// one that is not known, whether no sorry server stands in for it in the kernel.
func (e *entry) hadQuorum(service, found *director.Service) bool {
	if e != nil && e.begun {
		return e.quorum
	}
	if found == nil {
		return true
	}
	for _, sorry := range service.Health.Sorry {
		addr := service.Key.ServerAddress(sorry.Address)
		if service.Server(addr) < 0 && found.Server(addr) >= 0 {
			return false
		}
	}
	return true
}

// seats returns the servers of the service with what is known of them. Those that
// nothing is known of begin.
func (k *Keeper) seats(e *entry, service *director.Service, leased []realserver.Server, found *director.Service) []seat {
	seats := make([]seat, 0, len(service.Servers)+len(leased))
	known := e != nil && e.begun
	if e != nil && !e.begun {
		e.quorum, e.begun = e.hadQuorum(service, found), true
	}
	add := func(server realserver.Server, origin Origin) {
		var m *member
		if e != nil {
			m = e.members[server.Address]
		}
		switch {
		case m == nil:
			m = &member{ramp: full}
			m.start(k.beginning(service, server, found, known))
			m.away = k.awayBy(service, server.Address)
		case !m.begun:
			m.start(begins(service, server, found, known))
			m.away = k.awayBy(service, server.Address)
			k.reassign, e.dirty = true, true
			k.stir()
		}
		seats = append(seats, seat{server, origin, m})
	}
	for _, server := range service.Servers {
		add(server, FromConfiguration)
	}
	for _, server := range leased {
		add(server, FromLease)
	}
	return seats
}
