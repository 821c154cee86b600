package watch

import (
	"fmt"
	"maps"
	"slices"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/event"
)

// takeInterfaces tells which interfaces the fast path runs on anew, in another
// mode, or no more.
func (w *Watcher) takeInterfaces(interfaces []director.InterfaceStats) {
	modes := make(map[string]director.InterfaceMode, len(interfaces))
	for _, i := range interfaces {
		modes[i.Name] = i.Mode
		before, known := w.interfaces[i.Name]
		if before == i.Mode {
			continue
		}
		switch {
		case i.Mode == director.InterfaceGone:
			w.tellInterface(event.InterfaceDetached, i.Name, "interface %s is gone: its packets do not take the fast path", i.Name)
		case !w.begun:
		case known && before != director.InterfaceGone:
			w.tellInterface(event.InterfaceAttached, i.Name, "the fast path runs on %s in mode %s, which was %s", i.Name, i.Mode, before)
		default:
			w.tellInterface(event.InterfaceAttached, i.Name, "the fast path runs on %s in mode %s", i.Name, i.Mode)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.interfaces)) {
		if _, still := modes[name]; !still && w.interfaces[name] != director.InterfaceGone {
			w.tellInterface(event.InterfaceDetached, name, "the data plane is attached to %s no more", name)
		}
	}
	w.interfaces = modes
}

func (w *Watcher) tellInterface(name event.Name, iface, format string, args ...any) {
	w.events.Publish(event.Event{Name: name, Interface: iface, Message: fmt.Sprintf(format, args...)})
}
