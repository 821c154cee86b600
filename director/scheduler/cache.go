package scheduler

import (
	"net/netip"
	"slices"
	"time"
)

// How long and how much lblc and lblcr remember of a service (kernel:
// net/netfilter/ipvs/ip_vs_lblc.c, ip_vs_lblcr.c). The XDP data plane has them from
// here.
const (
	CacheInterval = time.Minute     // how often it is looked what goes: CHECK_EXPIRE_INTERVAL
	CacheSize     = 16 << 10        // destinations, from how many on idle ones go: max_size
	CacheIdle     = 6 * time.Minute // which ones are idle: ENTRY_TIMEOUT
	CacheFull     = 30              // intervals between looks at all that has expired: COUNT_FOR_FULL_EXPIRATION

	// CacheExpiration is how long an unused destination is remembered, and how
	// long lblcr leaves a set as it is (sysctls lblc_expiration, lblcr_expiration).
	CacheExpiration = 24 * time.Hour
)

const cacheBits = 10 // IP_VS_LBLC_TAB_BITS

// destinationBucket returns the bucket of a destination in the cache of lblc or
// lblcr; it decides only what is collected first.
func destinationBucket(virtual netip.Addr) uint32 { return hash32(Fold(virtual), cacheBits) }

// cache is what lblc and lblcr remember of destinations.
type cache[T any] struct {
	now     func() time.Time
	next    time.Time // of the kernel's periodic timer
	buckets [1 << cacheBits][]*cached[T]
	count   int
	rover   uint32 // the bucket collected last
	quiet   int    // the kernel's counter: intervals since a full collection
}

// cached is one destination's element.
type cached[T any] struct {
	address netip.Addr
	value   T
	used    time.Time
}

func newCache[T any](now func() time.Time) *cache[T] {
	return &cache[T]{now: now, next: now().Add(CacheInterval), quiet: 1}
}

// get returns the destination's element, nil if there is none, and notes that
// it was used.
func (c *cache[T]) get(address netip.Addr) *cached[T] {
	for _, e := range c.buckets[destinationBucket(address)] {
		if e.address == address {
			e.used = c.now()
			return e
		}
	}
	return nil
}

// add puts an element first in its bucket. A cache half as full again as it
// should be takes none.
func (c *cache[T]) add(address netip.Addr, value T) {
	if c.count >= CacheSize*3/2 {
		return
	}
	bucket := &c.buckets[destinationBucket(address)]
	*bucket = slices.Insert(*bucket, 0, &cached[T]{address: address, value: value, used: c.now()})
	c.count++
}

func (c *cache[T]) remove(address netip.Addr) {
	c.keep(destinationBucket(address), func(e *cached[T]) bool { return e.address != address })
}

// keep removes the elements of a bucket that are not to be kept, and returns how
// many there were.
func (c *cache[T]) keep(bucket uint32, kept func(*cached[T]) bool) int {
	before := len(c.buckets[bucket])
	c.buckets[bucket] = slices.DeleteFunc(c.buckets[bucket], func(e *cached[T]) bool { return !kept(e) })
	gone := before - len(c.buckets[bucket])
	c.count -= gone
	return gone
}

// collect does what the kernel's timer has done by now.
func (c *cache[T]) collect() {
	for now := c.now(); !now.Before(c.next); c.next = c.next.Add(CacheInterval) {
		switch {
		case c.quiet%CacheFull == 0:
			c.sweep(len(c.buckets)*CacheSize, CacheExpiration)
			c.quiet = 1
		case c.count <= CacheSize:
			c.quiet++
		default:
			c.sweep(min((c.count-CacheSize)*4/3, CacheSize/2), CacheIdle)
		}
	}
}

// sweep removes what was idle at the time of the timer, whole buckets from the
// rover on, until the goal is reached.
func (c *cache[T]) sweep(goal int, idle time.Duration) {
	for range c.buckets {
		c.rover = (c.rover + 1) % uint32(len(c.buckets))
		goal -= c.keep(c.rover, func(e *cached[T]) bool { return c.next.Before(e.used.Add(idle)) })
		if goal <= 0 {
			break
		}
	}
}
