package differential

import (
	"fmt"
	"strings"
)

// Difference says where the answers of got begin to differ from those of want;
// empty if they do not.
func Difference(want, got Case) string {
	for i, e := range want.Events {
		if e != got.Events[i] {
			return fmt.Sprintf("event %d: %s, want %q", i, got.Events[i], e.Answer)
		}
	}
	return ""
}

// FastPathDifference is Difference with what the fast path may do otherwise than
// the kernel: it removes a template that can no longer be used, which the kernel
// counts until its time is over.
func FastPathDifference(want, got Case) string {
	for i, e := range want.Events {
		mine := got.Events[i]
		if e.Verb == Count {
			mine.Answer = withTemplatesOf(mine.Answer, e.Answer)
		}
		if e != mine {
			return fmt.Sprintf("event %d: %s, want %q", i, got.Events[i], e.Answer)
		}
	}
	return ""
}

// withTemplatesOf returns the counts of got with the numbers of templates of want
// where those are greater.
func withTemplatesOf(got, want string) string {
	mine, theirs := strings.Fields(got), strings.Fields(want)
	if len(mine) != len(theirs) {
		return got
	}
	for i := range mine {
		var m, w struct{ server, active, inactive, templates int }
		if !scanCount(mine[i], &m.server, &m.active, &m.inactive, &m.templates) ||
			!scanCount(theirs[i], &w.server, &w.active, &w.inactive, &w.templates) {
			return got
		}
		mine[i] = fmt.Sprintf(countFormat, m.server, m.active, m.inactive, max(m.templates, w.templates))
	}
	return strings.Join(mine, " ")
}

// countFormat is one server's part of the answer to Count.
const countFormat = "%d:%d/%d/%d"

func scanCount(text string, fields ...any) bool {
	n, err := fmt.Sscanf(text, countFormat, fields...)
	return err == nil && n == len(fields)
}
