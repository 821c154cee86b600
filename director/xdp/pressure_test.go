package xdp

import (
	"testing"
	"time"

	"github.com/shunt-lb/shunt/bpf"
)

func TestFilling(t *testing.T) {
	const period = 2 * time.Second
	for _, tt := range []struct {
		name  string
		keys  []uint64 // sweep by sweep
		room  uint64
		least time.Duration // of the forecast; 0 and 0: there is none
		most  time.Duration
	}{
		{"nothing_is_known", nil, 1000, 0, 0},
		{"one_sweep_tells_nothing", []uint64{500}, 1000, 0, 0},
		{"steady_growth", growing(100, 10, 20), 1000, 142 * time.Second, 142 * time.Second}, // 710 keys left at 5 a second
		{"from_the_second_sweep_on", []uint64{0, 10}, 110, 20 * time.Second, 20 * time.Second},
		{"no_change", growing(500, 0, 20), 1000, 0, 0},
		{"it_shrinks", []uint64{900, 800, 700}, 1000, 0, 0},
		{"full_already", growing(900, 10, 20), 1000, 0, 0},
		{"slower_than_a_day", growing(0, 1, 20), 1 << 30, 0, 0},
		{"within_a_second", []uint64{0, 999}, 1000, time.Second, time.Second},
		// 10 minutes of 1 key a sweep, then 50 a second for half a half-life: they count for
		// 1-2^-0.5, 15 a second in all.
		{"a_burst_weighs_little_at_first", append(growing(0, 1, 300), growing(400, 100, 15)...), 101800, 6600 * time.Second, 6700 * time.Second},
		// After five half-lives nearly nothing else counts.
		{"and_is_what_counts_in_the_end", append(growing(0, 1, 300), growing(400, 100, 150)...), 115300, 2000 * time.Second, 2100 * time.Second},
		{"a_drop_ends_the_forecast", append(growing(0, 10, 20), 0, 0), 1000, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var f filling
			at := time.Now()
			for _, keys := range tt.keys {
				f.note(keys, at)
				at = at.Add(period)
			}
			if got := f.fullIn(tt.room).Round(time.Second); got < tt.least || got > tt.most {
				t.Errorf("full in %s, want %s to %s", got, tt.least, tt.most)
			}
		})
	}
}

// growing returns the keys of n sweeps.
func growing(from, by uint64, n int) []uint64 {
	keys := make([]uint64, n)
	for i := range keys {
		keys[i] = from + by*uint64(i)
	}
	return keys
}

// The forecast does not depend on how often it is looked, nor does a clock that stands
// still or goes back break it.
func TestFillingByTime(t *testing.T) {
	forecast := func(period time.Duration) time.Duration {
		var f filling
		begin := time.Now()
		for past := time.Duration(0); past <= time.Minute; past += period {
			seconds := uint64(past.Seconds())
			f.note(5*seconds+20*(max(seconds, 30)-30), begin.Add(past)) // slow, then fast
		}
		return f.fullIn(10000).Round(time.Second)
	}
	if a, b := forecast(time.Second), forecast(10*time.Second); a != b || a == 0 {
		t.Errorf("%s by sweeps of a second, %s by those of ten", a, b)
	}
	var f filling
	at := time.Now()
	for _, step := range []time.Duration{0, time.Second, 0, -time.Hour, time.Second} {
		at = at.Add(step)
		f.note(10, at)
	}
	if got := f.fullIn(1000); got != 0 {
		t.Errorf("full in %s without a change", got)
	}
}

// TestTablePressure: what a table holds, and when it was full.
func TestTablePressure(t *testing.T) {
	r := newRig(t, Options{MaxConnections: 1024})
	read := func() (pressure float64, refused uint64, full time.Duration) {
		t.Helper()
		stats, err := r.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		table := stats.Table[0]
		return table.Pressure, table.Refused, table.LastFull
	}
	if pressure, refused, full := read(); pressure != 0 || refused != 0 || full != 0 {
		t.Errorf("of a new table: pressure %g, %d refused, full %s ago", pressure, refused, full)
	}
	limit, _ := r.MaxConnections()
	r.Dataplane.mu.Lock()
	r.sweeps.keys[0] = limit
	r.Dataplane.mu.Unlock()
	now, err := r.plane.Now()
	if err != nil {
		t.Fatal(err)
	}
	hour := r.plane.Clock.Ticks(time.Hour)
	if err := r.plane.TableStates.Put(uint32(0), &bpf.KernelTableState{FullTick: now - hour, Full: 7}); err != nil {
		t.Fatal(err)
	}
	if pressure, refused, full := read(); pressure != 0.5 || refused != 7 || full < time.Hour || full > time.Hour+time.Minute {
		t.Errorf("pressure %g, %d refused, full %s ago", pressure, refused, full)
	}
	if err := r.plane.TableStates.Put(uint32(0), &bpf.KernelTableState{FullTick: now + 1, Full: 8}); err != nil {
		t.Fatal(err)
	}
	if _, refused, full := read(); refused != 8 || full <= 0 || full > time.Minute {
		t.Errorf("%d refused, full %s ago, want some time", refused, full)
	}
}
