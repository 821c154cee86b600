package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/shunt-lb/shunt/director"
)

// MaxBytes is the largest configuration that is read.
const MaxBytes = 1 << 20

// Config is a whole configuration.
type Config struct {
	Director Settings
	// State has the services, normalized and sorted by key, and those timeouts
	// that were given; the others are zero.
	State director.State
}

// Error is one thing wrong with a configuration. Parse and Load join them in
// the order of the text; each wraps director.ErrInvalid or
// director.ErrUnsupported.
type Error struct {
	File         string
	Line, Column int // from 1; 0 if not known
	Text         string
	Kind         error
}

// Error returns file:line:column: text.
func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.File, e.Text)
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Text)
}

// Unwrap returns the kind.
func (e *Error) Unwrap() error { return e.Kind }

// Load reads and parses a file.
func Load(path string) (Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse parses a configuration; name stands for the file in errors. An empty
// text is the default configuration, without services.
func Parse(name string, data []byte) (Config, error) {
	d := &decoder{file: name, places: make(map[string]*yaml.Node), broken: make(map[string]bool)}
	root := d.load(data)
	cfg := Config{Director: Settings{}.withDefaults()}
	if root != nil {
		var director, services *yaml.Node
		d.mapping(root, "", fields{
			"director": func(n *yaml.Node, _ string) { director = n },
			"services": func(n *yaml.Node, _ string) { services = n },
		})
		if director != nil {
			d.settings(director, &cfg)
		}
		if services != nil {
			d.services(services, &cfg.State)
		}
	}
	d.validate(cfg)
	if len(d.errs) > 0 {
		return Config{}, d.joined()
	}
	cfg.State = cfg.State.Normalize()
	return cfg, nil
}

// load returns the document's root; nil if there is none, or only an error.
func (d *decoder) load(data []byte) *yaml.Node {
	if len(data) > MaxBytes {
		d.errorAt(nil, "the configuration is larger than 1 MiB")
		return nil
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		d.errorAt(nil, "the configuration has a NUL byte at offset %d: is it a text file?", i)
		return nil
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data))
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
	d.errorAt(at, "%s", strings.TrimPrefix(text, "yaml: "))
}
