package xdp

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shunt-lb/shunt/director"
)

// TestArena hands out, gives back and adopts regions at random: none overlap,
// none come back before their quarantine ends, and none are lost.
func TestArena(t *testing.T) {
	const words = positionWords + 200
	rapid.Check(t, func(t *rapid.T) {
		a := newArena(words)
		now := time.Unix(0, 0)
		a.now = func() time.Time { return now }
		a.sleep = func(d time.Duration) { now = now.Add(d) }
		var held []region
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 2).Draw(t, "act") {
			case 0:
				r, err := a.alloc(uint32(rapid.IntRange(1, 40).Draw(t, "count")))
				if err != nil {
					if !errors.Is(err, director.ErrFull) {
						t.Fatal(err)
					}
					continue
				}
				for _, h := range append(held, restingRegions(a)...) {
					if r.first < h.first+h.count && h.first < r.first+r.count {
						t.Fatalf("%v was handed out while %v is in use", r, h)
					}
				}
				if r.first < positionWords || r.first+r.count > words {
					t.Fatalf("%v is outside", r)
				}
				held = append(held, r)
			case 1:
				if len(held) > 0 {
					a.release(held[0])
					held = held[1:]
				}
			case 2:
				now = now.Add(quarantine / 2)
			}
		}
		adopted := newArena(words)
		for _, h := range held {
			adopted.take(h)
			a.release(h)
		}
		for _, h := range held {
			adopted.insert(h)
		}
		now = now.Add(2 * quarantine)
		for _, whole := range []*arena{a, adopted} {
			if r, err := whole.alloc(192); err != nil || r.first != positionWords {
				t.Fatalf("all given back, but not whole: %v %v", r, err)
			}
		}
	})
}

func restingRegions(a *arena) (all []region) {
	for _, r := range a.resting {
		if a.now().Before(r.until) {
			all = append(all, r.region)
		}
	}
	return all
}

func TestMapPositions(t *testing.T) {
	a, b, c, d := &server{index: 1}, &server{index: 2}, &server{index: 3}, &server{index: 4}
	for _, test := range []struct {
		name      string
		old, list []*server
		want      []uint32
	}{
		{"added at the head", []*server{b, a}, []*server{c, b, a}, []uint32{2, 3}},
		{"removed in the middle", []*server{c, b, a}, []*server{c, a}, []uint32{1, 1, 2}},
		{"removed at the head", []*server{c, b, a}, []*server{b, a}, []uint32{0, 1, 2}},
		{"all new", []*server{a, b}, []*server{c, d}, []uint32{0, 0}},
		{"none left", []*server{a}, nil, []uint32{0}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := mapPositions(test.old, test.list)
			for i := range test.want {
				if got[i] != test.want[i] {
					t.Fatalf("got %v, want %v", got, test.want)
				}
			}
		})
	}
}
