package main

import (
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"
)

// color is the code of a colour in a terminal.
type color string

// The colours: for what is well, what changes or deserves a look, what goes or
// fails, and what is less important.
const (
	green  color = "32"
	yellow color = "33"
	red    color = "31"
	faint  color = "2"
	bold   color = "1"
)

// palette colours text, or leaves it as it is if false.
type palette bool

// in returns the text in the colour.
func (p palette) in(c color, text string) string {
	if !p || text == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// The values of --color.
const (
	colorAuto   = "auto"
	colorAlways = "always"
	colorNever  = "never"
)

// paletteFor decides what --color leaves open: colours are for terminals that
// have them, and for nobody who sets NO_COLOR (https://no-color.org).
func paletteFor(choice string, w io.Writer) palette {
	switch choice {
	case colorAlways:
		return true
	case colorNever:
		return false
	}
	return palette(os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(w))
}

// colors is the palette for what the command prints.
func colors(c *cli.Context) palette {
	return paletteFor(c.String("color"), streamsOf(c).out)
}

// isTerminal reports whether the reader or writer is one.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// width is how many columns text takes; colours take none.
func width(text string) int {
	n := utf8.RuneCountInString(text)
	for {
		_, rest, found := strings.Cut(text, "\x1b[")
		if !found {
			return n
		}
		code, after, _ := strings.Cut(rest, "m")
		n -= len("\x1b[") + len(code) + len("m")
		text = after
	}
}
