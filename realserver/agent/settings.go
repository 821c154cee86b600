package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/shunt-lb/shunt/realserver"
)

// Settings are the file of `shunt-agent run`.
type Settings struct {
	Agent     string   // its name, as its token or its certificate has it
	Directors []string // URLs of their APIs; it registers at each
	CA        string   // file of the CA of their certificates; "": the system's
	TokenFile string   // file that has the agent's token
	// Certificate and Key are files of a client certificate, in place of a token.
	Certificate, Key string
	// Lease is how long a registration lasts unless it is renewed; 0: 30 s.
	Lease time.Duration
	// Drain is how long connections have to end when the agent is stopped; 0: 5 min.
	Drain   time.Duration
	Members []MemberSettings
	// LoadCommand is a program and its arguments that prints the load, from 0 to 1, which
	// is told in place of the measured one; none: that.
	LoadCommand []string
	LoadTimeout time.Duration // how long it may take; 0: 5 s
	// LoadUser runs it; "": nobody where the agent is root, else the agent's own user.
	LoadUser string
	Host     HostSettings
}

// HostSettings are what the host has to be beside the members' methods. Whether the
// addresses fit the methods is judged where they are used (realserver/agent/role).
type HostSettings struct {
	// Prepare has the agent's unit prepare the host before it registers.
	Prepare    bool
	VIPs       []netip.Prefix // virtual addresses
	Interfaces []string       // that directors' packets come by; none: found by routes
	Directors  []netip.Prefix // that directors' packets come from; of nat: the gateways
	Clients    []netip.Prefix // who reach servers of the method nat; none: all
	Route      bool           // have the route back to them by the director made
	GUEPorts   []uint16       // none: gue's
}

// MemberSettings are a server in a pool.
type MemberSettings struct {
	Pool    string
	Address string // without a port it has the service's
	Method  string
	Weight  uint32
}

// rawSettings are the words of the file.
type rawSettings struct {
	Agent       string      `yaml:"agent"`
	Directors   []string    `yaml:"directors"`
	CA          string      `yaml:"ca"`
	TokenFile   string      `yaml:"token-file"`
	Certificate string      `yaml:"certificate"`
	Key         string      `yaml:"key"`
	Lease       string      `yaml:"lease"`
	Drain       string      `yaml:"drain"`
	Members     []rawMember `yaml:"members"`
	LoadCommand []string    `yaml:"load-command"`
	LoadTimeout string      `yaml:"load-timeout"`
	LoadUser    string      `yaml:"load-user"`
	Host        rawHost     `yaml:"host"`
}

type rawHost struct {
	Prepare    bool     `yaml:"prepare"`
	VIPs       []string `yaml:"vips"`
	Interfaces []string `yaml:"interfaces"`
	Directors  []string `yaml:"directors"`
	Clients    []string `yaml:"clients"`
	Route      bool     `yaml:"route"`
	GUEPorts   []uint16 `yaml:"gue-ports"`
}

type rawMember struct {
	Pool    string  `yaml:"pool"`
	Address string  `yaml:"address"`
	Method  string  `yaml:"method"`
	Weight  *uint32 `yaml:"weight"`
}

// ReadSettings reads the file. Errors name it and the word.
func ReadSettings(path string) (Settings, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Settings{}, fmt.Errorf("read the agent's settings: %w", err)
	}
	var raw rawSettings
	if err := yaml.Load(text, &raw, yaml.WithKnownFields()); err != nil {
		return Settings{}, fmt.Errorf("read the agent's settings: %s: %w", path, err)
	}
	s, err := raw.settings()
	if err != nil {
		return Settings{}, fmt.Errorf("read the agent's settings: %s: %w", path, err)
	}
	return s, nil
}

// handle is what directors take for names of agents and pools.
var handle = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$`)

func (r rawSettings) settings() (Settings, error) {
	s := Settings{
		Agent: r.Agent, Directors: r.Directors, CA: r.CA, TokenFile: r.TokenFile, Certificate: r.Certificate, Key: r.Key,
	}
	var problems []error
	report := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if !handle.MatchString(s.Agent) {
		report("agent %q: want 1 to 63 letters, digits, '.', '_', '@' or '-', a letter or digit first", s.Agent)
	}
	if len(s.Directors) == 0 {
		report("directors: want one at least")
	}
	for i, text := range s.Directors {
		if where, err := url.Parse(text); err != nil || where.Scheme != "https" || where.Host == "" {
			report("directors[%d]: %q is not a URL such as https://10.0.0.1:9443", i, text)
		}
	}
	if s.Key != "" && s.Certificate == "" {
		report("key: there is no certificate that it is of")
	}
	if (s.TokenFile == "") == (s.Certificate == "") {
		report("token-file or certificate: want one of them")
	}
	s.Lease = r.duration(report, "lease", r.Lease, 30*time.Second, 5*time.Second, 10*time.Minute)
	s.Drain = r.duration(report, "drain", r.Drain, 5*time.Minute, 0, 24*time.Hour)
	if len(r.Members) == 0 {
		report("members: want one at least")
	}
	pools := map[string]int{}
	for i, m := range r.Members {
		if !handle.MatchString(m.Pool) {
			report("members[%d]: pool %q is no name of one", i, m.Pool)
		} else if first, found := pools[m.Pool]; found {
			report("members[%d]: members[%d] is in pool %s already, of which an agent is one server: another one takes an agent of its own", i, first, m.Pool)
		} else {
			pools[m.Pool] = i
		}
		if _, err := netip.ParseAddr(m.Address); err != nil {
			if _, err := netip.ParseAddrPort(m.Address); err != nil {
				report("members[%d]: address %q is not one such as 10.0.0.11 or 10.0.0.11:8080", i, m.Address)
			}
		}
		if _, err := realserver.ParseMethod(m.Method); err != nil {
			report("members[%d]: %w", i, err)
		}
		weight := uint32(realserver.DefaultWeight)
		if m.Weight != nil {
			weight = *m.Weight
		}
		s.Members = append(s.Members, MemberSettings{Pool: m.Pool, Address: m.Address, Method: m.Method, Weight: weight})
	}
	r.load(report, &s)
	s.Host = r.Host.settings(report)
	return s, errors.Join(problems...)
}

// load reads what the load is told by.
func (r rawSettings) load(report func(string, ...any), s *Settings) {
	s.LoadCommand, s.LoadUser = r.LoadCommand, r.LoadUser
	if len(r.LoadCommand) == 0 {
		if r.LoadTimeout != "" || r.LoadUser != "" {
			report("load-timeout and load-user are of a load-command, which is not given")
		}
		return
	}
	if !filepath.IsAbs(r.LoadCommand[0]) {
		report("load-command: %q is not the whole path of a program", r.LoadCommand[0])
	}
	s.LoadTimeout = r.duration(report, "load-timeout", r.LoadTimeout, 5*time.Second, 100*time.Millisecond, time.Minute)
}

func (r rawHost) settings(report func(string, ...any)) HostSettings {
	h := HostSettings{Prepare: r.Prepare, Interfaces: r.Interfaces, Route: r.Route, GUEPorts: r.GUEPorts}
	for _, list := range []struct {
		word  string
		texts []string
		into  *[]netip.Prefix
	}{{"vips", r.VIPs, &h.VIPs}, {"directors", r.Directors, &h.Directors}, {"clients", r.Clients, &h.Clients}} {
		for i, text := range list.texts {
			prefix, err := ParsePrefix(text)
			if err != nil {
				report("host.%s[%d]: %w", list.word, i, err)
			}
			*list.into = append(*list.into, prefix)
		}
	}
	return h
}

// ParsePrefix reads a prefix, or an address, which is one of its own.
func ParsePrefix(value string) (netip.Prefix, error) {
	if !strings.Contains(value, "/") {
		a, err := netip.ParseAddr(value)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is no address: want one such as 192.0.2.1, or a prefix such as 2001:db8::/64", value)
		}
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(value)
	if err != nil {
		return p, fmt.Errorf("%q is no prefix: want one such as 10.0.0.0/24", value)
	}
	if p != p.Masked() {
		return p, fmt.Errorf("%s has bits behind its length: want %s", p, p.Masked())
	}
	return p, nil
}

func (rawSettings) duration(report func(string, ...any), word, text string, otherwise, least, most time.Duration) time.Duration {
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		report("%s: %q is not a duration such as 30s", word, text)
	} else if d < least || d > most {
		report("%s: %s is out of range: want %s to %s", word, d, least, most)
	}
	return d
}
