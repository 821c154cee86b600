package translation

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"unicode"

	"github.com/shunt-lb/shunt/director"
)

// Kind says what became of the thing a note is about. The values are words for
// people.
type Kind string

// The kinds of notes.
const (
	// LeftOut is a service, a server or a part of the text that is not there.
	LeftOut Kind = "left out"
	// Differs is something that was carried, while packets may go otherwise than
	// with the other program.
	Differs Kind = "differs"
	// Assumed is something that was not said, or wrongly, and was taken as the other
	// program takes it.
	Assumed Kind = "assumed"
	// Reminder is of what the text cannot tell: all that it tells was carried.
	Reminder Kind = "reminder"
	// NotCarried is all else: what has no counterpart in Shunt, or no effect.
	NotCarried Kind = "not carried"
)

// Position is a place in a text.
type Position struct {
	File string
	Line int // from 1; 0: the whole file
}

// String returns file:line, on one line whatever the file's name.
func (p Position) String() string {
	name := printable(p.File)
	if p.Line == 0 {
		return name
	}
	return fmt.Sprintf("%s:%d", name, p.Line)
}

// Note says of one directive that it was not carried, or how it was.
type Note struct {
	Position
	Kind Kind
	What string // the directive, as it stands there; never a password
	Why  string
	// Services that it is about, as in the state, the first ones if there are many;
	// none: it is about no service in particular, or about one that is left out.
	Services []director.ServiceKey
	More     int // services besides
	// Server it is about; port 0 if none was given or the services' differ.
	Server netip.AddrPort
}

// maxNamed is how many services a note names: there may be thousands of notes on
// thousands of services.
const maxNamed = 16

// add adds a service that the note is about, unless it was the last one added.
func (n *Note) add(service director.ServiceKey) {
	last := len(n.Services) - 1
	switch {
	case last >= 0 && n.Services[last] == service:
	case last+1 < maxNamed:
		n.Services = append(n.Services, service)
	default:
		n.More++
	}
}

// String returns the note as a line: file:line: kind: what: why.
func (n Note) String() string {
	return fmt.Sprintf("%s: %s: %s: %s", n.Position, n.Kind, n.What, printable(n.Why))
}

// Lacking returns how many of the notes are about something that the text says and
// the state does not.
func (r Result) Lacking() int {
	n := 0
	for _, note := range r.Notes {
		if note.Kind != Reminder {
			n++
		}
	}
	return n
}

// Error is what makes a text impossible to translate, and where it stands.
type Error struct {
	Position
	Text  string
	Cause error // nil: director.ErrInvalid
}

// Error returns file:line: text.
func (e *Error) Error() string {
	text := e.Text
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return e.Position.String() + ": " + printable(text)
}

// Unwrap returns the cause, or director.ErrInvalid.
func (e *Error) Unwrap() error { return cmp.Or[error](e.Cause, director.ErrInvalid) }

// Errorf returns an *Error without a cause.
func Errorf(at Position, format string, args ...any) error {
	return &Error{Position: at, Text: fmt.Sprintf(format, args...)}
}

// maxWhat is how many characters of a directive a note repeats.
const maxWhat = 100

// What returns a directive for a note: its words, and no more of them than a
// line has room for.
func What(words ...string) string {
	text := printable(strings.Join(words, " "))
	if runes := []rune(text); len(runes) > maxWhat {
		return string(runes[:maxWhat]) + "…"
	}
	return text
}

// printable returns the text with blanks for what a terminal would act on: the
// control characters of ASCII and of ISO 8859-1, whose CSI begins sequences too.
// Invalid bytes could be read as the latter.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\ufffd"))
}
