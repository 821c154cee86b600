package health

import (
	"encoding"
	"encoding/binary"
	"hash/fnv"
	"time"
)

// Terms of the pace.
const (
	// jitterShare is how far an interval may be off, either way: what began together does
	// not stay together.
	jitterShare = 0.1
	// firstPace is from one first probe to the next when many keys are new: one is asked
	// at once, thousands are spread, over their interval at most.
	firstPace = time.Millisecond
	// leastPace is from one probe to the next at least, whatever a check says.
	leastPace = 10 * time.Millisecond
)

// spread queues the first probes of keys that are new. Unknown ones follow one another
// at the first probes' pace, since nobody gets a packet before; known ones take their
// interval.
func (m *Monitor) spread(fresh []*entry, now time.Time) {
	unknown := 0
	for _, e := range fresh {
		if !e.Known {
			unknown++
		}
	}
	for _, e := range fresh {
		window := e.check.Interval
		if !e.Known {
			window = min(window, time.Duration(unknown-1)*firstPace)
		}
		m.queues[starts].at(e, now.Add(portion(window, e.phaseShare())))
	}
}

// next returns when the entry is to be asked again, given that its last probe, or what
// stands for it, began at began.
func (e *entry) next(began, now time.Time) time.Time {
	interval := max(e.check.Retry, leastPace)
	if e.Settled() {
		interval = max(e.check.Interval, leastPace)
		if !e.placed {
			// First probes may have been close together: here each goes to its own place in
			// the interval.
			e.placed = true
			return later(began.Add(portion(interval, jitterShare+(1-jitterShare)*e.phaseShare())), now)
		}
	}
	return later(began.Add(portion(interval, 1-jitterShare+2*jitterShare*share(mix(e.hash+e.asked)))), now)
}

// phaseShare is the key's own place in an interval, in [0, 1).
func (e *entry) phaseShare() float64 { return share(e.hash) }

// hash returns a number that keys of little difference do not have nearly in common.
func (k Key) hash() uint64 {
	h := fnv.New64a()
	for _, address := range []encoding.BinaryAppender{k.Target.Server, k.Target.Virtual} {
		text, _ := address.AppendBinary(nil) // never fails
		h.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(text))))
		h.Write(text)
	}
	h.Write([]byte(k.Target.Via))
	h.Write([]byte{0})
	h.Write([]byte(k.Check))
	return mix(h.Sum64())
}

// mix is the finalizer of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom
// number generators, 2014): each bit of the argument moves half of the result's.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// share returns the upper 53 bits as a fraction in [0, 1).
func share(x uint64) float64 { return float64(x>>11) / (1 << 53) }

func portion(d time.Duration, of float64) time.Duration { return time.Duration(float64(d) * of) }

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
