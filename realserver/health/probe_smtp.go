package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"os"
	"strings"

	"github.com/shunt-lb/shunt/realserver"
)

// maxReply is how much a mail server may say in all, bytes.
const maxReply = 64 << 10

// smtpProbe waits for the greeting and greets in turn (RFC 5321 §3.1, §3.2). With TLS,
// that comes first, as on port 465 (RFC 8314 §3.3), or with STARTTLS after the greetings,
// which are then made again (RFC 3207 §4.2).
type smtpProbe struct {
	link  *connector
	hello string
	// upgrade are the terms of TLS after STARTTLS; nil: without.
	upgrade *tlsTerms
}

func newSMTPProbe(check realserver.Check, link *connector, s *shared) *smtpProbe {
	p := &smtpProbe{link: link}
	if check.SMTP != nil {
		p.hello = check.SMTP.Hello
	}
	if check.SMTP != nil && check.SMTP.STARTTLS {
		terms := check.TLS
		if terms == nil {
			terms = &realserver.TLSCheck{}
		}
		p.upgrade = newTLSTerms(terms, link.host(), s.files)
	} else {
		link.terms = newTLSTerms(check.TLS, link.host(), s.files)
	}
	if p.hello == "" {
		name, err := os.Hostname()
		if err != nil || name == "" {
			name = "localhost"
		}
		p.hello = name
	}
	return p
}

func (p *smtpProbe) ask(ctx context.Context) Result {
	conn, err := p.link.connect(ctx, "tcp")
	if err != nil {
		return Result{Err: err}
	}
	defer conn.Close()
	greeting, err := p.talk(ctx, conn)
	result := conn.result()
	result.Detail, result.Err = printable(greeting), err
	return result
}

// talk returns what the server says of itself.
func (p *smtpProbe) talk(ctx context.Context, conn *wire) (string, error) {
	text := conversation(conn)
	_, greeting, err := text.ReadResponse(220)
	if err != nil {
		return "", replyProblem(ctx, "read the greeting", err)
	}
	code, extensions, err := p.greet(ctx, text, "EHLO")
	if p.upgrade != nil {
		if err == nil {
			text, err = p.secure(ctx, conn, text, extensions)
		}
	} else if err != nil && code >= 500 && code <= 504 {
		// An old server does not know EHLO (RFC 5321 §3.2).
		_, _, err = p.greet(ctx, text, "HELO")
	}
	if err != nil {
		return greeting, err
	}
	_ = text.PrintfLine("QUIT") // Its answer would tell nothing more.
	return greeting, nil
}

// secure puts TLS over the connection by STARTTLS and greets anew.
func (p *smtpProbe) secure(ctx context.Context, conn *wire, text *textproto.Conn, extensions string) (*textproto.Conn, error) {
	if !offers(extensions, "STARTTLS") {
		return nil, errors.New("the server does not offer STARTTLS")
	}
	if err := text.PrintfLine("STARTTLS"); err != nil {
		return nil, because("send STARTTLS", err)
	}
	if _, _, err := text.ReadResponse(220); err != nil {
		return nil, replyProblem(ctx, "read the reply to STARTTLS", err)
	}
	// In TLS the client speaks first: somebody on the way has put in what would be taken
	// for the server's words over TLS.
	if n := text.R.Buffered(); n > 0 {
		return nil, fmt.Errorf("agree on TLS: %d bytes in the clear came after the reply to STARTTLS", n)
	}
	if err := p.upgrade.secure(ctx, conn); err != nil {
		return nil, err
	}
	text = conversation(conn)
	_, _, err := p.greet(ctx, text, "EHLO")
	return text, err
}

// offers reports whether a reply to EHLO has the extension, a line that begins with its
// keyword (RFC 5321 §4.1.1.1).
func offers(reply, extension string) bool {
	_, lines, _ := strings.Cut(reply, "\n") // the first names the server
	for line := range strings.Lines(lines) {
		if keyword, _, _ := strings.Cut(strings.TrimSpace(line), " "); strings.EqualFold(keyword, extension) {
			return true
		}
	}
	return false
}

// conversation reads and writes lines of the connection as it is now.
func conversation(conn *wire) *textproto.Conn {
	return textproto.NewConn(bounded{Reader: io.LimitReader(conn, maxReply), WriteCloser: conn})
}

// greet greets by EHLO or HELO and returns the reply.
func (p *smtpProbe) greet(ctx context.Context, text *textproto.Conn, verb string) (code int, reply string, err error) {
	if err := text.PrintfLine("%s %s", verb, p.hello); err != nil {
		return 0, "", because("send "+verb, err)
	}
	if code, reply, err = text.ReadResponse(250); err != nil {
		err = replyProblem(ctx, "read the reply to "+verb, err)
	}
	return code, reply, err
}

// replyProblem says why a reply will not do.
func replyProblem(ctx context.Context, act string, err error) error {
	var refused *textproto.Error
	var malformed textproto.ProtocolError
	switch {
	case errors.As(err, &refused):
		return fmt.Errorf("%s: the server says %d %s", act, refused.Code, printable(refused.Msg))
	case over(ctx) != nil:
		return because(act, over(ctx)) // what came until then may be half a line
	case errors.As(err, &malformed):
		return fmt.Errorf("%s: %s", act, printable(malformed.Error()))
	default:
		return because(act, err)
	}
}

// bounded is a connection of which no more than so much is read.
type bounded struct {
	io.Reader
	io.WriteCloser
}
