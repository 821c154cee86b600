package xdp

import (
	"fmt"
	"math"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

const (
	// fillingHalf is after how long a change of a table's fill weighs half as much in
	// the forecast as one of now: a burst of seconds moves it little, and a flood shows
	// in the first minute.
	fillingHalf = time.Minute
	// farthest is how far a forecast looks: what is slower is the change of the day.
	farthest = 24 * time.Hour
)

// filling is how fast a table fills: the mean of the changes between sweeps, each
// weighted by the time it lasted, and half as much with every fillingHalf that it is
// ago. The zero value knows nothing yet.
type filling struct {
	keys   float64 // at the last sweep
	at     time.Time
	slope  float64 // keys a second, times weight
	weight float64 // of the changes so far: 1 after some time
}

// note takes the keys that a sweep has counted at the time.
func (f *filling) note(keys uint64, at time.Time) {
	if seconds := at.Sub(f.at).Seconds(); !f.at.IsZero() && seconds > 0 {
		kept := math.Exp2(-seconds / fillingHalf.Seconds())
		f.slope = kept*f.slope + (1-kept)*(float64(keys)-f.keys)/seconds
		f.weight = kept*f.weight + (1 - kept)
	}
	f.keys, f.at = float64(keys), at
}

// fullIn returns how long it takes at the present rate until the table has so many
// keys; 0 if it does not come to that within a day, or has come to it.
func (f *filling) fullIn(room uint64) time.Duration {
	left := float64(room) - f.keys
	if left <= 0 || f.slope <= 0 {
		return 0
	}
	seconds := left * f.weight / f.slope
	if seconds > farthest.Seconds() {
		return 0
	}
	return max(time.Second, time.Duration(seconds*float64(time.Second)))
}

// noteKeys keeps what the walk has counted of the table that it leaves.
func (s *sweepState) noteKeys(w *sweepRun, now time.Time) {
	s.keys[w.family] = w.keys
	s.filling[w.family].note(w.keys, now)
}

// tables describes the connection tables, how full they are and will be.
func (d *Dataplane) tables() ([]director.TableStats, error) {
	tables := d.sweeps.tables(d.plane)
	states, err := bpf.ReadArray[bpf.KernelTableState](d.plane.TableStates)
	if err != nil {
		return nil, fmt.Errorf("read the states of the tables: %w", err)
	}
	now := uint32(0)
	for i := range tables {
		t, state := &tables[i], &states[i]
		room := keysPerConnection * t.Limit
		t.Pressure = float64(t.Keys) / float64(room)
		t.FullIn = d.sweeps.filling[i].fullIn(room)
		if t.Refused = state.Full; state.FullTick == 0 {
			continue
		}
		if now == 0 {
			if now, err = d.plane.Now(); err != nil {
				return nil, err
			}
		}
		t.LastFull = max(d.plane.Clock.Tick(), d.plane.Clock.Idle(state.FullTick, now))
	}
	return tables, nil
}

// keysPerConnection is at how many keys each the tables are sized (nat).
const keysPerConnection = 2
