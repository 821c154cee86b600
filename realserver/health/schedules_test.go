package health

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shunt-lb/shunt/realserver"
)

// ailment is what a server does for a while.
type ailment int

const (
	well ailment = iota
	refuses
	hangs  // until the probe's time is over
	sticks // the probe does not end, whatever its time
	fails  // half of the time
	ailments
)

// patient is a server whose ailments are chosen at random, and what the model makes of
// the results it gave.
type patient struct {
	assignment Assignment
	check      realserver.Check // with its defaults
	random     *rand.Rand
	ailment    ailment
	until      time.Time // of the ailment

	mu      sync.Mutex
	results []bool    // as they count
	ignored int       // passes that do not: they were asked before what they would contradict
	stuck   time.Time // when the probe began that outlived its time; zero if the last did not
	resumed time.Time

	asked     bool // a probe runs
	sticking  bool // and will not end in its time
	suspected bool
	since     int  // how many results counted when it was
	midway    bool // and the running probe had begun
}

func newPatient(i int, random *rand.Rand) *patient {
	check := realserver.Check{
		Kind: realserver.CheckTCP, Interval: time.Duration(2+random.IntN(8)) * time.Second,
		Rise: uint16(1 + random.IntN(4)), Fall: uint16(1 + random.IntN(4)),
	}
	check.Timeout = time.Duration(1 + random.Int64N(int64(check.Interval)))
	if random.IntN(2) == 0 {
		check.Retry = time.Duration(100*time.Millisecond) + time.Duration(random.Int64N(int64(check.Interval)))
	}
	p := &patient{assignment: assignment(i, check), check: check.WithDefaults(), random: random, ailment: ailments}
	p.assignment.Up, p.assignment.Known = random.IntN(2) == 0, random.IntN(2) == 0
	return p
}

// probe does what the server's ailment of now is.
func (p *patient) probe(ctx context.Context) Result {
	if now := time.Now(); !now.Before(p.until) {
		p.ailment = ailment(p.random.IntN(int(ailments)))
		p.until = now.Add(time.Duration(p.random.Int64N(int64(6 * p.check.Interval))))
	}
	does := p.ailment
	if does == fails {
		does = []ailment{well, refuses}[p.random.IntN(2)]
	}
	p.mu.Lock()
	p.asked, p.sticking, p.midway = true, does == sticks, false
	p.mu.Unlock()
	switch does {
	case hangs:
		<-ctx.Done()
		return p.result(ctx.Err())
	case sticks:
		began := time.Now()
		time.Sleep(p.check.Timeout + time.Duration(p.random.Int64N(int64(4*p.check.Interval))))
		if time.Since(began) >= p.check.Timeout+defaultGrace {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.stuck, p.resumed, p.asked = began, time.Now(), false
			return Result{}
		}
		return p.result(nil)
	case refuses:
		return p.result(errRefused)
	}
	time.Sleep(time.Duration(p.random.Int64N(int64(p.check.Timeout))))
	return p.result(nil)
}

func (p *patient) result(err error) Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked = false; err == nil && p.midway && p.suspected {
		p.ignored++
	} else {
		p.count(err == nil)
	}
	return Result{Err: err}
}

// count takes in a result that counts. As many passes in a row as make a server up speak
// against a suspicion, if they came after it, and what is down is not suspected.
func (p *patient) count(passed bool) {
	p.results = append(p.results, passed)
	if !p.suspected {
		return
	}
	rise := int(p.check.Rise)
	absolved := len(p.results)-p.since >= rise && !slices.Contains(p.results[len(p.results)-rise:], false)
	up, _ := p.judged()
	p.suspected = up && !absolved
}

func (p *patient) judged() (up, known bool) {
	return judge(p.assignment.Up, p.assignment.Known, int(p.check.Rise), int(p.check.Fall), p.results)
}

// suspect has packets speak against the server, but for a time whose results are not
// known before it is over.
func (p *patient) suspect(m *Monitor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked && p.sticking {
		return
	}
	m.Suspect(p.assignment.Key)
	if up, _ := p.judged(); up && !p.suspected {
		p.suspected, p.since, p.midway = true, len(p.results), p.asked
	}
}

// examine compares the monitor's word with the model's; no probe of the server runs.
func (p *patient) examine(t *testing.T, m *Monitor) {
	s, _ := m.Status(p.assignment.Key)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.stuck.IsZero() {
		// A probe that did not end failed when its time was over, and once for each that
		// would have been asked since.
		failed := int(s.Successes+s.Failures) - len(p.results) - p.ignored
		after := float64(p.resumed.Sub(p.stuck) - p.check.Timeout - defaultGrace)
		least, most := after/(1.1*float64(max(p.check.Interval, p.check.Retry))), 1+after/(0.9*float64(min(p.check.Interval, p.check.Retry)))
		if failed < 1 || float64(failed) < least || float64(failed-1) > most+1 {
			t.Errorf("%v stuck for %v: %d failures, want 1 and %.1f to %.1f", p.assignment.Target.Server, p.resumed.Sub(p.stuck), failed, least, most)
		}
		for range failed {
			p.count(false)
		}
		p.stuck = time.Time{}
	}
	if n := int(s.Successes + s.Failures); n != len(p.results)+p.ignored {
		t.Errorf("%v: %d results, the server gave %d and %d", p.assignment.Target.Server, n, len(p.results), p.ignored)
	}
	up, known := p.judged()
	if s.Up != up || s.Known != known || s.Suspected != p.suspected {
		t.Errorf("%v: up %v, known %v, suspected %v after %v with rise %d, fall %d; want %v, %v, %v",
			p.assignment.Target.Server, s.Up, s.Known, s.Suspected, p.results, p.check.Rise, p.check.Fall, up, known, p.suspected)
	}
}

func TestMonitorFollowsTheModelThroughRandomFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const schedules = 1000
		seed := rand.Uint64()
		t.Logf("seed %#x", seed)
		patients, assignments := map[netip.AddrPort]*patient{}, []Assignment{}
		for i := range schedules {
			p := newPatient(i, rand.New(rand.NewPCG(seed, uint64(i))))
			patients[p.assignment.Target.Server] = p
			assignments = append(assignments, p.assignment)
		}
		var l *lab
		l = start(t, Options{}, func(ctx context.Context, server netip.AddrPort) Result {
			p := patients[server]
			p.examine(t, l.Monitor)
			return p.probe(ctx)
		})
		l.Set(assignments)
		random := rand.New(rand.NewPCG(seed, schedules))
		for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(time.Duration(random.Int64N(int64(6 * time.Millisecond)))) {
			patients[assignments[random.IntN(schedules)].Target.Server].suspect(l.Monitor)
		}
		changes, stats := len(l.told()), l.Stats()
		l.stop()
		ignored := 0
		for _, p := range patients {
			ignored += p.ignored
		}
		t.Logf("%d probes, %d failures, %d without end, %d passes that were asked too early, %d changes", stats.Probes, stats.Failures, stats.Overruns, ignored, changes)
		if stats.Overruns < schedules/10 || changes < schedules || ignored < schedules/10 {
			t.Errorf("too little happened: %+v, %d changes, %d passes ignored", stats, changes, ignored)
		}
	})
}
