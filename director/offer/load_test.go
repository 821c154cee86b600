package offer

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director"
	"pgregory.net/rapid"
)

var loadStart = time.Unix(1e9, 0)

// settle reports the load of each server every 5 s for so long, and returns when.
func settle(t *testing.T, l *Loads, now time.Time, long time.Duration, reports ...LoadReport) time.Time {
	t.Helper()
	for end := now.Add(long); now.Before(end); now = now.Add(5 * time.Second) {
		for i, r := range reports {
			r.At = now
			if err := l.Report(simServer(i), simWeight, r); err != nil {
				t.Fatal(err)
			}
		}
	}
	return now
}

func TestLoadsComeToThePolicysWeights(t *testing.T) {
	for _, c := range []struct {
		name    string
		policy  director.LoadPolicy
		reports []LoadReport
		want    []uint32 // of 1000
	}{
		{"linear", director.LoadPolicy{Kind: director.LoadLinear}, []LoadReport{{Load: 0}, {Load: 0.5}, {Load: 1}, {Load: 7}}, []uint32{2000, 1000, 100, 100}},
		{"linear, bounded", director.LoadPolicy{Kind: director.LoadLinear, Minimum: 50, Maximum: 150}, []LoadReport{{Load: 0}, {Load: 1}}, []uint32{1500, 500}},
		{"least used, level", director.LoadPolicy{Kind: director.LoadLeastUsed}, []LoadReport{{Load: 0.6}, {Load: 0.6}}, []uint32{1000, 1000}},
		{"least used", director.LoadPolicy{Kind: director.LoadLeastUsed}, []LoadReport{{Load: 0.3}, {Load: 0.9}}, []uint32{1500, 500}},
		{"least used, beyond the level", director.LoadPolicy{Kind: director.LoadLeastUsed}, []LoadReport{{Load: 0}, {Load: 0}, {Load: 1}}, []uint32{1500, 1500, 100}},
		{"least used, idle servers alike", director.LoadPolicy{Kind: director.LoadLeastUsed}, []LoadReport{{Load: 0.01}, {Load: 0.03}}, []uint32{1000, 1000}},
		// A level of 0.8: 40 connections more at 0.01 each, 20 at 0.02.
		{"least used, by degradation", director.LoadPolicy{Kind: director.LoadLeastUsed}, []LoadReport{{Load: 0.4, Degradation: 0.01}, {Load: 0.4, Degradation: 0.02}}, []uint32{1333, 667}},
		{"least used, degradation of one only", director.LoadPolicy{Kind: director.LoadLeastUsed}, []LoadReport{{Load: 0.4, Degradation: 0.01}, {Load: 0.4}}, []uint32{1000, 1000}},
		{"reported", director.LoadPolicy{Kind: director.LoadFromMeasure}, []LoadReport{{Load: 0.25}, {Load: 1.5}, {Load: 9}}, []uint32{250, 1500, 2000}},
		{"none", director.LoadPolicy{}, []LoadReport{{Load: 1}}, []uint32{1000}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := NewLoads(c.policy)
			now := settle(t, l, loadStart, 10*time.Minute, c.reports...)
			for i, want := range c.want {
				got, why := l.Weight(simServer(i), simWeight, now)
				// Weights that are near enough are left where they are.
				if math.Abs(float64(got)-float64(want)) > 0.12*float64(want) {
					t.Errorf("server %d: weight %d (%s), want about %d", i, got, why, want)
				}
			}
		})
	}
}

func TestLoadsGoInSteps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy := director.LoadPolicy{
			Kind:    rapid.SampledFrom([]director.LoadKind{director.LoadLinear, director.LoadLeastUsed, director.LoadFromMeasure}).Draw(t, "kind"),
			Minimum: rapid.Uint32Range(0, 100).Draw(t, "minimum"), Maximum: rapid.SampledFrom([]uint32{0, 100, 150, 400}).Draw(t, "maximum"),
		}
		l, now := NewLoads(policy), loadStart
		stepped := map[int]time.Time{}
		before := map[int]float64{}
		for range rapid.IntRange(1, 60).Draw(t, "reports") {
			i := rapid.IntRange(0, 3).Draw(t, "server")
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(15*time.Second)).Draw(t, "later")))
			if known, ok := l.servers[simServer(i)]; ok && l.silent(known, now) {
				delete(before, i)
			}
			if err := l.Report(simServer(i), simWeight, LoadReport{At: now, Load: rapid.Float64Range(0, 3).Draw(t, "load")}); err != nil {
				t.Fatal(err)
			}
			percent := l.servers[simServer(i)].percent
			last, known := before[i]
			if !known {
				last = 100
			}
			if percent < last*(1-stepMost)-1e-9 || percent > last*(1+stepMost)+1e-9 {
				t.Fatalf("one report made %v %% of %v %%", percent, last)
			}
			if percent != last {
				if at, ok := stepped[i]; ok && now.Sub(at) < stepEvery {
					t.Fatalf("two steps in %v", now.Sub(at))
				}
				stepped[i] = now
			}
			before[i] = percent
			low, high := min(l.minimum, 100), max(l.maximum, 100)
			if weight, _ := l.Weight(simServer(i), simWeight, now); float64(weight) < simWeight*low/100-1 || float64(weight) > simWeight*high/100+1 {
				t.Fatalf("weight %d is out of bounds, %v %% to %v %%", weight, low, high)
			}
		}
	})
}

func TestLoadsOfSilentServersCountNoMore(t *testing.T) {
	l := NewLoads(director.LoadPolicy{Kind: director.LoadLeastUsed})
	now := settle(t, l, loadStart, 5*time.Minute, LoadReport{Load: 0.2}, LoadReport{Load: 1}).Add(-5 * time.Second)
	if weight, why := l.Weight(simServer(1), simWeight, now); weight > 500 || why != "load 1.00: 33 %" {
		t.Errorf("busy: weight %d, %s", weight, why)
	}
	silent := l.Silent(now)
	if silent != now.Add(30*time.Second) {
		t.Errorf("silent at %v, want 30 s after %v", silent, now)
	}
	weight, why := l.Weight(simServer(1), simWeight, silent)
	if weight != simWeight || !strings.HasPrefix(why, "load: silent since 2001-09-09T01:51:35Z") {
		t.Errorf("silent: weight %d, %s", weight, why)
	}
	if next := l.Silent(silent); !next.IsZero() {
		t.Errorf("all are silent, and the next is at %v", next)
	}
	if err := l.Report(simServer(1), simWeight, LoadReport{At: silent, Load: 1}); err != nil {
		t.Fatal(err)
	}
	if weight, _ := l.Weight(simServer(1), simWeight, silent); weight != simWeight {
		t.Errorf("the first report after silence made weight %d at once", weight)
	}
	l.Forget(simServer(1))
	if weight, why := l.Weight(simServer(1), simWeight, silent); weight != simWeight || why != "" {
		t.Errorf("forgotten: weight %d, %s", weight, why)
	}
}

// TestLoadsWaitForReports: who reports seldom is not silent between two reports.
func TestLoadsWaitForReports(t *testing.T) {
	for _, tt := range []struct {
		silence, every, want time.Duration
	}{
		{0, 0, 30 * time.Second}, {0, 5 * time.Second, 30 * time.Second}, {0, time.Minute, 3 * time.Minute}, {10 * time.Second, time.Minute, 10 * time.Second},
	} {
		l := NewLoads(director.LoadPolicy{Kind: director.LoadLinear, Silence: tt.silence})
		if err := l.Report(simServer(0), simWeight, LoadReport{At: loadStart, Load: 1, Every: tt.every}); err != nil {
			t.Fatal(err)
		}
		if got := l.Silent(loadStart).Sub(loadStart); got != tt.want {
			t.Errorf("silence %s, every %s: silent after %s, want %s", tt.silence, tt.every, got, tt.want)
		}
	}
}

func TestLoadsKeepServersInRotation(t *testing.T) {
	l := NewLoads(director.LoadPolicy{Kind: director.LoadLinear, Minimum: 1})
	for now := loadStart; now.Before(loadStart.Add(10 * time.Minute)); now = now.Add(5 * time.Second) {
		if err := l.Report(simServer(0), 1, LoadReport{At: now, Load: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if weight, _ := l.Weight(simServer(0), 1, loadStart.Add(10*time.Minute)); weight != 1 {
		t.Errorf("weight %d of 1 under load, want 1", weight)
	}
	if weight, _ := l.Weight(simServer(0), 0, loadStart.Add(10*time.Minute)); weight != 0 {
		t.Errorf("weight %d of 0, want 0: it was taken out by its configuration", weight)
	}
	if weight, _ := l.Weight(simServer(0), math.MaxInt32, loadStart); weight > math.MaxInt32 {
		t.Errorf("weight %d is more than a server can have", weight)
	}
}

func TestLoadsRefuseWhatIsNoLoad(t *testing.T) {
	for _, c := range []struct {
		name   string
		report LoadReport
		want   string
	}{
		{"negative", LoadReport{At: loadStart, Load: -0.1}, "take the load of 10.0.0.1:80: -0.1 is none, want 0 to 1"},
		{"not a number", LoadReport{At: loadStart, Load: math.NaN()}, "NaN is none"},
		{"infinite", LoadReport{At: loadStart, Load: math.Inf(1)}, "+Inf is none"},
		{"degradation", LoadReport{At: loadStart, Degradation: math.NaN()}, "NaN is no degradation"},
		{"older than the last", LoadReport{At: loadStart.Add(-time.Second)}, "is older than the last"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := NewLoads(director.LoadPolicy{Kind: director.LoadLinear})
			now := settle(t, l, loadStart.Add(-time.Minute), time.Minute+time.Second, LoadReport{Load: 0.2})
			before, _ := l.Weight(simServer(0), simWeight, now)
			if err := l.Report(simServer(0), simWeight, c.report); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if after, _ := l.Weight(simServer(0), simWeight, now); after != before {
				t.Errorf("weight %d after a bad report, %d before", after, before)
			}
		})
	}
}
