package lease

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/realserver"
)

// Options are what a Registry works with; zero values mean the defaults.
type Options struct {
	// File keeps the leases; "": none does.
	File string
	// Servers is how many servers a pool has at most, 0: 1024; Members how many there are
	// in all, 0: 16384.
	Servers, Members int
	// Reports is how many have to report a server unreachable until it is asked, 0: 2.
	Reports int
	// Changed is told the servers of a pool whenever they change, in order; it returns at
	// once and calls no method. Nil: nobody is told.
	Changed func(pool string, servers []realserver.Server)
	// Loaded is told the load that the host of a pool's server said, and how long after it
	// the agent is to renew its lease; as Changed. Nil: nobody is told.
	Loaded func(pool string, server realserver.Server, load Load, at time.Time, renewal time.Duration)
	// Suspect is told of a server that enough reported unreachable. Nil: nobody is told.
	Suspect func(pool string, server realserver.Server)
	Now     func() time.Time // nil: time.Now
	Events  *event.Stream    // nil: events are dropped
	Log     *slog.Logger     // nil: slog.Default()
}

func (o Options) withDefaults() Options {
	o.Servers, o.Members, o.Reports = cmp.Or(o.Servers, 1024), cmp.Or(o.Members, 16384), cmp.Or(o.Reports, 2)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return o
}

// How fast messages are taken: of one member, and of those that are new.
const (
	memberEvery = 200 * time.Millisecond
	memberBurst = 20
	newRate     = 200
	newBurst    = 2000
)

// keepLeft is how long it is remembered what an agent that left said last, so that it
// cannot be said again by another; keepBoots how many of its runs are.
const (
	keepLeft  = 24 * time.Hour
	keepBoots = 8
)

// id is a member's.
type id struct{ pool, agent string }

// String is the member in words.
func (i id) String() string { return fmt.Sprintf("agent %s of pool %s", i.agent, i.pool) }

// record is what is known of an agent: its lease, or what it said last.
type record struct {
	Member

	in      bool                 // it has a lease
	left    time.Time            // since when it has none
	boots   []string             // runs before this one, oldest first
	limit   *rate.Limiter        // of its own messages
	heard   *rate.Limiter        // of reports of it, which are others' and take none of its own
	over    string               // the run that was told last that it is over
	reports map[string]time.Time // who found it unreachable, and when
}

// Registry is the leases. Safe for concurrent use; Run has them end.
type Registry struct {
	opts Options
	news *rate.Limiter // of members that are new
	wake chan struct{} // has room for one, which stands for all that changed since

	mu      sync.Mutex
	records map[id]*record
	version uint64 // of what is in the file, rises with each change
	counts  Counts

	telling sync.Mutex // held while Changed is told, so that the last that it hears is true
	saving  sync.Mutex // held while the file is written
	saved   uint64     // the version that it has; guarded by saving
	failed  string     // why it could not be written last; "": it was. Guarded by saving
}

// newRecord is of an agent that nothing is known of.
func newRecord() *record {
	every := rate.Every(memberEvery)
	return &record{limit: rate.NewLimiter(every, memberBurst), heard: rate.NewLimiter(every, memberBurst)}
}

// Counts are what happened since the start.
type Counts struct {
	Registered, Renewed, Left, Expired, Reports uint64
	Refused                                     map[Reason]uint64
}

// Open returns the leases of the file, none if there is no file. One that cannot be
// read is set aside, which is told. Each lease has at least a grace from now on: its
// lifetime, or 30 s: agents had no director to renew it at.
func Open(opts Options) *Registry {
	r := &Registry{
		opts: opts.withDefaults(), news: rate.NewLimiter(newRate, newBurst), wake: make(chan struct{}, 1),
		records: make(map[id]*record), counts: Counts{Refused: make(map[Reason]uint64)},
	}
	r.load()
	return r
}

// Register takes a registration, or refuses it: the error is a *Refusal. It returns when
// a new member is in the file.
func (r *Registry) Register(g Registration) (Member, error) {
	if err := g.Validate(); err != nil {
		return Member{}, r.refused(id{g.Pool, g.Agent}, refuse(Invalid, "register: %v", err))
	}
	r.mu.Lock()
	m, version, news, err := r.register(g)
	r.mu.Unlock()
	if err != nil {
		return Member{}, r.refused(id{g.Pool, g.Agent}, err)
	}
	r.rouse()
	if g.Load != nil && r.opts.Loaded != nil {
		r.opts.Loaded(g.Pool, m.Server, *m.Load, m.LoadAt, m.Lifetime/2)
	}
	if news == nil {
		return m, nil
	}
	news.publish(r.opts.Events)
	r.save(version)
	r.tell(g.Pool)
	return m, nil
}

// news is a change of who is there, and on what terms.
type news struct {
	name    event.Name
	member  id
	server  realserver.Server
	message string
}

func (n *news) publish(events *event.Stream) {
	events.Publish(event.Event{Name: n.name, Server: n.server.Address.String(), Message: fmt.Sprintf("%s: %s", n.member, n.message)})
}

// register does it under the lock.
func (r *Registry) register(g Registration) (Member, uint64, *news, *Refusal) {
	now, key := r.opts.Now(), id{g.Pool, g.Agent}
	have := r.records[key]
	if refusal := r.admit(key, have, g.Boot, g.Sequence, now); refusal != nil {
		return Member{}, 0, nil, refusal
	}
	if have == nil || !have.in || have.Server.Address != g.Server.Address || have.Server.Method != g.Server.Method {
		if refusal := r.room(key, g); refusal != nil {
			return Member{}, 0, nil, refusal
		}
	}
	if have == nil {
		have = newRecord()
		have.limit.AllowN(now, 1)
		r.records[key] = have
	}
	var n *news
	switch {
	case !have.in:
		have.Since, n = now, &news{event.ServerRegistered, key, g.Server, fmt.Sprintf("server %s registered for %s", g.Server.Address, g.Lifetime)}
		r.counts.Registered++
	case have.Server != g.Server && g.Server.Draining && !have.Server.Draining:
		n = &news{event.ServerLeaving, key, g.Server, fmt.Sprintf("server %s asks for no new connections", g.Server.Address)}
	case have.Server.Address != g.Server.Address:
		n = &news{event.ServerRegistered, key, g.Server, fmt.Sprintf("server %s registered in place of %s", g.Server.Address, have.Server.Address)}
	case have.Server != g.Server:
		n = &news{event.ServerRegistered, key, g.Server, fmt.Sprintf("server %s registered on other terms", g.Server.Address)}
	}
	if n == nil || have.in {
		r.counts.Renewed++
	}
	have.seen(g.Boot)
	load, at := have.Load, have.LoadAt
	have.Registration, have.in, have.Until = g, true, now.Add(g.Lifetime)
	if g.Load != nil {
		have.LoadAt = now
	} else {
		have.Load, have.LoadAt = load, at
	}
	r.version++
	return have.member(), r.version, n, nil
}

// admit refuses what comes too fast, or not in order.
func (r *Registry) admit(key id, have *record, boot string, sequence uint64, now time.Time) *Refusal {
	limit := r.news
	if have != nil {
		limit = have.limit
	}
	switch {
	case !limit.AllowN(now, 1):
		return refuse(TooFast, "%s: too many messages: want %d a second at most", key, time.Second/memberEvery)
	case have == nil || boot == "":
		return nil
	case slices.Contains(have.boots, boot):
		refusal := refuse(Superseded, "%s: the run %s is over: a later one, %s, has registered server %s", key, boot, have.Boot, have.Server.Address)
		refusal.first = have.over != boot
		have.over = boot
		return refusal
	case have.Boot == boot && sequence <= have.Sequence:
		return refuse(Replayed, "%s: sequence %d of the run %s is not after %d: it was said before", key, sequence, boot, have.Sequence)
	}
	return nil
}

// room refuses a member that there is no room for, or whose address is another's.
func (r *Registry) room(key id, g Registration) *Refusal {
	all, inPool := 0, 0
	for other, have := range r.records {
		if !have.in || other == key {
			continue
		}
		if all++; other.pool != g.Pool {
			continue
		}
		inPool++
		if same(have.Server, g.Server) {
			return refuse(Taken, "%s: the address %s is agent %s's", key, g.Server.Address, other.agent)
		}
	}
	if inPool >= r.opts.Servers {
		return refuse(Full, "%s: the pool has %d servers, which is the most", key, inPool)
	}
	if all >= r.opts.Members {
		return refuse(Full, "%s: there are %d members, which is the most", key, all)
	}
	return nil
}

// same reports whether two servers would be one in some service of the pool: without a
// port of its own, or a method that rewrites, a server has the service's.
func same(a, b realserver.Server) bool {
	x, y := a.Address, b.Address
	return x.Addr() == y.Addr() &&
		(x.Port() == y.Port() || x.Port() == 0 || y.Port() == 0 || !a.Method.Rewrites() || !b.Method.Rewrites())
}

// seen notes the run that speaks from now on.
func (h *record) seen(boot string) {
	if h.Boot == "" || h.Boot == boot {
		return
	}
	if h.boots = append(h.boots, h.Boot); len(h.boots) > keepBoots {
		h.boots = slices.Delete(h.boots, 0, len(h.boots)-keepBoots)
	}
}

func (h *record) member() Member {
	m := h.Member
	m.Unreachable = len(h.reports)
	return m
}

// Deregister ends a lease as its agent wants it; an empty boot is an operator's, who
// needs to know no sequence. The error is a *Refusal.
func (r *Registry) Deregister(pool, agent, boot string, sequence uint64) error {
	key := id{pool, agent}
	r.mu.Lock()
	have := r.records[key]
	var refusal *Refusal
	if have == nil {
		refusal = refuse(NoMember, "%s is not registered", key)
	} else if refusal = r.admit(key, have, boot, sequence, r.opts.Now()); refusal == nil && !have.in {
		refusal = refuse(NoMember, "%s is not registered any more", key)
	}
	if refusal != nil {
		r.mu.Unlock()
		return r.refused(key, refusal)
	}
	if boot != "" {
		have.seen(boot)
		have.Boot, have.Sequence = boot, sequence
	}
	server := have.Server
	r.counts.Left++
	version := r.end(have)
	r.mu.Unlock()
	(&news{event.ServerLeft, key, server, fmt.Sprintf("server %s left", server.Address)}).publish(r.opts.Events)
	r.save(version)
	r.tell(pool)
	return nil
}

// end takes the lease and returns the version of what is left.
func (r *Registry) end(have *record) uint64 {
	have.in, have.left, have.reports, have.Load, have.LoadAt = false, r.opts.Now(), nil, nil, time.Time{}
	r.version++
	return r.version
}

// refused counts and tells a refusal, which it returns.
func (r *Registry) refused(key id, refusal *Refusal) error {
	r.Refuse(key.agent, refusal)
	return refusal
}

// Refuse counts and tells a refusal that whoever serves the registry made.
func (r *Registry) Refuse(agent string, refusal *Refusal) {
	r.mu.Lock()
	r.counts.Refused[refusal.Reason]++
	n := r.counts.Refused[refusal.Reason]
	r.mu.Unlock()
	if refusal.first || n&(n-1) == 0 { // 1, 2, 4, 8 and so on: anybody with a token can cause them
		r.opts.Events.Publish(event.Event{
			Name: event.RegistrationRefused, Reason: string(refusal.Reason), Message: fmt.Sprintf("%.200s (%d times by now, of agent %.63s the last)", refusal.Text, n, agent),
		})
	}
}

// Servers returns what a pool has, sorted by their addresses: draining ones too.
func (r *Registry) Servers(pool string) []realserver.Server {
	members := r.Members(pool)
	servers := make([]realserver.Server, len(members))
	for i := range members {
		servers[i] = members[i].Server
	}
	slices.SortFunc(servers, func(a, b realserver.Server) int { return a.Address.Compare(b.Address) })
	return servers
}

// Members returns a pool's, sorted by agent.
func (r *Registry) Members(pool string) []Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Member
	for key, have := range r.records {
		if have.in && key.pool == pool {
			all = append(all, have.member())
		}
	}
	slices.SortFunc(all, func(a, b Member) int { return cmp.Compare(a.Agent, b.Agent) })
	return all
}

// Pools returns the handles of those that have members, sorted.
func (r *Registry) Pools() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	pools := make(map[string]bool)
	for key, have := range r.records {
		if have.in {
			pools[key.pool] = true
		}
	}
	return slices.Sorted(maps.Keys(pools))
}

// Counts returns what happened since the start.
func (r *Registry) Counts() Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.counts
	c.Refused = maps.Clone(c.Refused)
	return c
}

// tell has Changed hear what the pool has now.
func (r *Registry) tell(pool string) {
	if r.opts.Changed == nil {
		return
	}
	r.telling.Lock()
	defer r.telling.Unlock()
	r.opts.Changed(pool, r.Servers(pool))
}

// rouse has Run look.
func (r *Registry) rouse() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}
