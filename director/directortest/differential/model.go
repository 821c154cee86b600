package differential

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director/scheduler"
)

// Model runs the case on the models and returns it with their answers.
func Model(t testing.TB, c Case) Case {
	t.Helper()
	s, err := scheduler.NewSimulation(c.Service(), scheduler.Options{})
	if err != nil {
		t.Fatalf("%s: %v", c.Name, err)
	}
	number, flows := map[netip.AddrPort]string{}, NewFlows()
	events := make([]Event, len(c.Events))
	for i, e := range c.Events {
		e.Answer = ""
		switch e.Verb {
		case Add:
			number[c.ServerAddress(e.Server)] = strconv.Itoa(e.Server)
			s.AddServer(c.Server(e))
		case Edit:
			s.EditServer(c.Server(e))
		case Remove:
			s.RemoveServer(c.ServerAddress(e.Server))
		case Send:
			choice := s.Packet(c.Client(e), c.Virtual(e.Virtual), eventOf(e.Flags))
			switch {
			case choice.Server.IsValid():
				e.Answer = number[choice.Server]
			case choice.Event == scheduler.NoServer:
				e.Answer = Refused
			default:
				e.Answer = Nothing
			}
		case Reply:
			if _, ok := flows.Packet(c, e); !ok {
				break
			}
			s.Reply(c.Client(e), c.Virtual(e.Virtual), eventOf(e.Flags))
		case Wait:
			s.Advance(e.Wait)
		case Count:
			var list []string
			for _, server := range s.Servers() {
				list = append(list, fmt.Sprintf("%s:%d/%d/%d", number[server.Server.Address],
					server.Load.Active, server.Load.Inactive, server.Templates))
			}
			e.Answer = strings.Join(list, " ")
		}
		flows.Note(e)
		events[i] = e
	}
	c.Events = events
	return c
}

// eventOf is what a segment's flags mean.
func eventOf(letters string) conntrack.Event {
	var flags uint8
	for _, letter := range letters {
		flags |= map[rune]uint8{'F': 1, 'S': 2, 'R': 4, 'P': 8, 'A': 16}[letter]
	}
	return conntrack.EventOf(flags)
}
