package config

import (
	"net/netip"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// Settings are those of the director itself. Differences says which of them are
// read at start only.
type Settings struct {
	Dataplane string // "xdp" (default) or "ipvs"
	// Interfaces to attach to, in order; may be empty if the caller has others.
	Interfaces []string
	Mode       director.InterfaceMode // native (default) or generic
	// MaxConnections is what the IPv4 connection table is sized for, and
	// MaxConnections6 the IPv6 one: 1Mi and a quarter of the former by default.
	MaxConnections  uint64
	MaxConnections6 uint64
	// CountConnections has packets and bytes counted for each connection.
	CountConnections bool
	// Sources is how many source networks are remembered for the limits of all
	// services, and how many clients that have answered a guard; default 64Ki.
	Sources uint32
	// Midstream is what becomes of a packet of a service that belongs to no
	// connection and begins none: "drop" (default) or "reset".
	Midstream string
	ICMPRate  uint32 // ICMP errors a second, at most; default 1000, 0 sends none
	// Echo is what becomes of echo requests to virtual addresses; default
	// director.EchoService.
	Echo director.EchoMode
	// TunnelSources are what outer headers come from, one of a family at most: an
	// address of this host, or a prefix that is its, of which each connection has its
	// own. Default: what the route to the server says.
	TunnelSources []netip.Prefix
	// LocalAddresses stand in for clients' with method fullnat, of the ports LocalPorts:
	// those from 1024 on by default.
	LocalAddresses []netip.Prefix
	LocalPorts     Ports
	Limits         Limits
	// RemovalLimit is the share of services and of servers, in per cent, that a
	// change may remove without force: 0 to 100, default 50.
	RemovalLimit int
	Reconcile    time.Duration // how often the kernel is compared; 100ms to 5s, default 2s
	StateDir     string        // folder of the durable store
	History      int           // revisions kept: 100 to 1000000, default 10000
	Socket       string        // path of the API's Unix socket
	SocketGroup  string        // who may use it besides root; empty: nobody
	API          APISettings
	ScriptUser   string // whom checks' scripts and notifications run as; default "nobody"
	PinDir       string // directory under a bpffs
	LogLevel     string // "debug", "info" (default), "warn" or "error"
	LogFormat    string // "text" (default) or "json"
}

// Limits are the sizes of the data plane's tables.
type Limits struct {
	Services       uint32 // default 4096
	Servers        uint32 // of all services together; default 16384
	SchedulerWords uint32 // 32-bit words for server lists and hash tables; default 4Mi
	// AccessPrefixes is the room for the access lists of all services, and for
	// the old copy of one that is being replaced; default 64Ki.
	AccessPrefixes uint32
}

// APISettings are those of the API over TCP. The zero value is no such API;
// otherwise Listen, Certificate and Key are given, and ClientCA or Tokens.
type APISettings struct {
	Listen      string // host:port; the host is an IP address, or empty for all
	Certificate string // path of a PEM file, as the others
	Key         string
	ClientCA    string // whose certificates clients identify themselves by
	Tokens      string // path of the file of tokens
}

// The places used where none are configured.
const (
	DefaultSocket   = "/run/shunt/shuntd.sock"
	DefaultPinDir   = "/sys/fs/bpf/shunt"
	DefaultStateDir = "/var/lib/shunt"
)

// DefaultScriptUser is whom scripts run as where nobody is configured.
const DefaultScriptUser = "nobody"

// The ranges of the sizes.
const (
	minConnections = 1 << 10
	maxConnections = 1 << 28
	maxServices    = 1 << 16
	maxServers     = 1 << 20 // the recipe's server index has 20 bits
	minWords       = 1 << 13 // two halves of the largest table
	maxWords       = 1 << 28
	maxPrefixes    = 1 << 24
	maxSources     = 1 << 24
	minReconcile   = 100 * time.Millisecond
	maxReconcile   = 5 * time.Second // drift is repaired within that time
	minHistory     = 100
	maxHistory     = 1000000
	maxSocketPath  = 107 // sockaddr_un.sun_path without its NUL
)

func defaultSettings() Settings {
	return Settings{
		Dataplane:       director.PlaneXDP,
		Mode:            director.InterfaceNative,
		MaxConnections:  1 << 20,
		MaxConnections6: ipv6Share(1 << 20),
		Sources:         64 << 10,
		Midstream:       "drop",
		ICMPRate:        1000,
		Echo:            director.EchoService,
		LocalPorts:      Ports{1024, 65535},
		Limits:          Limits{Services: 4096, Servers: 16384, SchedulerWords: 4 << 20, AccessPrefixes: 64 << 10},
		RemovalLimit:    director.DefaultMaxRemoval,
		Reconcile:       director.DefaultReconcile,
		StateDir:        DefaultStateDir,
		History:         10000,
		Socket:          DefaultSocket,
		PinDir:          DefaultPinDir,
		LogLevel:        "info",
		LogFormat:       "text",
		ScriptUser:      DefaultScriptUser,
	}
}

// ipv6Share is what the IPv6 table is sized for where only the IPv4 one's size
// is given.
func ipv6Share(connections uint64) uint64 { return max(connections/4, minConnections) }

// Generic reports whether generic mode is asked for.
func (s Settings) Generic() bool { return s.Mode == director.InterfaceGeneric }

// SetConnections sizes the tables as a file with connections.max alone does.
func (s *Settings) SetConnections(text string) error {
	n, err := parseConnections(text)
	if err != nil {
		return err
	}
	s.MaxConnections, s.MaxConnections6 = n, ipv6Share(n)
	return nil
}

// settings reads the director section over the defaults.
func (d *decoder) settings(n *yaml.Node, cfg *Config) {
	s := &cfg.Director
	var connections6 uint64
	d.mapping(n, "director", fields{
		{"dataplane", word(d, &s.Dataplane, oneOf(director.PlaneXDP, director.PlaneIPVS))},
		{"interfaces", func(n *yaml.Node, path string) { s.Interfaces = d.interfaces(n, path) }},
		{"mode", word(d, &s.Mode, oneOf(director.InterfaceNative, director.InterfaceGeneric))},
		{"connections", func(n *yaml.Node, path string) {
			d.mapping(n, path, fields{
				{"max", word(d, &s.MaxConnections, parseConnections)},
				{"max-ipv6", word(d, &connections6, parseConnections)},
				{"counters", word(d, &s.CountConnections, parseBool)},
				{"sources", word(d, &s.Sources, size32(1, maxSources))},
				{"timeouts", func(n *yaml.Node, path string) { d.timeouts(n, path, &cfg.State.Timeouts) }},
			})
		}},
		{"sync", func(n *yaml.Node, path string) { d.syncDaemons(n, path, &cfg.State) }},
		{"midstream", word(d, &s.Midstream, oneOf("drop", "reset"))},
		{"icmp-rate", word(d, &s.ICMPRate, size32(0, 1<<30))},
		{"echo", word(d, &s.Echo, oneOf(director.EchoService, director.EchoAlways, director.EchoStack))},
		{"tunnel", func(n *yaml.Node, path string) {
			d.mapping(n, path, fields{
				{"sources", func(n *yaml.Node, path string) { s.TunnelSources = d.tunnelSources(n, path) }},
			})
		}},
		{"fullnat", func(n *yaml.Node, path string) {
			d.mapping(n, path, fields{
				{"addresses", func(n *yaml.Node, path string) { s.LocalAddresses = d.localAddresses(n, path) }},
				{"ports", word(d, &s.LocalPorts, parsePorts)},
			})
		}},
		{"limits", func(n *yaml.Node, path string) {
			d.mapping(n, path, fields{
				{"services", word(d, &s.Limits.Services, size32(1, maxServices))},
				{"servers", word(d, &s.Limits.Servers, size32(1, maxServers))},
				{"scheduler-words", word(d, &s.Limits.SchedulerWords, size32(minWords, maxWords))},
				{"access-prefixes", word(d, &s.Limits.AccessPrefixes, size32(1, maxPrefixes))},
			})
		}},
		{"removal-limit", word(d, &s.RemovalLimit, parsePercent)},
		{"reconcile", word(d, &s.Reconcile, parseReconcile)},
		{"state", word(d, &s.StateDir, parsePath)},
		{"history", word(d, &s.History, parseHistory)},
		{"socket", word(d, &s.Socket, parseSocket)},
		{"socket-group", word(d, &s.SocketGroup, parseGroup)},
		{"api", func(n *yaml.Node, path string) { d.api(n, path, &s.API) }},
		{"script-user", word(d, &s.ScriptUser, parseUser)},
		{"pin-dir", word(d, &s.PinDir, parsePath)},
		{"log", func(n *yaml.Node, path string) {
			d.mapping(n, path, fields{
				{"level", word(d, &s.LogLevel, oneOf("debug", "info", "warn", "error"))},
				{"format", word(d, &s.LogFormat, oneOf("text", "json"))},
			})
		}},
	})
	if connections6 == 0 {
		connections6 = ipv6Share(s.MaxConnections)
	}
	s.MaxConnections6 = connections6
}

// api reads the API over TCP. It is never without TLS, nor open to everybody.
func (d *decoder) api(n *yaml.Node, path string, s *APISettings) {
	d.mapping(n, path, fields{
		{"listen", word(d, &s.Listen, parseTCPListen)},
		{"certificate", word(d, &s.Certificate, parsePath)},
		{"key", word(d, &s.Key, parsePath)},
		{"client-ca", word(d, &s.ClientCA, parsePath)},
		{"tokens", word(d, &s.Tokens, parsePath)},
	})
	if d.broken[path] || len(n.Content) == 0 {
		return
	}
	given := func(key string) bool { return d.places[path+"."+key] != nil }
	for _, key := range []string{"listen", "certificate", "key"} {
		if !given(key) {
			d.refuse(n, path+"."+key, "the key is missing: the API over TCP needs listen, certificate and key")
		}
	}
	if !given("client-ca") && !given("tokens") {
		d.refuse(n, path, "want client-ca, tokens or both: the API over TCP is for those who identify themselves")
	}
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
		if !director.ValidInterface(name) {
			d.refuse(n, path, "%q is not an interface name: want 1 to 15 characters without spaces, '/' and ':'", name)
			return
		}
		names = append(names, name)
	})
	return names
}

// timeouts reads each timeout with the others at their defaults, so that a 0 is
// refused rather than taken for not given.
func (d *decoder) timeouts(n *yaml.Node, path string, t *conntrack.Timeouts) {
	read := func(at func(*conntrack.Timeouts) *time.Duration) func(*yaml.Node, string) {
		return word(d, at(t), func(s string) (time.Duration, error) {
			value, err := parseDuration(s)
			if err != nil {
				return 0, err
			}
			all := conntrack.DefaultTimeouts()
			*at(&all) = value
			return value, all.Validate()
		})
	}
	d.mapping(n, path, fields{
		{"tcp", read(func(t *conntrack.Timeouts) *time.Duration { return &t.TCP })},
		{"tcp-fin", read(func(t *conntrack.Timeouts) *time.Duration { return &t.TCPFin })},
		{"udp", read(func(t *conntrack.Timeouts) *time.Duration { return &t.UDP })},
	})
}

// kindError is a text with a kind that is not part of it.
type kindError struct {
	text string
	kind error
}

func (e *kindError) Error() string { return e.text }
func (e *kindError) Unwrap() error { return e.kind }
