package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/shunt-lb/shunt/director"
)

// decoder walks the node tree. Paths such as services[1].servers[0].weight name
// places in it.
type decoder struct {
	file   string
	errs   []*Error
	places map[string]*yaml.Node // where each path's value stands
	broken map[string]bool       // paths whose text was refused already
}

// fields says what to do with each key of a mapping.
type fields map[string]func(n *yaml.Node, path string)

func (d *decoder) errorAt(n *yaml.Node, format string, args ...any) {
	d.fail(n, director.ErrInvalid, fmt.Sprintf(format, args...))
}

func (d *decoder) fail(n *yaml.Node, kind error, text string) {
	e := &Error{File: d.file, Text: text, Kind: kind}
	if n != nil {
		e.Line, e.Column = n.Line, n.Column
	}
	d.errs = append(d.errs, e)
}

// refuse notes what is wrong with a path's value, once.
func (d *decoder) refuse(n *yaml.Node, path, format string, args ...any) {
	d.broken[path] = true
	d.errorAt(n, "%s: %s", path, fmt.Sprintf(format, args...))
}

// joined returns the errors in the order of the text.
func (d *decoder) joined() error {
	slices.SortStableFunc(d.errs, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	all := make([]error, len(d.errs))
	for i, e := range d.errs {
		all[i] = e
	}
	return errors.Join(all...)
}

// place returns the node of the path or, where nothing stands for it, of what
// it is in.
func (d *decoder) place(path string) *yaml.Node {
	for path != "" {
		if n, ok := d.places[path]; ok {
			return n
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return nil
}

// mapping calls the function of each key. Keys that are unknown, come twice or
// have no value are errors.
func (d *decoder) mapping(n *yaml.Node, path string, known fields) {
	if path != "" {
		d.places[path] = n
	}
	where := path
	if where == "" {
		where = "the configuration"
	}
	if !d.is(n, yaml.MappingNode, where, "a mapping (key: value)") {
		d.broken[path] = true
		return
	}
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.ShortTag() == "!!merge" {
			d.errorAt(key, "%s: keys are plain words here; merge keys are not supported", where)
			continue
		}
		sub := strings.TrimPrefix(path+"."+key.Value, ".")
		read, ok := known[key.Value]
		if !ok {
			d.errorAt(key, "%s: unknown key %q: want %s", where, key.Value, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
			continue
		}
		if line, again := seen[key.Value]; again {
			d.errorAt(key, "%s is given twice: first in line %d", sub, line)
			continue
		}
		seen[key.Value] = key.Line
		d.places[sub] = value
		if value.Kind == yaml.ScalarNode && value.ShortTag() == "!!null" {
			d.refuse(value, sub, "the value is missing")
			continue
		}
		read(value, sub)
	}
}

// sequence calls item for each element.
func (d *decoder) sequence(n *yaml.Node, path string, item func(n *yaml.Node, path string, i int)) {
	if !d.is(n, yaml.SequenceNode, path, "a list") {
		d.broken[path] = true
		return
	}
	for i, element := range n.Content {
		sub := fmt.Sprintf("%s[%d]", path, i)
		d.places[sub] = element
		item(element, sub, i)
	}
}

// text returns a scalar's text.
func (d *decoder) text(n *yaml.Node, path string) (string, bool) {
	if !d.is(n, yaml.ScalarNode, path, "a single value") {
		d.broken[path] = true
		return "", false
	}
	return n.Value, true
}

// is reports whether the node is of a kind, and notes it if not.
func (d *decoder) is(n *yaml.Node, kind yaml.Kind, where, want string) bool {
	switch n.Kind {
	case kind:
		return true
	case yaml.AliasNode:
		d.errorAt(n, "%s: aliases are not supported: write the value out", where)
	default:
		d.errorAt(n, "%s: want %s", where, want)
	}
	return false
}

// word returns a function that reads a scalar with parse into value.
func word[T any](d *decoder, value *T, parse func(string) (T, error)) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		text, ok := d.text(n, path)
		if !ok {
			return
		}
		v, err := parse(text)
		if err != nil {
			kind := director.ErrInvalid
			if errors.Is(err, director.ErrUnsupported) {
				kind = director.ErrUnsupported
			}
			d.broken[path] = true
			d.fail(n, kind, fmt.Sprintf("%s: %v", path, err))
			return
		}
		*value = v
	}
}
