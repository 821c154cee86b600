package ipvsadm

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// Line is a command of a save file, or of the input of ipvsadm -R.
type Line struct {
	Number  int // of the text's line, from 1
	Args    []string
	Command Command // if Err is nil
	Err     error   // *UsageError
}

// LineError is what is wrong with a line of a save file.
type LineError struct {
	Number int
	Err    error
}

// Error names the line.
func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Number, e.Err) }

// Unwrap returns the cause.
func (e *LineError) Unwrap() error { return e.Err }

// Restore reads the input of ipvsadm -R as that reads it, and returns the lines
// that it comes to: it ends at a refusal that is not Continue, and at Help and
// Version. Empty lines are not among them. Names of programs are passed over:
// "ipvsadm -A …" is a line too. There are no quotes and no comments.
func (p Parser) Restore(text []byte) []Line {
	var lines []Line
	for number, rest := 1, text; ; number++ {
		line, after, isComplete := bytes.Cut(rest, []byte("\n"))
		if args := splitLine(line, isComplete); len(args) > 0 {
			l := Line{Number: number, Args: args}
			if l.Command, l.Err = p.Parse(args); l.Err == nil && l.Command.Operation == Restore {
				l.Command, l.Err = Command{}, p.withDefaults().hint() // ipvsadm.c, restore_table
			}
			lines = append(lines, l)
			if l.ends() {
				return lines
			}
		}
		if !isComplete {
			return lines
		}
		rest = after
	}
}

// ends reports whether ipvsadm ends with the line.
func (l Line) ends() bool {
	if refused, ok := l.Err.(*UsageError); ok {
		return !refused.Continue
	}
	return l.Command.Operation == Help || l.Command.Operation == Version
}

// splitLine parts a line at white space; what is left of config_stream.c's other
// ways: the word ipvsadm is passed over, wherever it stands; a last line without
// a newline is lost if two blanks or more end it; a zero byte ends a word.
func splitLine(line []byte, isComplete bool) []string {
	if blanks := len(line) - len(bytes.TrimRight(line, blank)); !isComplete && blanks > 1 {
		return nil
	}
	words := strings.FieldsFunc(string(line), func(c rune) bool { return strings.ContainsRune(blank, c) })
	for i := range words {
		words[i], _, _ = strings.Cut(words[i], "\x00")
	}
	return slices.DeleteFunc(words, func(w string) bool { return w == "ipvsadm" })
}

// blank parts words: not all that C takes for white space.
const blank = " \t\r"

// ParseSave reads a save file: what ipvsadm -S writes, and whatever else makes or
// changes services, servers, timeouts and daemons. Lines that begin with # are
// comments, as for ipvsadm-restore. The error is a *LineError; commands that
// show something and those that read further commands are errors too.
func (p Parser) ParseSave(text []byte) ([]Line, error) {
	lines := p.Restore(StripComments(text))
	for _, l := range lines {
		if l.Err != nil {
			return nil, &LineError{l.Number, l.Err}
		}
		switch l.Command.Operation {
		case List, Save, Help, Version:
			return nil, &LineError{l.Number, fmt.Errorf("%s changes nothing: want commands that do", l.Args[0])}
		}
	}
	return lines, nil
}

// StripComments empties the lines that begin with # and ends the last line, as
// the script ipvsadm-restore does before ipvsadm -R reads the text.
func StripComments(text []byte) []byte {
	lines := bytes.Split(text, []byte("\n"))
	for i, line := range lines {
		if bytes.HasPrefix(line, []byte("#")) {
			lines[i] = nil
		}
	}
	return append(bytes.Join(lines, []byte("\n")), '\n')
}
