package keepalived

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/shunt-lb/shunt/director/config/translation"
	"github.com/shunt-lb/shunt/realserver"
)

// settings are what virtual servers, real servers and checkers all can say; the
// innermost counts (keepalived: check_data.c, validate_check_config).
type settings struct {
	delayLoop, beforeRetry, connectTimeout *time.Duration
	retry                                  *uint32
	alpha, inhibit                         *bool
	virtualhost                            string
	nodes                                  []*node // of the directives
}

// The values where nothing is said (keepalived: check_data.h and check_data.c, alloc_vs).
const (
	defaultDelayLoop      = 60 * time.Second
	defaultConnectTimeout = 5 * time.Second
)

// first returns the first value that is there.
func first[T any](otherwise T, values ...*T) T {
	for _, value := range values {
		if value != nil {
			return *value
		}
	}
	return otherwise
}

// setting reads a directive into the settings, and reports whether it is one of them.
func (v *virtual) setting(s *settings, n *node, where scope) bool {
	switch n.word(0) {
	case "delay_loop":
		v.timer(&s.delayLoop, n, time.Microsecond)
	case "delay_before_retry":
		v.timer(&s.beforeRetry, n, 0)
	case "connect_timeout":
		v.timer(&s.connectTimeout, n, time.Microsecond)
	case "retry", "nb_get_retry":
		least := uint64(1)
		if where == ofChecker {
			least = 0
		}
		if number, ok := v.number(n, least, maxNumber); ok {
			s.retry = &number
		}
	case "alpha":
		v.yesNo(&s.alpha, n, where)
	case "inhibit_on_failure":
		v.yesNo(&s.inhibit, n, where)
	case "virtualhost":
		if len(n.words) == 1 {
			v.note(translation.NotCarried, n, "the name is missing: keepalived ignores the directive")
		}
		s.virtualhost = n.word(1)
	default:
		return false
	}
	s.nodes = append(s.nodes, n)
	return true
}

// maxNumber is the largest of numbers that have no limit of their own.
const maxNumber = 1<<32 - 1

// yesNo reads a directive that may say no. That of a virtual server cannot: whatever
// follows, it says yes (keepalived: check_parser.c, vs_alpha_handler).
func (v *virtual) yesNo(to **bool, n *node, where scope) {
	yes := true
	switch word := n.word(1); {
	case word == "" || where == ofVirtual:
	case word == "off" || word == "false" || word == "no":
		yes = false
	case word != "on" && word != "true" && word != "yes":
		v.note(translation.NotCarried, n, fmt.Sprintf("%q is neither yes nor no: keepalived ignores the directive", word))
		return
	}
	*to = &yes
}

// maxSeconds keeps durations in range; keepalived's own limit is higher.
const maxSeconds = 10 * 365 * 24 * 3600

// timer reads seconds, with a fraction perhaps (keepalived: lib/parser.c, read_timer).
func (v *virtual) timer(to **time.Duration, n *node, least time.Duration) {
	text := strings.TrimLeft(n.word(1), "+")
	number := text[:len(text)-len(strings.TrimLeft(text, "0123456789."))]
	seconds, err := strconv.ParseFloat(number, 64)
	d := time.Duration(seconds * float64(time.Second)).Round(time.Microsecond)
	if err != nil || seconds > maxSeconds || d < least {
		v.note(translation.Differs, n, fmt.Sprintf("%q is no number of seconds: keepalived ignores the directive", n.word(1)))
		return
	}
	if number != n.word(1) {
		v.note(translation.Assumed, n, asKeepalived(n.word(1), d))
	}
	*to = &d
}

// pace gives the check when it is asked: each retry of keepalived's is a failure more
// until a server is down, and one pass has it up again. In Shunt a check ends before
// the next one begins: a longer time that the text gives it makes the interval longer,
// since no server is to be too slow that was not before, and one that it does not give
// becomes shorter.
func (v *virtual) pace(c *checker, r *real, check *realserver.Check) {
	differs := func(format string, args ...any) {
		v.noteOf(r, translation.Differs, c.n, fmt.Sprintf(format, args...))
	}
	limited := func(name string, d, least, most time.Duration) time.Duration {
		limit := min(max(d, least), most)
		if limit != d {
			differs("%s %s became %s: Shunt takes %s to %s", name, d, limit, least, most)
		}
		return limit
	}
	delayLoop := first(defaultDelayLoop, v.settings.delayLoop)
	interval := first(delayLoop, c.settings.delayLoop, r.settings.delayLoop)
	check.Interval = limited("delay_loop", interval, realserver.MinCheckInterval, realserver.MaxCheckInterval)
	name, given := "connect_timeout", first(0, c.settings.connectTimeout, r.settings.connectTimeout, v.settings.connectTimeout)
	otherwise := defaultConnectTimeout
	if c.check.Kind == realserver.CheckScript {
		name, given, otherwise = "misc_timeout", first(0, c.scriptTimeout), delayLoop
	}
	switch given = min(given, realserver.MaxCheckInterval); {
	case given > check.Interval:
		differs("%s %s is longer than delay_loop: the check is asked every %[2]s", name, given)
		check.Interval, check.Timeout = given, given
	case given != 0:
		check.Timeout = max(given, time.Millisecond)
	case otherwise > check.Interval:
		differs("no %s is given, and keepalived waits %s: here the check has %s, until the next one", name, otherwise, check.Interval)
		check.Timeout = check.Interval
	default:
		check.Timeout = otherwise
	}
	retries := first(c.retries, c.settings.retry, r.settings.retry, v.settings.retry)
	beforeRetry := first(c.beforeRetry, c.settings.beforeRetry, r.settings.beforeRetry, v.settings.beforeRetry)
	if beforeRetry == asDelayLoop {
		beforeRetry = check.Interval
	}
	check.Rise, check.Fall = 1, uint16(min(uint64(retries)+1, 65535))
	if check.Fall > 1 {
		check.Retry = limited("delay_before_retry", beforeRetry, realserver.MinCheckInterval, check.Interval)
	}
}
