package record

import (
	"net/netip"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
)

// The version that a Writer writes. A minor one adds to the end of the header and of
// records; anything else is a major one.
const (
	Major = 1
	Minor = 1
)

// Header is what a stream says of itself.
type Header struct {
	Created  time.Time // to the nanosecond, without a zone
	Director string    // its name; 255 bytes at most
	Version  string    // the software's; likewise
}

// Service is the key of the service that a connection is of, as director.ServiceKey
// has it.
type Service struct {
	Protocol conntrack.Protocol // 0 for a service of a firewall mark
	Mark     uint32
	Address  netip.AddrPort
	Bits     uint8
	LastPort uint16
}

// Record is a connection, or a template, with all that another director needs to go
// on with it.
type Record struct {
	Service    Service
	Connection conntrack.Connection
}

// flags of a record.
const (
	flagProven = 1 << iota
	flagTemplate
	flagUnderTemplate
	flagTraffic
	flagEngine
	flagFullNAT // since 1.1
)

// fullNAT is the method that has no number: it is nat with flagFullNAT, and what stands
// in for the client.
const fullNAT = "fullnat"

// methods are the names of the methods by their numbers.
var methods = [...]string{"nat", "local", "tunnel", "dr"}

const (
	fixedSize = 56  // of a record before its addresses
	maxText   = 255 // of what has one byte for its length
	// maxSize is of the largest record that is written.
	maxSize = fixedSize + 4*16 + 4*8 + 2*(1+maxText) + 2 + 16
	// maxFrame is the largest length of a frame's records.
	maxFrame  = 1 << 16
	frameHead = 8
	checkSize = 4
)

// magic begins a stream.
const magic = "SHUNTCN\x00"

// preambleHead is the preamble's size before the header.
const preambleHead = len(magic) + 6
