package differential

import (
	"fmt"
	"time"

	"pgregory.net/rapid"

	"github.com/shunt-lb/shunt/director"
)

// Schedulers are those that cases are drawn for: the kernel's but for twos, whose
// choices are random, and which the guest's kernel does not have.
var Schedulers = []director.Scheduler{
	director.RoundRobin, director.WeightedRoundRobin, director.LeastConnection, director.WeightedLeastConnection,
	director.ShortestExpectedDelay, director.NeverQueue, director.Failover, director.Overflow,
	director.DestinationHash, director.SourceHash, director.Maglev, director.LocalityLC, director.LocalityLCReplicated,
}

// Pause is how long a drawn case waits. States and templates live at most 10
// seconds or at least 60, so that a run may take long and be none the wiser.
const Pause = 12 * time.Second

// Drawn returns the case of a seed: the same for ever, as long as the generator
// is not changed.
func Drawn(seed int) Case {
	c := generator.Example(seed)
	c.Name = fmt.Sprintf("%s-%d", c.Scheduler, seed)
	return c
}

var generator = rapid.Custom(drawCase)

// often returns true in one of n draws.
func often(t *rapid.T, n int, label string) bool { return rapid.IntRange(1, n).Draw(t, label) == n }

func drawCase(t *rapid.T) Case {
	c := Case{
		Scheduler: rapid.SampledFrom(Schedulers).Draw(t, "scheduler"),
		IPv6:      often(t, 5, "ipv6"),
		UDP:       often(t, 4, "udp"),
		DR:        often(t, 4, "dr"),
		ReuseMode: rapid.SampledFrom([]int{1, 1, 0, 3}).Draw(t, "reuse mode"),

		ExpireNoDest: often(t, 4, "expire_nodest_conn"),
	}
	if c.Scheduler.HasFlags() {
		c.Port, c.Fallback = often(t, 2, "port"), often(t, 2, "fallback")
	}
	switch c.Scheduler {
	case director.DestinationHash, director.LocalityLC, director.LocalityLCReplicated:
		c.Many = !often(t, 5, "one address")
	default:
		c.Many = often(t, 10, "many addresses")
	}
	if c.UDP {
		c.OnePacket = often(t, 4, "one packet")
	} else {
		c.SloppyTCP = often(t, 5, "sloppy_tcp")
	}
	if often(t, 4, "persistent") {
		c.PersistSeconds = rapid.SampledFrom([]int{5, 360}).Draw(t, "timeout")
		c.ExpireQuiescent = often(t, 3, "expire_quiescent_template")
		if c.IPv6 {
			c.PersistPrefix = rapid.SampledFrom([]uint8{128, 64}).Draw(t, "prefix")
		} else {
			c.PersistPrefix = rapid.SampledFrom([]uint8{32, 24, 0}).Draw(t, "prefix")
		}
	}
	d := drawer{t: t, c: &c, thresholds: often(t, 3, "thresholds")}
	d.events()
	return c
}

// drawer draws a case's events and keeps what they must fit.
type drawer struct {
	t          *rapid.T
	c          *Case
	thresholds bool
	servers    []int   // those that are there
	removed    []int   // those that were
	flows      []Event // clients and virtual addresses that packets were sent by
	waited     bool
}

func (d *drawer) add(events ...Event) { d.c.Events = append(d.c.Events, events...) }

func (d *drawer) pick(n int, label string) int { return rapid.IntRange(0, n-1).Draw(d.t, label) }

func (d *drawer) events() {
	few := !often(d.t, 6, "many")
	for range rapid.IntRange(1, map[bool]int{true: 5, false: 20}[few]).Draw(d.t, "servers") {
		d.addServer()
	}
	for range rapid.IntRange(5, map[bool]int{true: 30, false: 80}[few]).Draw(d.t, "events") {
		d.one()
	}
	d.add(Event{Verb: Count})
}

// one draws an event, or a few that belong together.
func (d *drawer) one() {
	switch n := d.pick(20, "event"); {
	case n < 8 || len(d.flows) == 0:
		d.open()
	case n < 10:
		d.finish()
	case n < 13:
		d.segment()
	case n < 15 && len(d.servers) > 0:
		d.add(d.server(Edit, d.servers[d.pick(len(d.servers), "edited")]))
	case n == 15 && len(d.servers) > 0:
		i := d.pick(len(d.servers), "removed")
		d.add(Event{Verb: Remove, Server: d.servers[i]})
		d.removed = append(d.removed, d.servers[i])
		d.servers = append(d.servers[:i:i], d.servers[i+1:]...)
	case n == 16:
		d.addServer()
	case n == 17 && !d.waited && often(d.t, 2, "wait"):
		d.waited = true
		d.add(Event{Verb: Wait, Wait: Pause}, Event{Verb: Count})
	default:
		d.open()
	}
}

// addServer adds a server that was removed, or another one.
func (d *drawer) addServer() {
	n := len(d.servers) + len(d.removed)
	if len(d.removed) > 0 && often(d.t, 2, "again") {
		i := d.pick(len(d.removed), "added")
		n = d.removed[i]
		d.removed = append(d.removed[:i:i], d.removed[i+1:]...)
	}
	d.servers = append(d.servers, n)
	d.add(d.server(Add, n))
}

func (d *drawer) server(verb Verb, n int) Event {
	e := Event{Verb: verb, Server: n, Weight: rapid.SampledFrom([]uint32{1, 1, 2, 3, 0, 4, 5, 10, 100, 65535}).Draw(d.t, "weight")}
	if d.thresholds && often(d.t, 2, "threshold") {
		e.Upper = rapid.Uint32Range(1, 5).Draw(d.t, "upper")
		e.Lower = rapid.Uint32Range(0, e.Upper).Draw(d.t, "lower")
	}
	return e
}

// open begins a connection; TCP's is established in half of the cases.
func (d *drawer) open() {
	e := Event{Verb: Send, Flags: "S", Port: uint16(1024 + d.pick(8, "port"))}
	e.Client = d.pick(8, "client") + 256*d.pick(3, "network")
	if d.c.Many {
		// A client uses a port for one address only: the replies of one server to
		// two could not be told apart, and Shunt then takes another server.
		e.Virtual = d.pick(6, "virtual address")
		e.Port += 16 * uint16(e.Virtual)
	}
	if often(d.t, 40, "ftp data") {
		e.Port = 20 // from which no client is let in
	}
	if d.c.UDP {
		e.Flags = "-"
	}
	d.flows = append(d.flows, e)
	d.add(e)
	if !d.c.UDP && often(d.t, 2, "established") {
		d.reply(e, "SA")
		d.send(e, "A")
	}
}

func (d *drawer) flow() Event { return d.flows[d.pick(len(d.flows), "flow")] }

// finish ends a connection: in order, or by a reset.
func (d *drawer) finish() {
	e := d.flow()
	switch {
	case d.c.UDP:
		d.send(e, "-")
		d.reply(e, "-")
	case often(d.t, 2, "reset"):
		d.send(e, "R")
	default:
		d.send(e, "FA")
		d.reply(e, "FA")
		d.send(e, "A")
	}
}

// segment draws any one packet of a connection.
func (d *drawer) segment() {
	flags := "-"
	if !d.c.UDP {
		flags = rapid.SampledFrom([]string{"S", "A", "FA", "R", "SA", "P"}).Draw(d.t, "flags")
	}
	if often(d.t, 3, "reply") {
		d.reply(d.flow(), flags)
	} else {
		d.send(d.flow(), flags)
	}
}

func (d *drawer) send(e Event, flags string) {
	e.Flags = flags
	d.add(e)
}

// reply adds a packet of the server's, where those pass the director.
func (d *drawer) reply(e Event, flags string) {
	if !d.c.DR {
		e.Verb = Reply
		d.send(e, flags)
	}
}
