package health

import (
	"context"
	"net/netip"
)

// icmpProbe sends an echo request.
type icmpProbe struct {
	addr   netip.Addr
	echoes *echoes
}

func (p *icmpProbe) ask(ctx context.Context) Result {
	return Result{Err: p.echoes.ask(ctx, p.addr)}
}
