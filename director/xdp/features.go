package xdp

import "github.com/shunt-lb/shunt/director"

// Features says what the XDP plane can do with its settings.
func (d *Dataplane) Features() director.Features {
	f := director.XDPFeatures()
	f.NoLocal4, f.NoLocal6 = !d.locals.has(false), !d.locals.has(true)
	return f
}
