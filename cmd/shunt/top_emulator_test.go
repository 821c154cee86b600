package main

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// emulator is what a terminal shows of what was written to it, as far as tcell
// writes to a VT100 or xterm: text, the cursor's position, and clearing.
type emulator struct {
	*terminal
	width, height int
	cells         []rune
	x, y          int
	raw, left     []byte // all that came, and the beginning of a control at its end
}

// emulate returns the emulator of a terminal that the program has just begun to
// write to.
func (t *terminal) emulate(width, height int) *emulator {
	e := &emulator{terminal: t}
	e.resize(width, height)
	e.write(t.seen.Bytes())
	t.seen.Reset()
	return e
}

func (e *emulator) resize(width, height int) {
	e.width, e.height, e.x, e.y = width, height, 0, 0
	e.cells = slices.Repeat([]rune{' '}, width*height)
}

// setSize makes the terminal larger or smaller, which the program is told.
func (e *emulator) setSize(width, height int) {
	e.t.Helper()
	e.resize(width, height)
	size := unix.Winsize{Row: uint16(height), Col: uint16(width)}
	if err := unix.IoctlSetWinsize(int(e.master.Fd()), unix.TIOCSWINSZ, &size); err != nil {
		e.t.Fatal(err)
	}
}

// write shows what was written.
func (e *emulator) write(text []byte) {
	e.raw = append(e.raw, text...)
	e.left = append(e.left, text...)
	for len(e.left) > 0 {
		n := e.step(e.left)
		if n == 0 {
			return // the rest is to come
		}
		e.left = e.left[n:]
	}
}

// step shows a character or does what a control says, and returns its length; 0
// if it is not complete.
func (e *emulator) step(text []byte) int {
	switch {
	case text[0] == '\x1b':
		return e.escape(text)
	case text[0] == '\r':
		e.x = 0
	case text[0] == '\n':
		e.y++
	case text[0] >= ' ':
		if !utf8.FullRune(text) {
			return 0
		}
		r, n := utf8.DecodeRune(text)
		if e.x < e.width && e.y < e.height {
			e.cells[e.y*e.width+e.x] = r
		}
		e.x++
		return n
	}
	return 1
}

// escape does what an escape sequence says (ECMA-48 §5.4).
func (e *emulator) escape(text []byte) int {
	if len(text) < 2 {
		return 0
	}
	switch text[1] {
	case '[':
		end := bytes.IndexFunc(text[2:], func(r rune) bool { return r >= '@' && r <= '~' })
		if end < 0 {
			return 0
		}
		e.control(string(text[2:2+end]), text[2+end])
		return 2 + end + 1
	case ']':
		end := bytes.Index(text, []byte("\x1b\\"))
		if end < 0 {
			return 0
		}
		return end + 2
	case '(', ')':
		if len(text) < 3 {
			return 0
		}
		return 3
	}
	return 2
}

// control does what a control sequence says: position, or clear the screen or
// its rest.
func (e *emulator) control(parameters string, final byte) {
	switch final {
	case 'H':
		row, column, _ := strings.Cut(parameters, ";")
		number := func(text string) int { n, _ := strconv.Atoi(text); return max(n, 1) - 1 }
		e.y, e.x = number(row), number(column)
	case 'J':
		first := e.y*e.width + e.x
		if parameters == "2" {
			first = 0
		}
		for i := first; i < len(e.cells); i++ {
			e.cells[i] = ' '
		}
	}
}

// text is what the terminal shows.
func (e *emulator) text() string {
	var lines []string
	for row := range slices.Chunk(e.cells, e.width) {
		lines = append(lines, strings.TrimRight(string(row), " "))
	}
	return strings.Join(lines, "\n")
}

// shows waits until the terminal shows the text.
func (e *emulator) shows(text string) {
	e.t.Helper()
	timeout := time.After(deadline)
	for !strings.Contains(e.text(), text) {
		select {
		case chunk, ok := <-e.chunks:
			if !ok {
				e.t.Fatalf("the program ended without %q on the screen:\n%s", text, e.text())
			}
			e.write(chunk)
		case <-timeout:
			e.t.Fatalf("no %q on the screen:\n%s", text, e.text())
		}
	}
}
