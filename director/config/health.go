package config

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// The words for what the domain has as "".
const (
	initialDown     director.Initial     = "down"
	downInhibit     director.DownAction  = "inhibit"
	establishedKeep director.Established = "keep"
)

// health reads what follows from checks, over the checks and the sorry servers, which
// have keys of their own.
func (d *decoder) health(n *yaml.Node, path string, h *director.Health) {
	initial, down, established := initialDown, downInhibit, establishedKeep
	d.mapping(n, path, fields{
		{"initial", word(d, &initial, oneOf(initialDown, director.InitialUp))},
		{"down", word(d, &down, oneOf(downInhibit, director.DownRemove))},
		{"established", word(d, &established, oneOf(establishedKeep, director.EstablishedCut))},
		{"quorum", word(d, &h.Quorum, size32(1, 1<<32-1))},
		{"hysteresis", word(d, &h.Hysteresis, size32(1, 1<<32-1))},
		{"panic", word(d, &h.Panic, parsePanic)},
		{"slow-start", word(d, &h.SlowStart, parsePositive)},
		{"damping", func(n *yaml.Node, path string) {
			d.mapping(n, path, fields{
				{"changes", word(d, &h.Damping.Changes, numberBetween[uint16]("a count", 1, 65535))},
				{"within", word(d, &h.Damping.Within, parsePositive)},
				{"hold", word(d, &h.Damping.Hold, parsePositive)},
			})
		}},
		{"passive", func(n *yaml.Node, path string) {
			d.mapping(n, path, fields{
				{"unanswered", word(d, &h.Passive.Unanswered, size32(1, 1<<32-1))},
				{"resets", word(d, &h.Passive.Resets, size32(1, 1<<32-1))},
				{"unreachable", word(d, &h.Passive.Unreachable, size32(1, 1<<32-1))},
				{"within", word(d, &h.Passive.Within, parsePositive)},
				{"suspend", word(d, &h.Passive.Suspend, parsePositive)},
			})
		}},
		{"maintenance", word(d, &h.Maintenance, parsePath)},
		{"notify", func(n *yaml.Node, path string) {
			command := func(to *[]string) func(*yaml.Node, string) {
				return func(n *yaml.Node, path string) { *to = d.command(n, path) }
			}
			d.mapping(n, path, fields{
				{"up", command(&h.Notify.Up)},
				{"down", command(&h.Notify.Down)},
				{"quorum-up", command(&h.Notify.QuorumUp)},
				{"quorum-down", command(&h.Notify.QuorumDown)},
				{"fifo", word(d, &h.Notify.FIFO, parsePath)},
			})
		}},
		{"load", func(n *yaml.Node, path string) {
			d.mapping(n, path, fields{
				{"kind", word(d, &h.Load.Kind, oneOf(director.LoadLinear, director.LoadLeastUsed, director.LoadFromMeasure))},
				{"minimum", word(d, &h.Load.Minimum, parseShare)},
				{"maximum", word(d, &h.Load.Maximum, parseShare)},
				{"silence", word(d, &h.Load.Silence, parsePositive)},
				{"snmp", func(n *yaml.Node, path string) { h.Load.SNMP = d.snmp(n, path) }},
			})
			d.require(n, path, "kind", "linear, least-used or reported")
		}},
		{"pool", word(d, &h.Pool, nonEmpty)},
	})
	if initial != initialDown {
		h.Initial = initial
	}
	if down != downInhibit {
		h.Down = down
	}
	if established != establishedKeep {
		h.Established = established
	}
}

// parsePanic reads 1% to 100%.
func parsePanic(s string) (uint8, error) {
	n, err := parsePercent(s)
	if err == nil && n == 0 {
		err = fmt.Errorf("%s is out of range: want 1%% to 100%%, or leave it out", s)
	}
	return uint8(n), err
}

// parseShare reads 1% and more.
func parseShare(s string) (uint32, error) {
	digits, found := strings.CutSuffix(s, "%")
	n, err := strconv.ParseUint(digits, 10, 32)
	if !found || err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a share: want 1%% or more", shortened(s))
	}
	return uint32(n), nil
}

// writeHealth writes what follows from checks; nil for the defaults.
func writeHealth(h director.Health) *value {
	v := flow(yaml.MappingNode)
	worded(v, "initial", string(h.Initial))
	worded(v, "down", string(h.Down))
	worded(v, "established", string(h.Established))
	counted(v, "quorum", h.Quorum)
	counted(v, "hysteresis", h.Hysteresis)
	shared(v, "panic", uint32(h.Panic))
	lasting(v, "slow-start", h.SlowStart)
	sub(v, "damping", func(v *value) {
		counted(v, "changes", uint32(h.Damping.Changes))
		lasting(v, "within", h.Damping.Within)
		lasting(v, "hold", h.Damping.Hold)
	})
	sub(v, "passive", func(v *value) {
		counted(v, "unanswered", h.Passive.Unanswered)
		counted(v, "resets", h.Passive.Resets)
		counted(v, "unreachable", h.Passive.Unreachable)
		lasting(v, "within", h.Passive.Within)
		lasting(v, "suspend", h.Passive.Suspend)
	})
	worded(v, "maintenance", h.Maintenance)
	sub(v, "notify", func(v *value) {
		for _, n := range []struct {
			key     string
			command []string
		}{{"up", h.Notify.Up}, {"down", h.Notify.Down}, {"quorum-up", h.Notify.QuorumUp}, {"quorum-down", h.Notify.QuorumDown}} {
			if len(n.command) > 0 {
				v.put(n.key, list(n.command))
			}
		}
		worded(v, "fifo", h.Notify.FIFO)
	})
	sub(v, "load", func(v *value) {
		worded(v, "kind", string(h.Load.Kind))
		shared(v, "minimum", h.Load.Minimum)
		shared(v, "maximum", h.Load.Maximum)
		lasting(v, "silence", h.Load.Silence)
		if h.Load.SNMP != nil {
			sub(v, "snmp", func(v *value) { writeSNMP(v, *h.Load.SNMP) })
		}
	})
	worded(v, "pool", h.Pool)
	if len(v.entries) == 0 {
		return nil
	}
	return v
}

// sub puts a mapping that is not empty.
func sub(v *value, key string, write func(v *value)) {
	inner := flow(yaml.MappingNode)
	if write(inner); len(inner.entries) > 0 {
		v.put(key, inner)
	}
}

// shared puts a share that is not 0.
func shared(v *value, key string, percent uint32) {
	if percent != 0 {
		v.put(key, scalar(fmt.Sprintf("%d%%", percent)))
	}
}

// sorryServers reads the servers that are offered while the quorum is lost.
func (d *decoder) sorryServers(n *yaml.Node, path string, service serverDefaults) []realserver.Server {
	var all []realserver.Server
	d.sequence(n, path, func(n *yaml.Node, path string, _ int) { all = append(all, d.server(n, path, service)) })
	return all
}
