package offer

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/shunt-lb/shunt/director"
)

// LoadReport is what a server said of its load.
type LoadReport struct {
	At time.Time // when it was heard, by the director's clock
	// Load is from 0, idle, to 1, busy; more is taken for 1. Under
	// director.LoadFromMeasure it is the weight it wants as a share of the configured one.
	Load float64
	// Degradation is what one more connection adds to Load (RFC 5356 §4.2); 0: not said.
	Degradation float64
	// Every is how far apart reports are at most; 0: nobody knows.
	Every time.Duration
}

// Terms of the damping. Loads come late, and what a weight does is seen later still:
// whoever answers each report in full has the servers swing between busy and idle.
const (
	// smoothReports and smoothLeast are the time in which a smoothed load follows: so many
	// times that from one report to the next, and at least so long. Slow reports are
	// followed slowly.
	smoothReports = 3
	smoothLeast   = 10 * time.Second
	// deadBand is the share of a weight by which another must differ to be worth a change.
	deadBand = 0.1
	// stepMost is the share of a weight by which one step changes it, stepEvery the time
	// from one step of a server to the next; there is none without a new report.
	stepMost  = 0.25
	stepEvery = 5 * time.Second
	// gainMost is how much slower, and with how much more indifference, a policy is followed
	// that answers a load with more than its share of weight.
	gainMost = 4
	// idleLoad is how much load is expected to arrive at least: differences between idle
	// servers are noise.
	idleLoad = 0.25
)

// Defaults of director.LoadPolicy.
const (
	defaultLoadMinimum = 10
	defaultLoadMaximum = 200
	defaultLoadSilence = 30 * time.Second
	// reportsMissed is how many reports a server may miss at least before it is silent,
	// unless the policy says how long that takes.
	reportsMissed = 3
)

// Loads turns what the servers of one service report into weights, by its policy. It
// reads no clock, and is not safe for concurrent use.
//
// Each server's load is smoothed; the policy makes a weight of it, in per cent of the
// configured one, within its bounds; and the weight goes there in steps, one a report
// at most, unless it is near enough. A server that falls silent has its configured
// weight again, and what it reports later is a new beginning.
//
// A weight of 1 has no room for per cents: services whose weights follow loads are
// configured with weights of 100 or so.
type Loads struct {
	kind             director.LoadKind
	minimum, maximum float64       // per cent
	silence          time.Duration // 0: it depends on how often a server reports
	servers          map[netip.AddrPort]*load
}

// load is what is known of one server's.
type load struct {
	configured  float64
	last        time.Time     // report
	gap         time.Duration // between the last two
	every       time.Duration // LoadReport.Every
	smoothed    float64
	degradation float64
	percent     float64 // in force
	stepped     time.Time
}

// NewLoads returns the weights' state for a policy; none for director.LoadNone.
func NewLoads(policy director.LoadPolicy) *Loads {
	l := &Loads{
		kind: policy.Kind, minimum: float64(policy.Minimum), maximum: float64(policy.Maximum), silence: policy.Silence,
		servers: map[netip.AddrPort]*load{},
	}
	if l.minimum == 0 {
		l.minimum = defaultLoadMinimum
	}
	if l.maximum == 0 {
		l.maximum = defaultLoadMaximum
	}
	l.maximum = max(l.maximum, l.minimum)
	return l
}

// Report takes in a server's report; configured is its configured weight. It returns
// an error, and forgets the report, if the numbers are none, or if a later report was
// heard before.
func (l *Loads) Report(server netip.AddrPort, configured uint32, r LoadReport) error {
	if l.kind == director.LoadNone {
		return nil
	}
	if !(r.Load >= 0) || math.IsInf(r.Load, 0) {
		return fmt.Errorf("take the load of %s: %v is none, want 0 to 1", server, r.Load)
	}
	if !(r.Degradation >= 0) || math.IsInf(r.Degradation, 0) {
		return fmt.Errorf("take the load of %s: %v is no degradation, want 0 to 1", server, r.Degradation)
	}
	if l.kind != director.LoadFromMeasure {
		r.Load = min(r.Load, 1)
	}
	s, ok := l.servers[server]
	if ok && r.At.Before(s.last) {
		return fmt.Errorf("take the load of %s: the report of %s is older than the last", server, r.At.Format(time.RFC3339))
	}
	if !ok || l.silent(s, r.At) {
		s = &load{smoothed: r.Load, percent: 100, stepped: r.At}
		l.servers[server] = s
	} else if s.gap = r.At.Sub(s.last); s.gap > 0 {
		s.smoothed += (r.Load - s.smoothed) * l.follow(s)
	}
	s.last, s.configured, s.degradation, s.every = r.At, float64(configured), r.Degradation, r.Every
	l.step(s, r.At)
	return nil
}

// Forget drops what is known of a server.
func (l *Loads) Forget(server netip.AddrPort) { delete(l.servers, server) }

// Weight returns the weight that the server is to have at the time now, and why; the
// configured one, without a reason, where there is nothing to say.
func (l *Loads) Weight(server netip.AddrPort, configured uint32, now time.Time) (uint32, string) {
	s, ok := l.servers[server]
	switch {
	case !ok || configured == 0:
		return configured, ""
	case l.silent(s, now):
		return configured, fmt.Sprintf("load: silent since %s", s.last.UTC().Format(time.RFC3339))
	}
	// A server that is in rotation stays in rotation.
	weight := max(1, math.Round(float64(configured)*s.percent/100))
	return uint32(min(weight, math.MaxInt32)), fmt.Sprintf("load %.2f: %.0f %%", s.smoothed, s.percent)
}

// state returns what is known of a server's load, nil if nothing is by now.
func (l *Loads) state(server netip.AddrPort, now time.Time) *LoadState {
	s, ok := l.servers[server]
	if !ok || l.silent(s, now) {
		return nil
	}
	return &LoadState{Value: s.smoothed, Share: s.percent / 100}
}

// Silent returns when the next server falls silent that has not by now, if none reports
// before: weights are to be looked at again then. Zero: none will.
func (l *Loads) Silent(now time.Time) time.Time {
	var next time.Time
	for _, s := range l.servers {
		if at := s.last.Add(l.patience(s)); at.After(now) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

func (l *Loads) silent(s *load, now time.Time) bool { return now.Sub(s.last) >= l.patience(s) }

// patience is how long after its last report a server is silent.
func (l *Loads) patience(s *load) time.Duration {
	if l.silence > 0 {
		return l.silence
	}
	return max(defaultLoadSilence, reportsMissed*s.every)
}

// follow returns the share of a new load in the smoothed one.
func (l *Loads) follow(s *load) float64 {
	slow := float64(max(smoothLeast, smoothReports*s.gap)) * l.gain(s)
	return 1 - math.Exp(-float64(s.gap)/slow)
}

// gain returns by how many times a small change of the load changes the weight: from 1
// to gainMost. By the linear policy little is left of a busy server's weight, and the
// same difference of load is much of it.
func (l *Loads) gain(s *load) float64 {
	if l.kind != director.LoadLinear {
		return 1
	}
	slope := l.maximum - l.minimum
	return min(max(1, slope*s.smoothed/max(l.maximum-slope*s.smoothed, 1)), gainMost)
}

// step moves the server's weight towards what the policy wants.
func (l *Loads) step(s *load, now time.Time) {
	if now.Sub(s.stepped) < stepEvery {
		return
	}
	want := min(max(l.want(s, now), l.minimum), l.maximum)
	bound := want == l.minimum || want == l.maximum // to be reached, not only neared
	if diff := math.Abs(want - s.percent); diff == 0 || diff < deadBand*l.gain(s)*s.percent && !bound {
		return
	}
	s.percent = min(max(want, s.percent*(1-stepMost)), s.percent*(1+stepMost))
	s.stepped = now
}

// want returns the weight by the policy alone, in per cent of the configured one.
func (l *Loads) want(s *load, now time.Time) float64 {
	switch l.kind {
	case director.LoadLinear:
		return l.maximum - (l.maximum-l.minimum)*s.smoothed
	case director.LoadLeastUsed:
		return l.leastUsed(s, now)
	case director.LoadFromMeasure:
		return 100 * s.smoothed
	}
	return 100
}

// leastUsed returns the server's share of the connections to come by least used with
// degradation (RFC 5356 §4.2), in per cent of the share by its configured weight. There
// each connection goes to the least loaded, and adds its degradation to what that one
// reported last: so loads rise to one level until the next reports. As much as there is
// is taken to arrive by then. Weights give each server in one go what it would get one
// by one. A connection degrades a server of twice the weight half as much unless all
// say otherwise.
func (l *Loads) leastUsed(s *load, now time.Time) float64 {
	var heard []*load
	told := true
	for _, other := range l.servers {
		if !l.silent(other, now) && other.configured > 0 {
			heard = append(heard, other)
			told = told && other.degradation > 0
		}
	}
	room := func(s *load) float64 { // connections to one more of load
		if told {
			return 1 / s.degradation
		}
		return s.configured
	}
	var used, rooms, weights float64
	for _, other := range heard {
		used += other.smoothed * room(other)
		rooms += room(other)
		weights += other.configured
	}
	if s.configured == 0 || rooms == 0 {
		return 100
	}
	mean := used / rooms
	level := mean + max(mean, idleLoad)
	takes := func(s *load) float64 { return max(0, level-s.smoothed) * room(s) }
	var all float64
	for _, other := range heard {
		all += takes(other)
	}
	return 100 * takes(s) / all * weights / s.configured
}
