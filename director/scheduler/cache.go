package scheduler

import (
	"net/netip"
	"slices"
	"time"
)

// The kernel's numbers for the caches of lblc and lblcr (kernel:
// net/netfilter/ipvs/ip_vs_lblc.c, ip_vs_lblcr.c).
const (
	cacheBits     = 10              // IP_VS_LBLC_TAB_BITS
	cacheSize     = 16 << 10        // max_size: above it elements are collected early
	cacheInterval = time.Minute     // CHECK_EXPIRE_INTERVAL
	cacheIdle     = 6 * time.Minute // ENTRY_TIMEOUT: idle this long, may be collected early
	cacheFull     = 30              // COUNT_FOR_FULL_EXPIRATION: quiet intervals between full collections

	// CacheExpiration is how long an unused destination is remembered, and how
	// long lblcr leaves a set as it is (sysctls lblc_expiration, lblcr_expiration).
	CacheExpiration = 24 * time.Hour
)

// DestinationBucket returns the bucket of a destination in the cache of lblc or
// lblcr; it decides only what is collected first.
func DestinationBucket(virtual netip.Addr) uint32 { return hash32(Fold(virtual), cacheBits) }

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
	return &cache[T]{now: now, next: now().Add(cacheInterval), quiet: 1}
}

// get returns the destination's element, nil if there is none, and notes that
// it was used.
func (c *cache[T]) get(address netip.Addr) *cached[T] {
	for _, e := range c.buckets[DestinationBucket(address)] {
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
	if c.count >= cacheSize*3/2 {
		return
	}
	bucket := &c.buckets[DestinationBucket(address)]
	*bucket = slices.Insert(*bucket, 0, &cached[T]{address: address, value: value, used: c.now()})
	c.count++
}

func (c *cache[T]) remove(address netip.Addr) {
	c.keep(DestinationBucket(address), func(e *cached[T]) bool { return e.address != address })
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
	for now := c.now(); !now.Before(c.next); c.next = c.next.Add(cacheInterval) {
		switch {
		case c.quiet%cacheFull == 0:
			c.sweep(len(c.buckets)*cacheSize, CacheExpiration)
			c.quiet = 1
		case c.count <= cacheSize:
			c.quiet++
		default:
			c.sweep(min((c.count-cacheSize)*4/3, cacheSize/2), cacheIdle)
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
