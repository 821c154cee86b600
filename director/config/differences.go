package config

import (
	"fmt"
	"strings"
)

// Difference is a setting that is not the same in two Settings.
type Difference struct {
	Key      string // as in the file, such as director.limits.services
	Old, New string // as in the file; empty for what is not set
	// Restart says that a running daemon keeps the old value until it is
	// started anew.
	Restart bool
}

// String returns "key: old → new", with a dash for what is not set.
func (d Difference) String() string {
	dash := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	return fmt.Sprintf("%s: %s → %s", d.Key, dash(d.Old), dash(d.New))
}

// setting is a key of the director section.
type setting struct {
	key     string
	text    func(s Settings) string
	running bool // a running daemon takes it over
	xdp     bool // the XDP data plane alone has it
}

// settings are all of them, in the order of the reference. The timeouts and the
// sync daemons are not among them: they are desired state.
var settings = []setting{
	{key: "dataplane", text: func(s Settings) string { return s.Dataplane }},
	{key: "interfaces", text: func(s Settings) string { return strings.Join(s.Interfaces, ", ") }, xdp: true},
	{key: "mode", text: func(s Settings) string { return string(s.Mode) }, xdp: true},
	{key: "connections.max", text: func(s Settings) string { return FormatSize(s.MaxConnections) }, xdp: true},
	{key: "connections.max-ipv6", text: func(s Settings) string { return FormatSize(s.MaxConnections6) }, xdp: true},
	{key: "connections.counters", text: func(s Settings) string { return fmt.Sprint(s.CountConnections) }, xdp: true},
	{key: "connections.sources", text: func(s Settings) string { return FormatSize(uint64(s.Sources)) }, xdp: true},
	{key: "midstream", text: func(s Settings) string { return s.Midstream }, xdp: true},
	{key: "icmp-rate", text: func(s Settings) string { return fmt.Sprint(s.ICMPRate) }, xdp: true},
	{key: "echo", text: func(s Settings) string { return string(s.Echo) }, xdp: true},
	{key: "tunnel.sources", text: func(s Settings) string { return prefixList(s.TunnelSources) }, xdp: true},
	{key: "fullnat.addresses", text: func(s Settings) string { return prefixList(s.LocalAddresses) }, xdp: true},
	{key: "fullnat.ports", text: func(s Settings) string { return s.LocalPorts.String() }, xdp: true},
	{key: "limits.services", text: func(s Settings) string { return fmt.Sprint(s.Limits.Services) }},
	{key: "limits.servers", text: func(s Settings) string { return fmt.Sprint(s.Limits.Servers) }},
	{key: "limits.scheduler-words", text: func(s Settings) string { return FormatSize(uint64(s.Limits.SchedulerWords)) }, xdp: true},
	{key: "limits.access-prefixes", text: func(s Settings) string { return FormatSize(uint64(s.Limits.AccessPrefixes)) }, xdp: true},
	{key: "removal-limit", text: func(s Settings) string { return fmt.Sprintf("%d%%", s.RemovalLimit) }, running: true},
	{key: "reconcile", text: func(s Settings) string { return formatDuration(s.Reconcile) }},
	{key: "state", text: func(s Settings) string { return s.StateDir }},
	{key: "history", text: func(s Settings) string { return fmt.Sprint(s.History) }},
	{key: "socket", text: func(s Settings) string { return s.Socket }},
	{key: "socket-group", text: func(s Settings) string { return s.SocketGroup }},
	{key: "api.listen", text: func(s Settings) string { return s.API.Listen }},
	{key: "api.certificate", text: func(s Settings) string { return s.API.Certificate }},
	{key: "api.key", text: func(s Settings) string { return s.API.Key }},
	{key: "api.client-ca", text: func(s Settings) string { return s.API.ClientCA }},
	{key: "api.tokens", text: func(s Settings) string { return s.API.Tokens }},
	{key: "script-user", text: func(s Settings) string { return s.ScriptUser }},
	{key: "pin-dir", text: func(s Settings) string { return s.PinDir }, xdp: true},
	{key: "log.level", text: func(s Settings) string { return s.LogLevel }, running: true},
	{key: "log.format", text: func(s Settings) string { return s.LogFormat }},
}

// Differences returns the settings that differ, in the order of the reference.
// What is in the files that api names is not looked at.
func Differences(running, file Settings) []Difference {
	var all []Difference
	for _, s := range settings {
		if old, next := s.text(running), s.text(file); old != next {
			all = append(all, Difference{Key: "director." + s.key, Old: old, New: next, Restart: !s.running})
		}
	}
	return all
}
