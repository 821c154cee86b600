package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// services reads the services in the order of the text, which is that of the
// indices in messages.
func (d *decoder) services(n *yaml.Node, state *director.State) {
	d.sequence(n, "services", func(n *yaml.Node, path string, _ int) {
		state.Services = append(state.Services, d.service(n, path))
	})
}

func (d *decoder) service(n *yaml.Node, path string) director.Service {
	s := director.Service{Scheduler: director.DefaultScheduler, VIP: director.VIPManaged}
	var (
		flags, servers, sorry, persistence *yaml.Node
		defaults                           serverDefaults
	)
	d.mapping(n, path, fields{
		{"name", word(d, &s.Name, nonEmpty)},
		{"listen", word(d, &s.Key, parseListen)},
		{"scheduler", word(d, &s.Scheduler, convert[director.Scheduler])},
		{"flags", func(n *yaml.Node, _ string) { flags = n }},
		{"vip", word(d, &s.VIP, convert[director.VIPOwner])},
		{"access", func(n *yaml.Node, path string) { s.Access = d.access(n, path) }},
		{"persistence", func(n *yaml.Node, _ string) { persistence = n }},
		{"one-packet", word(d, &s.OnePacket, parseBool)},
		{"timeouts", func(n *yaml.Node, path string) { d.timeouts(n, path, &s.Timeouts) }},
		{"conn-reuse-mode", word(d, &s.Rules.ConnReuse, parseReuseMode)},
		{"sloppy-tcp", word(d, &s.Rules.SloppyTCP, parseBool)},
		{"expire-nodest-conn", word(d, &s.Rules.ExpireNoDestConn, parseBool)},
		{"expire-quiescent-template", word(d, &s.Rules.ExpireQuiescentTemplate, parseBool)},
		{"limits", func(n *yaml.Node, path string) { s.Limits = d.limits(n, path) }},
		{"guard", func(n *yaml.Node, path string) { s.Guard = d.guard(n, path) }},
		{"mss", word(d, &s.MSS, numberBetween[uint16]("a size of segments", director.MinMSS, 65535))},
		{"method", word(d, &defaults.method, parseMethod)},
		{"tunnel", func(n *yaml.Node, path string) { defaults.tunnel = d.tunnel(n, path) }},
		{"servers", func(n *yaml.Node, _ string) { servers = n }},
		{"check", func(n *yaml.Node, path string) { s.Health.Checks = d.checks(n, path) }},
		{"health", func(n *yaml.Node, path string) { d.health(n, path, &s.Health) }},
		{"sorry", func(n *yaml.Node, _ string) { sorry = n }},
	})
	if d.broken[path] {
		d.broken[path+".listen"] = true // there is nothing to validate
		return s
	}
	if d.places[path+".listen"] == nil {
		d.refuse(n, path+".listen", "the key is missing: a URL such as tcp://192.0.2.1:80")
	}
	if flags != nil {
		s.Flags = d.flags(flags, path+".flags", s.Scheduler)
	}
	if persistence != nil {
		s.Persistence = d.persistence(persistence, path+".persistence", s.Key)
	}
	switch {
	case servers != nil:
		d.sequence(servers, path+".servers", func(n *yaml.Node, path string, _ int) {
			s.Servers = append(s.Servers, d.server(n, path, defaults))
		})
	case !d.broken[path+".servers"]:
		d.refuse(n, path+".servers", "the key is missing: a list of servers, [] for none")
	}
	if sorry != nil {
		s.Health.Sorry = d.sorryServers(sorry, path+".sorry", defaults)
	}
	d.usesTunnel(path, s, defaults)
	return s
}

// serverDefaults are what a service gives its servers; nil where it does not.
type serverDefaults struct {
	method *realserver.Method
	tunnel *realserver.TunnelOptions
}

// usesTunnel refuses a tunnel at the service that none of its servers has.
func (d *decoder) usesTunnel(path string, s director.Service, defaults serverDefaults) {
	if defaults.tunnel == nil || defaults.method != nil && *defaults.method == realserver.Tunnel ||
		slices.ContainsFunc(s.Servers, func(s realserver.Server) bool { return s.Method == realserver.Tunnel }) ||
		d.broken[path+".tunnel"] || d.broken[path+".method"] || d.broken[path+".servers"] {
		return
	}
	d.refuse(d.places[path+".tunnel"], path+".tunnel", "no server's method is tunnel")
}

// persistence reads what holds a client to a server; the prefix's default is the
// address itself.
func (d *decoder) persistence(n *yaml.Node, path string, key director.ServiceKey) director.Persistence {
	p := director.Persistence{Prefix: key.FullPrefix()}
	d.mapping(n, path, fields{
		{"timeout", word(d, &p.Timeout, parseDuration)},
		{"prefix", word(d, &p.Prefix, parsePrefixLength)},
		{"engine", word(d, &p.Engine, oneOf(director.EngineSIP))},
	})
	if !d.broken[path] && d.places[path+".timeout"] == nil {
		d.refuse(n, path+".timeout", "the key is missing: how long a client stays with its server after its last new connection, such as 5m")
	}
	return p
}

// parsePrefixLength reads a number; what it may be is Validate's to say.
func parsePrefixLength(s string) (uint8, error) {
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil || n > 128 {
		return 0, fmt.Errorf("%q is not the length of a prefix: want 0 to 32, or 1 to 128 for IPv6", shortened(s))
	}
	return uint8(n), nil
}

func parseReuseMode(s string) (director.ReuseMode, error) {
	n, err := strconv.Atoi(s)
	if err != nil {
		n = -1
	}
	mode, err := director.ParseReuseMode(n)
	if err != nil {
		return 0, fmt.Errorf("%q is not a mode: want 0, 1 or 3", shortened(s))
	}
	return mode, nil
}

func parseBool(s string) (bool, error) {
	switch s {
	case "true":
		return true, nil
	case "false":
		return false, nil
	default:
		return false, fmt.Errorf("%q: want true or false", shortened(s))
	}
}

// flags reads ipvsadm's names, which begin with the scheduler's or are flag-1 to
// flag-3.
func (d *decoder) flags(n *yaml.Node, path string, scheduler director.Scheduler) director.SchedulerFlags {
	var flags director.SchedulerFlags
	d.sequence(n, path, func(n *yaml.Node, path string, _ int) {
		name, ok := d.text(n, path)
		if !ok {
			return
		}
		names := scheduler.FlagNames(director.SchedulerFlags{Port: true, Fallback: true, Third: true})
		if err := flags.Set(scheduler, name); err != nil {
			d.refuse(n, path, "%v%s", err, didYouMean(name, names))
		}
	})
	return flags
}

// server reads a server.
func (d *decoder) server(n *yaml.Node, path string, service serverDefaults) realserver.Server {
	s := realserver.Server{Weight: realserver.DefaultWeight}
	var own serverDefaults
	d.mapping(n, path, fields{
		{"address", word(d, &s.Address, parseAddress)},
		{"weight", word(d, &s.Weight, realserver.ParseWeight)},
		{"method", word(d, &own.method, parseMethod)},
		{"tunnel", func(n *yaml.Node, path string) { own.tunnel = d.tunnel(n, path) }},
		{"upper", word(d, &s.Upper, realserver.ParseThreshold)},
		{"lower", word(d, &s.Lower, realserver.ParseThreshold)},
	})
	if d.broken[path] {
		d.broken[path+".address"] = true
		return s
	}
	if d.places[path+".address"] == nil {
		d.refuse(n, path+".address", "the key is missing: an IP address with or without a port")
	}
	switch {
	case own.method != nil:
		s.Method = *own.method
	case service.method != nil:
		s.Method = *service.method
	case !d.broken[path+".method"] && !d.broken[serviceOf(path)+".method"]:
		d.refuse(n, path+".method", "the method is missing: give it here or at the service: nat, dr, tunnel, fullnat or local")
	default:
		return s // which tunnel goes with it is not known
	}
	s.Tunnel = d.tunnelOf(path, s.Method, own.tunnel, service.tunnel)
	return s
}

// serviceOf returns the path of the service that a server's path is in.
func serviceOf(path string) string { return path[:strings.LastIndex(path, ".")] }

func parseListen(s string) (director.ServiceKey, error) {
	key, err := director.ParseServiceKey(s)
	return key, unlocated(err)
}

func parseAddress(s string) (netip.AddrPort, error) {
	addr, err := director.ParseServerAddress(s)
	return addr, unlocated(err)
}

// unlocated takes off what the file's own location says better.
func unlocated(err error) error {
	if problem := (*director.ProblemError)(nil); errors.As(err, &problem) {
		return &kindError{problem.Text, problem.Kind}
	}
	return err
}

func parseMethod(s string) (*realserver.Method, error) {
	method, err := hinted(realserver.ParseMethod, "nat", "dr", "tunnel", "fullnat", "local")(s)
	return &method, err
}

// convert takes any text that is not empty; what it may be is Validate's to
// say.
func convert[T ~string](s string) (T, error) {
	s, err := nonEmpty(s)
	return T(s), err
}
