package api

import (
	"errors"
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

// parseWhy reads Shunt-Why.
func parseWhy(text string) (string, error) {
	if err := CheckWhy(text); err != nil {
		return "", invalid(fmt.Sprintf("Shunt-Why: %v", err), fmt.Sprintf("one line of at most %d characters that can be seen, in UTF-8", maxWhy))
	}
	return strings.TrimSpace(text), nil
}

// CheckWhy says what of a Shunt-Why would break the lines of the history, hide in
// them, or play tricks on the terminal that shows them.
func CheckWhy(text string) error {
	if !utf8.ValidString(text) {
		return errors.New("not UTF-8")
	}
	if n := utf8.RuneCountInString(text); n > maxWhy {
		return fmt.Errorf("%d characters long, more than %d", n, maxWhy)
	}
	for _, r := range text {
		// Format characters have no width: they turn text round, split words
		// for whoever searches, or are tags that nobody sees.
		if unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			return fmt.Errorf("character %U is not allowed", r)
		}
	}
	return nil
}
