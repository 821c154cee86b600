package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/shunt-lb/shunt/conntrack"
)

// order is the stream's.
var order = binary.BigEndian

// appendRecord appends the record, with its length, to b.
func appendRecord(b []byte, r *Record) ([]byte, error) {
	c := &r.Connection
	method, err := methodNumber(c.Method)
	if err == nil {
		err = checkRecord(r)
	}
	if err != nil {
		return b, err
	}
	start := len(b)
	b = append(b, 0, 0, familyOf(c.Client.Addr()), familyOf(c.Server.Addr()), uint8(c.Protocol), method, uint8(c.State), c.Prefix)
	b = order.AppendUint16(b, flagsOf(c))
	b = order.AppendUint16(b, c.Client.Port())
	b = order.AppendUint16(b, c.Virtual.Port())
	b = order.AppendUint16(b, c.Server.Port())
	b = order.AppendUint16(b, r.Service.Address.Port())
	b = order.AppendUint16(b, r.Service.LastPort)
	b = append(b, uint8(r.Service.Protocol), r.Service.Bits, 0, 0)
	b = order.AppendUint32(b, r.Service.Mark)
	b = order.AppendUint32(b, c.Controlled)
	b = order.AppendUint64(b, uint64(c.Expires))
	b = order.AppendUint64(b, uint64(c.Age))
	b = order.AppendUint64(b, uint64(c.Idle))
	b = appendAddr(b, c.Client.Addr())
	b = appendAddr(b, c.Virtual.Addr())
	b = appendAddr(b, r.Service.Address.Addr())
	b = appendAddr(b, c.Server.Addr())
	if t := c.Traffic; t != nil {
		b = order.AppendUint64(b, t.InPackets)
		b = order.AppendUint64(b, t.InBytes)
		b = order.AppendUint64(b, t.OutPackets)
		b = order.AppendUint64(b, t.OutBytes)
	}
	if hasEngine(c) {
		b = append(append(b, uint8(len(c.Engine))), c.Engine...)
		b = append(append(b, uint8(len(c.EngineData))), c.EngineData...)
	}
	if c.Method == fullNAT && !c.Template {
		b = appendAddr(order.AppendUint16(b, c.Local.Port()), c.Local.Addr())
	}
	order.PutUint16(b[start:], uint16(len(b)-start-2))
	return b, nil
}

func familyOf(a netip.Addr) uint8 {
	if a.Is4() {
		return 4
	}
	return 6
}

func appendAddr(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		raw := a.As4()
		return append(b, raw[:]...)
	}
	raw := a.As16()
	return append(b, raw[:]...)
}

func methodNumber(name string) (uint8, error) {
	if name == fullNAT {
		return 0, nil
	}
	for i, known := range methods {
		if name == known {
			return uint8(i), nil
		}
	}
	return 0, fmt.Errorf("there is no method %q", name)
}

func flagsOf(c *conntrack.Connection) (flags uint16) {
	if c.Proven {
		flags |= flagProven
	}
	if c.Template {
		flags |= flagTemplate
	}
	if c.UnderTemplate {
		flags |= flagUnderTemplate
	}
	if c.Traffic != nil {
		flags |= flagTraffic
	}
	if hasEngine(c) {
		flags |= flagEngine
	}
	if c.Method == fullNAT {
		flags |= flagFullNAT
	}
	return flags
}

func hasEngine(c *conntrack.Connection) bool { return c.Engine != "" || c.EngineData != "" }

// checkRecord says why the record cannot be written so that it is read as it is.
func checkRecord(r *Record) error {
	c := &r.Connection
	client, server := c.Client.Addr(), c.Server.Addr()
	bits := client.BitLen()
	switch {
	case !client.IsValid() || !server.IsValid():
		return errors.New("its client or its server has no address")
	case c.Virtual.Addr().BitLen() != bits || r.Service.Address.Addr().BitLen() != bits:
		return errors.New("its client, its virtual address and its service are not of one family")
	case client.Is6() && client.Zone() != "" || c.Local.Addr().Zone() != "" || server.Is6() && server.Zone() != "",
		c.Virtual.Addr().Is6() && c.Virtual.Addr().Zone() != "", r.Service.Address.Addr().Is6() && r.Service.Address.Addr().Zone() != "":
		return errors.New("an address has a zone")
	case c.Method == fullNAT && !c.Template && c.Local.Addr().BitLen() != bits:
		return errors.New("what stands in for its client is not of the client's family")
	case (c.Method != fullNAT || c.Template) && c.Local != netip.AddrPort{}:
		return errors.New("something stands in for its client that is not by full NAT")
	case int(c.Prefix) > bits || int(r.Service.Bits) > bits:
		return errors.New("a prefix is longer than an address")
	case c.Age < 0 || c.Idle < 0:
		return errors.New("its age, or how long it is idle, is negative")
	case c.Mark != 0 && (!c.Template || c.Mark != r.Service.Mark):
		return errors.New("its mark is not its service's")
	case len(c.Engine) > maxText || len(c.EngineData) > maxText:
		return errors.New("its engine's text is too long")
	}
	return nil
}
