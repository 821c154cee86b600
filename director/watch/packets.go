package watch

import (
	"fmt"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/event"
)

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
		switch step, n := b.take(p.Count, now, w.opts.Quiet); {
		case step == burstBegan && p.Kind == director.PacketFault:
			w.tellPackets(event.Fault, p, "%d counted: %s", n, p.Help)
		case step == burstBegan:
			w.tellPackets(event.DropsStarted, p, "packets are dropped, %d so far: %s", n, p.Help)
		case step == burstEnded && p.Kind == director.PacketDrop:
			w.tellPackets(event.DropsEnded, p, "none dropped for %s, %d before: %s", w.opts.Quiet, n, p.Help)
		}
	}
}

func (w *Watcher) tellPackets(name event.Name, p director.PacketEvent, format string, args ...any) {
	w.events.Publish(event.Event{Name: name, Reason: p.Name, Message: p.Name + ": " + fmt.Sprintf(format, args...)})
}
