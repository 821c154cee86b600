package translation

import (
	"fmt"
	"strings"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// shown is how many services of a note are named.
const shown = 3

// String returns the result as text, a line for each service, server and note:
// for people and for tests, and not to be parsed.
func (r Result) String() string {
	var b strings.Builder
	if r.State.Timeouts != (conntrack.Timeouts{}) {
		fmt.Fprintf(&b, "timeouts %s\n", r.State.Timeouts)
	}
	for _, s := range r.State.Sync {
		fmt.Fprintf(&b, "sync %s\n", s)
	}
	for _, s := range r.State.Services {
		b.WriteString("service " + describe(s) + "\n")
		for _, server := range s.Servers {
			b.WriteString("  server " + describeServer(server) + "\n")
		}
	}
	for _, n := range r.Notes {
		b.WriteString(n.String())
		if more := len(n.Services) + n.More - shown; more > 0 {
			fmt.Fprintf(&b, " %v and %d more", n.Services[:min(shown, len(n.Services))], more)
		} else if len(n.Services) > 0 {
			fmt.Fprintf(&b, " %v", n.Services)
		}
		if n.Server.IsValid() {
			fmt.Fprintf(&b, " -> %s", n.Server)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func describe(s director.Service) string {
	text := fmt.Sprintf("%s %s", s.Key, s.Scheduler)
	if s.Name != "" {
		text += fmt.Sprintf(" name %s", s.Name)
	}
	for _, flag := range s.Scheduler.FlagNames(s.Flags) {
		text += " " + flag
	}
	if s.Persistence != (director.Persistence{}) {
		text += " persistence " + s.Persistence.String()
	}
	if s.OnePacket {
		text += " one-packet"
	}
	return text + " vip " + string(s.VIP)
}

func describeServer(s realserver.Server) string {
	text := fmt.Sprintf("%s %s", s.Address, s.Method)
	if s.Method == realserver.Tunnel {
		text += fmt.Sprintf(" (%s)", s.Tunnel)
	}
	text += fmt.Sprintf(" weight %d", s.Weight)
	if s.Upper != 0 || s.Lower != 0 {
		text += fmt.Sprintf(" thresholds %d/%d", s.Upper, s.Lower)
	}
	return text
}
