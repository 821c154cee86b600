package health

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shunt-lb/shunt/realserver"
)

// NewProber returns what asks the target the check, which is validated
// (realserver.Check.Validate). Dial may be nil; it is not used for kinds that make no
// connection (icmp, script, file).
func NewProber(check realserver.Check, target Target, dial Dial, env Env) (Prober, error) {
	if err := check.Validate(); err != nil {
		return nil, fmt.Errorf("make %s check of %s: %w", check.Kind, target.Server, err)
	}
	p := &prober{}
	s := env.shared
	if s == nil {
		s = newShared()
		p.end = s.close
	}
	link := newConnector(check, target, dial)
	if err := link.problem(check.Kind); err != nil {
		p.Close()
		return nil, fmt.Errorf("make %s check of %s: %w", check.Kind, target.Server, err)
	}
	switch check.Kind {
	case realserver.CheckTCP:
		link.terms = newTLSTerms(check.TLS, link.host(), s.files)
		p.ask = (&tcpProbe{link: link, exchange: newExchange(check.Exchange)}).ask
	case realserver.CheckHTTP:
		p.ask = newHTTPProbe(check, link, s).ask
	case realserver.CheckDNS:
		p.ask = newDNSProbe(*check.DNS, link).ask
	case realserver.CheckUDP:
		p.ask = (&udpProbe{link: link, exchange: newExchange(check.Exchange), shared: s}).ask
	case realserver.CheckICMP:
		p.ask = (&icmpProbe{addr: target.Server.Addr(), echoes: s.echoes}).ask
	case realserver.CheckGRPC:
		p.ask = newGRPCProbe(check, link, s).ask
	case realserver.CheckSMTP:
		p.ask = newSMTPProbe(check, link, s).ask
	case realserver.CheckScript:
		command := newScriptProbe(check, target, env.ScriptUser)
		command.command.Helper = env.helper()
		p.ask = command.ask
	case realserver.CheckFile:
		p.ask = (&fileProbe{path: check.File.Path}).ask
	}
	return p, nil
}

// prober times one way to ask.
type prober struct {
	ask func(context.Context) Result
	end func() // nil: nothing is kept
}

// Probe asks. An error that is context.Canceled is that of ctx.
func (p *prober) Probe(ctx context.Context) Result {
	begun := time.Now()
	result := p.ask(ctx)
	if result.Err != nil && errors.Is(ctx.Err(), context.Canceled) {
		// Says nothing of the server.
		result.Err = fmt.Errorf("the probe was ended: %w", context.Canceled)
	}
	result.At, result.Took = begun, time.Since(begun)
	return result
}

func (p *prober) Close() {
	if p.end != nil {
		p.end()
	}
}
