package translation

import (
	"fmt"
	"strconv"
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
		for _, check := range s.Health.Checks {
			b.WriteString("  check " + describeCheck(check) + "\n")
		}
		if text := describeHealth(s.Health); text != "" {
			b.WriteString("  health" + text + "\n")
		}
		for _, server := range s.Health.Sorry {
			b.WriteString("  sorry " + describeServer(server) + "\n")
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

// described writes words and those of their values that there are.
type described struct{ strings.Builder }

func (d *described) put(word string, value any) {
	if text := fmt.Sprint(value); text != "" && text != "0" && text != "0s" && text != "[]" && text != `""` {
		fmt.Fprintf(d, " %s %s", word, text)
	}
}

func describeCheck(c realserver.Check) string {
	var d described
	d.WriteString(string(c.Kind))
	if h := c.HTTP; h != nil {
		d.put("version", h.Version)
		d.put("method", h.Method)
		d.put("path", h.Path)
		d.put("host", h.Host)
		d.put("status", h.Status)
		d.put("match", strconv.Quote(h.Match))
		d.put("digest", h.Digest)
	}
	if q := c.DNS; q != nil {
		d.put("name", q.Name)
		d.put("type", q.Type)
		d.put("answer", q.Answer)
		d.put("by", map[bool]string{true: "tcp"}[q.TCP])
	}
	if e := c.Exchange; e != nil {
		d.put("send", strconv.Quote(string(e.Send)))
		d.put("expect", strconv.Quote(e.Expect))
	}
	if c.SMTP != nil {
		d.put("hello", c.SMTP.Hello)
		d.put("starttls", map[bool]string{true: "yes"}[c.SMTP.STARTTLS])
	}
	if s := c.Script; s != nil {
		d.put("command", fmt.Sprintf("%q", s.Command))
		d.put("user", s.User)
		d.put("status", s.Status)
	}
	if t := c.TLS; t != nil {
		d.WriteString(" tls")
		d.put("name", t.ServerName)
		d.put("certificate", t.Certificate)
		d.put("key", t.Key)
		d.put("unverified", map[bool]string{true: "yes"}[t.SkipVerify])
	}
	d.put("port", c.Port)
	d.put("via", c.Via)
	d.put("every", c.Interval)
	d.put("timeout", c.Timeout)
	d.put("retry", c.Retry)
	d.put("rise", c.Rise)
	d.put("fall", c.Fall)
	return d.String()
}

func describeHealth(h director.Health) string {
	var d described
	d.put("initial", h.Initial)
	d.put("down", h.Down)
	d.put("quorum", h.Quorum)
	d.put("hysteresis", h.Hysteresis)
	d.put("maintenance", h.Maintenance)
	for _, command := range []struct {
		word  string
		words []string
	}{{"up", h.Notify.Up}, {"down", h.Notify.Down}, {"quorum-up", h.Notify.QuorumUp}, {"quorum-down", h.Notify.QuorumDown}} {
		if len(command.words) > 0 {
			d.put("notify "+command.word, fmt.Sprintf("%q", command.words))
		}
	}
	d.put("fifo", h.Notify.FIFO)
	return d.String()
}
