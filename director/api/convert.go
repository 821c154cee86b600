package api

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// service turns the model into the director's value. What is left out gets its
// default; the Director validates the whole.
func (c ServiceConfig) service() (director.Service, error) {
	key, err := parseListen(c.Listen)
	if err != nil {
		return director.Service{}, err
	}
	s, err := c.serviceOf(key)
	if err != nil {
		return director.Service{}, err
	}
	for i, server := range c.Servers {
		parsed, err := server.server(key)
		if err != nil {
			return director.Service{}, located(err, "servers", i)
		}
		s.Servers = append(s.Servers, parsed)
	}
	return s.Normalize(), nil
}

// serviceOf turns what the model has beside the servers into the director's value.
func (c ServiceConfig) serviceOf(key director.ServiceKey) (director.Service, error) {
	s := director.Service{
		Key: key, Name: c.Name, Scheduler: director.Scheduler(c.Scheduler), VIP: director.VIPOwner(c.VIP),
	}.Normalize()
	var err error
	if s.Flags, err = parseFlags(s.Scheduler, c.Flags); err != nil {
		return director.Service{}, err
	}
	if c.Access != nil {
		if s.Access.Allow, err = parsePrefixes("allow", c.Access.Allow); err != nil {
			return director.Service{}, err
		}
		if s.Access.Deny, err = parsePrefixes("deny", c.Access.Deny); err != nil {
			return director.Service{}, err
		}
	}
	if err := c.setSettings(&s); err != nil {
		return director.Service{}, err
	}
	return s, nil
}

// State turns the model into the director's value, each service normalized and
// in the order of the model. Timeouts that are left out are zero. The error is
// a *Problem, located; whether the state is valid is Validate's to say.
func (c Configuration) State() (director.State, error) {
	var s director.State
	if c.Timeouts != nil {
		var err error
		if s.Timeouts, err = c.Timeouts.timeouts(); err != nil {
			return s, err
		}
	}
	s.Services = make([]director.Service, 0, len(c.Services))
	for i, config := range c.Services {
		service, err := config.service()
		if err != nil {
			return s, located(err, "services", i)
		}
		s.Services = append(s.Services, service)
	}
	if c.Sync != nil {
		s.Sync = []director.SyncDaemon{} // none, which is not the same as left out
	}
	for i, model := range c.Sync {
		daemon, err := model.daemon()
		if err != nil {
			return s, located(err, "sync", i)
		}
		s.Sync = append(s.Sync, daemon)
	}
	return s, nil
}

// located says where in a list the problem is.
func located(err error, list string, i int) *Problem {
	p := *problemOf(err)
	p.Detail = fmt.Sprintf("%s[%d]: %s", list, i, p.Detail)
	return &p
}

// server turns the model into the director's value. A missing port is the
// service's, a missing weight the default one.
func (c ServerConfig) server(key director.ServiceKey) (realserver.Server, error) {
	address, err := parseServerAddress(c.Address, key)
	if err != nil {
		return realserver.Server{}, err
	}
	return c.terms(address)
}

// terms returns the server at the address on these terms.
func (c ServerConfig) terms(address netip.AddrPort) (realserver.Server, error) {
	if c.Method == "" {
		return realserver.Server{}, invalid(fmt.Sprintf("server %s: method is required", address),
			"give nat, dr, tunnel, fullnat or local (there is no default: ipvsadm's and keepalived's differ)")
	}
	method, err := realserver.ParseMethod(c.Method)
	if err != nil {
		return realserver.Server{}, invalid(fmt.Sprintf("server %s: %v", address, err), "")
	}
	s := realserver.Server{Address: address, Method: method, Weight: realserver.DefaultWeight, Upper: c.Upper, Lower: c.Lower}
	if c.Weight != nil {
		s.Weight = *c.Weight
	}
	if c.Tunnel != nil {
		if s.Tunnel, err = c.Tunnel.options(); err != nil {
			return realserver.Server{}, invalid(fmt.Sprintf("server %s: %v", address, err), "")
		}
	}
	return s, nil
}

// apply changes what the edit names. Flags are read in the words of the
// scheduler the service has afterwards.
func (e ServiceEdit) apply(s *director.Service) error {
	if e.Name != nil {
		s.Name = *e.Name
	}
	if e.Scheduler != nil {
		s.Scheduler = director.Scheduler(*e.Scheduler)
	}
	if e.VIP != nil {
		s.VIP = director.VIPOwner(*e.VIP)
	}
	if e.Flags != nil {
		flags, err := parseFlags(s.Scheduler, *e.Flags)
		if err != nil {
			return err
		}
		s.Flags = flags
	}
	if e.Access != nil {
		if err := e.Access.apply(&s.Access); err != nil {
			return err
		}
	}
	return e.applySettings(s)
}

// apply replaces the lists that the edit names.
func (e AccessEdit) apply(a *director.Access) error {
	for _, f := range []struct {
		name string
		from *[]string
		to   *[]netip.Prefix
	}{{"allow", e.Allow, &a.Allow}, {"deny", e.Deny, &a.Deny}} {
		if f.from == nil {
			continue
		}
		prefixes, err := parsePrefixes(f.name, *f.from)
		if err != nil {
			return err
		}
		*f.to = prefixes
	}
	return nil
}

// apply changes what the edit names. The lower threshold goes with the upper one.
func (e ServerEdit) apply(s *realserver.Server) error {
	if e.Method != nil {
		method, err := realserver.ParseMethod(*e.Method)
		if err != nil {
			return invalid(err.Error(), "")
		}
		if s.Method = method; method != realserver.Tunnel {
			s.Tunnel = realserver.TunnelOptions{} // it means nothing without one
		}
	}
	if e.Tunnel != nil {
		options, err := e.Tunnel.options()
		if err != nil {
			return invalid(err.Error(), "")
		}
		s.Tunnel = options
	}
	set(&s.Weight, e.Weight)
	set(&s.Upper, e.Upper)
	set(&s.Lower, e.Lower)
	if s.Upper == 0 && e.Upper != nil && e.Lower == nil {
		s.Lower = 0 // it means nothing without an upper one
	}
	return nil
}

// timeouts returns what the edit names, and zero, which the domain takes for
// "unchanged", for the rest. A zero in the edit is therefore refused.
func (e TimeoutsEdit) timeouts() (conntrack.Timeouts, error) {
	var t conntrack.Timeouts
	for _, f := range []struct {
		name string
		from *Duration
		to   *time.Duration
	}{{"tcp", e.TCP, &t.TCP}, {"tcp-fin", e.TCPFin, &t.TCPFin}, {"udp", e.UDP, &t.UDP}} {
		if f.from == nil {
			continue
		}
		if *f.from == 0 {
			return t, invalid(f.name+" timeout: 0s is out of range", "leave it out to keep it as it is")
		}
		*f.to = time.Duration(*f.from)
	}
	return t, nil
}

// ConfigurationOf is the reverse of Configuration.State. Timeouts that are zero
// are left out.
func ConfigurationOf(s director.State) Configuration {
	c := Configuration{Services: make([]ServiceConfig, 0, len(s.Services)), Sync: syncModels(s.Sync)}
	t := TimeoutsEdit{
		TCP: given(Duration(s.Timeouts.TCP)), TCPFin: given(Duration(s.Timeouts.TCPFin)), UDP: given(Duration(s.Timeouts.UDP)),
	}
	if t != (TimeoutsEdit{}) {
		c.Timeouts = &t
	}
	for _, service := range s.Services {
		c.Services = append(c.Services, serviceConfig(service))
	}
	return c
}

func serviceConfig(s director.Service) ServiceConfig {
	c := ServiceConfig{
		Listen: s.Key.String(), Name: s.Name, Scheduler: string(s.Scheduler),
		Flags: flagWords(s), VIP: string(s.VIP), Servers: make([]ServerConfig, 0, len(s.Servers)),
		Persistence: persistenceModel(s.Persistence), OnePacket: s.OnePacket, Timeouts: serviceTimeouts(s.Timeouts),
		ConnReuseMode: reuseModel(s.Rules.ConnReuse), SloppyTCP: s.Rules.SloppyTCP,
		ExpireNodestConn: s.Rules.ExpireNoDestConn, ExpireQuiescentTemplate: s.Rules.ExpireQuiescentTemplate,
		Limits: limitsModel(s.Limits), Guard: guardModel(s.Guard), MSS: s.MSS, Health: healthModel(s.Health),
	}
	if !s.Access.IsZero() {
		c.Access = &Access{Allow: prefixTexts(s.Access.Allow), Deny: prefixTexts(s.Access.Deny)}
	}
	for _, server := range s.Servers {
		c.Servers = append(c.Servers, serverConfig(server))
	}
	return c
}

func serverConfig(server realserver.Server) ServerConfig {
	return ServerConfig{
		Address: server.Address.String(), Method: server.Method.String(), Weight: new(server.Weight),
		Upper: server.Upper, Lower: server.Lower, Tunnel: tunnelModel(server.Tunnel),
	}
}

// Configured returns the service as the director has it: what the data plane says
// of it is left out, but for servers that are drained. Keys and addresses of foreign
// services are as the kernel has them, although no configuration could have them so.
func (s Service) Configured() (director.Service, error) {
	key, err := director.ParseFoundKey(s.Listen)
	if err != nil {
		return director.Service{}, err
	}
	service, err := ServiceConfig{
		Name: s.Name, Scheduler: s.Scheduler, Flags: s.Flags, VIP: s.VIP, Access: s.Access,
		OnePacket: s.OnePacket, Timeouts: s.Timeouts, ConnReuseMode: s.ConnReuseMode,
		SloppyTCP: s.SloppyTCP, ExpireNodestConn: s.ExpireNodestConn, ExpireQuiescentTemplate: s.ExpireQuiescentTemplate,
		Limits: s.Limits, Guard: s.Guard, MSS: s.MSS, Health: s.Health,
	}.serviceOf(key)
	if err != nil {
		return director.Service{}, err
	}
	if s.Persistence != nil {
		if service.Persistence, err = s.Persistence.persistence(key); err != nil {
			return director.Service{}, err
		}
	}
	service.Access = service.Access.Normalize()
	for i, model := range s.Servers {
		server, err := model.configured()
		if err != nil {
			return director.Service{}, located(err, "servers", i)
		}
		service.Servers = append(service.Servers, server)
	}
	return service, nil
}

// parseListen reads a service's URL.
func parseListen(text string) (director.ServiceKey, error) {
	if text == "" {
		return director.ServiceKey{}, invalid("service: listen is required", "write it as tcp://192.0.2.1:80")
	}
	return director.ParseServiceKey(text)
}

// parseServerAddress reads a server's address. Without a port it is the
// service's, or of a service of several ports the one that the client asked for,
// which answers show as 0.
func parseServerAddress(text string, key director.ServiceKey) (netip.AddrPort, error) {
	if address, err := netip.ParseAddrPort(text); err == nil && address.Port() == 0 && key.AnyPort() {
		return address, nil
	}
	address, err := director.ParseServerAddress(text)
	if err != nil {
		return netip.AddrPort{}, invalid(err.Error(), "write it as 10.0.0.1:80, [2001:db8::1]:80, or 10.0.0.1 for the service's port")
	}
	return key.ServerAddress(address), nil
}

// parseFlags reads ipvsadm's words, each of which names its scheduler.
func parseFlags(scheduler director.Scheduler, words []string) (director.SchedulerFlags, error) {
	var flags director.SchedulerFlags
	for i, word := range words {
		if err := flags.Set(scheduler, word); err != nil {
			return flags, badWord(fmt.Sprintf("flags[%d]", i), err)
		}
	}
	return flags, nil
}

// badWord says where a word is that cannot be read.
func badWord(where string, err error) *Problem {
	if word, ok := errors.AsType[*director.WordError](err); ok {
		return invalid(where+": "+word.Text, word.Hint)
	}
	return invalid(fmt.Sprintf("%s: %v", where, err), "")
}

// flagWords is the reverse of parseFlags; never nil, so that JSON has [].
func flagWords(s director.Service) []string {
	return append([]string{}, s.Scheduler.FlagNames(s.Flags)...)
}

// parsePrefixes reads a list of Access. An address is a prefix of full length.
func parsePrefixes(list string, texts []string) ([]netip.Prefix, error) {
	prefixes := make([]netip.Prefix, 0, len(texts))
	for i, text := range texts {
		prefix, err := director.ParsePrefix(text)
		if err != nil {
			return nil, badWord(fmt.Sprintf("access: %s[%d]", list, i), err)
		}
		prefixes = append(prefixes, prefix)
	}
	return prefixes, nil
}

func prefixTexts(prefixes []netip.Prefix) []string {
	var texts []string
	for _, prefix := range prefixes {
		texts = append(texts, prefix.String())
	}
	return texts
}
