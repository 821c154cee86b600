package ldirectord

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config/translation"
	"github.com/shunt-lb/shunt/realserver"
)

// settings are what the whole and a virtual service both can say; the latter counts.
// Numbers are 0 where nothing is said.
type settings struct {
	checkTimeout, negotiateTimeout, interval, tries, failures uint32
	intervalAt                                                directive
	quiescent                                                 string
	fallback, fallback6, fallbackCommand                      *directive
}

// The values where nothing is said (ldirectord, set_defaults).
const (
	defaultInterval         = 10
	defaultCheckTimeout     = 5
	defaultNegotiateTimeout = 30
)

// setting reads a directive into the settings, and reports whether it is one of them;
// note notes what is wrong with it.
func (s *settings) setting(d directive, note func(translation.Kind, directive, string)) bool {
	number := func(to *uint32) bool {
		// The first digits count, whatever is around them.
		n, err := strconv.ParseUint(digits.FindString(d.value), 10, 32)
		if err != nil || n == 0 || n > maxSeconds {
			note(translation.Differs, d, fmt.Sprintf("want a number from 1 to %d: %s", maxSeconds, refused))
			return false
		}
		*to = uint32(n)
		return true
	}
	switch d.key {
	case "checktimeout":
		number(&s.checkTimeout)
	case "negotiatetimeout":
		number(&s.negotiateTimeout)
	case "checkinterval":
		number(&s.interval)
		s.intervalAt = d
	case "checkcount":
		number(&s.tries)
	case "failurecount":
		number(&s.failures)
	case "quiescent":
		if s.quiescent = d.value; d.value != "yes" && d.value != "no" {
			s.quiescent = ""
			note(translation.Differs, d, "want yes or no: "+refused)
		}
	case "fallback":
		s.fallback = &d
	case "fallback6":
		s.fallback6 = &d
	case "fallbackcommand":
		s.fallbackCommand = &d
	default:
		return false
	}
	return true
}

const maxSeconds = 24 * 3600 // of an interval; a count is none larger

// either returns the first number that is there.
func either(numbers ...uint32) time.Duration {
	for _, n := range numbers {
		if n != 0 {
			return time.Duration(n) * time.Second
		}
	}
	return 0
}

// paced returns the check with when it is asked. Of a timeout that is longer than the
// interval the text's own makes the interval longer, so that no server is too slow that
// was not before; one that it does not give is cut.
func (v *virtual) paced(check realserver.Check, negotiates bool) realserver.Check {
	g := &v.t.global
	interval := either(g.interval, defaultInterval)
	if v.interval != 0 && v.t.forks {
		interval = either(v.interval)
	}
	name, said, otherwise := "checktimeout", either(v.checkTimeout, v.negotiateTimeout, g.checkTimeout, g.negotiateTimeout), either(defaultCheckTimeout)
	if negotiates {
		name, said, otherwise = "negotiatetimeout", either(v.negotiateTimeout, v.checkTimeout, g.negotiateTimeout, g.checkTimeout), either(defaultNegotiateTimeout)
	}
	failures := cmp.Or(v.failures, g.failures, 1)
	check.Interval, check.Timeout, check.Rise, check.Fall = interval, otherwise, 1, uint16(min(failures, 65535))
	switch {
	case said > interval:
		v.once(translation.Differs, v.d, fmt.Sprintf("%s is %s, longer than checkinterval: servers are asked every %[2]s", name, said))
		check.Interval, check.Timeout = said, said
	case said != 0:
		check.Timeout = said
	case otherwise > interval:
		v.once(translation.Differs, v.d, fmt.Sprintf("no %s is given, and ldirectord waits %s: here a check has %s, until the next one", name, otherwise, interval))
		check.Timeout = interval
	}
	if tries := cmp.Or(v.tries, g.tries); check.Kind == realserver.CheckICMP && tries > 1 {
		v.once(translation.Assumed, v.d, fmt.Sprintf("%d echo requests without an answer are one failure: it takes %[1]d times as many here, sent one after the other", tries))
		check.Fall = uint16(min(uint64(failures)*uint64(tries), 65535))
		check.Retry = check.Timeout
	} else if check.Fall > 1 {
		check.Retry = check.Interval
	}
	return check
}

// once notes something of the service that several of its checks have in common.
func (v *virtual) once(kind translation.Kind, d directive, why string) {
	if !v.said[why] {
		v.said[why] = true
		v.note(kind, d, why)
	}
}

// health returns what follows from the checks: what fails is removed unless quiescent
// is set, and is not there before its first pass (ldirectord, set_defaults and
// ld_start).
func (v *virtual) health(s *translation.Service) director.Health {
	var h director.Health
	g := &v.t.global
	asks := false
	for _, source := range s.Sources {
		asks = asks || len(source.Asked) > 0
	}
	quiescent := v.quiescent
	if quiescent == "" {
		quiescent = g.quiescent
	}
	if quiescent != "yes" && (asks || v.t.maintenance != "") {
		h.Down = director.DownRemove
	}
	h.Maintenance = v.t.maintenance
	if v.off { // no fallback either (ldirectord(8), checktype)
		return h
	}
	command := v.fallbackCommand
	if command == nil {
		command = g.fallbackCommand
	}
	if command != nil {
		h.Notify.QuorumDown = v.told(s.Key, *command, "start")
		h.Notify.QuorumUp = v.told(s.Key, *command, "stop")
	}
	fallback := v.fallback
	if v.v6 {
		fallback = v.fallback6
	}
	own := fallback != nil
	if !own {
		if fallback = g.fallback; v.v6 {
			fallback = g.fallback6
		}
	}
	if fallback != nil {
		h.Sorry = v.sorry(s, *fallback, own)
	}
	return h
}

// shellBytes are those that make a command one for a shell (perl: exec).
const shellBytes = "$&*(){}[]'\";\\|?<>~`\n"

// told returns the command that is told that no server is left, and that one is there
// again, with ldirectord's arguments (ldirectord, do_fallback_command).
func (v *virtual) told(key director.ServiceKey, d directive, state string) []string {
	command := d.value
	if inner, ok := quoted(d.value); ok && !strings.ContainsAny(inner, shellBytes) {
		command = inner
	}
	listens := ":0 fwm"
	if !key.IsMark() {
		listens = key.Address.String() + " " + key.Protocol.String()
	}
	words := strings.Fields(command)
	problem := translation.Unwritable(command)
	switch {
	case problem != "":
	case strings.ContainsAny(command, shellBytes):
		return []string{"/bin/sh", "-c", translation.Escape(command + " " + state + " " + listens)}
	case len(words) == 0:
		problem = "there is no program"
	case !path.IsAbs(words[0]):
		problem = fmt.Sprintf("%s is not an absolute path", words[0])
	}
	if problem != "" {
		v.once(translation.NotCarried, d, "the command is not run: "+problem)
		return nil
	}
	for i := range words[1:] {
		words[i+1] = translation.Escape(words[i+1])
	}
	return append(append(words, state), strings.Fields(listens)...)
}

// fallbackLine is what fallback= may say: an address, perhaps a port, and perhaps a
// method.
var fallbackLine = regexp.MustCompile(`^` + hostForm + `(?::([A-Za-z0-9_-]+))?(?:\s+(\w+))?\s*$`)

// sorry returns the fallback server as the service's; own is whether the service says
// it itself.
func (v *virtual) sorry(s *translation.Service, d directive, own bool) []realserver.Server {
	problem := `want address:port gate|masq|ipip: ` + refused
	server := realserver.Server{Method: realserver.DR, Weight: realserver.DefaultWeight}
	if parts := fallbackLine.FindStringSubmatch(d.value); parts != nil {
		addr, port := parts[1], uint16(0)
		at, unknown := v.address(addr)
		if problem = unknown; problem == "" && parts[2] != "" {
			port, problem = v.portOf(parts[2])
		}
		if problem == "" && parts[3] != "" {
			server, problem = parseServer(parts[3], "", "", "")
		}
		if problem == "" {
			server = v.serverOf(s.Key, withAddress(server, at, port), d)
			given := s.Key.ServerAddress(server.Address)
			for _, other := range s.Servers {
				if s.Key.ServerAddress(other.Address) == given {
					problem = "it is one of the service's own servers, which its checks decide on"
				}
			}
		}
	}
	if problem != "" {
		v.once(translation.NotCarried, d, problem)
		return nil
	}
	return []realserver.Server{server}
}
