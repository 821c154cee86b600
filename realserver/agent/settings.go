package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"regexp"
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
	if (s.TokenFile == "") == (s.Certificate == "") {
		report("token-file or certificate: want one of them")
	}
	s.Lease = r.duration(report, "lease", r.Lease, 30*time.Second, 5*time.Second, 10*time.Minute)
	s.Drain = r.duration(report, "drain", r.Drain, 5*time.Minute, 0, 24*time.Hour)
	if len(r.Members) == 0 {
		report("members: want one at least")
	}
	for i, m := range r.Members {
		if !handle.MatchString(m.Pool) {
			report("members[%d]: pool %q is no name of one", i, m.Pool)
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
	return s, errors.Join(problems...)
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
