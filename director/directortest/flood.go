package directortest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// FloodKind is what a flood consists of.
type FloodKind string

// The kinds.
const (
	FloodSYN       FloodKind = "syn"       // first segments
	FloodHandshake FloodKind = "handshake" // first segments, each followed by an acknowledgment of a guessed number
	FloodUDP       FloodKind = "udp"       // datagrams
)

// Flood sends packets from invented sources.
type Flood struct {
	Kind    FloodKind
	Sources netip.Prefix // every packet's source is drawn from it, of To's family
	To      netip.AddrPort
	Count   int // sources drawn
}

// floodBurst packets are sent at a time, with floodPause between: about 100 000 a
// second. More are lost in the links' queues and never come to the director.
const (
	floodBurst = 64
	floodPause = 500 * time.Microsecond
)

// Flood sends the flood from the client's link to the director, and returns how many
// packets were sent. What random draws is drawn again by the same seed.
func (l *Lab) Flood(f Flood, random *rand.Rand) (sent int, err error) {
	to, err := l.Director.link(l.DirectorLinks[0])
	if err != nil {
		return 0, err
	}
	from, err := l.Client.link("eth0")
	if err != nil {
		return 0, err
	}
	var socket int
	err = l.Client.Do(func() (err error) {
		socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // protocol 0: receives nothing
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("open a packet socket in %s: %w", l.Client.Name, err)
	}
	defer unix.Close(socket)
	if err := unix.Bind(socket, &unix.SockaddrLinklayer{Ifindex: from.Attrs().Index}); err != nil {
		return 0, fmt.Errorf("bind a packet socket in %s: %w", l.Client.Name, err)
	}
	forged := newForgery(to.Attrs().HardwareAddr, from.Attrs().HardwareAddr, f.To, f.Kind == FloodUDP)
	for range f.Count {
		source := netip.AddrPortFrom(drawAddress(random, f.Sources), uint16(1024+random.IntN(64512)))
		for _, flags := range f.segments() {
			frame := forged.frame(source, flags, random.Uint32(), random.Uint32())
			if _, err := unix.Write(socket, frame); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return sent, fmt.Errorf("send to %s: %w", f.To, err)
			}
			if sent++; sent%floodBurst == 0 {
				time.Sleep(floodPause)
			}
		}
	}
	return sent, nil
}

// segments returns the TCP flags of the packets that each source sends; one, of no
// meaning, where they are UDP's.
func (f *Flood) segments() []byte {
	if f.Kind == FloodHandshake {
		return []byte{tcpSYN, tcpACK}
	}
	return []byte{tcpSYN}
}

// drawAddress draws an address of the prefix.
func drawAddress(random *rand.Rand, prefix netip.Prefix) netip.Addr {
	bytes := prefix.Masked().Addr().AsSlice()
	for i := range bytes {
		free := min(max(8*(i+1)-prefix.Bits(), 0), 8)
		bytes[i] |= byte(random.Uint32()) & byte(1<<free-1)
	}
	addr, _ := netip.AddrFromSlice(bytes)
	return addr
}

// TCP's flags (RFC 9293 §3.1).
const (
	tcpSYN = 0x02
	tcpACK = 0x10
)

// forgery is a frame whose sources change.
type forgery struct {
	bytes   []byte
	source  []byte // its source address,
	network []byte // its network header
	payload []byte // and its transport header
	pseudo  uint32 // sum of what the pseudo-header has besides the source
	isUDP   bool
}

const ethernetHeader = 14

// newForgery makes a frame to the address with all that does not change; the
// transport header has no options and no payload.
func newForgery(destination, source []byte, to netip.AddrPort, isUDP bool) *forgery {
	protocol, length := byte(unix.IPPROTO_TCP), 20
	if isUDP {
		protocol, length = unix.IPPROTO_UDP, 8
	}
	header := 20
	if to.Addr().Is6() {
		header = 40
	}
	f := &forgery{bytes: make([]byte, ethernetHeader+header+length), isUDP: isUDP}
	copy(f.bytes, destination)
	copy(f.bytes[6:], source)
	f.network, f.payload = f.bytes[ethernetHeader:ethernetHeader+header], f.bytes[ethernetHeader+header:]
	n, address := f.network, to.Addr().AsSlice()
	if header == 20 {
		binary.BigEndian.PutUint16(f.bytes[12:], unix.ETH_P_IP)
		n[0], n[8], n[9] = 0x45, 64, protocol
		binary.BigEndian.PutUint16(n[2:], uint16(header+length))
		f.source = n[12:16]
		copy(n[16:], address)
	} else {
		binary.BigEndian.PutUint16(f.bytes[12:], unix.ETH_P_IPV6)
		n[0], n[6], n[7] = 0x60, protocol, 64
		binary.BigEndian.PutUint16(n[4:], uint16(length))
		f.source = n[8:24]
		copy(n[24:], address)
	}
	binary.BigEndian.PutUint16(f.payload[2:], to.Port())
	if isUDP {
		binary.BigEndian.PutUint16(f.payload[4:], uint16(length))
	} else {
		f.payload[12] = 5 << 4
		binary.BigEndian.PutUint16(f.payload[14:], 65535)
	}
	f.pseudo = sum16(0, address) + uint32(protocol) + uint32(length)
	return f
}

// frame returns the frame from the source, valid until the next call.
func (f *forgery) frame(source netip.AddrPort, flags byte, seq, ack uint32) []byte {
	copy(f.source, source.Addr().AsSlice())
	if f.network[0]>>4 == 4 {
		f.network[10], f.network[11] = 0, 0
		binary.BigEndian.PutUint16(f.network[10:], ^fold16(sum16(0, f.network)))
	}
	t := f.payload
	binary.BigEndian.PutUint16(t, source.Port())
	checksum := t[6:8]
	if !f.isUDP {
		binary.BigEndian.PutUint32(t[4:], seq)
		binary.BigEndian.PutUint32(t[8:], ack)
		t[13] = flags
		checksum = t[16:18]
	}
	checksum[0], checksum[1] = 0, 0
	sum := ^fold16(sum16(sum16(f.pseudo, f.source), t))
	if f.isUDP && sum == 0 {
		sum = 0xffff // RFC 768: 0 says there is none
	}
	binary.BigEndian.PutUint16(checksum, sum)
	return f.bytes
}

// sum16 adds the bytes, an even number, to a one's complement sum (RFC 1071).
func sum16(sum uint32, bytes []byte) uint32 {
	for i := 0; i < len(bytes); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(bytes[i:]))
	}
	return sum
}

func fold16(sum uint32) uint16 {
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}
