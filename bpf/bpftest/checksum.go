package bpftest

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrNotChecked is of frames that have no checksum to look at: not IP, cut short,
// fragments, or of a protocol that has none.
var ErrNotChecked = errors.New("no checksum to look at")

// Verify recomputes every checksum of a frame from scratch: IPv4's, and TCP's,
// UDP's, ICMP's or ICMPv6's. The error says which is wrong, or wraps
// ErrNotChecked.
func Verify(frame []byte) error {
	l3, eth, err := network(frame)
	if err != nil {
		return err
	}
	switch eth {
	case 0x0800:
		return verify4(l3)
	case 0x86dd:
		return verify6(l3)
	}
	return fmt.Errorf("%w: EtherType %#04x", ErrNotChecked, eth)
}

// VerifyPacket is Verify of an IP packet without a frame, which may be cut short: of
// one that is, the IP header alone is looked at.
func VerifyPacket(packet []byte) error {
	switch {
	case len(packet) == 0:
		return fmt.Errorf("%w: no packet", ErrNotChecked)
	case packet[0]>>4 == 6:
		return verify6(packet)
	}
	if header := int(packet[0]&15) * 4; packet[0]>>4 == 4 && header >= 20 && len(packet) >= header {
		if sum := onesSum(0, packet[:header]); sum != 0xffff {
			return fmt.Errorf("the IPv4 header's checksum is wrong: the sum is %#04x", sum)
		}
	}
	return verify4(packet)
}

// network returns what follows the Ethernet header and up to two tags.
func network(frame []byte) (l3 []byte, eth uint16, err error) {
	for offset := 12; ; offset += 4 {
		if len(frame) < offset+2 {
			return nil, 0, fmt.Errorf("%w: no EtherType", ErrNotChecked)
		}
		eth = binary.BigEndian.Uint16(frame[offset:])
		if eth != 0x8100 && eth != 0x88a8 || offset == 20 {
			return frame[offset+2:], eth, nil
		}
	}
}

func verify4(l3 []byte) error {
	if len(l3) < 20 || l3[0]>>4 != 4 {
		return fmt.Errorf("%w: no IPv4 header", ErrNotChecked)
	}
	header, total := int(l3[0]&15)*4, int(binary.BigEndian.Uint16(l3[2:]))
	if header < 20 || total < header || total > len(l3) {
		return fmt.Errorf("%w: lengths %d and %d in %d octets", ErrNotChecked, header, total, len(l3))
	}
	if sum := onesSum(0, l3[:header]); sum != 0xffff {
		return fmt.Errorf("the IPv4 header's checksum is wrong: the sum is %#04x", sum)
	}
	if binary.BigEndian.Uint16(l3[6:])&0x3fff != 0 {
		return fmt.Errorf("%w: a fragment", ErrNotChecked)
	}
	body, protocol := l3[header:total], l3[9]
	if protocol == 1 {
		return verifyMessage("ICMP", 0, body)
	}
	return verifyTransport(pseudo(l3[12:20], protocol, len(body)), protocol, body, 4)
}

func verify6(l3 []byte) error {
	if len(l3) < 40 || l3[0]>>4 != 6 {
		return fmt.Errorf("%w: no IPv6 header", ErrNotChecked)
	}
	length := int(binary.BigEndian.Uint16(l3[4:]))
	if 40+length > len(l3) {
		return fmt.Errorf("%w: payload of %d in %d octets", ErrNotChecked, length, len(l3)-40)
	}
	body, next := l3[40:40+length], l3[6]
	for next == 0 || next == 43 || next == 60 {
		if next == 43 {
			// The checksum is over the final destination, which is in there.
			return fmt.Errorf("%w: a routing header", ErrNotChecked)
		}
		if len(body) < 8 || len(body) < (int(body[1])+1)*8 {
			return fmt.Errorf("%w: extension header cut short", ErrNotChecked)
		}
		next, body = body[0], body[(int(body[1])+1)*8:]
	}
	sum := pseudo(l3[8:40], next, len(body))
	if next == 58 {
		return verifyMessage("ICMPv6", sum, body)
	}
	return verifyTransport(sum, next, body, 6)
}

// pseudo is the sum of the pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1).
func pseudo(addresses []byte, protocol uint8, length int) uint64 {
	return wordSum(addresses) + uint64(protocol) + uint64(length)
}

func verifyTransport(pseudo uint64, protocol uint8, body []byte, version int) error {
	switch protocol {
	case TCP:
		if len(body) < 20 {
			return fmt.Errorf("%w: no TCP header", ErrNotChecked)
		}
		return verifyMessage("TCP", pseudo, body)
	case UDP:
		if len(body) < 8 || int(binary.BigEndian.Uint16(body[4:])) != len(body) {
			return fmt.Errorf("%w: no UDP header, or not of the packet's length", ErrNotChecked)
		}
		if body[6] == 0 && body[7] == 0 {
			if version == 6 {
				return errors.New("the UDP checksum is 0, which IPv6 does not allow")
			}
			return fmt.Errorf("%w: UDP without one", ErrNotChecked)
		}
		return verifyMessage("UDP", pseudo, body)
	}
	return fmt.Errorf("%w: protocol %d", ErrNotChecked, protocol)
}

func verifyMessage(name string, sum uint64, body []byte) error {
	if len(body) < 8 {
		return fmt.Errorf("%w: no %s header", ErrNotChecked, name)
	}
	if got := onesSum(sum, body); got != 0xffff {
		return fmt.Errorf("the %s checksum is wrong: the sum is %#04x", name, got)
	}
	return nil
}

// wordSum adds the 16-bit words of data, which may be of odd length, without
// folding: a frame is too short to overflow 64 bits.
func wordSum(data []byte) (sum uint64) {
	for i, b := range data {
		sum += uint64(b) << (8 * (1 - i%2))
	}
	return sum
}

// onesSum is the one's complement sum of all words; 0xffff if data holds its own
// right checksum (RFC 1071 §1).
func onesSum(sum uint64, data []byte) uint64 {
	sum += wordSum(data)
	for sum > 0xffff {
		sum = sum%0x10000 + sum/0x10000
	}
	return sum
}
