package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"time"

	"github.com/shunt-lb/shunt/realserver"
)

// maxExchange is how much of an answer is looked at, bytes.
const maxExchange = 64 << 10

// exchange is what is sent and expected. Its expression may be nil: nothing is.
type exchange struct {
	send   []byte
	expect *regexp.Regexp
}

// newExchange returns the exchange of a validated check.
func newExchange(e *realserver.ExchangeCheck) exchange {
	if e == nil {
		return exchange{}
	}
	x := exchange{send: e.Send}
	if e.Expect != "" {
		x.expect = regexp.MustCompile(e.Expect)
	}
	return x
}

// tcpProbe makes a connection and, if asked to, talks over it.
//
// A server that refuses our certificate in TLS 1.3 says so after the handshake is
// complete for us (RFC 8446 §4.4.3): only an exchange finds it out.
type tcpProbe struct {
	link     *connector
	exchange exchange
}

func (p *tcpProbe) ask(ctx context.Context) Result {
	conn, err := p.link.connect(ctx, "tcp")
	if err != nil {
		return Result{Err: err}
	}
	defer conn.Close()
	result := conn.result()
	if len(p.exchange.send) > 0 {
		if _, err := conn.Write(p.exchange.send); err != nil {
			result.Err = because("send", err)
			return result
		}
	}
	if p.exchange.expect != nil {
		result.Detail, result.Err = p.exchange.await(ctx, conn)
	}
	return result
}

// lull is how long a peer pauses before what came is looked at.
const lull = 20 * time.Millisecond

// await reads until the expression is found, at most maxExchange. What came is looked at
// when it has grown by an eighth or the peer pauses: one who sends byte by byte costs
// no more than one who sends all at once.
func (x exchange) await(ctx context.Context, conn *wire) (string, error) {
	var got, seen int
	buffer := make([]byte, 2048)
	for {
		if got == len(buffer) {
			buffer = append(buffer, make([]byte, min(len(buffer), maxExchange-len(buffer)))...)
		}
		if err := untilLull(ctx, conn, got > seen); err != nil {
			return printable(buffer[:got]), because(fmt.Sprintf("expect %q", x.expect), err)
		}
		n, err := conn.Read(buffer[got:])
		got += n
		paused := errors.Is(err, os.ErrDeadlineExceeded) && got > seen
		if got > 0 && (got-seen > seen/8 || paused || err != nil || got == maxExchange) {
			seen = got
			if found := x.expect.FindIndex(buffer[:got]); found != nil {
				return printable(buffer[found[0]:found[1]]), nil
			}
		}
		switch {
		case paused && ctx.Err() == nil:
		case errors.Is(err, io.EOF):
			return printable(buffer[:got]), fmt.Errorf("%q is not in the answer of %d bytes", x.expect, got)
		case err != nil:
			return printable(buffer[:got]), because(fmt.Sprintf("expect %q", x.expect), err)
		case got == maxExchange:
			return printable(buffer[:got]), fmt.Errorf("%q is not in the answer's first %d bytes", x.expect, got)
		}
	}
}

// untilLull lets the next read wait for a lull where something is still to be looked at,
// else until ctx ends.
func untilLull(ctx context.Context, conn *wire, pending bool) error {
	var deadline time.Time // zero: the end of ctx alone
	if pending {
		deadline = time.Now().Add(lull)
	}
	_ = conn.SetReadDeadline(deadline)
	// After the deadline is set: an end of ctx may have set one that this replaced.
	return ctx.Err()
}
