package director

import (
	"context"
	"net/netip"
)

// Witness is a Dataplane that counts what packets tell of servers, and suspends by
// itself those that give cause: they get no new connections.
type Witness interface {
	// SetPassive sets what suspends servers of the service from now on; the zero value
	// ends it, and their suspensions. It outlives the process. ErrNotFound if there is no
	// such service.
	SetPassive(ctx context.Context, key ServiceKey, limits Passive) error
	// Evidence returns what is known of each server of a service with limits.
	Evidence(ctx context.Context) ([]Evidence, error)
	// Absolve ends a server's suspension and forgets what led to it.
	Absolve(ctx context.Context, key ServiceKey, server netip.AddrPort) error
}

// Evidence is what packets told of a server: totals since it was added.
type Evidence struct {
	Service     ServiceKey
	Server      netip.AddrPort
	Unanswered  uint64 // first segments of clients sent again, unanswered by then
	Resets      uint64 // answers to first segments that were resets
	Unreachable uint64 // ICMP errors that say that it, or its port, cannot be reached
	Suspended   bool
}
