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
	// Log has the files that could not be read again after they changed. Nil:
	// slog.Default().
	Log *slog.Logger
}

// checkEvery is how often files are looked at for changes, at most.
const checkEvery = time.Second

// TLSListener is a listener whose callers have certificates or tokens. Its files
// are read again when they change.
type TLSListener struct {
	net.Listener
	opts  TLSOptions
	check atomic.Int64 // checkEvery, in nanoseconds; tests change it

	current atomic.Pointer[credentials] // immutable, replaced as a whole
	checked atomic.Int64                // when the files were last looked at, in Unix nanoseconds
	mu      sync.Mutex                  // held while the files are read
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
	first, err := opts.read()
	if err != nil {
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

// Reload reads the files again now. After an error what was read before stays.
func (l *TLSListener) Reload() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	next, err := l.opts.read()
	if err != nil {
		return fmt.Errorf("reload the credentials of %s: %w", l.opts.Address, err)
	}
	l.current.Store(next)
	return nil
}

// credentials returns the newest that could be read. Files are looked at at most
// once in l.check.
func (l *TLSListener) credentials() *credentials {
	now := time.Now().UnixNano()
	last := l.checked.Load()
	if now-last < l.check.Load() || !l.checked.CompareAndSwap(last, now) {
		return l.current.Load()
	}
	have := l.current.Load()
	stamps := l.opts.stamps()
	if stamps == have.stamps {
		return have
	}
	if err := l.Reload(); err != nil {
		l.opts.Log.Warn("changed credentials cannot be used; those before stay", "err", err)
		// Not again until they change again.
		kept := *have
		kept.stamps = stamps
		l.current.CompareAndSwap(have, &kept)
	}
	return l.current.Load()
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
		return tokenCaller(have.tokens, strings.TrimSpace(secret), time.Now())
	case r.TLS != nil && len(r.TLS.PeerCertificates) > 0:
		if have.clientCA == nil {
			return caller{}, unauthorized("client certificates are not accepted here", "show a token")
		}
		return certificateCaller(r.TLS.PeerCertificates, have.clientCA, time.Now())
	default:
		return caller{}, unauthorized("no credentials", "show a client certificate or a token")
	}
}
