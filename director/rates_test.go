package director_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
)

// feed samples counters that all grow by n, seconds/2 times.
func feed(e *director.Estimator, at *director.Counters, n uint64, seconds int) {
	for range seconds / director.EstimateSeconds {
		at.Add(director.Counters{Connections: n, InPackets: n, OutPackets: n, InBytes: n, OutBytes: n})
		e.Sample(*at)
	}
}

func allRates(packets, bytes uint64) director.Rates {
	return director.Rates{Connections: packets, InPackets: packets, OutPackets: packets, InBytes: bytes, OutBytes: bytes}
}

// The numbers are computed by hand from ip_vs_est.c: with 100 a sample, 50 a
// second, the scaled rate of packets is 100<<9 = 51200, and the averages after each
// sample are 12800, 22400, 29600, 35000, 39050; divided by 1024 and rounded up at
// (x+511)>>10: 12, 22, 29, 34, 38. That of bytes is 100<<4 = 1600, and 400, 700, 925,
// 1093, 1219; at (x+15)>>5: 12, 22, 29, 34, 38.
func TestEstimator(t *testing.T) {
	var e director.Estimator
	var at director.Counters
	for i, want := range []uint64{12, 22, 29, 34, 38} {
		feed(&e, &at, 100, 2)
		if diff := cmp.Diff(allRates(want, want), e.Rates()); diff != "" {
			t.Errorf("sample %d (-want +got):\n%s", i+1, diff)
		}
	}
}

func TestEstimatorRounds(t *testing.T) {
	for _, tt := range []struct {
		n              uint64
		packets, bytes uint64
	}{
		// 1<<9>>2 = 128 is less than half of 1024; 1<<4>>2 = 4.
		{1, 0, 0},
		// 4<<9>>2 = 512, (512+511)>>10 = 0; 4<<4>>2 = 16, (16+15)>>5 = 0: a half is rounded down.
		{4, 0, 0},
		// 5<<9>>2 = 640, (640+511)>>10 = 1; 5<<4>>2 = 20, (20+15)>>5 = 1.
		{5, 1, 1},
		// 20 Gbit/s: 5e9<<4 does not fit 32 bits, 5e9<<9>>2 nor: (640e9+511)>>10, (20e9+15)>>5.
		{5e9, 625000000, 625000000},
	} {
		t.Run(fmt.Sprint(tt.n), func(t *testing.T) {
			var e director.Estimator
			var at director.Counters
			feed(&e, &at, tt.n, 2)
			if diff := cmp.Diff(allRates(tt.packets, tt.bytes), e.Rates()); diff != "" {
				t.Errorf("rates (-want +got):\n%s", diff)
			}
		})
	}
}

// A steady rate is reached and, when nothing comes any more, left.
func TestEstimatorSettles(t *testing.T) {
	var e director.Estimator
	var at director.Counters
	feed(&e, &at, 2000, 80)
	if diff := cmp.Diff(allRates(1000, 1000), e.Rates()); diff != "" {
		t.Errorf("steady (-want +got):\n%s", diff)
	}
	feed(&e, &at, 0, 2) // a quarter less: 768000 and 24000, both of 750
	if diff := cmp.Diff(allRates(750, 750), e.Rates()); diff != "" {
		t.Errorf("after a pause (-want +got):\n%s", diff)
	}
	feed(&e, &at, 0, 80)
	if diff := cmp.Diff(director.Rates{}, e.Rates()); diff != "" {
		t.Errorf("at rest (-want +got):\n%s", diff)
	}
}

// Each counter has its own average.
func TestEstimatorFields(t *testing.T) {
	var e director.Estimator
	e.Sample(director.Counters{Connections: 100, InPackets: 200, OutPackets: 300, InBytes: 400, OutBytes: 500})
	want := director.Rates{Connections: 12, InPackets: 25, OutPackets: 37, InBytes: 50, OutBytes: 62}
	if diff := cmp.Diff(want, e.Rates()); diff != "" {
		t.Errorf("rates (-want +got):\n%s", diff)
	}
}

func TestEstimatorReset(t *testing.T) {
	var e director.Estimator
	at := director.Counters{}
	feed(&e, &at, 100, 10)
	e.Reset(at)
	if diff := cmp.Diff(director.Rates{}, e.Rates()); diff != "" {
		t.Errorf("rates after it (-want +got):\n%s", diff)
	}
	feed(&e, &at, 100, 2)
	if diff := cmp.Diff(allRates(12, 12), e.Rates()); diff != "" {
		t.Errorf("what was before it counts (-want +got):\n%s", diff)
	}
	// Somebody else set the counters to zero.
	e.Reset(at)
	at = director.Counters{}
	feed(&e, &at, 100, 2)
	if diff := cmp.Diff(allRates(12, 12), e.Rates()); diff != "" {
		t.Errorf("counters that went back (-want +got):\n%s", diff)
	}
}
