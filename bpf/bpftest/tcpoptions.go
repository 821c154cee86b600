package bpftest

import "encoding/binary"

// putTCPOptions replaces the options of the segment, which has as many octets of
// them, and computes its checksum anew: gopacket writes none that are malformed.
func (p Packet) putTCPOptions(segment []byte) {
	copy(segment[20:], p.RawTCPOptions)
	binary.BigEndian.PutUint16(segment[16:], 0)
	addresses := append(p.From.Addr().AsSlice(), p.To.Addr().AsSlice()...)
	sum := onesSum(pseudo(addresses, TCP, len(segment)), segment)
	binary.BigEndian.PutUint16(segment[16:], ^uint16(sum))
}
