package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// Fmt returns a file in canonical form: keys in the order of the reference, two
// spaces a level, quotes only where needed, comments aligned and kept. What the
// author put on one line stays on one line if it fits. A formatted file is its
// own format. A file with errors is refused with them; included files are not
// looked at.
func Fmt(name string, data []byte) ([]byte, error) {
	l := &loader{}
	d := l.decode(name, "", part, data)
	if _, err := l.finish(); err != nil {
		return nil, err
	}
	doc := &document{}
	t := &tree{d: d, lines: splitLines(string(data))}
	if d.root != nil {
		doc.root = t.value(d.root, "", nil, 0)
	}
	t.attach(doc, comments(data, d.root))
	return doc.text(), nil
}

// Format returns a desired state as a configuration, in canonical form: Parse
// gives the same state again. The header's lines become comments at the top.
// Timeouts that are zero are left out, as those not given are, and so are sync
// daemons that are nil. Defaults are left out too, but not the scheduler: a later version may have another one.
// A state that is not valid is refused; one that does not fit into MaxBytes
// gives a text that Load refuses.
func Format(state director.State, header ...string) ([]byte, error) {
	state = state.Normalize()
	all := state
	all.Timeouts = conntrack.DefaultTimeouts().Merge(state.Timeouts)
	if err := all.Validate(); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	doc := &document{root: &value{kind: yaml.MappingNode}}
	for _, lines := range header {
		for line := range strings.SplitSeq(lines, "\n") {
			text := strings.TrimRight("# "+strings.Map(printable, line), " ")
			doc.header = append(doc.header, comment{text: text})
		}
	}
	settings := block(yaml.MappingNode)
	if timeouts := writeTimeouts(state.Timeouts); timeouts != nil {
		settings.put("connections", flow(yaml.MappingNode).with("timeouts", timeouts))
	}
	if state.Sync != nil {
		settings.put("sync", writeSync(state.Sync))
	}
	if len(settings.entries) > 0 {
		doc.root.put("director", settings)
	}
	services := block(yaml.SequenceNode)
	for _, service := range state.Services {
		services.add(writeService(service))
	}
	doc.root.put("services", services)
	return doc.text(), nil
}

func printable(r rune) rune {
	if !strconv.IsPrint(r) {
		return ' '
	}
	return r
}

func writeTimeouts(t conntrack.Timeouts) *value {
	all := flow(yaml.MappingNode)
	for _, timeout := range []struct {
		key string
		d   time.Duration
	}{{"tcp", t.TCP}, {"tcp-fin", t.TCPFin}, {"udp", t.UDP}} {
		if timeout.d != 0 {
			all.put(timeout.key, scalar(formatDuration(timeout.d)))
		}
	}
	if len(all.entries) == 0 {
		return nil
	}
	return all
}

func writeService(s director.Service) *value {
	v := block(yaml.MappingNode)
	if s.Name != "" {
		v.put("name", scalar(s.Name))
	}
	v.put("listen", scalar(s.Key.String()))
	v.put("scheduler", scalar(string(s.Scheduler)))
	if flags := s.Scheduler.FlagNames(s.Flags); s.Flags != (director.SchedulerFlags{}) {
		v.put("flags", list(flags))
	}
	if s.VIP != director.VIPManaged {
		v.put("vip", scalar(string(s.VIP)))
	}
	if !s.Access.IsZero() {
		access := flow(yaml.MappingNode)
		if len(s.Access.Allow) > 0 {
			access.put("allow", list(s.Access.Allow))
		}
		if len(s.Access.Deny) > 0 {
			access.put("deny", list(s.Access.Deny))
		}
		v.put("access", access)
	}
	writeRules(v, s)
	shared := sharedBy(s.Servers)
	if shared.method != nil {
		v.put("method", scalar(shared.method.String()))
	}
	if shared.tunnel != nil {
		v.put("tunnel", writeTunnel(*shared.tunnel))
	}
	servers := block(yaml.SequenceNode)
	for _, server := range s.Servers {
		servers.add(writeServer(s, server, shared))
	}
	v.put("servers", servers)
	if checks := writeChecks(s.Health.Checks); checks != nil {
		v.put("check", checks)
	}
	if health := writeHealth(s.Health); health != nil {
		v.put("health", health)
	}
	if len(s.Health.Sorry) > 0 {
		sorry := block(yaml.SequenceNode)
		for _, server := range s.Health.Sorry {
			sorry.add(writeServer(s, server, serverDefaults{tunnel: shared.tunnel}))
		}
		v.put("sorry", sorry)
	}
	return v
}

// sharedBy returns what is the same at all servers, and goes to the service: the
// method, and the tunnel unless that is the default.
func sharedBy(servers []realserver.Server) serverDefaults {
	var shared serverDefaults
	if len(servers) == 0 {
		return shared
	}
	first := servers[0]
	if !slices.ContainsFunc(servers, func(s realserver.Server) bool { return s.Method != first.Method }) {
		shared.method = &first.Method
		if first.Tunnel != (realserver.TunnelOptions{}) && !slices.ContainsFunc(servers, func(s realserver.Server) bool { return s.Tunnel != first.Tunnel }) {
			shared.tunnel = &first.Tunnel
		}
	}
	return shared
}

// writeRules writes what is not as the kernel has it by default.
func writeRules(v *value, s director.Service) {
	if p := s.Persistence; p != (director.Persistence{}) {
		persistence := flow(yaml.MappingNode).with("timeout", scalar(formatDuration(p.Timeout)))
		if p.Prefix != s.Key.FullPrefix() {
			persistence.put("prefix", number(uint32(p.Prefix)))
		}
		if p.Engine != "" {
			persistence.put("engine", scalar(string(p.Engine)))
		}
		v.put("persistence", persistence)
	}
	yes(v, "one-packet", s.OnePacket)
	if timeouts := writeTimeouts(s.Timeouts); timeouts != nil {
		v.put("timeouts", timeouts)
	}
	if s.Rules.ConnReuse != director.ReuseClosed {
		v.put("conn-reuse-mode", number(uint32(s.Rules.ConnReuse.Number())))
	}
	yes(v, "sloppy-tcp", s.Rules.SloppyTCP)
	yes(v, "expire-nodest-conn", s.Rules.ExpireNoDestConn)
	yes(v, "expire-quiescent-template", s.Rules.ExpireQuiescentTemplate)
	if limits := writeLimits(s.Key, s.Limits); limits != nil {
		v.put("limits", limits)
	}
	if guard := writeGuard(s.Guard); guard != nil {
		v.put("guard", guard)
	}
	counted(v, "mss", uint32(s.MSS))
}

func writeServer(s director.Service, server realserver.Server, shared serverDefaults) *value {
	v := flow(yaml.MappingNode)
	if port := server.Address.Port(); port == 0 || port == s.Key.Address.Port() && !s.Key.AnyPort() {
		v.put("address", scalar(server.Address.Addr().String()))
	} else {
		v.put("address", scalar(server.Address.String()))
	}
	if server.Weight != realserver.DefaultWeight {
		v.put("weight", number(server.Weight))
	}
	if shared.method == nil {
		v.put("method", scalar(server.Method.String()))
	}
	common := realserver.TunnelOptions{}
	if shared.tunnel != nil {
		common = *shared.tunnel
	}
	if server.Method == realserver.Tunnel && server.Tunnel != common {
		v.put("tunnel", writeTunnel(server.Tunnel))
	}
	if server.Upper != 0 {
		v.put("upper", number(server.Upper))
	}
	if server.Lower != 0 {
		v.put("lower", number(server.Lower))
	}
	return v
}

func block(kind yaml.Kind) *value { return &value{kind: kind} }

func flow(kind yaml.Kind) *value { return &value{kind: kind, flow: true} }

func scalar(text string) *value {
	return &value{kind: yaml.ScalarNode, scalar: text, bare: !ambiguous(text)}
}

func number(n uint32) *value {
	return &value{kind: yaml.ScalarNode, scalar: strconv.FormatUint(uint64(n), 10), bare: true}
}

func list[T any](items []T) *value {
	v := flow(yaml.SequenceNode)
	for _, item := range items {
		v.add(scalar(fmt.Sprint(item)))
	}
	return v
}

func (v *value) put(key string, child *value) {
	v.entries = append(v.entries, &entry{key: key, value: child})
}

func (v *value) add(child *value) { v.put("", child) }

// with puts and returns v.
func (v *value) with(key string, child *value) *value {
	v.put(key, child)
	return v
}
