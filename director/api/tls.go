package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// TLSOptions say where the API listens on TCP, and whom it lets in. The files
// are PEM but for the tokens.
type TLSOptions struct {
	Address     string // address and port
	Certificate string // file of the daemon's certificate chain
	Key         string // file of its key; empty: in Certificate
	ClientCA    string // file of the CA of client certificates; empty: none is accepted
	Tokens      string // file of tokens; empty: none is accepted
	// Log has the files that cannot be read any more. Nil: slog.Default().
	Log *slog.Logger
}

// checkEvery is how often files are looked at for changes, at most.
const checkEvery = time.Second

// TLSListener is a listener whose callers have certificates or tokens. Its files
// are read again within a second of their change. As long as the client CA or
// the tokens cannot be read, nobody is let in by them: what they revoke must not
// live on because of a typo. The daemon's own certificate stays the last good
// one.
type TLSListener struct {
	net.Listener
	opts  TLSOptions
	check atomic.Int64 // checkEvery, in nanoseconds; tests change it

	current atomic.Pointer[credentials] // immutable, replaced as a whole
	checked atomic.Int64                // when the files were last looked at, in Unix nanoseconds
	mu      sync.Mutex                  // held while the files are read again
}

// ListenTLS opens the API's TCP port. It speaks TLS 1.3 alone: its clients are
// new. It refuses to listen without a client CA or tokens, by which callers are
// told apart.
func ListenTLS(opts TLSOptions) (*TLSListener, error) {
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	if opts.Key == "" {
		opts.Key = opts.Certificate
	}
	fail := func(err error) (*TLSListener, error) { return nil, fmt.Errorf("listen on %s: %w", opts.Address, err) }
	if opts.Certificate == "" {
		return fail(errors.New("a certificate is required: TCP is served with TLS only"))
	}
	if opts.ClientCA == "" && opts.Tokens == "" {
		return fail(errors.New("a client CA or a tokens file is required: anybody could come otherwise"))
	}
	first := opts.read()
	if err := first.err(); err != nil {
		return fail(err)
	}
	if opts.ClientCA == "" && len(first.tokens) == 0 {
		return fail(fmt.Errorf("%s has no token and there is no client CA: nobody could come", opts.Tokens))
	}
	tcp, err := net.Listen("tcp", opts.Address)
	if err != nil {
		return nil, err // it says "listen tcp ADDRESS" itself
	}
	l := &TLSListener{opts: opts}
	l.check.Store(int64(checkEvery))
	l.current.Store(first)
	l.checked.Store(time.Now().UnixNano())
	l.Listener = tls.NewListener(limitConns(tcp, maxConns), l.config())
	return l, nil
}

func (l *TLSListener) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Streams block their connection under HTTP/1.1 and no other: nothing
		// to gain from HTTP/2 but its complications.
		NextProtos: []string{"http/1.1"},
		// Who is known without a certificate may come too; which are good is
		// for authenticate to say.
		ClientAuth: tls.RequestClientCert,
		// A ticket would outlive the certificate that it was given for.
		SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &l.credentials().certificate, nil
		},
	}
}

// credentials returns what the files say. They are looked at at most once in
// l.check, and read again if they have changed or could not be read.
func (l *TLSListener) credentials() *credentials {
	now := time.Now().UnixNano()
	last := l.checked.Load()
	passed := now - last // below 0 where the clock was set back
	if passed >= 0 && passed < l.check.Load() || !l.checked.CompareAndSwap(last, now) {
		return l.current.Load()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	have := l.current.Load()
	if have.err() == nil && l.opts.stamps() == have.stamps {
		return have
	}
	next := l.opts.read()
	if next.certificateErr != nil {
		next.certificate = have.certificate
	}
	l.tell(have, next)
	l.current.Store(next)
	return next
}

// tell logs what was wrong with the files and is not any more, or is now.
func (l *TLSListener) tell(have, next *credentials) {
	for _, file := range []struct {
		have, next error
		what       string
	}{
		{have.certificateErr, next.certificateErr, "the API's certificate cannot be read; the one before stays"},
		{have.clientCAErr, next.clientCAErr, "the API's client CA cannot be read; no client certificate is accepted"},
		{have.tokensErr, next.tokensErr, "the API's tokens cannot be read; no token is accepted"},
	} {
		switch {
		case file.next != nil && (file.have == nil || file.have.Error() != file.next.Error()):
			l.opts.Log.Error(file.what, "err", file.next)
		case file.next == nil && file.have != nil:
			l.opts.Log.Info("a file of the API's credentials is good again", "was", file.have)
		}
	}
}

// connected keeps nothing: http has the connection's certificates.
func (l *TLSListener) connected(ctx context.Context, _ net.Conn) context.Context { return ctx }

// authenticate goes by the token if one is shown, else by the certificate.
func (l *TLSListener) authenticate(r *http.Request) (caller, error) {
	have := l.credentials()
	shown := r.Header.Values("Authorization")
	switch {
	case len(shown) > 1:
		return caller{}, unauthorized("more than one Authorization header", "")
	case len(shown) == 1:
		scheme, secret, _ := strings.Cut(shown[0], " ")
		if !strings.EqualFold(scheme, "Bearer") || secret == "" {
			return caller{}, unauthorized("the Authorization header has no bearer token", "write it as `Authorization: Bearer shunt_…`")
		}
		if have.tokensErr != nil {
			return caller{}, unauthorized("tokens cannot be checked now", "shuntd cannot read its tokens file; its log says why")
		}
		return tokenCaller(have.tokens, strings.TrimSpace(secret), time.Now())
	case r.TLS != nil && len(r.TLS.PeerCertificates) > 0:
		if have.clientCAErr != nil {
			return caller{}, unauthorized("client certificates cannot be checked now", "shuntd cannot read its client CA; its log says why")
		}
		if have.clientCA == nil {
			return caller{}, unauthorized("client certificates are not accepted here", "show a token")
		}
		return certificateCaller(r.TLS.PeerCertificates, have.clientCA, time.Now())
	default:
		return caller{}, unauthorized("no credentials", "show a client certificate or a token")
	}
}
