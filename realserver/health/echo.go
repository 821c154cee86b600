package health

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// echoes sends echo requests to any number of targets over one socket a family, made
// when first needed: a raw one, which needs CAP_NET_RAW, else a ping socket, which the
// group must be allowed (sysctl net.ipv4.ping_group_range). Safe for concurrent use.
type echoes struct {
	id     uint16
	cookie [16]byte // in each request: what no one else can have sent

	mu       sync.Mutex
	sockets  [2]*echoSocket // of IPv4 and IPv6
	sequence uint16
	// waiting are those who wait for an answer; each channel takes one answer without
	// a reader.
	waiting map[echoKey]chan error
	readers sync.WaitGroup
	closed  bool
}

// echoKey tells the requests that are under way from each other.
type echoKey struct {
	addr     netip.Addr
	sequence uint16
}

// echoSocket is the socket of a family.
type echoSocket struct {
	conn   *icmp.PacketConn
	family echoFamily
	ping   bool // a ping socket: the kernel gives the id, and tells of errors by a queue
}

// echoFamily is what differs between IPv4 and IPv6.
type echoFamily struct {
	index                  int
	raw, ping, any         string // networks of icmp.ListenPacket, and the address
	protocol               int    // of icmp.ParseMessage
	request, reply         icmp.Type
	unreachable, exhausted icmp.Type
	header                 int // of a quoted packet, bytes; IPv4's has its length in it
}

func newEchoes() *echoes {
	e := &echoes{waiting: map[echoKey]chan error{}}
	// Never fails (crypto/rand.Read).
	_, _ = rand.Read(e.cookie[:])
	e.id, e.sequence = binary.BigEndian.Uint16(e.cookie[:]), binary.BigEndian.Uint16(e.cookie[2:])
	return e
}

func familyOf(addr netip.Addr) echoFamily {
	if addr.Is4() {
		return echoFamily{
			index: 0, raw: "ip4:icmp", ping: "udp4", any: "0.0.0.0", protocol: 1, request: ipv4.ICMPTypeEcho, reply: ipv4.ICMPTypeEchoReply,
			unreachable: ipv4.ICMPTypeDestinationUnreachable, exhausted: ipv4.ICMPTypeTimeExceeded, header: 20,
		}
	}
	return echoFamily{
		index: 1, raw: "ip6:ipv6-icmp", ping: "udp6", any: "::", protocol: 58, request: ipv6.ICMPTypeEchoRequest, reply: ipv6.ICMPTypeEchoReply,
		unreachable: ipv6.ICMPTypeDestinationUnreachable, exhausted: ipv6.ICMPTypeTimeExceeded, header: 40,
	}
}

// ask sends a request and waits for its answer: nil, what stood in the way, or the end
// of ctx.
func (e *echoes) ask(ctx context.Context, addr netip.Addr) error {
	addr = addr.Unmap()
	socket, key, answer, err := e.begin(addr)
	if err != nil {
		return err
	}
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.waiting, key)
	}()
	message := icmp.Message{Type: socket.family.request, Body: &icmp.Echo{ID: int(e.id), Seq: int(key.sequence), Data: e.cookie[:]}}
	packet, err := message.Marshal(nil) // ICMPv6's checksum is the kernel's to fill in.
	if err != nil {
		return fmt.Errorf("make an echo request: %w", err)
	}
	var to net.Addr = &net.IPAddr{IP: addr.AsSlice()}
	if socket.ping {
		to = &net.UDPAddr{IP: addr.AsSlice()}
	}
	if err := e.send(socket, packet, to); err != nil {
		return because("send an echo request to "+addr.String(), err)
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return because("wait for the echo of "+addr.String(), ctx.Err())
	}
}

// maxSends is how often a request is sent before an error is its own: a ping socket gives
// those of requests before it to whoever sends next (kernel: net/core/sock.c, sock_error).
const maxSends = 8

func (e *echoes) send(socket *echoSocket, packet []byte, to net.Addr) error {
	for i := 1; ; i++ {
		_, err := socket.conn.WriteTo(packet, to)
		if err == nil || !socket.ping || !isICMPError(err) || i == maxSends {
			return err
		}
		e.takeErrors(socket)
	}
}

// begin notes a request that will be answered through the channel.
func (e *echoes) begin(addr netip.Addr) (*echoSocket, echoKey, chan error, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, echoKey{}, nil, errors.New("send an echo request: the sockets are closed")
	}
	family := familyOf(addr)
	if e.sockets[family.index] == nil {
		socket, err := openEcho(family)
		if err != nil {
			return nil, echoKey{}, nil, err
		}
		e.sockets[family.index] = socket
		e.readers.Go(func() { e.read(socket) })
	}
	for range 1 << 16 {
		e.sequence++
		key := echoKey{addr, e.sequence}
		if _, taken := e.waiting[key]; !taken {
			answer := make(chan error, 1)
			e.waiting[key] = answer
			return e.sockets[family.index], key, answer, nil
		}
	}
	return nil, echoKey{}, nil, fmt.Errorf("send an echo request to %s: 65536 are under way", addr)
}

func openEcho(family echoFamily) (*echoSocket, error) {
	conn, err := icmp.ListenPacket(family.raw, family.any)
	if err == nil {
		if err := restrict(conn, family); err != nil {
			return nil, err
		}
		return &echoSocket{conn: conn, family: family}, nil
	}
	ping, pingErr := icmp.ListenPacket(family.ping, family.any)
	if pingErr != nil {
		return nil, errors.Join(
			because("open a raw ICMP socket (needs CAP_NET_RAW)", err),
			because("open a ping socket (needs net.ipv4.ping_group_range)", pingErr))
	}
	socket := &echoSocket{conn: ping, family: family, ping: true}
	if err := tellErrors(socket.packetConn(), family.index == 1); err != nil {
		_ = ping.Close()
		return nil, because("have a ping socket told of errors", err)
	}
	return socket, nil
}

// packetConn is the socket itself.
func (s *echoSocket) packetConn() net.PacketConn {
	if s.family.index == 0 {
		return s.conn.IPv4PacketConn().PacketConn
	}
	return s.conn.IPv6PacketConn().PacketConn
}

// restrict has the kernel keep other messages away: a raw socket gets all of the host.
func restrict(conn *icmp.PacketConn, family echoFamily) error {
	var err error
	if family.index == 0 {
		var filter ipv4.ICMPFilter
		filter.SetAll(true)
		for _, kind := range []icmp.Type{family.reply, family.unreachable, family.exhausted} {
			filter.Accept(kind.(ipv4.ICMPType))
		}
		err = conn.IPv4PacketConn().SetICMPFilter(&filter)
	} else {
		var filter ipv6.ICMPFilter
		filter.SetAll(true)
		for _, kind := range []icmp.Type{family.reply, family.unreachable, family.exhausted} {
			filter.Accept(kind.(ipv6.ICMPType))
		}
		err = conn.IPv6PacketConn().SetICMPFilter(&filter)
	}
	if err != nil {
		_ = conn.Close()
		return because("set the filter of a raw ICMP socket", err)
	}
	return nil
}

// read takes answers until the socket is closed. One that fails is given up, so that
// the next request opens another.
func (e *echoes) read(socket *echoSocket) {
	buffer := make([]byte, 2048)
	for {
		n, from, err := socket.conn.ReadFrom(buffer)
		if socket.ping && isICMPError(err) {
			e.takeErrors(socket) // Who sends may have taken them already.
			continue
		}
		if err != nil {
			e.mu.Lock()
			if e.sockets[socket.family.index] == socket {
				e.sockets[socket.family.index] = nil
			}
			e.mu.Unlock()
			_ = socket.conn.Close()
			return
		}
		if addr, ok := sender(from); ok {
			e.take(socket, addr, buffer[:n])
		}
	}
}

func sender(from net.Addr) (netip.Addr, bool) {
	var ip net.IP
	switch from := from.(type) {
	case *net.IPAddr:
		ip = from.IP
	case *net.UDPAddr:
		ip = from.IP
	}
	addr, ok := netip.AddrFromSlice(ip)
	return addr.Unmap(), ok
}

// take gives a message to who waits for it; others are passed over.
func (e *echoes) take(socket *echoSocket, from netip.Addr, packet []byte) {
	message, err := icmp.ParseMessage(socket.family.protocol, packet)
	if err != nil {
		return
	}
	switch body := message.Body.(type) {
	case *icmp.Echo:
		if message.Type == socket.family.reply && (socket.ping || body.ID == int(e.id)) && bytes.Equal(body.Data, e.cookie[:]) {
			e.answer(echoKey{from, uint16(body.Seq)}, nil)
		}
	case *icmp.DstUnreach:
		e.refuse(socket, from, body.Data, unreachableText(socket.family.index == 1, message.Code, from))
	case *icmp.TimeExceeded:
		e.refuse(socket, from, body.Data, exceededText(from))
	}
}

func exceededText(from netip.Addr) error {
	return fmt.Errorf("time exceeded on the way (ICMP, from %s)", from)
}

// takeErrors gives the errors in a ping socket's queue to whose requests they quote. The
// kernel has looked at the id, which is the socket's.
func (e *echoes) takeErrors(socket *echoSocket) {
	for _, told := range queuedErrors(socket.packetConn()) {
		if len(told.quoted) < 8 {
			continue
		}
		key := echoKey{told.to, binary.BigEndian.Uint16(told.quoted[6:])}
		switch told.kind {
		case typeNumber(socket.family.unreachable):
			e.answer(key, unreachableText(socket.family.index == 1, int(told.code), told.from))
		case typeNumber(socket.family.exhausted):
			e.answer(key, exceededText(told.from))
		}
	}
}

// typeNumber is a type as messages have it.
func typeNumber(kind icmp.Type) uint8 {
	if four, ok := kind.(ipv4.ICMPType); ok {
		return uint8(four)
	}
	return uint8(kind.(ipv6.ICMPType))
}

// refuse gives an error to whose request it quotes.
func (e *echoes) refuse(socket *echoSocket, from netip.Addr, quoted []byte, why error) {
	header := socket.family.header
	if len(quoted) < header {
		return
	}
	to := quoted[16:20]
	if socket.family.index == 0 {
		header = int(quoted[0]&0x0f) * 4
	} else {
		to = quoted[24:40]
	}
	if header < socket.family.header || len(quoted) < header+8 {
		return
	}
	addr, _ := netip.AddrFromSlice(to)
	echo := quoted[header:]
	if binary.BigEndian.Uint16(echo[4:]) == e.id {
		e.answer(echoKey{addr, binary.BigEndian.Uint16(echo[6:])}, why)
	}
}

func (e *echoes) answer(key echoKey, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if waiting, ok := e.waiting[key]; ok {
		select {
		case waiting <- err:
		default: // It has one.
		}
	}
}

// close ends the sockets and waits for their readers.
func (e *echoes) close() {
	e.mu.Lock()
	e.closed = true
	for _, socket := range e.sockets {
		if socket != nil {
			_ = socket.conn.Close()
		}
	}
	e.mu.Unlock()
	e.readers.Wait()
}
