package watch

import (
	"fmt"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/event"
)

// burst is a time in which a packet event was counted again and again.
type burst struct {
	count  uint64 // at the last reading
	before uint64 // when the burst began
	active bool
	moved  time.Time // the last reading that saw the count move
}

// takePackets tells when packets begin to be dropped for a reason, when that has
// ended, and when something was counted that cannot happen. The counts from
// before the first reading are nobody's news, except for faults: nobody may have
// been there to tell.
func (w *Watcher) takePackets(packets []director.PacketEvent, now time.Time) {
	for _, p := range packets {
		if p.Kind != director.PacketDrop && p.Kind != director.PacketFault {
			continue
		}
		b := w.bursts[p.Name]
		if b == nil {
			b = new(burst)
			w.bursts[p.Name] = b
			if !w.begun {
				b.count = p.Count
				if p.Kind == director.PacketFault && p.Count > 0 {
					w.tellPackets(event.Fault, p, "%d counted since the data plane was loaded: %s", p.Count, p.Help)
				}
			}
		}
		if p.Count < b.count { // the data plane was loaded anew
			b.count, b.before = 0, 0
		}
		moved := p.Count - b.count
		switch {
		case moved > 0 && !b.active:
			b.active, b.before = true, b.count
			if p.Kind == director.PacketFault {
				w.tellPackets(event.Fault, p, "%d counted: %s", moved, p.Help)
			} else {
				w.tellPackets(event.DropsStarted, p, "packets are dropped, %d so far: %s", moved, p.Help)
			}
		case moved == 0 && b.active && now.Sub(b.moved) >= w.opts.Quiet:
			b.active = false
			if p.Kind == director.PacketDrop {
				w.tellPackets(event.DropsEnded, p, "none dropped for %s, %d before: %s", w.opts.Quiet, p.Count-b.before, p.Help)
			}
		}
		if moved > 0 {
			b.moved = now
		}
		b.count = p.Count
	}
}

func (w *Watcher) tellPackets(name event.Name, p director.PacketEvent, format string, args ...any) {
	w.events.Publish(event.Event{Name: name, Reason: p.Name, Message: p.Name + ": " + fmt.Sprintf(format, args...)})
}
