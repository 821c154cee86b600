package xdp

import (
	"context"

	"github.com/shunt-lb/shunt/director"
)

// Kill removes the connections and templates that match.
func (d *Dataplane) Kill(context.Context, director.ConnectionFilter) (uint64, error) {
	return 0, director.ErrUnsupported
}
