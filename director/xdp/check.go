package xdp

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

// Kinds of faults.
const (
	faultGeneration = "generation"     // a slot that is neither free nor an entry
	faultEntry      = "entry"          // an entry that no packet can have made
	faultPlace      = "place"          // an entry where no lookup finds it
	faultBusy       = "busy"           // an entry whose claim nobody ended
	faultServer     = "server-unknown" // of a server that is free
	faultService    = "service-unknown"
	faultReply      = "reply-missing"   // a NAT connection without its reply key
	faultOrphan     = "forward-missing" // a reply key without its connection
	faultHalves     = "halves-differ"
	faultStates     = "states-differ"  // of a connection's halves
	faultOverflow   = "count-overflow" // of a group's overflow slots
	faultActive     = "count-active"
	faultInactive   = "count-inactive"
	faultTemplates  = "count-templates"
	faultTotal      = "count-connections" // a service's
	faultControlled = "count-controlled"  // of connections under a template
	faultSource     = "count-source"
)

// checkLooks is how often a suspect is looked at again, checkPause the time between
// two looks at first; it doubles. A claim takes microseconds, and as long as its CPU
// is taken away from a guest.
const (
	checkLooks = 6
	checkPause = 2 * time.Millisecond
)

// checkSteady is in how many looks in a row a suspect must be the same.
const checkSteady = 3

// maxSuspects is how many suspects of a kind are looked at again: one fault would do.
const maxSuspects = 64

// Check compares the tables with themselves, with the services and with what is
// counted of them. Packets wait for nothing. What is only half done when it is met is
// a suspect, and a fault if it is the same in look after look; so are counts only
// where nothing moves while the entries are counted. Where a service's persistence
// was given another prefix, or its limits another source network, counts of what was
// there before are wrong until the sweep has healed them.
func (d *Dataplane) Check(ctx context.Context) ([]director.TableFault, error) {
	return d.checkTables(ctx, checkPause)
}

// checkTables is Check with that time between two looks at first.
func (d *Dataplane) checkTables(ctx context.Context, pause time.Duration) ([]director.TableFault, error) {
	faults, err := untilWhole(func() ([]director.TableFault, error) {
		c := checker{Dataplane: d, pause: pause, suspects: map[suspectKey]*suspicion{}, kinds: map[string]int{}}
		return c.run(ctx)
	})
	if err != nil {
		return nil, fmt.Errorf("check the connection tables: %w", err)
	}
	return faults, nil
}

// suspectKey is where a suspect is: a slot, or a group.
type suspectKey struct {
	v6          bool
	group, slot uint32
}

// wholeGroup is the slot of a suspect that is a group.
const wholeGroup = uint32(bpf.KernelTableShapeSLOTS)

// suspicion is what may be a fault.
type suspicion struct {
	fault director.TableFault // as of the last look
	print uint64              // of all that it is told from
	looks int                 // in a row with that
}

// checker is one run of Check.
type checker struct {
	*Dataplane
	pause    time.Duration
	view     *view
	suspects map[suspectKey]*suspicion
	kinds    map[string]int // how many suspects there were
	walks    [2]*bpf.Walk   // the last ones, by which the tables are known
	proven   uint64         // NAT connections that are
}

func (c *checker) run(ctx context.Context) ([]director.TableFault, error) {
	counted, err := c.recount(ctx, true)
	if err != nil {
		return nil, err
	}
	pause := c.pause
	for look := 0; look < checkLooks && len(c.suspects) > 0; look++ {
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
		pause *= 2
		if err := c.lookAgain(ctx); err != nil {
			return nil, err
		}
	}
	faults := c.steady()
	counts, err := c.compareCounts(ctx, counted)
	if err != nil {
		return nil, err
	}
	faults = append(faults, counts...)
	slices.SortFunc(faults, func(a, b director.TableFault) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.What, b.What), cmp.Compare(a.Found, b.Found))
	})
	return faults, nil
}

// suspectSlot has the slot looked at again.
func (c *checker) suspectSlot(kind string, s *bpf.Slot) {
	c.add(kind, suspectKey{s.V6, s.Group, s.Index})
}

func (c *checker) add(kind string, key suspectKey) {
	if c.kinds[kind]++; c.kinds[kind] <= maxSuspects {
		c.suspects[key] = &suspicion{}
	}
}

// lookAgain looks at all suspects once more and lets those go that are none.
func (c *checker) lookAgain(ctx context.Context) (err error) {
	if c.view, err = c.lockedView(ctx); err != nil {
		return err
	}
	for key, s := range c.suspects {
		var fault director.TableFault
		var print uint64
		err := c.use(func() (err error) {
			if !c.plane.Has(c.walks[0]) || !c.plane.Has(c.walks[1]) || c.plane.Carrying() {
				return errExchanged
			}
			fault, print, err = c.examine(key)
			return err
		})
		switch {
		case err != nil:
			return err
		case fault.Kind == "":
			delete(c.suspects, key)
		case s.looks > 0 && s.print == print && s.fault.Kind == fault.Kind:
			s.looks++
		default:
			s.fault, s.print, s.looks = fault, print, 1
		}
	}
	return nil
}

// steady returns what has stayed as it is. Two packets of one connection on two
// CPUs may leave its halves in different states until the next one, which is no
// fault; that many do is one.
func (c *checker) steady() []director.TableFault {
	var faults []director.TableFault
	isRace := uint64(c.kinds[faultStates])*racingHalves < c.proven
	for _, s := range c.suspects {
		if s.looks >= checkSteady && !(s.fault.Kind == faultStates && isRace) {
			faults = append(faults, s.fault)
		}
	}
	return faults
}

// racingHalves is of how many connections one may be left so by a race.
const racingHalves = 128

// examine looks at a suspect: a fault without a kind if it is none, and a print of
// all that was looked at.
func (c *checker) examine(key suspectKey) (director.TableFault, uint64, error) {
	if key.slot == wholeGroup {
		return c.examineGroup(key)
	}
	s, err := c.plane.SlotAt(key.v6, key.group, key.slot)
	if err != nil {
		return director.TableFault{}, 0, err
	}
	kind, found, other, err := c.examineSlot(&s)
	if err != nil || kind == "" {
		return director.TableFault{}, 0, err
	}
	return director.TableFault{Kind: kind, What: describe(&s), Found: found}, s.ID ^ s.Recipe<<1 ^ other<<2, nil
}

func (c *checker) examineGroup(key suspectKey) (director.TableFault, uint64, error) {
	said, found, err := c.plane.Overflow(key.v6, key.group)
	if err != nil || said == found {
		return director.TableFault{}, 0, err
	}
	return director.TableFault{
		Kind: faultOverflow, What: fmt.Sprintf("group %d of the %s table", key.group, familyName(key.v6)),
		Found: fmt.Sprintf("it says that %d overflow slots have an entry, %d have", said, found),
	}, uint64(said)<<32 | uint64(found), nil
}

func familyName(v6 bool) string { return families[flag(v6)].name }

// describe names an entry.
func describe(s *bpf.Slot) string {
	e := s.Entry()
	where := fmt.Sprintf("in slot %d of group %d", s.Index, s.Group)
	switch {
	case !s.IsLive():
		return fmt.Sprintf("what is left %s of the %s table", where, familyName(s.V6))
	case e.Template:
		return fmt.Sprintf("template of %s, service %d %s", e.Source.Addr(), e.Service, where)
	case e.Reply:
		return fmt.Sprintf("reply key %s to %s, protocol %d %s", e.Source, e.Destination, e.Protocol, where)
	default:
		return fmt.Sprintf("connection %s to %s, protocol %d %s", e.Source, e.Destination, e.Protocol, where)
	}
}
