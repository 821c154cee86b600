package bpf

import (
	"math"
	"testing"
)

func TestRateIsASecondsWorth(t *testing.T) {
	for _, hz := range kernelHZ {
		second := uint64(hz) << timeBits
		for _, perSecond := range []uint32{1, 2, 3, 7, 1000, 65536, 999_999, 1_000_000} {
			cost, burst := Clock{hz: hz}.Rate(perSecond)
			if burst != cost*uint64(perSecond) {
				t.Errorf("%d/s at %d Hz: a burst of %d, at %d each", perSecond, hz, burst, cost)
			}
			// Never more than what was asked for, and not much less.
			if kept := second / cost; kept > uint64(perSecond) || float64(kept) < 0.93*float64(perSecond)-1 {
				t.Errorf("%d/s at %d Hz: %d/s are let through", perSecond, hz, kept)
			}
		}
		for _, none := range []uint32{0, math.MaxUint32} {
			if cost, burst := (Clock{hz: hz}).Rate(none); cost != 0 || burst != 0 {
				t.Errorf("%d/s at %d Hz: %d each, want no limit", none, hz, cost)
			}
		}
	}
}
