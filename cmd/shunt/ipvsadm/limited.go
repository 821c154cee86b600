package ipvsadm

import (
	"net/netip"
	"time"

	language "github.com/shunt-lb/shunt/director/config/ipvsadm"
)

// nameTime is how long the look-ups of a list's hosts may take together: ipvsadm
// waits for each, and without -n hangs as long as the resolver does, times the
// number of addresses.
const nameTime = 3 * time.Second

// limited are Names that ask for each host once, and for none when the time is
// used up: a host whose name is not found by then is shown by its number. Not
// safe for concurrent use.
type limited struct {
	language.Names
	left  time.Duration
	hosts map[netip.Addr]string // "": none
}

func newLimited(of language.Names, most time.Duration) *limited {
	return &limited{Names: of, left: most, hosts: make(map[netip.Addr]string)}
}

// Host returns the name of the address, if it is found in time.
func (l *limited) Host(addr netip.Addr) (string, bool) {
	name, known := l.hosts[addr]
	if !known && l.left > 0 {
		name = l.ask(addr)
		l.hosts[addr] = name
	}
	return name, name != ""
}

// ask looks the name up as long as there is time. What takes longer is left
// behind: it cannot be interrupted, and the program ends soon.
func (l *limited) ask(addr netip.Addr) string {
	answer := make(chan string, 1) // there is room: nobody may be waiting
	go func() {
		name, _ := l.Names.Host(addr)
		answer <- name
	}()
	began := time.Now()
	limit := time.NewTimer(l.left)
	defer limit.Stop()
	defer func() { l.left -= time.Since(began) }()
	select {
	case name := <-answer:
		return name
	case <-limit.C:
		return ""
	}
}
