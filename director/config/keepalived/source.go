package keepalived

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/shunt-lb/shunt/director/config/translation"
)

// reader turns texts into a tree.
type reader struct {
	options Options
	named   func(file string)
	note    func(translation.Note)
	tree    *tree
	defs    map[string]definition
	files   int
	open    []string // files that are being read, the first one outermost
	work    int      // bytes that expansion may still make
}

// The limits of includes and of expansion.
const (
	maxIncludes = 16       // files that include each other
	maxLine     = 64 << 10 // bytes of a line; keepalived takes 1024
	maxWork     = 64 << 20 // bytes of all lines, expanded
	lineWork    = 64       // what a line costs besides
)

const openQuote = "a quote has no end: what is behind it is not read"

func newReader(options Options, named func(string), note func(translation.Note)) *reader {
	return &reader{options: options, named: named, note: note, tree: newTree(), defs: make(map[string]definition), work: maxWork}
}

// line is a line without its comment.
type line struct {
	at   translation.Position
	text string
}

// file reads a text.
func (r *reader) file(name string, data []byte) error {
	at := translation.Position{File: name}
	r.named(name)
	switch {
	case len(data) > translation.MaxBytes:
		return translation.Errorf(at, "the file is larger than %d MiB", translation.MaxBytes>>20)
	case bytes.IndexByte(data, 0) >= 0:
		return translation.Errorf(at, "the file has a NUL byte at offset %d: is it a text file?", bytes.IndexByte(data, 0))
	}
	r.open = append(r.open, name)
	defer func() { r.open = r.open[:len(r.open)-1] }()
	text := strings.TrimPrefix(string(data), "\ufeff")
	collecting := "" // the definition that the lines are of
	for text != "" {
		var raw string
		raw, text, _ = strings.Cut(text, "\n")
		at.Line++
		raw = strings.TrimRight(raw, "\r")
		if raw == "" {
			collecting = "" // an empty line ends a definition
			continue
		}
		l := line{at: at}
		var continued, quoted bool
		l.text, continued, quoted = decomment(raw)
		if quoted {
			r.drop(l, translation.LeftOut, openQuote)
		}
		switch {
		case collecting != "":
			r.defs[collecting] = r.defs[collecting].with(l)
			if !continued {
				collecting = ""
			}
			continue
		case l.text == "":
			continue
		case continued:
			var err error
			if collecting, err = r.begin(l); err != nil {
				return err
			}
			continue
		}
		if err := r.process(l, 0); err != nil {
			return err
		}
	}
	return nil
}

// begin processes a line that is continued: a definition, whose name it returns,
// if the machine has it. On other lines the backslash means nothing.
func (r *reader) begin(l line) (string, error) {
	l, ok := r.condition(l)
	if !ok {
		return "", nil
	}
	if name, value, ok := cutDefinition(l.text); ok {
		l.text = value
		r.defs[name] = definition{many: true}.with(l)
		return name, nil
	}
	r.drop(l, translation.NotCarried, "the \\ at the end means nothing here: only definitions go on over lines")
	return "", r.process(l, 0)
}

// drop notes that a line was not taken as it stands.
func (r *reader) drop(l line, kind translation.Kind, why string) {
	r.note(translation.Note{Position: l.at, Kind: kind, What: translation.What(l.text), Why: why})
}

// decomment removes a line's comment and the blanks around the rest. continued is
// whether it ends with a backslash, comments included, which is removed too; open
// whether a quote has no end. Single quotes mean nothing here (keepalived:
// lib/parser.c, decomment).
func decomment(raw string) (text string, continued, open bool) {
	var b strings.Builder
	raw = strings.TrimLeft(raw, " \t")
	comment := false
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case c == '\\' && i+1 == len(raw):
			return strings.TrimRight(b.String(), " \t"), true, open
		case c == '\\' && !open && strings.IndexByte("#!", raw[i+1]) >= 0:
			i++ // the character itself, and no comment
		case c == '\\':
			if !comment {
				b.WriteByte(c)
			}
			i++
		case comment:
			continue
		case c == '"':
			open = !open
		case !open && (c == '#' || c == '!'):
			comment = true
			continue
		}
		if !comment {
			b.WriteByte(raw[i])
		}
	}
	return strings.TrimRight(b.String(), " \t"), false, open
}

// include reads the files that an include names, if the line is one. The other
// forms than plain include are stricter on files that are missing.
func (r *reader) include(l line) (done bool, err error) {
	directive, rest, _ := strings.Cut(strings.ReplaceAll(l.text, "\t", " "), " ")
	kind, ok := strings.CutPrefix(directive, "include")
	if !ok || len(kind) > 1 || !strings.Contains("rmwba", kind) || rest == "" {
		return false, nil
	}
	if r.options.Files == nil {
		r.drop(l, translation.LeftOut, "includes are not read here: translate the file itself")
		return true, nil
	}
	pattern := strings.Trim(strings.TrimSpace(rest), `"`)
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(filepath.Dir(l.at.File), pattern)
	}
	patterns, ok := braces(pattern)
	if !ok {
		return true, translation.Errorf(l.at, "include %s stands for too many files", pattern)
	}
	found := 0
	for _, pattern := range patterns {
		names, err := r.options.Files.Glob(pattern)
		if err != nil {
			return true, &translation.Error{Position: l.at, Text: "include " + pattern, Cause: err}
		}
		for _, name := range names {
			if err := r.included(l, name); err != nil {
				return true, err
			}
		}
		found += len(names)
	}
	if found == 0 {
		r.drop(l, translation.LeftOut, "there is no such file")
	}
	return true, nil
}

func (r *reader) included(l line, name string) error {
	for _, open := range r.open {
		if open == name {
			return translation.Errorf(l.at, "include %s: the file includes itself", name)
		}
	}
	if r.files++; r.files > translation.MaxFiles {
		return translation.Errorf(l.at, "the configuration has more than %d files", translation.MaxFiles)
	}
	if len(r.open) == maxIncludes {
		return translation.Errorf(l.at, "include %s: more than %d files include each other", name, maxIncludes)
	}
	data, err := r.options.Files.ReadFile(name)
	if errors.Is(err, translation.ErrNotRegular) || errors.Is(err, fs.ErrNotExist) { // a link to nowhere, that is
		r.drop(l, translation.LeftOut, err.Error()+": keepalived skips it")
		return nil
	}
	if err != nil {
		return &translation.Error{Position: l.at, Text: fmt.Sprintf("include %s", name), Cause: err}
	}
	return r.file(name, data)
}

// maxAlternatives is how many patterns the braces of one may stand for.
const maxAlternatives = 1000

// braces expands {a,b} of a pattern, as csh does; false if there are too many.
func braces(pattern string) ([]string, bool) {
	done, todo := []string{}, []string{pattern}
	for len(todo) > 0 {
		if len(done)+len(todo) > maxAlternatives {
			return nil, false
		}
		p := todo[0]
		todo = todo[1:]
		begin, end, commas := braceGroup(p)
		if commas == nil {
			done = append(done, p)
			continue
		}
		var parts []string
		from := begin + 1
		for _, comma := range append(commas, end) {
			parts = append(parts, p[:begin]+p[from:comma]+p[end+1:])
			from = comma + 1
		}
		todo = append(parts, todo...)
	}
	return done, true
}

// braceGroup finds the first group with a comma of its own; commas is nil if there
// is none.
func braceGroup(p string) (begin, end int, commas []int) {
	for begin = range len(p) {
		if p[begin] != '{' {
			continue
		}
		depth := 0
		commas = nil
		for end = begin; end < len(p); end++ {
			switch p[end] {
			case '{':
				depth++
			case '}':
				depth--
			case ',':
				if depth == 1 {
					commas = append(commas, end)
				}
			}
			if depth == 0 {
				break
			}
		}
		if end < len(p) && commas != nil {
			return begin, end, commas
		}
	}
	return 0, 0, nil
}
