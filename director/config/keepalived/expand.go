package keepalived

import (
	"path/filepath"
	"strconv"
	"strings"

	"github.com/shunt-lb/shunt/director/config/translation"
)

const nameCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"

// maxDepth is how deep definitions and repetitions may be within each other, and
// how often one line is expanded.
const maxDepth = 64

// definition is a parameter: one value, or lines.
type definition struct {
	value string
	many  bool
	lines []line
}

// with returns the definition with a line more; empty ones are none.
func (d definition) with(l line) definition {
	if l.text != "" {
		d.lines = append(d.lines, l)
	}
	return d
}

// cutDefinition reads $NAME=VALUE. No blank may be before the equals sign.
func cutDefinition(text string) (name, value string, ok bool) {
	rest, ok := strings.CutPrefix(text, "$")
	if !ok {
		return "", "", false
	}
	name, value, ok = strings.Cut(rest, "=")
	if !ok || !isName(name) {
		return "", "", false
	}
	return name, strings.TrimLeft(value, " \t"), true
}

func isName(s string) bool {
	return s != "" && strings.Trim(s, nameCharacters) == "" && (s[0] < '0' || s[0] > '9')
}

// condition decides on a line for some machines only: @id for one, @^id for all
// others. It returns the line without the condition, and whether it counts.
func (r *reader) condition(l line) (line, bool) {
	if !strings.HasPrefix(l.text, "@") {
		return l, true
	}
	blank := strings.IndexAny(l.text, " \t")
	if blank < 0 {
		return l, false // there is nothing that could count
	}
	if r.options.ID == "" {
		r.drop(l, translation.LeftOut, "the line is for some machines only, and no id says which this one is")
		return l, false
	}
	id, others := strings.CutPrefix(l.text[1:blank], "^")
	l.text = strings.TrimLeft(l.text[blank:], " \t")
	return l, (id == r.options.ID) != others
}

// process expands a line and adds what becomes of it to the tree. depth counts the
// definitions and repetitions it comes from.
func (r *reader) process(l line, depth int) error {
	if depth > maxDepth {
		return translation.Errorf(l.at, "definitions and repetitions lie more than %d deep in each other: does one contain itself?", maxDepth)
	}
	for range maxDepth {
		if r.work -= len(l.text) + lineWork; r.work < 0 || len(l.text) > maxLine {
			return translation.Errorf(l.at, "the line becomes too long, or the configuration too large, as it is expanded")
		}
		var ok bool
		if l, ok = r.condition(l); !ok || l.text == "" {
			return nil
		}
		if name, value, ok := cutDefinition(l.text); ok {
			r.defs[name] = definition{value: value}
			return nil
		}
		if strings.HasPrefix(l.text, "~") {
			return r.repeat(l, depth)
		}
		replaced, rest, changed := r.substitute(l)
		if !changed {
			return r.emit(l)
		}
		l.text = strings.Trim(replaced, " \t")
		if rest == nil {
			continue
		}
		rest[0].text = l.text
		for _, l := range rest {
			if err := r.process(l, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return translation.Errorf(l.at, "a parameter on the line contains itself")
}

// emit adds a line that is expanded.
func (r *reader) emit(l line) error {
	if done, err := r.include(l); done {
		return err
	}
	tokens, ok := split(l.text)
	if !ok {
		r.drop(l, translation.LeftOut, openQuote)
	}
	return r.tree.line(l.at, tokens)
}

// substitute replaces the parameters of a line that are defined; others stay. A
// definition of several lines counts at the end only: the line becomes its first
// one, and rest are all of them, the first to be replaced.
func (r *reader) substitute(l line) (text string, rest []line, changed bool) {
	var b strings.Builder
	s := l.text
	for s != "" && b.Len() <= maxLine {
		dollar := strings.IndexByte(s, '$')
		if dollar < 0 {
			break
		}
		b.WriteString(s[:dollar])
		s = s[dollar:]
		name, arguments, size := parameter(s)
		def, defined := r.defs[name]
		value, standard := "", false
		if !defined {
			value, standard = r.standard(l, name, arguments)
		}
		switch {
		case size == 0 || !defined && !standard || defined && arguments != "" || def.many && size < len(s):
			b.WriteByte('$')
			s = s[1:]
			continue
		case def.many && len(def.lines) > 0:
			rest = append([]line(nil), def.lines...)
			rest[0].at = l.at
			value = def.lines[0].text
		case defined:
			value = def.value
		}
		b.WriteString(value)
		s, changed = s[size:], true
	}
	b.WriteString(s)
	return b.String(), rest, changed
}

// parameter reads the parameter that s begins with: $NAME before a blank, a comma,
// a bracket or the end, or ${NAME}, where numbers may follow. size is 0 if there
// is none.
func parameter(s string) (name, arguments string, size int) {
	rest, inBraces := strings.CutPrefix(s, "${")
	if !inBraces {
		rest = s[1:]
	}
	n := len(rest) - len(strings.TrimLeft(rest, nameCharacters))
	if name = rest[:n]; !isName(name) {
		return "", "", 0
	}
	rest = rest[n:]
	if !inBraces {
		if rest != "" && strings.IndexByte(" \t,)", rest[0]) < 0 {
			return "", "", 0
		}
		return name, "", 1 + n
	}
	n = len(rest) - len(strings.TrimLeft(rest, " 0123456789"))
	if n == len(rest) || rest[n] != '}' {
		return "", "", 0
	}
	return name, strings.TrimSpace(rest[:n]), len(s) - len(rest) + n + 1
}

// standard returns the value of a parameter that keepalived defines.
func (r *reader) standard(l line, name, arguments string) (string, bool) {
	switch name {
	case "_PWD":
		return filepath.Dir(l.at.File), arguments == ""
	case "_INSTANCE":
		return r.options.ID, arguments == "" && r.options.ID != ""
	case "_HASH":
		return "#", arguments == ""
	case "_BANG":
		return "!", arguments == ""
	case "_RANDOM":
		least, _, _ := strings.Cut(arguments, " ")
		n, _ := strconv.ParseUint(least, 10, 31) // none is 0
		r.drop(l, translation.Differs, "_RANDOM is another number with each start of keepalived: the smallest one was taken")
		return strconv.FormatUint(n, 10), true
	}
	return "", false
}
