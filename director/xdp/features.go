package xdp

import "github.com/shunt-lb/shunt/director"

// Features says what the XDP plane can do.
func (d *Dataplane) Features() director.Features {
	features, err := director.FeaturesOf(director.PlaneXDP)
	if err != nil {
		panic(err) // the name is known
	}
	return features
}
