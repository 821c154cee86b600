package record

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
)

// parseRecord reads the record that b begins with into r and returns what follows
// it. r's Traffic is the one given, or nil.
func parseRecord(b []byte, r *Record, traffic *conntrack.Traffic) (rest []byte, err error) {
	if len(b) < 2 {
		return nil, damaged("half a record")
	}
	size := 2 + int(order.Uint16(b))
	if size > len(b) {
		return nil, damaged("a record goes beyond its frame")
	}
	b, rest = b[:size], b[size:]
	if len(b) < fixedSize {
		return nil, damaged("a record of %d bytes", len(b))
	}
	c := &r.Connection
	flags := order.Uint16(b[8:])
	family, serverFamily, method := b[2], b[3], b[5]
	length, serverLength := addressLength(family), addressLength(serverFamily)
	switch {
	case length == 0 || serverLength == 0:
		return nil, damaged("address families %d and %d", family, serverFamily)
	case int(method) >= len(methods):
		return nil, damaged("method %d", method)
	case len(b) < fixedSize+3*length+serverLength:
		return nil, damaged("a record of %d bytes", len(b))
	}
	port := func(at int) uint16 { return order.Uint16(b[at:]) }
	tail := b[fixedSize:]
	*c = conntrack.Connection{
		Protocol: conntrack.Protocol(b[4]), Method: methods[method], State: conntrack.State(b[6]), Prefix: b[7],
		Client:     netip.AddrPortFrom(address(tail[:length]), port(10)),
		Virtual:    netip.AddrPortFrom(address(tail[length:2*length]), port(12)),
		Server:     netip.AddrPortFrom(address(tail[3*length:3*length+serverLength]), port(14)),
		Proven:     flags&flagProven != 0,
		Template:   flags&flagTemplate != 0,
		Controlled: order.Uint32(b[28:]), UnderTemplate: flags&flagUnderTemplate != 0,
		Expires: duration(b[32:]), Age: duration(b[40:]), Idle: duration(b[48:]),
	}
	r.Service = Service{
		Protocol: conntrack.Protocol(b[20]), Bits: b[21], Mark: order.Uint32(b[24:]), LastPort: port(18),
		Address: netip.AddrPortFrom(address(tail[2*length:3*length]), port(16)),
	}
	if c.Template {
		c.Mark = r.Service.Mark
	}
	if flags&flagFullNAT != 0 {
		if method != 0 {
			return nil, damaged("full NAT by method %d", method)
		}
		c.Method = fullNAT
	}
	if bits := 8 * length; int(c.Prefix) > bits || int(r.Service.Bits) > bits {
		return nil, damaged("prefix lengths %d and %d", c.Prefix, r.Service.Bits)
	}
	if c.Age < 0 || c.Idle < 0 {
		return nil, damaged("age %v, idle %v", c.Age, c.Idle)
	}
	return rest, parseTail(tail[3*length+serverLength:], flags, c, traffic)
}

// parseTail reads what not all records have.
func parseTail(b []byte, flags uint16, c *conntrack.Connection, traffic *conntrack.Traffic) error {
	if flags&flagTraffic != 0 {
		if len(b) < 4*8 {
			return damaged("a record without its traffic")
		}
		*traffic = conntrack.Traffic{
			InPackets: order.Uint64(b), InBytes: order.Uint64(b[8:]), OutPackets: order.Uint64(b[16:]), OutBytes: order.Uint64(b[24:]),
		}
		c.Traffic = traffic
		b = b[4*8:]
	}
	if flags&flagEngine != 0 {
		engine, rest, ok := cutText(b)
		data, rest, all := cutText(rest)
		if !ok || !all {
			return damaged("a record without its engine")
		}
		c.Engine, c.EngineData, b = engine, data, rest
	}
	if c.Method != fullNAT || c.Template {
		return nil
	}
	length := c.Client.Addr().BitLen() / 8
	if len(b) < 2+length {
		return damaged("a record without what stands in for its client")
	}
	c.Local = netip.AddrPortFrom(address(b[2:2+length]), order.Uint16(b))
	return nil
}

// cutText reads a text with one byte for its length.
func cutText(b []byte) (text string, rest []byte, ok bool) {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return "", nil, false
	}
	n := 1 + int(b[0])
	return string(b[1:n]), b[n:], true
}

// addressLength is of an address of the family; 0: there is no such family.
func addressLength(family uint8) int {
	switch family {
	case 4:
		return 4
	case 6:
		return 16
	default:
		return 0
	}
}

func address(b []byte) netip.Addr {
	if len(b) == 4 {
		return netip.AddrFrom4([4]byte(b))
	}
	return netip.AddrFrom16([16]byte(b))
}

func duration(b []byte) time.Duration { return time.Duration(order.Uint64(b)) }

// damaged says what cannot be.
func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}
