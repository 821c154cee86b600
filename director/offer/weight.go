package offer

import (
	"fmt"
	"math"
	"time"

	"github.com/shunt-lb/shunt/director"
)

// full is a share of the whole, per cent.
const full = 100

// maxWeight is the largest weight that anything but the configuration gives: every data
// plane has it (director.Features.MaxWeight).
const maxWeight = math.MaxUint16

// part returns a share of a weight, in per cent: at least 1 of what is not 0.
func part(weight, percent uint32) uint32 {
	if weight == 0 {
		return 0
	}
	share := uint64(weight) * uint64(percent) / full
	return uint32(min(max(share, 1), max(maxWeight, uint64(weight))))
}

// of returns the weight after what checks told: at least 1, unless one of them told 0
// itself. keepalived: a script adds its status less 2, a file's number is the weight.
func (t told) of(weight uint32) uint32 {
	base := int64(weight)
	if t.absolute != nil {
		base = min(max(*t.absolute, 0), maxWeight)
	}
	if base == 0 || t.delta == 0 {
		return uint32(base)
	}
	delta := min(max(t.delta, -maxWeight), maxWeight)
	return uint32(min(max(base+delta, 1), max(maxWeight, base)))
}

// of returns the part of a weight: at least 1 of what is not 0.
func (s share) of(weight uint32) uint32 {
	part := (uint64(weight)*uint64(s.parts) + shareWhole/2) / shareWhole
	return uint32(min(max(part, 1), max(maxWeight, uint64(weight))))
}

// orderText says what an order is.
func orderText(o *director.Override) string {
	text := "ordered down"
	if o.Up {
		text = "ordered up"
	}
	if o.Who != "" {
		text += " by " + o.Who
	}
	if !o.Until.IsZero() {
		text += " until " + o.Until.UTC().Format(time.RFC3339)
	}
	if o.Why != "" {
		text += ": " + o.Why
	}
	return text
}

// heldText says why a server is held down.
func heldText(m *member) string {
	return fmt.Sprintf("held down until %s: it changed too often", m.held.UTC().Format(time.RFC3339))
}
