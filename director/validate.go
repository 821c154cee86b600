package director

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/realserver"
)

// MaxServers is the largest number of servers of a service, which the XDP programs
// have as MAX_SERVICE_SERVERS. It is less than the size of mh's table (4093), the
// kernel's limit for that scheduler.
const MaxServers = 1024

// namePattern is what a service's name looks like. It keeps names apart from
// URLs and safe in paths and metric labels.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// Validate returns nil, or every problem of the state joined: each a
// *ProblemError that wraps ErrInvalid or ErrUnsupported. Normalize the services
// first. Timeouts that are all zero are taken as not set.
func (s State) Validate() error { return s.validate(nil) }

// validate looks at the services of the keys, nil for all, and at what must be
// unique among all of them.
func (s State) validate(only map[ServiceKey]bool) error {
	c := checker{}
	keys := make(map[ServiceKey]int, len(s.Services))
	names := make(map[string]int, len(s.Services))
	for i := range s.Services {
		service := &s.Services[i]
		sameKey, keyTaken := keys[service.Key]
		sameName, nameTaken := names[service.Name]
		nameTaken = nameTaken && service.Name != ""
		if !keyTaken {
			keys[service.Key] = i
		}
		if !nameTaken {
			names[service.Name] = i
		}
		if only != nil && !only[service.Key] && !keyTaken && !nameTaken {
			continue
		}
		c.enter(i, fmt.Sprintf("services[%d] %s", i, service.label()))
		if keyTaken {
			c.clash(sameKey, "listen", "%s is", service.Key)
		}
		if nameTaken {
			c.clash(sameName, "name", "name %q is that of", service.Name)
		}
		c.service(*service)
	}
	if s.Timeouts != (conntrack.Timeouts{}) {
		c.enter(-1, "timeouts")
		for _, err := range parts(s.Timeouts.Validate()) {
			c.report("timeouts", "%v", err)
		}
	}
	c.sync(s)
	return errors.Join(c.problems...)
}

// Validate returns nil, or every problem of the service by itself, as
// State.Validate does.
func (s Service) Validate() error {
	c := checker{}
	c.enter(-1, "service "+s.label())
	c.service(s)
	return errors.Join(c.problems...)
}

// Suits returns why the service could not have the server on such a data plane, beside
// those that it is configured with; nil if it could.
func (s *Service) Suits(server realserver.Server, features Features) error {
	server = s.Key.normalizeServer(server)
	if slices.ContainsFunc(s.Health.Sorry, func(sorry realserver.Server) bool { return s.Key.ServerAddress(sorry.Address) == server.Address }) {
		return fmt.Errorf("server %s is a sorry server of service %s", server.Address, s.label())
	}
	c := lack{features: features}
	c.enter(-1, fmt.Sprintf("service %s: server %s", s.label(), server.Address))
	c.checker.server(s, server)
	if len(c.problems) == 0 {
		c.server(s.Key, server)
		c.local(server)
	}
	return errors.Join(c.problems...)
}

// label is what messages call the service: its name, or its URL.
func (s Service) label() string {
	if s.Name != "" {
		return fmt.Sprintf("%q", s.Name)
	}
	return s.Key.String()
}

// parts returns the errors that err joins; err itself if it joins none.
func parts(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// checker collects located problems.
type checker struct {
	at       ProblemError // where the check is: Service, Server and Where
	problems []error
}

// enter moves to a service.
func (c *checker) enter(service int, where string) {
	c.at = ProblemError{Service: service, Server: -1, Other: -1, Where: where}
}

func (c *checker) report(field, format string, args ...any) *ProblemError {
	return c.add(ErrInvalid, field, fmt.Sprintf(format, args...))
}

// clash reports what another service has already; the format ends where that one
// is named.
func (c *checker) clash(other int, field, format string, args ...any) {
	c.report(field, format, args...).Other = other
}

func (c *checker) add(kind error, field, text string) *ProblemError {
	problem := c.at
	problem.Field, problem.Text, problem.Kind = field, text, kind
	c.problems = append(c.problems, &problem)
	return &problem
}

func (c *checker) service(s Service) {
	if problem := s.Key.problem(); problem != nil {
		c.add(problem.Kind, "listen", problem.Text)
	}
	if s.Name != "" && !namePattern.MatchString(s.Name) {
		c.report("name", "name %q: want 1 to 63 letters, digits, '.', '_' or '-', a letter or digit first", s.Name)
	}
	c.scheduler(s.Scheduler)
	if s.VIP != VIPManaged && s.VIP != VIPExternal {
		c.report("vip", "unknown vip %q: want managed or external", s.VIP)
	}
	c.access(s.Key, s.Access)
	c.persistence(s.Key, s.Persistence)
	c.rules(s)
	c.limits(s)
	c.guard(s)
	c.mss(s.Key, s.MSS)
	if len(s.Servers) > MaxServers {
		c.report("servers", "%d servers: a service has at most %d", len(s.Servers), MaxServers)
	}
	where := c.at
	seen := make(map[netip.AddrPort]int, len(s.Servers))
	for i, server := range s.Servers {
		c.at.Server, c.at.Where = i, fmt.Sprintf("%s: servers[%d]", where.Where, i)
		if first, found := seen[server.Address]; found && server.Address.IsValid() {
			c.report("address", "%s is servers[%d] already", server.Address, first)
		} else {
			seen[server.Address] = i
		}
		c.server(&s, server)
	}
	c.at = where
	c.health(s)
}

// access wants the prefixes masked and in the service's family: a client of the
// other one cannot come.
func (c *checker) access(key ServiceKey, access Access) {
	if n := len(access.Allow) + len(access.Deny); n > MaxAccessPrefixes {
		c.report("access", "%d prefixes: a service has at most %d", n, MaxAccessPrefixes)
	}
	listed := make(map[netip.Prefix]bool, len(access.Allow))
	for _, p := range slices.Concat(access.Allow, access.Deny) {
		switch {
		case !p.IsValid():
			c.report("access", "a prefix is not valid")
		case p.Addr().Is4In6():
			c.report("access", "%s is an IPv4 address in IPv6 form: write it as IPv4", p).Prefix = p
		case key.Address.IsValid() && p.Addr().Is4() != key.Address.Addr().Is4():
			c.report("access", "%s is not of the service's address family (%s)", p, key.Address.Addr()).Prefix = p
		}
	}
	for _, p := range access.Allow {
		listed[p] = true
	}
	for _, p := range access.Deny {
		if listed[p] {
			c.report("access", "%s is both allowed and denied", p).Prefix = p
		}
	}
}

func (c *checker) persistence(key ServiceKey, p Persistence) {
	if p == (Persistence{}) {
		if key.Address.Port() == 0 && key.Address.IsValid() && !key.IsMark() {
			// Kernel: ip_vs_core.c, ip_vs_schedule.
			c.report("listen", "port 0, all ports, is for persistent services: give persistence, or a range such as 1-65535")
		}
		return
	}
	addr := key.Address.Addr()
	switch {
	case p.Timeout == 0 && p.Engine != "": // the kernel takes it (ipvsadm --pe without -p)
		c.report("persistence", "persistence engine %s without a persistence timeout: want 1s to %dh (31 days)", p.Engine, conntrack.MaxTimeout/time.Hour)
	case p.Timeout < conntrack.MinTimeout || p.Timeout > conntrack.MaxTimeout:
		c.report("persistence", "persistence timeout %s is out of range: want 1s to %dh (31 days)", p.Timeout, conntrack.MaxTimeout/time.Hour)
	case p.Timeout%time.Second != 0:
		c.report("persistence", "persistence timeout %s: want whole seconds", p.Timeout)
	}
	switch {
	case !addr.IsValid():
	case p.Mask != 0:
		c.add(ErrUnsupported, "persistence", fmt.Sprintf("netmask %s of clients is no prefix: want one such as %s (/%d)", p.Mask, Mask(^(^uint32(0)>>p.Prefix)), p.Prefix))
	case int(p.Prefix) > addr.BitLen():
		c.report("persistence", "prefix %d: want %d at most", p.Prefix, addr.BitLen())
	case addr.Is6() && p.Prefix == 0:
		c.report("persistence", "prefix 0: want 1 to 128") // kernel: ip_vs_ctl.c, ip_vs_add_service
	}
	if p.Engine != "" && p.Engine != EngineSIP {
		c.report("persistence", "unknown persistence engine %q: want sip", p.Engine)
	}
}

// rules checks what is of one protocol only.
func (c *checker) rules(s Service) {
	protocol := s.Key.Protocol
	if s.OnePacket && protocol != conntrack.UDP && !s.Key.IsMark() {
		c.report("one-packet", "one-packet scheduling is for udp")
	}
	if s.Rules.SloppyTCP && protocol != conntrack.TCP {
		c.report("sloppy-tcp", "sloppy-tcp is for tcp")
	}
	switch {
	case s.Rules.ConnReuse > ReuseFinWait:
		c.report("conn-reuse-mode", "unknown mode %d", uint8(s.Rules.ConnReuse))
	case s.Rules.ConnReuse != ReuseClosed && protocol != conntrack.TCP:
		c.report("conn-reuse-mode", "conn-reuse-mode is for tcp")
	}
	if s.Timeouts != (conntrack.Timeouts{}) {
		for _, err := range parts(conntrack.DefaultTimeouts().Merge(s.Timeouts).Validate()) {
			c.report("timeouts", "%v", err)
		}
	}
}

// The smallest segment sizes that may be asked for: what every host takes with headers
// of ordinary length.
const (
	MinMSS     = 536  // RFC 9293 §3.7.1, from RFC 791's 576
	MinMSSIPv6 = 1220 // of RFC 8200 §5's 1280
)

func (c *checker) mss(key ServiceKey, mss uint16) {
	least := uint16(MinMSS)
	if key.Address.Addr().Is6() {
		least = MinMSSIPv6
	}
	switch {
	case mss == 0:
	case key.Protocol != conntrack.TCP:
		c.report("mss", "mss is for tcp")
	case mss < least:
		c.report("mss", "mss %d: want %d to 65535", mss, least)
	}
}

func (c *checker) scheduler(name Scheduler) {
	if !name.Known() {
		c.report("scheduler", "unknown scheduler %q: want %s", name, schedulerList())
	}
}

func schedulerList() string {
	var names []string
	for _, s := range Schedulers() {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

// mixes reports whether the server is not of the service's address family.
func (k ServiceKey) mixes(server realserver.Server) bool {
	return k.Address.IsValid() && server.Address.IsValid() && k.Address.Addr().Is4() != server.Address.Addr().Is4()
}

// server checks a server that is, or could be, the service's: not how it stands to
// the service's other ones.
func (c *checker) server(s *Service, server realserver.Server) {
	key, problems := s.Key, len(c.problems)
	for _, err := range parts(server.Validate()) {
		field := ""
		if problem := (*realserver.Problem)(nil); errors.As(err, &problem) {
			field = problem.Field
		}
		c.report(field, "%v", err)
	}
	if s.OnePacket && server.Method == realserver.FullNAT {
		c.report("method", "method fullnat: one-packet scheduling makes no connection, by which replies would find their client")
	}
	if len(c.problems) > problems || key.problem() != nil {
		return // what follows compares two addresses that are right by themselves
	}
	vip, addr := key.Address, server.Address
	rewrites := server.Method.Rewrites()
	switch {
	case key.mixes(server) && server.Method != realserver.Tunnel:
		c.report("address", "%s is not of the service's address family (%s): only tunnels can mix them", addr.Addr(), vip.Addr())
	case key.IsMark(): // the port is only rewritten by nat and fullnat, and there 0 is the client's
	case key.AnyPort() && !rewrites && addr.Port() != 0:
		c.report("address", "port %d: method %s does not rewrite packets, and the service has several ports: leave the port out", addr.Port(), server.Method)
	case key.AnyPort():
	case addr.Port() == 0:
		c.report("address", "port 0 is reserved")
	case !rewrites && addr.Port() != vip.Port():
		c.report("address", "port %d: method %s does not rewrite packets, so the port must be the service's (%d)",
			addr.Port(), server.Method, vip.Port())
	}
}
