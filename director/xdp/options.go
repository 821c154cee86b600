package xdp

import (
	"log/slog"
	"net/netip"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

// Options of Open. Sizes are used when the maps are made. An earlier daemon's maps are
// adopted as they are; Run then gives the connection tables the sizes that are asked for.
type Options struct {
	Interfaces []string // names of the interfaces to attach to; at least one
	Generic    bool     // attach in the stack instead of the driver: slow, for trials
	PinDir     string   // required; on a BPF file system

	MaxConnections     uint64 // IPv4 connections; default 1 Mi
	MaxConnectionsIPv6 uint64 // IPv6 connections; default a quarter of MaxConnections
	MaxServices        uint32 // default 4096
	MaxServers         uint32 // of all services; default 16384
	SchedulerWords     uint32 // default 4 Mi
	MaxAccessPrefixes  uint32 // of all access lists, and the longest once more; default 65536
	// MaxSources is how many source networks are remembered for services' limits, and
	// how many clients that have answered a guard; default 65536.
	MaxSources uint32

	// CountConnections counts packets and bytes of each connection, at 16 bytes more for
	// each key that the tables have room for; default: only those of servers. Of adopted
	// tables too: those that did not count begin to, and forget it if they are not to.
	CountConnections bool

	// TunnelSources are the addresses that tunnels' outer headers come from, one prefix
	// of a family at most: an address of this host, or a prefix whose host bits differ
	// from connection to connection, so that receivers spread them. Default: what the
	// route to the server says.
	TunnelSources []netip.Prefix
	// LocalAddresses stand in for clients' with method fullnat, from the ports LocalFirst
	// to LocalLast; default 1024 and 65535. Without one of a server's family it gets no
	// new connections by that method.
	LocalAddresses        []netip.Prefix
	LocalFirst, LocalLast uint16
	Echo                  director.EchoMode // default: director.EchoService

	MidstreamReset bool   // reset TCP segments without a connection; default: drop them
	ICMPRate       uint32 // ICMP errors and resets sent a second; 0: none

	Version string // of the software, for records of connections

	Log *slog.Logger // default: nothing is logged
}

// The ports that stand in for clients' where none are configured: all that are nobody's
// well-known ones.
const (
	defaultLocalFirst = 1024
	defaultLocalLast  = 65535
)

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.LocalFirst == 0 && o.LocalLast == 0 {
		o.LocalFirst, o.LocalLast = defaultLocalFirst, defaultLocalLast
	}
	if o.Echo == "" {
		o.Echo = director.EchoService
	}
	return o
}

func (o Options) limits() bpf.Limits {
	return bpf.Limits{
		Connections4: o.MaxConnections,
		Connections6: o.MaxConnectionsIPv6,
		Services:     o.MaxServices,
		Servers:      o.MaxServers,
		Words:        o.SchedulerWords,
		Prefixes:     o.MaxAccessPrefixes,
		Sources:      o.MaxSources,

		CountConnections: o.CountConnections,
	}
}

// tellKept warns of what adopted maps, which have these limits, are and stay other than
// asked for.
func (o Options) tellKept(has bpf.Limits) {
	if want := o.MaxSources; want != 0 && want != has.Sources {
		o.Log.Warn("table of source networks keeps the size it was made with; shunt detach and a restart change it", "has", has.Sources, "configured", want)
	}
}

func (o Options) mode() bpf.Mode {
	if o.Generic {
		return bpf.Generic
	}
	return bpf.Native
}
