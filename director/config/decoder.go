package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/shunt-lb/shunt/director"
)

// maxErrors is how many errors of a configuration are told; of more, only the
// number is.
const maxErrors = 100

// maxText is the length of the longest value: that of a path in Linux.
const maxText = 4096

// decoder walks the node tree of one file. Paths such as
// services[1].servers[0].weight name places in it.
type decoder struct {
	file   string
	role   role
	parent string // the including file, of an included one
	data   []byte
	root   *yaml.Node

	errs   []*Error
	unkept int                   // errors beyond maxErrors
	places map[string]*yaml.Node // where each path's value stands
	broken map[string]bool       // paths whose text was refused already
	// keys are those that each mapping may have, in the order of the reference,
	// by the mapping's path without indices.
	keys map[string][]string

	settingsAt *yaml.Node // the key director; nil if there is none
	cfg        Config     // what the file says, services in the order of the text
	includes   []include
}

func newDecoder(file string, role role, data []byte) *decoder {
	return &decoder{
		file: file, role: role, data: data,
		places: make(map[string]*yaml.Node), broken: make(map[string]bool), keys: make(map[string][]string),
		cfg: Config{Director: defaultSettings()},
	}
}

// fields says what to do with each key of a mapping, in the order in which a
// formatted file has them.
type fields []field

type field struct {
	key  string
	read func(n *yaml.Node, path string)
}

func (d *decoder) errorAt(n *yaml.Node, format string, args ...any) {
	if len(d.errs) == maxErrors {
		d.unkept++
		return
	}
	d.fail(n, director.ErrInvalid, fmt.Sprintf(format, args...))
}

func (d *decoder) fail(n *yaml.Node, kind error, text string) {
	if len(d.errs) == maxErrors {
		d.unkept++
		return
	}
	e := &Error{File: d.file, Text: text, Kind: kind}
	if n != nil {
		e.Line, e.Column = n.Line, n.Column
	}
	d.errs = append(d.errs, e)
}

// refuse notes what is wrong with a path's value, once.
func (d *decoder) refuse(n *yaml.Node, path, format string, args ...any) {
	d.broken[path] = true
	d.errorAt(n, "%s: "+format, append([]any{path}, args...)...)
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
	d.keys[unindexed(path)] = known.names()
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.ShortTag() == "!!merge" || key.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
			d.errorAt(key, "%s: keys are plain words here; merge keys are not supported", where)
			continue
		}
		if !d.isPlain(key, where) {
			continue
		}
		sub := strings.TrimPrefix(path+"."+key.Value, ".")
		j := slices.IndexFunc(known, func(f field) bool { return f.key == key.Value })
		if j < 0 && len(d.errs) == maxErrors {
			d.unkept++
			continue
		}
		if j < 0 {
			names := slices.Sorted(slices.Values(known.names()))
			d.errorAt(key, "%s: unknown key %q: want %s%s", where, shortened(key.Value), strings.Join(names, ", "), didYouMean(key.Value, names))
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
		known[j].read(value, sub)
	}
}

// shortened cuts what is too long for a message.
func shortened(s string) string {
	if len(s) <= 64 {
		return s
	}
	return strings.ToValidUTF8(s[:64], "") + "…"
}

func (f fields) names() []string {
	names := make([]string, len(f))
	for i := range f {
		names[i] = f[i].key
	}
	return names
}

// unindexed returns a path that stands for all elements of its lists:
// services[].servers[].
func unindexed(path string) string {
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		b.WriteByte(path[i])
		if path[i] == '[' {
			i += strings.IndexByte(path[i:], ']') - 1
		}
	}
	return b.String()
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
	switch {
	case !d.is(n, yaml.ScalarNode, path, "a single value"):
	case n.ShortTag() == "!!null":
		d.errorAt(n, "%s: the value is missing", path)
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		d.errorAt(n, "%s: write the value on the line of its key", path)
	case len(n.Value) > maxText:
		d.errorAt(n, "%s: the value has %d bytes: want %d at most", path, len(n.Value), maxText)
	default:
		return n.Value, true
	}
	d.broken[path] = true
	return "", false
}

// is reports whether the node is of a kind, and notes it if not.
func (d *decoder) is(n *yaml.Node, kind yaml.Kind, where, want string) bool {
	switch n.Kind {
	case kind:
		return d.isPlain(n, where)
	case yaml.AliasNode:
		d.errorAt(n, "%s: aliases are not supported: write the value out", where)
	default:
		d.errorAt(n, "%s: want %s", where, want)
	}
	return false
}

// isPlain reports whether the node has neither an anchor, which would be for
// aliases only, nor a tag, which would mean nothing, and notes it if not.
func (d *decoder) isPlain(n *yaml.Node, where string) bool {
	switch {
	case n.Anchor != "":
		d.errorAt(n, "%s: anchors are not supported", where)
	case n.Style&yaml.TaggedStyle != 0:
		d.errorAt(n, "%s: tags are not supported", where)
	default:
		return true
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
