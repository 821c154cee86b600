package config

import (
	"cmp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// value is a value as it is to be written.
type value struct {
	kind    yaml.Kind
	scalar  string // the text of a scalar
	bare    bool   // it needs no quotes to be what it is
	entries []*entry
	flow    bool // on one line, if it can be
}

// entry is a key with its value, or an element of a list.
type entry struct {
	key   string // empty of an element
	value *value

	// Where it begins in the text, and how many flow collections it is in
	// there.
	line, column, depth int
	parent              *entry

	heads    []comment // on lines before it
	trailing string    // behind it on its line
	foot     []comment // on lines after it
	blank    bool      // an empty line comes before it, after the heads
}

// document is a text as it is to be written.
type document struct {
	header, trailer []comment
	root            *value
}

// onLines are the mappings and lists that are never written in flow style,
// unless they are empty; by their path without indices.
var onLines = map[string]bool{"": true, "director": true, "director.sync": true, "services": true, "services[]": true, "services[].servers": true}

// tree turns nodes into values. It notes the entries in the order of the text.
type tree struct {
	d     *decoder
	lines []string
	all   []*entry
}

func (t *tree) value(n *yaml.Node, path string, in *entry, depth int) *value {
	v := &value{kind: n.Kind, flow: n.Style&yaml.FlowStyle != 0}
	if v.flow {
		depth++
		v.flow = !onLines[path]
	}
	add := func(key string, begin, child *yaml.Node, path string) {
		e := &entry{key: key, line: begin.Line, column: begin.Column, depth: depth, parent: in}
		if n.Kind == yaml.SequenceNode && n.Style&yaml.FlowStyle == 0 {
			e.column = n.Column // the dash's
		}
		e.blank = isBlank(t.lines, e.line-1) && (in == nil || in.line != e.line)
		t.all = append(t.all, e)
		v.entries = append(v.entries, e)
		e.value = t.value(child, path, e, depth)
	}
	switch n.Kind {
	case yaml.ScalarNode:
		v.scalar, v.bare = n.Value, n.Style == 0 || !ambiguous(n.Value)
	case yaml.SequenceNode:
		for _, child := range n.Content {
			add("", child, child, path+"[]")
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			add(key.Value, key, n.Content[i+1], strings.TrimPrefix(path+"."+key.Value, "."))
		}
		order := t.d.keys[path]
		slices.SortStableFunc(v.entries, func(a, b *entry) int {
			return cmp.Compare(slices.Index(order, a.key), slices.Index(order, b.key))
		})
	}
	return v
}

// attach gives each comment a place: behind the entry it stands behind, before
// the one it stands before, or, where it is indented deeper than that, after
// what it is in. What the file begins and ends with stays there.
func (t *tree) attach(doc *document, comments []comment) {
	comments = doc.takeHeader(comments, t.all)
	next := 0
	for _, c := range comments {
		for next < len(t.all) && t.all[next].line <= c.line {
			next++
		}
		if !c.own {
			e := t.all[max(0, next-1)]
			for e.parent != nil && e.depth > c.depth {
				e = e.parent
			}
			e.trailing = strings.TrimPrefix(e.trailing+" "+c.text, " ")
			continue
		}
		if next < len(t.all) && c.column <= t.all[next].column {
			t.all[next].heads = append(t.all[next].heads, c)
			continue
		}
		in := t.all[max(0, next-1)]
		for in.parent != nil && in.column > c.column {
			in = in.parent
		}
		switch {
		case in.parent != nil && (in.key != "" || next == len(t.all) || t.all[next].parent != in.parent):
			in.foot = append(in.foot, c)
		case next < len(t.all):
			t.all[next].heads = append(t.all[next].heads, c)
		default:
			doc.trailer = append(doc.trailer, c)
		}
	}
}

// takeHeader takes the comments before the first entry, up to the last empty
// line.
func (doc *document) takeHeader(comments []comment, all []*entry) []comment {
	first := len(comments)
	if len(all) > 0 {
		first = 0
		for first < len(comments) && comments[first].line < all[0].line {
			first++
		}
		blank := all[0].blank
		for first > 0 && !blank {
			first--
			blank = comments[first].blank
		}
	}
	doc.header = comments[:first]
	return comments[first:]
}
