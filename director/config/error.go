package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/shunt-lb/shunt/director"
)

// Error is one thing wrong with a configuration. Parse and Load join them in
// the order of the text, file by file; each wraps director.ErrInvalid or
// director.ErrUnsupported.
type Error struct {
	File         string
	Line, Column int // from 1, in characters; 0 if not known
	Text         string
	Kind         error

	// excerpt is the line before, the line the error is in and a caret below its
	// place, each line ended; empty if the place is not known. Characters a
	// terminal would act on are replaced.
	excerpt string
}

// Error returns file:line:column: text.
func (e *Error) Error() string {
	switch {
	case e.File == "":
		return e.Text
	case e.Line == 0:
		return fmt.Sprintf("%s: %s", e.File, e.Text)
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Text)
}

// Unwrap returns the kind.
func (e *Error) Unwrap() error { return e.Kind }

// Report returns the errors of Parse, Load or Fmt for people: each on its line,
// with the excerpt below. An err of something else is a line by itself.
func Report(err error) string {
	if err == nil {
		return ""
	}
	located := errorsOf(err)
	if len(located) == 0 {
		return err.Error() + "\n"
	}
	var b strings.Builder
	for _, e := range located {
		b.WriteString(e.Error() + "\n" + e.excerpt)
	}
	return b.String()
}

// errorsOf returns the *Errors that err wraps, in order.
func errorsOf(err error) []*Error {
	switch e := err.(type) {
	case *Error:
		return []*Error{e}
	case interface{ Unwrap() []error }:
		var all []*Error
		for _, inner := range e.Unwrap() {
			all = append(all, errorsOf(inner)...)
		}
		return all
	case interface{ Unwrap() error }:
		return errorsOf(e.Unwrap())
	default:
		return nil
	}
}

// joined returns the errors of all files in the order of the text, the first
// maxErrors of them with their excerpts; nil if there are none.
func joined(files []*decoder) error {
	var all []error
	more := 0
	for _, d := range files {
		slices.SortStableFunc(d.errs, func(a, b *Error) int {
			return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
		})
		more += d.unkept
		var lines []string
		for _, e := range d.errs {
			if len(all) == maxErrors {
				more++
				continue
			}
			if lines == nil && e.Line > 0 {
				lines = splitLines(string(d.data))
			}
			e.excerpt = excerpt(lines, e.Line, e.Column)
			all = append(all, e)
		}
	}
	if more > 0 {
		all = append(all, &Error{Text: fmt.Sprintf("and %d more errors", more), Kind: director.ErrInvalid})
	}
	return errors.Join(all...)
}

// splitLines splits at YAML's line breaks, which are more than Go's: positions
// count them all.
func splitLines(text string) []string {
	var lines []string
	start := 0
	for i, r := range text {
		switch {
		case r == '\r' && i+1 < len(text) && text[i+1] == '\n':
		case isBreak(r):
			lines = append(lines, strings.TrimSuffix(text[start:i], "\r"))
			start = i + len(string(r))
		}
	}
	return append(lines, text[start:])
}

const (
	excerptWidth = 100 // characters of a line that are shown
	excerptLead  = 70  // of which before the column, at most
)

func excerpt(lines []string, line, column int) string {
	if line < 1 || line > len(lines) || column < 1 {
		return ""
	}
	skip := max(0, column-1-excerptLead)
	width := len(fmt.Sprint(line))
	var b strings.Builder
	if line > 1 {
		if before := window(lines[line-2], skip); before != "" {
			fmt.Fprintf(&b, "  %*d | %s\n", width, line-1, before)
		}
	}
	fmt.Fprintf(&b, "  %*d | %s\n", width, line, window(lines[line-1], skip))
	fmt.Fprintf(&b, "  %*s | %s^\n", width, "", strings.Repeat(" ", column-1-skip))
	return b.String()
}

// window returns the part of a line behind skip that is shown.
func window(line string, skip int) string {
	var b strings.Builder
	n := 0
	for _, r := range line {
		n++
		switch {
		case n <= skip:
			continue
		case n > skip+excerptWidth:
			b.WriteString("…")
			return b.String()
		case n == skip+1 && skip > 0:
			r = '…'
		case r == '\t':
			r = ' ' // as wide as the caret's line has it
		case !unicode.IsGraphic(r):
			r = unicode.ReplacementChar
		}
		b.WriteRune(r)
	}
	return strings.TrimRight(b.String(), " ")
}
