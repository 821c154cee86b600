package watch

import (
	"fmt"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/event"
)

// pressureLevels are the fills, in per cent, that are told when they are
// reached. A level is left when the fill is below the one before it, the first
// when it is below relievedBelow: between the two nothing is told.
var pressureLevels = [...]float64{80, 95}

const relievedBelow = 70

// takeTables tells which connection tables fill, and which have room again.
func (w *Watcher) takeTables(tables []director.TableStats, now time.Time) {
	for _, table := range tables {
		w.takeFull(table, now)
		full, before := fill(table), w.levels[table.Family]
		level := before
		for level < len(pressureLevels) && full >= pressureLevels[level] {
			level++
		}
		for level > 0 && full < leftBelow(level) {
			level--
		}
		w.levels[table.Family] = level
		state := fmt.Sprintf("%.0f %% full: %d keys of %d slots, sized for %d connections", full, table.Keys, table.Slots, table.Limit)
		if table.FullIn > 0 {
			state += fmt.Sprintf("; full in %s at the present rate", table.FullIn.Round(time.Second))
		}
		switch {
		case level > before:
			w.tellTable(event.TablePressure, table, state)
		case level == 0 && before > 0:
			w.tellTable(event.TableRelieved, table, state)
		}
	}
}

// takeFull tells when new connections begin to find no room, and when they do again.
func (w *Watcher) takeFull(table director.TableStats, now time.Time) {
	b := w.full[table.Family]
	if b == nil {
		b = &burst{count: table.Refused}
		w.full[table.Family] = b
	}
	switch step, n := b.take(table.Refused, now, w.opts.Quiet); step {
	case burstBegan:
		w.publishTable(event.TableFull, table, "the %s connection table has no room for new connections: %d refused or served without state so far", table.Family, n)
	case burstEnded:
		w.publishTable(event.TableHasRoom, table, "new connections find room in the %s connection table: none did not for %s, %d before", table.Family, w.opts.Quiet, n)
	}
}

func leftBelow(level int) float64 {
	if level == 1 {
		return relievedBelow
	}
	return pressureLevels[level-2]
}

// fill returns how full the table is, in per cent: of the keys it is sized for
// or of its slots, whichever is more. A table without slots has no limit.
func fill(table director.TableStats) float64 {
	if table.Slots == 0 {
		return 0
	}
	return 100 * max(table.Pressure, float64(table.Keys)/float64(table.Slots))
}

func (w *Watcher) tellTable(name event.Name, table director.TableStats, state string) {
	w.publishTable(name, table, "the %s connection table is %s", table.Family, state)
}

func (w *Watcher) publishTable(name event.Name, table director.TableStats, format string, args ...any) {
	w.events.Publish(event.Event{Name: name, Reason: table.Family, Message: fmt.Sprintf(format, args...)})
}
