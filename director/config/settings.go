package config

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// Settings are those of the director itself; they are read at start only.
type Settings struct {
	Dataplane string // "xdp"
	// Interfaces to attach to, in order; may be empty if the caller has others.
	Interfaces []string
	Mode       string // "native" (default) or "generic"
	// MaxConnections is what the IPv4 connection table is sized for, and
	// MaxConnections6 the IPv6 one: 1Mi and a quarter of the former by default.
	MaxConnections  uint64
	MaxConnections6 uint64
	// Midstream is what becomes of a packet of a service that belongs to no
	// connection and begins none: "drop" (default) or "reset".
	Midstream string
	ICMPRate  uint32 // ICMP errors a second, at most; default 1000, 0 sends none
	Limits    Limits
	Socket    string // path of the API's Unix socket
	PinDir    string // directory under a bpffs
}

// Limits are the sizes of the data plane's tables.
type Limits struct {
	Services       uint32 // default 4096
	Servers        uint32 // of all services together; default 16384
	SchedulerWords uint32 // 32-bit words for server lists and hash tables; default 4Mi
}

// The places used where none are configured.
const (
	DefaultSocket = "/run/shunt/shuntd.sock"
	DefaultPinDir = "/sys/fs/bpf/shunt"
)

// The ranges of the sizes.
const (
	minConnections = 1 << 10
	maxConnections = 1 << 28
	maxServices    = 1 << 16
	maxServers     = 1 << 20 // the recipe's server index has 20 bits
	minWords       = 1 << 13 // two halves of the largest table
	maxWords       = 1 << 28
	maxSocketPath  = 107 // sockaddr_un.sun_path without its NUL
)

func (s Settings) withDefaults() Settings {
	setDefault(&s.Dataplane, "xdp")
	setDefault(&s.Mode, "native")
	setDefault(&s.MaxConnections, 1<<20)
	setDefault(&s.MaxConnections6, max(s.MaxConnections/4, minConnections))
	setDefault(&s.Midstream, "drop")
	setDefault(&s.ICMPRate, 1000)
	setDefault(&s.Limits.Services, 4096)
	setDefault(&s.Limits.Servers, 16384)
	setDefault(&s.Limits.SchedulerWords, 4<<20)
	setDefault(&s.Socket, DefaultSocket)
	setDefault(&s.PinDir, DefaultPinDir)
	return s
}

func setDefault[T comparable](value *T, def T) {
	var zero T
	if *value == zero {
		*value = def
	}
}

// settings reads the director section over the defaults.
func (d *decoder) settings(n *yaml.Node, cfg *Config) {
	s := &cfg.Director
	var connections6 uint64
	d.mapping(n, "director", fields{
		"dataplane":  word(d, &s.Dataplane, parseDataplane),
		"interfaces": func(n *yaml.Node, path string) { s.Interfaces = d.interfaces(n, path) },
		"mode":       word(d, &s.Mode, oneOf("native", "generic")),
		"connections": func(n *yaml.Node, path string) {
			d.mapping(n, path, fields{
				"max":      word(d, &s.MaxConnections, sizeBetween(minConnections, maxConnections)),
				"max-ipv6": word(d, &connections6, sizeBetween(minConnections, maxConnections)),
				"timeouts": func(n *yaml.Node, path string) { d.timeouts(n, path, &cfg.State.Timeouts) },
			})
		},
		"midstream": word(d, &s.Midstream, oneOf("drop", "reset")),
		"icmp-rate": word(d, &s.ICMPRate, size32(0, 1<<30)),
		"limits": func(n *yaml.Node, path string) {
			d.mapping(n, path, fields{
				"services":        word(d, &s.Limits.Services, size32(1, maxServices)),
				"servers":         word(d, &s.Limits.Servers, size32(1, maxServers)),
				"scheduler-words": word(d, &s.Limits.SchedulerWords, size32(minWords, maxWords)),
			})
		},
		"socket":  word(d, &s.Socket, parseSocket),
		"pin-dir": word(d, &s.PinDir, parsePath),
	})
	if connections6 == 0 {
		connections6 = max(s.MaxConnections/4, minConnections)
	}
	s.MaxConnections6 = connections6
}

func (d *decoder) interfaces(n *yaml.Node, path string) []string {
	var names []string
	first := make(map[string]int)
	d.sequence(n, path, func(n *yaml.Node, path string, i int) {
		name, ok := d.text(n, path)
		if !ok {
			return
		}
		if before, again := first[name]; again {
			d.refuse(n, path, "interface %q is interfaces[%d] already", name, before)
			return
		}
		first[name] = i
		if !validInterface(name) {
			d.refuse(n, path, "%q is not an interface name: want 1 to 15 characters without spaces, '/' and ':'", name)
			return
		}
		names = append(names, name)
	})
	return names
}

// validInterface is the kernel's rule (kernel: net/core/dev.c, dev_valid_name).
func validInterface(name string) bool {
	return name != "" && len(name) <= 15 && name != "." && name != ".." && !strings.ContainsAny(name, "/: \t\n\v\f\r")
}

// timeouts reads each timeout with the others at their defaults, so that a 0 is
// refused rather than taken for not given.
func (d *decoder) timeouts(n *yaml.Node, path string, t *conntrack.Timeouts) {
	read := func(field func(*conntrack.Timeouts) *time.Duration) func(*yaml.Node, string) {
		return word(d, field(t), func(s string) (time.Duration, error) {
			value, err := parseDuration(s)
			if err != nil {
				return 0, err
			}
			all := conntrack.DefaultTimeouts()
			*field(&all) = value
			return value, all.Validate()
		})
	}
	d.mapping(n, path, fields{
		"tcp":     read(func(t *conntrack.Timeouts) *time.Duration { return &t.TCP }),
		"tcp-fin": read(func(t *conntrack.Timeouts) *time.Duration { return &t.TCPFin }),
		"udp":     read(func(t *conntrack.Timeouts) *time.Duration { return &t.UDP }),
	})
}

func parseDataplane(s string) (string, error) {
	if s == "ipvs" {
		return "", &kindError{"the ipvs data plane is not there yet: this version has xdp", director.ErrUnsupported}
	}
	return oneOf("xdp")(s)
}

// kindError is a text with a kind that is not part of it.
type kindError struct {
	text string
	kind error
}

func (e *kindError) Error() string { return e.text }
func (e *kindError) Unwrap() error { return e.kind }

func oneOf(words ...string) func(string) (string, error) {
	return func(s string) (string, error) {
		for _, w := range words {
			if s == w {
				return s, nil
			}
		}
		return "", fmt.Errorf("unknown word %q: want %s", s, strings.Join(words, " or "))
	}
}

func size32(least, most uint32) func(string) (uint32, error) {
	read := sizeBetween(uint64(least), uint64(most))
	return func(s string) (uint32, error) {
		n, err := read(s)
		return uint32(n), err
	}
}

func parseSocket(s string) (string, error) {
	if len(s) > maxSocketPath {
		return "", fmt.Errorf("the path has %d bytes: a socket's has at most %d", len(s), maxSocketPath)
	}
	return parsePath(s)
}

func parsePath(s string) (string, error) {
	if !filepath.IsAbs(s) {
		return "", fmt.Errorf("%q is not an absolute path", s)
	}
	return filepath.Clean(s), nil
}
