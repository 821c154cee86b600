package xdp

import "github.com/shunt-lb/shunt/director"

// Features says what the XDP plane can do.
func (d *Dataplane) Features() director.Features { return director.XDPFeatures() }
