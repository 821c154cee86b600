package health

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// udpProbe sends a datagram. Its socket is connected, so that what ICMP says (port, host
// or network unreachable) is an error of the next read (tellErrors).
type udpProbe struct {
	link     *connector
	exchange exchange
	shared   *shared
}

// silence is how long without refusal will do where no answer is expected and the
// probe has no end.
const silence = time.Second

func (p *udpProbe) ask(ctx context.Context) Result {
	conn, err := p.link.connect(ctx, "udp")
	if err != nil {
		return Result{Err: err}
	}
	defer conn.Close()
	if p.exchange.expect == nil {
		wait := silence
		if deadline, ok := ctx.Deadline(); ok {
			// Some of the time is left for the answer's way back to who asked.
			wait = time.Until(deadline) * 3 / 4
		}
		_ = conn.SetReadDeadline(time.Now().Add(wait))
	}
	if _, err := conn.Write(p.exchange.send); err != nil {
		return Result{Err: because("send", err)}
	}
	buffer := p.shared.datagrams.Get().(*[maxExchange]byte)
	defer p.shared.datagrams.Put(buffer)
	n, err := conn.Read(buffer[:])
	answer := buffer[:n]
	switch {
	case err != nil && p.exchange.expect == nil && isTimeout(err) && !errors.Is(ctx.Err(), context.Canceled):
		// Also where a busy director looks when the probe's time is over: nobody refused.
		return Result{Detail: "no answer, no refusal"}
	case err != nil:
		return Result{Err: because("wait for an answer", err)}
	case p.exchange.expect == nil:
		return Result{Detail: fmt.Sprintf("answer of %d bytes", n)}
	}
	found := p.exchange.expect.FindIndex(answer)
	if found == nil {
		return Result{Detail: printable(answer), Err: fmt.Errorf("%q is not in the answer of %d bytes", p.exchange.expect, n)}
	}
	return Result{Detail: printable(answer[found[0]:found[1]])}
}
