package config

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/shunt-lb/shunt/director"
)

// The limits of what is read, so that no text takes much memory.
const (
	MaxBytes = 4 << 20  // of a file
	MaxTotal = 16 << 20 // of all files of a configuration
	MaxFiles = 1000     // of a configuration

	// maxMarks limits the line ends, commas and opening brackets of all files,
	// and with them the values: each takes a few hundred bytes.
	maxMarks = 256 << 10
)

// Config is a whole configuration.
type Config struct {
	Director Settings
	// State has the services, normalized and sorted by key, and those timeouts
	// that were given; the others are zero. Its Sync is nil if the key is not there.
	State director.State
	// ServicesGiven is whether the key services is there, be its list empty:
	// a text without it says nothing of them, and not that there are none.
	ServicesGiven bool
	// Warnings are what is of no use, each with its place: settings that the data
	// plane does not have, and servers with full NAT without addresses for it.
	Warnings []string
}

// Parse parses a configuration; name stands for the file in errors. An empty
// text is the default configuration, without services. Includes are refused:
// the text may come from anywhere.
func Parse(name string, data []byte) (Config, error) { return (&loader{}).text(name, data) }

// ParseFor is Parse for a data plane, as LoadFor is Load for one.
func ParseFor(name string, data []byte, plane string) (Config, error) {
	l, err := loaderFor(plane)
	if err != nil {
		return Config{}, err
	}
	return l.text(name, data)
}

// role is what a text is to a configuration.
type role int

const (
	alone    role = iota // a text of its own
	top                  // a file that may include others
	included             // a file that another includes
	part                 // a file of which the others are not looked at
)

// loader collects the files of a configuration.
type loader struct {
	// plane is the data plane that the configuration is for: it stands before that
	// of the settings, and what it cannot do is an error. Empty: that of the
	// settings, if they name one.
	plane string
	// strict is whether the default data plane counts as named.
	strict       bool
	files        []*decoder
	bytes, marks int
}

// loaderFor returns the loader of a configuration for the data plane of the name; with
// none, for that of its settings, be it the default.
func loaderFor(plane string) (*loader, error) {
	if plane != "" {
		if _, err := director.FeaturesOf(plane); err != nil {
			return nil, err
		}
	}
	return &loader{plane: plane, strict: true}, nil
}

// text reads a configuration that is in no file.
func (l *loader) text(name string, data []byte) (Config, error) {
	l.decode(name, "", alone, data)
	return l.finish()
}

// decode reads a text; what is wrong with it is kept there.
func (l *loader) decode(name, parent string, role role, data []byte) *decoder {
	d := newDecoder(name, role, data)
	d.parent = parent
	l.files = append(l.files, d)
	if root := l.parse(d); root != nil {
		d.document(root)
	}
	return d
}

// document reads the top level.
func (d *decoder) document(root *yaml.Node) {
	d.root = root
	var settings, includes, services *yaml.Node
	d.mapping(root, "", fields{
		{"director", func(n *yaml.Node, _ string) { settings = n }},
		{"include", func(n *yaml.Node, _ string) { includes = n }},
		{"services", func(n *yaml.Node, _ string) { services = n }},
	})
	if settings != nil && d.role == included {
		d.errorAt(settings, "director: an included file has services only: put it into %s", d.parent)
	} else if settings != nil {
		d.settingsAt = settings
		d.settings(settings, &d.cfg)
	}
	if includes != nil {
		d.include(includes, "include")
	}
	if services != nil {
		d.cfg.ServicesGiven = true
		d.services(services, &d.cfg.State)
	}
}

// parse returns the document's root; nil if there is none, or only an error.
func (l *loader) parse(d *decoder) *yaml.Node {
	if !l.afford(d) {
		return nil
	}
	loader, err := yaml.NewLoader(bytes.NewReader(d.data))
	if err != nil {
		d.errorAt(nil, "%v", err)
		return nil
	}
	var doc, second yaml.Node
	switch err := loader.Load(&doc); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		d.yamlError(err)
		return nil
	}
	switch err := loader.Load(&second); {
	case err == nil:
		d.errorAt(&second, "a second document begins here: want one")
	case !errors.Is(err, io.EOF):
		d.yamlError(err)
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil
	}
	if root := doc.Content[0]; root.ShortTag() != "!!null" {
		return root
	}
	return nil
}

// afford reports whether the text keeps to the limits, and notes it if not.
func (l *loader) afford(d *decoder) bool {
	l.bytes += len(d.data)
	for _, mark := range []string{"\n", "\r", ",", "[", "{"} {
		l.marks += bytes.Count(d.data, []byte(mark))
	}
	switch i := bytes.IndexByte(d.data, 0); {
	case len(d.data) > MaxBytes:
		d.data = nil
		d.errorAt(nil, "the configuration is larger than %d MiB: divide it and include the parts", MaxBytes>>20)
	case l.bytes > MaxTotal:
		d.errorAt(nil, "the configuration is larger than %d MiB up to here", MaxTotal>>20)
	case i >= 0:
		d.errorAt(nil, "the configuration has a NUL byte at offset %d: is it a text file?", i)
	case l.marks > maxMarks:
		d.errorAt(nil, "the configuration has more than %d lines and values up to here", maxMarks)
	default:
		return true
	}
	return false
}

// yamlError notes an error of the YAML library, which knows its place.
func (d *decoder) yamlError(err error) {
	at := &yaml.Node{}
	text := err.Error()
	if e := (*yaml.LoadError)(nil); errors.As(err, &e) {
		at.Line, at.Column = e.Mark.Line, e.Mark.Column
		text = e.Message
		if e.ContextMsg != "" {
			text = e.ContextMsg + ": " + text
		}
	}
	text = strings.TrimPrefix(text, "yaml: ")
	if strings.HasPrefix(text, "unknown anchor ") { // it goes on with what may be a secret
		text = "an alias without an anchor: write a value that begins with * in quotes"
	}
	d.errorAt(at, "%s", text)
}

// finish returns the whole, or everything that is wrong with it.
func (l *loader) finish() (Config, error) {
	cfg := Config{Director: defaultSettings()}
	var settings *decoder
	for _, d := range l.files {
		switch {
		case d.settingsAt == nil:
		case settings != nil:
			d.errorAt(d.settingsAt, "director: it is %s:%d already", settings.file, settings.settingsAt.Line)
		default:
			settings = d
			cfg.Director, cfg.State.Timeouts, cfg.State.Sync = d.cfg.Director, d.cfg.State.Timeouts, d.cfg.State.Sync
			if l.plane == "" && d.places["director.dataplane"] != nil {
				l.plane = cfg.Director.Dataplane
			}
		}
		cfg.State.Services = append(cfg.State.Services, d.cfg.State.Services...)
		cfg.ServicesGiven = cfg.ServicesGiven || d.cfg.ServicesGiven
	}
	if l.strict {
		l.plane = cmp.Or(l.plane, cfg.Director.Dataplane)
	}
	cfg.Director.Dataplane = cmp.Or(l.plane, cfg.Director.Dataplane)
	l.validate(cfg, settings)
	if err := joined(l.files); err != nil {
		return Config{}, err
	}
	cfg.State = cfg.State.Normalize()
	if settings != nil {
		cfg.Warnings = append(settings.unused(cfg.Director.Dataplane), l.poolless(cfg.Director)...)
	}
	cfg.Warnings = append(cfg.Warnings, l.quorumless()...)
	return cfg, nil
}
