package config

import (
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// The widths of the text.
const (
	flowWidth    = 100 // a collection on one line ends here at the latest
	alignedWidth = 40  // lines up to here have their comments aligned
)

// writer writes a document, line by line.
type writer struct {
	lines []outLine
	opens bool // the last line begins a block: no empty line after it
}

type outLine struct {
	text    string
	comment string // behind the text; the whole line if that is empty
}

// text writes the document.
func (doc *document) text() []byte {
	w := &writer{opens: true}
	w.comments(doc.header, 0)
	if doc.root != nil {
		for i, e := range doc.root.entries {
			if i > 0 || len(doc.header) > 0 {
				w.blank()
			}
			w.pair(e, "", 0)
		}
	}
	w.comments(doc.trailer, 0)
	return w.bytes()
}

func (w *writer) line(text, comment string) {
	w.lines = append(w.lines, outLine{text, comment})
	w.opens = false
}

// blank writes an empty line, unless a block has just begun or there is one.
func (w *writer) blank() {
	if !w.opens && w.lines[len(w.lines)-1] != (outLine{}) {
		w.line("", "")
	}
}

func (w *writer) comments(comments []comment, indent int) {
	for _, c := range comments {
		if c.blank {
			w.blank()
		}
		w.line("", spaces(indent)+c.text)
	}
}

// pair writes a key with its value; prefix is the dash of a list's element that
// begins with it, whose heads are written already.
func (w *writer) pair(e *entry, prefix string, indent int) {
	if prefix == "" {
		w.comments(e.heads, indent)
		if e.blank {
			w.blank()
		}
	}
	begin := spaces(indent-len(prefix)) + prefix + e.key + ":"
	if text, ok := e.value.onOneLine(len(begin) + 1); ok {
		w.line(begin+" "+text, e.trailing)
	} else {
		w.line(begin, e.trailing)
		w.opens = true
		for i, child := range e.value.entries {
			if e.value.kind == yaml.MappingNode {
				w.pair(child, "", indent+2)
			} else {
				// Services are apart from each other.
				if i > 0 && indent == 0 && child.value.kind == yaml.MappingNode {
					w.blank()
				}
				w.element(child, indent+2)
			}
		}
	}
	w.comments(e.foot, indent)
}

// element writes an element of a list.
func (w *writer) element(e *entry, indent int) {
	text, ok := e.value.onOneLine(indent + 2)
	w.comments(e.heads, indent)
	if !ok {
		// No line is the element's own: its comment, and those of its first
		// key, come before it.
		if e.trailing != "" {
			w.line("", spaces(indent)+e.trailing)
		}
		w.comments(e.value.entries[0].heads, indent)
	}
	if e.blank {
		w.blank()
	}
	if ok {
		w.line(spaces(indent)+"- "+text, e.trailing)
	} else {
		for i, child := range e.value.entries {
			prefix := ""
			if i == 0 {
				prefix = "- "
			}
			w.pair(child, prefix, indent+2)
		}
	}
	w.comments(e.foot, indent)
}

// onOneLine returns the value as it is written behind what ends at column, if
// it goes there.
func (v *value) onOneLine(column int) (string, bool) {
	if v.kind == yaml.ScalarNode {
		return v.written(plain), true
	}
	if len(v.entries) > 0 && (!v.flow || v.commented()) {
		return "", false
	}
	text := v.inFlow()
	return text, len(v.entries) == 0 || column+utf8.RuneCountInString(text) <= flowWidth
}

// commented reports whether a comment is in a collection.
func (v *value) commented() bool {
	for _, e := range v.entries {
		if len(e.heads) > 0 || e.trailing != "" || len(e.foot) > 0 || e.value.commented() {
			return true
		}
	}
	return false
}

func (v *value) inFlow() string {
	if v.kind == yaml.ScalarNode {
		return v.written(plainFlow)
	}
	parts := make([]string, len(v.entries))
	for i, e := range v.entries {
		parts[i] = e.value.inFlow()
		if v.kind == yaml.MappingNode {
			parts[i] = e.key + ": " + parts[i]
		}
	}
	if v.kind == yaml.MappingNode {
		return "{" + strings.Join(parts, ", ") + "}"
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// bytes returns the text, with the comments behind adjacent lines aligned.
func (w *writer) bytes() []byte {
	var b strings.Builder
	for i := 0; i < len(w.lines); {
		end, column := i, 0
		for ; end < len(w.lines) && w.lines[end].text != ""; end++ {
			if n := utf8.RuneCountInString(w.lines[end].text); w.lines[end].comment != "" && n <= alignedWidth {
				column = max(column, n)
			}
		}
		for ; i < end; i++ {
			line := w.lines[i]
			b.WriteString(line.text)
			if line.comment != "" {
				b.WriteString(spaces(max(0, column-utf8.RuneCountInString(line.text))) + "  " + line.comment)
			}
			b.WriteByte('\n')
		}
		if i < len(w.lines) {
			b.WriteString(w.lines[i].comment + "\n")
			i++
		}
	}
	return []byte(b.String())
}

func spaces(n int) string { return strings.Repeat(" ", n) }
