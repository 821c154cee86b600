package translation

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

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
	// NotCarried is all else: what has no counterpart in Shunt, or no effect.
	NotCarried Kind = "not carried"
)

// Position is a place in a text.
type Position struct {
	File string
	Line int // from 1; 0: the whole file
}

// String returns file:line.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Note says of one directive that it was not carried, or how it was.
type Note struct {
	Position
	Kind Kind
	What string // the directive, as it stands there; never a password
	Why  string
	// Services that it is about, as in the state; none: it is about no service in
	// particular, or about one that is left out.
	Services []director.ServiceKey
	// Server it is about; port 0 if none was given or the services' differ.
	Server netip.AddrPort
}

// String returns the note as a line: file:line: kind: what: why.
func (n Note) String() string {
	return fmt.Sprintf("%s: %s: %s: %s", n.Position, n.Kind, n.What, n.Why)
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
	return e.Position.String() + ": " + text
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
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' ' // a terminal would act on it
		}
		return r
	}, strings.Join(words, " "))
	if runes := []rune(text); len(runes) > maxWhat {
		return string(runes[:maxWhat]) + "…"
	}
	return text
}
