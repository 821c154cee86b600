package offer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director"
)

// pool is a simulation of servers with queues that report late.
type pool struct {
	capacity []float64     // connections that make a server's load 1
	demand   float64       // connections in progress at all, in shares of all capacity
	lasts    time.Duration // a connection, on average
	every    time.Duration // from report to report
	late     time.Duration // a report, when it is heard
	averaged time.Duration // a server's load is its mean over so long (as loadavg is)
	noise    float64       // of a report
}

const simTick = time.Second

// weigher makes weights of reports.
type weigher interface {
	Report(server netip.AddrPort, configured uint32, r LoadReport) error
	Weight(server netip.AddrPort, configured uint32, now time.Time) (uint32, string)
}

// undamped answers each report at once and in full, by the same policy.
type undamped struct{ *Loads }

func (u undamped) Report(server netip.AddrPort, configured uint32, r LoadReport) error {
	s := &load{configured: float64(configured), last: r.At, smoothed: min(r.Load, 1), degradation: r.Degradation}
	u.servers[server] = s
	s.percent = min(max(u.want(s, r.At), u.minimum), u.maximum)
	return nil
}

// run simulates and returns, of the last third, by how much each server's share of
// new connections swings at most (highest less lowest, of its mean), how often weights
// change a minute and server, and the highest load less the lowest in the mean.
func (p pool) run(w weigher, random *rand.Rand, long time.Duration) (swing, changes, spread float64) {
	n := len(p.capacity)
	var all float64
	for _, c := range p.capacity {
		all += c
	}
	now := time.Unix(1e9, 0)
	active, average, weights := make([]float64, n), make([]float64, n), make([]uint32, n)
	low, high, mean := make([]float64, n), make([]float64, n), make([]float64, n)
	meanLoad := make([]float64, n)
	phase := make([]time.Duration, n)
	pending := make([][]LoadReport, n)
	for i := range n {
		active[i] = p.demand * all / float64(n)
		phase[i] = time.Duration(random.Int64N(int64(p.every))).Truncate(simTick)
		low[i], weights[i] = math.Inf(1), simWeight
	}
	arrive := p.demand * all / p.lasts.Seconds()
	ticks, counted, changed := int(long/simTick), 0, 0
	for tick := range ticks {
		at := time.Duration(tick) * simTick
		now = now.Add(simTick)
		var sum float64
		for i := range n {
			if (at+phase[i])%p.every == 0 {
				told := max(0, average[i]*(1+p.noise*random.NormFloat64()))
				pending[i] = append(pending[i], LoadReport{At: now.Add(p.late), Load: told})
			}
			for len(pending[i]) > 0 && !pending[i][0].At.After(now) {
				if err := w.Report(simServer(i), simWeight, pending[i][0]); err != nil {
					panic(err)
				}
				pending[i] = pending[i][1:]
			}
			weight, _ := w.Weight(simServer(i), simWeight, now)
			if weight != weights[i] && tick > 2*ticks/3 {
				changed++
			}
			weights[i] = weight
			sum += float64(weights[i])
		}
		if tick >= 2*ticks/3 {
			counted++
		}
		for i := range n {
			share := float64(weights[i]) / sum
			dt := simTick.Seconds()
			active[i] += arrive*share*dt - active[i]*dt/p.lasts.Seconds()
			busy := active[i] / p.capacity[i]
			average[i] += (min(busy, 1) - average[i]) * (1 - math.Exp(-float64(simTick)/float64(p.averaged)))
			if tick >= 2*ticks/3 {
				low[i], high[i] = min(low[i], share), max(high[i], share)
				mean[i] += share
				meanLoad[i] += busy
			}
		}
	}
	least, most := math.Inf(1), 0.0
	for i := range n {
		swing = max(swing, (high[i]-low[i])/(mean[i]/float64(counted)))
		least, most = min(least, meanLoad[i]/float64(counted)), max(most, meanLoad[i]/float64(counted))
	}
	return swing, float64(changed) / float64(n) / (long / 3).Minutes(), most - least
}

const simWeight = 1000

func simServer(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 80)
}

// TestLoadsDoNotSwing compares, for pools whose reports are late, the damped weights with
// those of the same policy that answers each report at once and in full.
func TestLoadsDoNotSwing(t *testing.T) {
	capacity := []float64{100, 100, 80, 150} // configured alike
	for _, c := range []struct {
		kind   director.LoadKind
		pool   pool
		swings float64 // undamped, at least
	}{
		{director.LoadLinear, pool{demand: 0.5, lasts: 20 * time.Second, every: 10 * time.Second, noise: 0.1}, 0.4},
		{director.LoadLinear, pool{demand: 0.8, lasts: time.Second, every: 2 * time.Second}, 0.9},
		{director.LoadLinear, pool{demand: 0.8, lasts: 20 * time.Second, every: 10 * time.Second, noise: 0.1}, 1.5},
		{director.LoadLinear, pool{demand: 0.9, lasts: 20 * time.Second, every: 30 * time.Second}, 1.2},
		{director.LoadLinear, pool{demand: 0.95, lasts: 20 * time.Second, every: 10 * time.Second}, 1.2},
		{director.LoadLinear, pool{demand: 0.95, lasts: 100 * time.Second, every: 10 * time.Second, noise: 0.1}, 2},
		{director.LoadLeastUsed, pool{demand: 0.5, lasts: 20 * time.Second, every: 10 * time.Second, noise: 0.1}, 0.4},
		{director.LoadLeastUsed, pool{demand: 0.8, lasts: time.Second, every: 30 * time.Second, noise: 0.1}, 0.4},
		{director.LoadLeastUsed, pool{demand: 0.9, lasts: 100 * time.Second, every: 10 * time.Second, noise: 0.1}, 0.3},
	} {
		p := c.pool
		p.capacity, p.late, p.averaged = capacity, p.every/2, p.every
		name := fmt.Sprintf("%s/demand_%v_lasting_%v_told_each_%v_noise_%v", c.kind, p.demand, p.lasts, p.every, p.noise)
		t.Run(name, func(t *testing.T) {
			policy := director.LoadPolicy{Kind: c.kind, Silence: 5 * time.Minute}
			const long = 40 * time.Minute
			swing, changes, spread := p.run(NewLoads(policy), rand.New(rand.NewPCG(1, 1)), long)
			wild, restless, _ := p.run(undamped{NewLoads(policy)}, rand.New(rand.NewPCG(1, 1)), long)
			_, _, unaided := p.run(NewLoads(director.LoadPolicy{}), rand.New(rand.NewPCG(1, 1)), long)
			t.Logf("shares swing by %.2f of their mean, undamped %.2f; weights change %.2f times a minute, undamped %.2f; loads differ by %.2f, without the policy %.2f",
				swing, wild, changes, restless, spread, unaided)
			if swing > 0.45 || changes > 0.35 {
				t.Errorf("shares swing by %.2f, with %.2f changes a minute; want at most 0.45 and 0.35", swing, changes)
			}
			if wild < c.swings {
				t.Errorf("undamped, shares swing by %.2f only: the simulation shows nothing", wild)
			}
			if spread >= unaided {
				t.Errorf("loads differ by %.2f, without the policy by %.2f", spread, unaided)
			}
		})
	}
}
