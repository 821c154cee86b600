package scheduler

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/director"
)

// Model chooses servers as one service's scheduler in the kernel does. Not safe
// for concurrent use.
type Model interface {
	// Pick returns the server for a client's new connection to virtual, and
	// whether there is one. A server that loads does not name has no load.
	Pick(client, virtual netip.AddrPort, loads Loads) (server netip.AddrPort, ok bool)

	// Add puts a server at the head of the list.
	Add(server netip.AddrPort, weight uint32)

	// Remove takes a server out of the list; one that is not there is ignored.
	Remove(server netip.AddrPort)

	// Edit sets a server's weight; one that is not there is ignored.
	Edit(server netip.AddrPort, weight uint32)
}

// Load is what a server has to do at the time of a pick.
type Load struct {
	Active, Inactive int64 // connections, as IPVS counts them
	Overloaded       bool  // by its thresholds (IP_VS_DEST_F_OVERLOAD)
	Suspended        bool  // by what packets told of it (director.Witness), which the kernel has not
}

// isFit reports whether a server with the load may be chosen.
func (l Load) isFit() bool { return !l.Overloaded && !l.Suspended }

// overhead is how busy least-connection schedulers take a server to be (kernel:
// include/net/ip_vs.h, ip_vs_dest_conn_overhead of 6.1).
func (l Load) overhead() int64 { return l.Active<<8 + l.Inactive }

// Loads are those of a service's servers, and of removed ones that connections
// still refer to.
type Loads map[netip.AddrPort]Load

// Relent ends the suspensions of the list's servers if those that are suspended are all
// that is left to choose from, and reports whether it did. The XDP data plane does so
// where a pick has found nobody, and picks once more.
func (l Loads) Relent(servers []Entry) bool {
	isLast := false
	for _, e := range servers {
		load := l[e.Address]
		if e.Weight == 0 || load.Overloaded {
			continue
		}
		if !load.Suspended {
			return false
		}
		isLast = true
	}
	if isLast {
		for _, e := range servers {
			if load, ok := l[e.Address]; ok {
				load.Suspended = false
				l[e.Address] = load
			}
		}
	}
	return isLast
}

// Options are what some models need beside servers and loads. The zero value
// has the documented defaults: a model is reproducible unless told otherwise.
type Options struct {
	// Flags refine sh and mh; for others they must be zero.
	Flags director.SchedulerFlags
	// Random returns a number from 0 to n-1, each as likely as the others, for
	// twos; nil: a generator that gives the same numbers every time.
	Random func(n uint32) uint32
	// Now is the time, for the caches of lblc and lblcr; nil: time stands still.
	Now func() time.Time
	// SetLimit bounds lblcr's set of servers for one destination: the one that
	// has been in it longest leaves for another. 0: no bound, as in the kernel.
	SetLimit int
}

// FastPathSetLimit is the SetLimit of the XDP data plane.
const FastPathSetLimit = 32

func (o Options) withDefaults() Options {
	if o.Random == nil {
		o.Random = rand.New(rand.NewPCG(1, 1)).Uint32N
	}
	if o.Now == nil {
		o.Now = func() time.Time { return time.Time{} }
	}
	return o
}

// delay is how long sed and nq take a new connection to wait for a server
// (kernel: net/netfilter/ipvs/ip_vs_sed.c, ip_vs_sed_dest_overhead).
func (l Load) delay() int64 { return l.Active + 1 }

// algorithm is what the package knows of one scheduler.
type algorithm struct {
	build    func(Options) Model
	compares comparison
	about    string // what it chooses, in a line
}

// comparison is what servers are compared by: the least cost wins.
type comparison struct {
	cost     func(Load) int64 // nil: no loads are compared
	byWeight bool             // the cost is divided by the weight
}

var (
	byNoLoad         = comparison{}
	byOverhead       = comparison{cost: Load.overhead}
	overheadByWeight = comparison{cost: Load.overhead, byWeight: true}
	delayByWeight    = comparison{cost: Load.delay, byWeight: true}
)

// algorithms are all there are: the one place to add one.
var algorithms = map[director.Scheduler]algorithm{
	director.RoundRobin:         {newRoundRobin, byNoLoad, "the servers in turn"},
	director.WeightedRoundRobin: {newWeightedRoundRobin, byNoLoad, "the servers in turn, each as often as its weight says"},
	director.LeastConnection:    {newLeastConnection, byOverhead, "the server with the fewest connections"},
	director.WeightedLeastConnection: {
		newWeightedLeastConnection, overheadByWeight, "the server with the fewest connections for its weight",
	},
	director.ShortestExpectedDelay: {newShortestExpectedDelay, delayByWeight, "the server with the fewest active connections for its weight, this one included"},
	director.NeverQueue:            {newNeverQueue, delayByWeight, "a server without an active connection, or else as sed"},
	director.Failover:              {newFailover, byNoLoad, "the server of the greatest weight that is not overloaded"},
	director.Overflow:              {newOverflow, byNoLoad, "the server of the greatest weight that has not more active connections than that"},
	director.TwoRandomChoices:      {newTwoRandomChoices, overheadByWeight, "of two servers drawn by weight the less loaded one"},
	director.DestinationHash:       {newDestinationHash, byNoLoad, "by a hash of the virtual address, whatever the weights"},
	director.SourceHash:            {newSourceHash, byNoLoad, "by a hash of the client's address, buckets by weight"},
	director.Maglev:                {newMaglev, byNoLoad, "by a hash of the client's address that few changes move"},
	director.LocalityLC:            {newLocality, overheadByWeight, "for each virtual address the server it had, or else as wlc"},
	director.LocalityLCReplicated:  {newReplicatedLocality, overheadByWeight, "for each virtual address the least loaded of its servers, more as they fill up"},
}

// New returns a model with no servers. Unknown schedulers, and flags for one
// that has none, are director.ErrInvalid.
func New(name director.Scheduler, options Options) (Model, error) {
	known, ok := algorithms[name]
	if !ok {
		return nil, fmt.Errorf("scheduler %q: no model: %w", name, director.ErrInvalid)
	}
	if options.Flags != (director.SchedulerFlags{}) && !name.HasFlags() {
		return nil, fmt.Errorf("scheduler %s has no flags: %w", name, director.ErrInvalid)
	}
	return known.build(options.withDefaults()), nil
}

// Names returns the schedulers that have a model, sorted.
func Names() []director.Scheduler { return slices.Sorted(maps.Keys(algorithms)) }

// About says in a line what a scheduler chooses; nothing of an unknown one.
func About(name director.Scheduler) string { return algorithms[name].about }

// Compares returns what a scheduler compares servers by, where the least wins, and
// whether it is divided by the weight; nil for one that compares no loads.
func Compares(name director.Scheduler) (cost func(Load) int64, byWeight bool) {
	by := algorithms[name].compares
	return by.cost, by.byWeight
}
