package watch

import (
	"fmt"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/event"
)

// pressureLevels are the fills, in per cent, that are told when they are
// reached. A level is left when the fill is below the one before it, the first
// when it is below relievedBelow: between the two nothing is told.
var pressureLevels = [...]float64{80, 95}

const relievedBelow = 70

// keysPerConnection is at how many keys each TableStats.Limit counts.
const keysPerConnection = 2

// takeTables tells which connection tables fill, and which have room again.
func (w *Watcher) takeTables(tables []director.TableStats) {
	for _, table := range tables {
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
		switch {
		case level > before:
			w.tellTable(event.TablePressure, table, state)
		case level == 0 && before > 0:
			w.tellTable(event.TableRelieved, table, state)
		}
	}
}

func leftBelow(level int) float64 {
	if level == 1 {
		return relievedBelow
	}
	return pressureLevels[level-2]
}

// fill returns how full the table is, in per cent: of the keys it is sized for
// or of its slots, whichever is more. A limit of 0 is none.
func fill(table director.TableStats) float64 {
	share := func(of uint64) float64 {
		if of == 0 {
			return 0
		}
		return 100 * float64(table.Keys) / float64(of)
	}
	return max(share(keysPerConnection*table.Limit), share(table.Slots))
}

func (w *Watcher) tellTable(name event.Name, table director.TableStats, state string) {
	w.events.Publish(event.Event{Name: name, Reason: table.Family, Message: fmt.Sprintf("the %s connection table is %s", table.Family, state)})
}
