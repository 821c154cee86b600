package bpf

import "math"

// Limits size the maps. They are fixed when the maps are made: Open adopts
// pinned maps with the sizes they have and reports those.
type Limits struct {
	Connections4 uint64 // IPv4 connections, counted at two keys each (nat)
	Connections6 uint64 // IPv6 connections
	Services     uint32 // services at one time, removed ones included until their connections end
	Servers      uint32 // servers of all services, likewise
	Words        uint32 // 4-byte words of schedules: lists and hash tables, two of each
	Prefixes     uint32 // of the access lists of all services, and of the longest once more
	Destinations uint32 // virtual addresses that lblc and lblcr remember, of all services
	Matches      uint32 // prefixes that services of several addresses or ports have
	Sources      uint32 // source networks that are limited, of all services; as many clients that have answered the guard
	Fragments    uint32 // datagrams in fragments of which the first was seen
	// CountConnections: packets and bytes are counted for each connection, at 16 bytes
	// more for each of the tables' slots.
	CountConnections bool
}

// Default sizes.
const (
	DefaultConnections4 = 1 << 20
	DefaultConnections6 = DefaultConnections4 / 4
	DefaultServices     = 4096
	DefaultServers      = 16384
	DefaultWords        = 4 << 20
	DefaultPrefixes     = 1 << 16
	DefaultDestinations = 1 << 16
	DefaultMatches      = 4096
	DefaultSources      = 1 << 16
	DefaultFragments    = 1 << 14
)

// MaxServers is the most servers a recipe can name (entry.h, RECIPE_SERVER).
const MaxServers = int(KernelMasksSERVER_MASK)

// MaxConnections is the most connections of a table whose groups a place can name
// (entry.h, PLACE_GROUP): its memory would be 128 GiB, or 256 of IPv6.
const MaxConnections = (1 << (32 - uint64(KernelPlaceLayoutPLACE_GROUP))) * slotsPerGroup / slotsPerConnection

// tunnels returns how many elements the maps of tunnels have; a server names one in 16 bits.
func tunnels(l Limits) uint32 { return min(l.Servers, math.MaxUint16) }

// slotsPerGroup is how many keys a group has room for.
const slotsPerGroup = uint64(KernelTableShapeSLOTS)

func (l Limits) withDefaults() Limits {
	if l.Connections4 == 0 {
		l.Connections4 = DefaultConnections4
	}
	if l.Connections6 == 0 {
		l.Connections6 = l.Connections4 / 4
	}
	if l.Services == 0 {
		l.Services = DefaultServices
	}
	if l.Servers == 0 {
		l.Servers = DefaultServers
	}
	if l.Words == 0 {
		l.Words = DefaultWords
	}
	if l.Prefixes == 0 {
		l.Prefixes = DefaultPrefixes
	}
	if l.Destinations == 0 {
		l.Destinations = DefaultDestinations
	}
	if l.Matches == 0 {
		l.Matches = DefaultMatches
	}
	if l.Sources == 0 {
		l.Sources = DefaultSources
	}
	if l.Fragments == 0 {
		l.Fragments = DefaultFragments
	}
	return l
}

// slotsPerConnection: two keys (nat) at a load of two fifths, where no group is
// ever too full for a key (decision 0001).
const slotsPerConnection = 5

// groups returns how many groups hold that many connections.
func groups(connections uint64) uint32 {
	slots := connections * slotsPerConnection
	return uint32(min(max(1, (slots+slotsPerGroup-1)/slotsPerGroup), math.MaxUint32/2))
}

// connections is the inverse of groups, for adopted maps.
func connections(groups uint32) uint64 { return uint64(groups) * slotsPerGroup / slotsPerConnection }

// Granularity is the number of connections by which a table's size is rounded up.
const Granularity = slotsPerGroup/slotsPerConnection + 1
