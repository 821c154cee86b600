package ldirectord

import (
	"bytes"
	"net/netip"
	"path"
	"regexp"
	"strings"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director/config/translation"
)

// Names look names up: those of hosts, and those of ports as /etc/services has
// them.
type Names interface {
	Address(host string) (netip.Addr, bool)
	Port(service string, protocol conntrack.Protocol) (uint16, bool)
}

// Options say how a text is read.
type Options struct {
	// Names are what names are looked up in; nil: they are not, and what has one is
	// left out, with a note.
	Names Names
}

// Import translates a configuration; name is the file's. The error tells what
// makes the text unreadable: that it is too large, or no text.
func Import(name string, source []byte, options Options) (translation.Result, error) {
	at := translation.Position{File: name}
	switch {
	case len(source) > translation.MaxBytes:
		return translation.Result{}, translation.Errorf(at, "the file is larger than %d MiB", translation.MaxBytes>>20)
	case bytes.IndexByte(source, 0) >= 0:
		return translation.Result{}, translation.Errorf(at, "the file has a NUL byte at offset %d: is it a text file?", bytes.IndexByte(source, 0))
	}
	t := &translator{names: options.Names}
	t.build.File(name)
	var current *virtual
	var services []*virtual
	for _, text := range strings.Split(string(source), "\n") {
		at.Line++
		text = strings.TrimRight(text, "\r")
		if current != nil {
			if isComment(text) {
				continue
			}
			if d, ok := indented(at, text); ok {
				current.directive(d)
				continue
			}
			current = nil
		}
		if strings.TrimSpace(text) != "" && !isComment(text) {
			if current = t.topLevel(at, text); current != nil {
				services = append(services, current)
			}
		}
	}
	for _, v := range services { // now that all is said that counts for them
		if err := t.end(v); err != nil {
			return translation.Result{}, err
		}
	}
	return t.build.Result()
}

// translator gives directives their meaning.
type translator struct {
	build translation.Builder
	names Names

	global      settings
	maintenance string // folder
	forks       bool
}

// directive is a key with its value.
type directive struct {
	at         translation.Position
	key, value string
}

// String returns the directive for a note; what is secret is left out.
func (d directive) String() string {
	switch d.key {
	case "":
		return translation.What(d.value)
	case "passwd", "secret", "login":
		return d.key + "=…"
	}
	return translation.What(d.key + "=" + d.value)
}

// pair is a key and its value. Quotes around the value are no part of it.
var pair = regexp.MustCompile(`^([A-Za-z0-9]+)\s*=\s*(.*?)\s*$`)

func parseDirective(at translation.Position, text string) (directive, bool) {
	parts := pair.FindStringSubmatch(text)
	if parts == nil {
		return directive{at: at}, false
	}
	return directive{at, parts[1], parts[2]}, true
}

func isComment(text string) bool { return strings.HasPrefix(strings.TrimLeft(text, " \t"), "#") }

// indented returns the directive of a virtual service's line; ok is false if the
// line is none of its lines. Comments begin wherever # stands, in quotes too.
func indented(at translation.Position, text string) (d directive, ok bool) {
	text, _, _ = strings.Cut(text, "#")
	text = strings.ReplaceAll(text, "\t", "    ")
	inner := strings.TrimLeft(text, " ")
	if len(text)-len(inner) < 4 || len(text) < 5 {
		return directive{}, false
	}
	if strings.TrimSpace(inner) == "" {
		return directive{at: at}, true // as good as a comment
	}
	d, ok = parseDirective(at, inner)
	if !ok {
		d.value = strings.TrimSpace(inner)
	}
	return d, true
}

// topLevel reads a line that is of no virtual service, or begins one.
func (t *translator) topLevel(at translation.Position, text string) *virtual {
	d, ok := parseDirective(at, text)
	switch {
	case ok && (d.key == "virtual" || d.key == "virtual6"):
		return newVirtual(t, d)
	case ok && t.global.setting(d, t.note):
	case ok && d.key == "maintenancedir":
		if t.maintenance = path.Clean(d.value); !path.IsAbs(d.value) || translation.Unwritable(d.value) != "" {
			t.maintenance = ""
			t.note(translation.NotCarried, d, "want an absolute path")
		}
	case ok:
		t.forks = t.forks || d.key == "fork" && d.value == "yes"
		kind, why := reasonOf(d, global)
		t.note(kind, d, why)
	case strings.TrimLeft(text, " \t") != text:
		t.build.Note(translation.Note{
			Position: at, Kind: translation.LeftOut, What: whatOf(text),
			Why: "the line is of no virtual service: an empty line, or one that is not indented by four blanks, ended it; " + refused,
		})
	case text == "supervised":
		t.build.Note(translation.Note{Position: at, Kind: translation.NotCarried, What: text, Why: ownProcess})
	default:
		t.build.Note(translation.Note{Position: at, Kind: translation.LeftOut, What: translation.What(text), Why: "want key=value; " + refused})
	}
	return nil
}

// whatOf describes a line that may be a directive.
func whatOf(text string) string {
	text = strings.TrimSpace(text)
	if d, ok := parseDirective(translation.Position{}, text); ok {
		return d.String()
	}
	return translation.What(text)
}

func (t *translator) note(kind translation.Kind, d directive, why string) {
	t.build.Note(translation.Note{Position: d.at, Kind: kind, What: d.String(), Why: why})
}
