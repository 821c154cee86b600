package xdp

import (
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

// guardSeconds is how long a guard that went on by itself stays on (guard.h,
// GUARD_SECONDS).
const guardSeconds = 10

// refused are the new connections that a service's limits refused, by the names of
// the packet events, and those for which there was no room.
func refused(state *bpf.KernelServiceState) map[string]uint64 {
	return map[string]uint64{
		bpf.Events[bpf.KernelEventEVENT_DROP_SERVICE_RATE].Name:        state.RefusedRate,
		bpf.Events[bpf.KernelEventEVENT_DROP_SERVICE_CONNECTIONS].Name: state.RefusedConnections,
		bpf.Events[bpf.KernelEventEVENT_DROP_SOURCE_RATE].Name:         state.RefusedSourceRate,
		bpf.Events[bpf.KernelEventEVENT_DROP_SOURCE_CONNECTIONS].Name:  state.RefusedSourceConnections,
		bpf.Events[bpf.KernelEventEVENT_DROP_TABLE_FULL].Name:          state.Full,
	}
}

// guardStats are of the service's guard at the tick.
func guardStats(g director.SourceGuard, state *bpf.KernelServiceState, clock bpf.Clock, tick uint32) director.GuardStats {
	stats := director.GuardStats{Challenged: state.Challenged, Validated: state.Validated}
	switch g.Mode {
	case director.GuardOn:
		stats.On = true
	case director.GuardAuto: // as guard.h, is_on
		stats.On = state.GuardUntil-tick-1 < guardSeconds*clock.Ticks(time.Second)
	}
	return stats
}
