package api

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/shunt-lb/shunt/director"
)

// maxWhy is how long a Shunt-Why can be, in characters.
const maxWhy = 500

// terms are the parameters that changes have in common; nil where one is not
// given.
type terms struct {
	match *string
	why   *string
	force *bool
}

// request returns who asks and on what terms.
func (t terms) request(c caller) (director.Request, error) {
	by := director.Request{Who: c.who, Force: t.force != nil && *t.force}
	var err error
	if t.match != nil {
		if by.Base, err = parseMatch(*t.match); err != nil {
			return by, err
		}
	}
	if t.why != nil {
		if by.Why, err = parseWhy(*t.why); err != nil {
			return by, err
		}
	}
	return by, nil
}

// parseMatch reads If-Match: a revision, or 0 for *. Weak tags are not taken:
// they never match (RFC 9110 §13.1.1), so that the change would always fail.
func parseMatch(text string) (uint64, error) {
	if text == "*" {
		return 0, nil
	}
	revision, err := parseRevision(text)
	if err != nil {
		return 0, newProblem(http.StatusBadRequest, "bad-request", fmt.Sprintf("If-Match: %v", err), `write the revision in quotes, "7", or * for whatever is newest`)
	}
	return revision, nil
}

// parseRevision reads a revision as ETag has it; the quotes may be missing.
func parseRevision(text string) (uint64, error) {
	bare := text
	if inner, ok := strings.CutPrefix(text, `"`); ok && strings.HasSuffix(inner, `"`) {
		bare = strings.TrimSuffix(inner, `"`)
	}
	revision, err := strconv.ParseUint(bare, 10, 64)
	// 0 would stand for whatever is newest.
	if err != nil || revision == 0 {
		return 0, fmt.Errorf("%.40q is not a revision", text)
	}
	return revision, nil
}

// parseWhy refuses what would break the lines of the history, or play tricks on
// the terminal that shows them.
func parseWhy(text string) (string, error) {
	fail := func(format string, args ...any) (string, error) {
		return "", invalid("Shunt-Why: "+fmt.Sprintf(format, args...), fmt.Sprintf("at most %d characters in UTF-8, no control characters", maxWhy))
	}
	if !utf8.ValidString(text) {
		return fail("not UTF-8")
	}
	if n := utf8.RuneCountInString(text); n > maxWhy {
		return fail("%d characters long", n)
	}
	for _, r := range text {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
			return fail("character %U is not allowed", r)
		}
	}
	return strings.TrimSpace(text), nil
}
