package xdp

import (
	"context"

	"github.com/shunt-lb/shunt/director"
)

// Decide asks the fast path's decision on a packet.
func (d *Dataplane) Decide(context.Context, director.Question) (director.Decision, error) {
	return director.Decision{}, director.ErrUnsupported
}
