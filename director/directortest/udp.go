package directortest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
)

// Responder is the UDP service of one address of a real server. It is used as
// DNS is: a query of a 12-byte header, whose first two bytes are an identifier,
// and a question; the answer repeats the query with the answer bit set, followed
// by the server's name.
type Responder struct {
	conn   net.PacketConn
	name   string
	done   chan struct{}
	served atomic.Uint64
}

const (
	dnsHeader   = 12
	dnsResponse = 0x80 // QR bit of the third byte (RFC 1035 §4.1.1)
)

// ServeUDP starts a responder on the port of each address of every real server,
// the virtual ones included: one socket each, so that an answer comes from the
// address that was asked. They end with the lab.
func (l *Lab) ServeUDP(port uint16) ([]*Responder, error) {
	var responders []*Responder
	for _, s := range l.Servers {
		for _, addr := range append([]netip.Addr{s.Addr4, s.Addr6}, l.Topology.VIPs...) {
			r, err := s.StartResponder(netip.AddrPortFrom(addr, port))
			if err != nil {
				return nil, err
			}
			l.closeLater(r)
			responders = append(responders, r)
		}
	}
	return responders, nil
}

// StartResponder starts a responder in the namespace that names itself after
// it. The caller closes it.
func (n *Namespace) StartResponder(addr netip.AddrPort) (*Responder, error) {
	conn, err := n.ListenPacket(context.Background(), addr)
	if err != nil {
		return nil, fmt.Errorf("start UDP responder in %s: %w", n.Name, err)
	}
	r := &Responder{conn: conn, name: n.Name, done: make(chan struct{})}
	go r.run()
	return r, nil
}

// Name returns the server's name, as in its answers.
func (r *Responder) Name() string { return r.name }

// Served returns the number of queries answered since the start.
func (r *Responder) Served() uint64 { return r.served.Load() }

// Close ends the responder.
func (r *Responder) Close() error {
	err := r.conn.Close()
	<-r.done
	return err
}

func (r *Responder) run() {
	defer close(r.done)
	packet := make([]byte, 64<<10)
	for {
		n, from, err := r.conn.ReadFrom(packet)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < dnsHeader {
			continue // an ICMP error for an earlier answer, or not a query
		}
		answer := append(packet[:n:n], r.name...)
		answer[2] |= dnsResponse
		if _, err := r.conn.WriteTo(answer, from); err == nil {
			r.served.Add(1)
		}
	}
}

// QueryUDP sends one query and returns the name of the server that answered. A
// zero local address is the kernel's choice. Nothing is sent twice: a lost
// packet is an error after the timeout or the end of the context.
func (n *Namespace) QueryUDP(ctx context.Context, local, remote netip.AddrPort, id uint16, timeout time.Duration) (string, error) {
	conn, err := n.Dial(ctx, "udp", local, remote)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return "", err
	}

	query := make([]byte, dnsHeader, 64)
	binary.BigEndian.PutUint16(query, id)
	query = append(query, "\x05shunt\x04test\x00\x00\x01\x00\x01"...)
	if _, err := conn.Write(query); err != nil {
		return "", fmt.Errorf("query %s: %w", remote, err)
	}
	answer := make([]byte, 64<<10)
	count, err := conn.Read(answer)
	if err != nil {
		return "", fmt.Errorf("answer from %s: %w", remote, err)
	}
	query[2] |= dnsResponse
	name, ok := strings.CutPrefix(string(answer[:count]), string(query))
	if !ok {
		return "", fmt.Errorf("answer from %s is for another query: %x", remote, answer[:count])
	}
	return name, nil
}
