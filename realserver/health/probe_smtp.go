package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"os"

	"github.com/shunt-lb/shunt/realserver"
)

// maxReply is how much a mail server may say in all, bytes.
const maxReply = 64 << 10

// smtpProbe waits for the greeting and greets in turn (RFC 5321 §3.1, §3.2). With TLS,
// that comes first, as on port 465 (RFC 8314 §3.3).
type smtpProbe struct {
	link  *connector
	hello string
}

func newSMTPProbe(check realserver.Check, link *connector, s *shared) *smtpProbe {
	link.terms = newTLSTerms(check.TLS, link.host(), s.files)
	p := &smtpProbe{link: link}
	if check.SMTP != nil {
		p.hello = check.SMTP.Hello
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
	text := textproto.NewConn(bounded{Reader: io.LimitReader(conn, maxReply), WriteCloser: conn})
	result := conn.result()
	_, greeting, err := text.ReadResponse(220)
	if err != nil {
		result.Err = replyProblem(ctx, "read the greeting", err)
		return result
	}
	result.Detail = printable(greeting)
	// An old server does not know EHLO (RFC 5321 §3.2).
	code, err := p.say(ctx, text, "EHLO")
	if err != nil && code >= 500 && code <= 504 {
		_, err = p.say(ctx, text, "HELO")
	}
	if err != nil {
		result.Err = err
		return result
	}
	_ = text.PrintfLine("QUIT") // Its answer would tell nothing more.
	return result
}

// say sends a greeting and returns the reply's code.
func (p *smtpProbe) say(ctx context.Context, text *textproto.Conn, command string) (int, error) {
	if err := text.PrintfLine("%s %s", command, p.hello); err != nil {
		return 0, because("send "+command, err)
	}
	code, _, err := text.ReadResponse(250)
	if err != nil {
		return code, replyProblem(ctx, "read the reply to "+command, err)
	}
	return code, nil
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
