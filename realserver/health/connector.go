package health

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/shunt-lb/shunt/realserver"
)

// errSilent is how an end of time is told.
var errSilent = errors.New("no answer in time")

// connector makes the connections of one prober.
type connector struct {
	asked netip.AddrPort // who the peer is, for names and messages
	port  uint16         // the check's; 0: that of the service or server
	dial  Dial
	terms *tlsTerms // nil: in the clear
}

func newConnector(check realserver.Check, target Target, dial Dial) *connector {
	c := &connector{asked: target.Server, port: check.Port, dial: dial}
	if target.Via != "" {
		c.asked = target.Virtual
	}
	if check.Port != 0 {
		c.asked = netip.AddrPortFrom(c.asked.Addr(), check.Port)
	}
	if dial == nil {
		c.dial = c.dialAsked
	}
	return c
}

// dialAsked connects to who is asked. Nothing is resolved and no keep-alive is set up, for
// which net.Dialer makes four system calls: a probe is over before one is sent.
func (c *connector) dialAsked(ctx context.Context, network string, _ uint16) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1}
	if network == "udp" {
		conn, err := d.DialUDP(ctx, network, netip.AddrPort{}, c.asked)
		if err != nil {
			return nil, err
		}
		return conn, nil
	}
	conn, err := d.DialTCP(ctx, network, netip.AddrPort{}, c.asked)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// problem says why no connection can be made.
func (c *connector) problem(kind realserver.CheckKind) error {
	switch {
	case kind == realserver.CheckScript, kind == realserver.CheckFile:
		return nil // What is told of a service as a whole has no server.
	case !c.asked.Addr().IsValid():
		return errors.New("there is no address to ask")
	case kind != realserver.CheckICMP && c.asked.Port() == 0:
		return fmt.Errorf("%s has no port: give the check one", c.asked.Addr())
	}
	return nil
}

// host is the name of who is asked where no other is given.
func (c *connector) host() string { return c.asked.Addr().String() }

// wire is a connection that ends with its context.
type wire struct {
	net.Conn
	plain  net.Conn // below TLS
	leave  func() bool
	tls    *tls.ConnectionState // nil: in the clear
	notice string               // what is to be warned of
	ends   time.Time            // when the server's certificate does; zero: none was shown
}

func (w *wire) Close() error {
	if !w.leave() {
		// Its time is over: crypto/tls would take 5 s more to say farewell to who reads nothing.
		return w.plain.Close()
	}
	return w.Conn.Close()
}

// alert closes a connection that has failed and returns the alert by which the server
// ended TLS, nil if it did not. In TLS 1.3 a server says by one after the handshake that
// our certificate will not do (RFC 8446 §4.4.2.4); crypto/tls keeps it for later reads.
func (w *wire) alert() error {
	if w.tls == nil {
		return nil
	}
	_ = w.plain.Close() // the read returns at once
	var op *net.OpError
	if _, err := w.Read(make([]byte, 1)); errors.As(err, &op) && op.Op == "remote error" {
		return op
	}
	return nil
}

// connect makes a connection, over TLS if there are terms of it, of which every read
// and write fails when ctx ends. The error says what failed.
func (c *connector) connect(ctx context.Context, network string) (*wire, error) {
	conn, err := c.dial(ctx, network, c.port)
	if err != nil {
		return nil, because("connect to "+c.asked.String(), err)
	}
	if network == "udp" {
		_ = tellErrors(conn, c.asked.Addr().Is6()) // Without it a probe fails as well, when its time is over.
	}
	// Not by ctx's deadline, which the connection's clock may reach first: ctx is over when
	// a read fails for want of time, so that the cause of half an answer is known.
	w := &wire{Conn: conn, plain: conn, leave: context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })}
	if c.terms != nil {
		if err := c.terms.secure(ctx, w); err != nil {
			_ = w.Close()
			return nil, err
		}
	}
	return w, nil
}

// because says what was attempted and why it failed, without the addresses that the
// net package repeats.
func because(act string, err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		err = op.Err
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	}
	switch {
	case isTimeout(err): // os.ErrDeadlineExceeded and context.DeadlineExceeded among them
		err = errSilent
	case errors.Is(err, context.Canceled):
		err = context.Canceled
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("the connection was closed")
	}
	return fmt.Errorf("%s: %w", act, err)
}

// over returns why a probe has no time left; nil if it has. The deadline may be noticed
// before ctx is done by it: gRPC tells the server of it.
func over(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// isTimeout reports whether a read ended for want of time.
func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// maxDetail bounds what is kept of an answer for people, bytes.
const maxDetail = 256

// printable returns the beginning of what a peer said, fit for a message of one line.
func printable[T string | []byte](text T) string {
	cut := string(text[:min(len(text), maxDetail)])
	line, _, _ := strings.Cut(strings.TrimSpace(cut), "\n")
	return strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '.'
		}
		return r
	}, strings.TrimRight(line, "\r")), ".")
}
