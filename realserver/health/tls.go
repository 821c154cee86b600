package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/shunt-lb/shunt/realserver"
)

// defaultExpiryWarning is how long before its end a certificate is warned of.
const defaultExpiryWarning = 14 * 24 * time.Hour

// tlsTerms are the terms of TLS of one prober. Not for concurrent use.
//
// No session is resumed: the certificate that the server has now is what is asked for.
type tlsTerms struct {
	check  realserver.TLSCheck
	name   string
	protos []string // by ALPN
	files  *pemFiles

	config *tls.Config
	roots  *x509.CertPool
	ours   *tls.Certificate
}

// newTLSTerms returns the terms of a check, nil if it has none. Name is whose
// certificate it must be where the check names none.
func newTLSTerms(check *realserver.TLSCheck, name string, files *pemFiles, protos ...string) *tlsTerms {
	if check == nil {
		return nil
	}
	t := &tlsTerms{check: *check, name: check.ServerName, protos: protos, files: files}
	if t.name == "" {
		t.name = name
	}
	if t.check.ExpiryWarning == 0 {
		t.check.ExpiryWarning = defaultExpiryWarning
	}
	return t
}

// secure puts TLS over the connection.
func (t *tlsTerms) secure(ctx context.Context, w *wire) error {
	config, err := t.current(w)
	if err != nil {
		return err
	}
	conn := tls.Client(w.Conn, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		if ended := over(ctx); ended != nil {
			err = ended
		}
		return because("agree on TLS as "+t.name, err)
	}
	state := conn.ConnectionState()
	w.Conn, w.tls = conn, &state
	return t.expiry(w, time.Now())
}

// expiry looks at when the server's certificate ends.
func (t *tlsTerms) expiry(w *wire, now time.Time) error {
	if len(w.tls.PeerCertificates) == 0 {
		return errors.New("the server has shown no certificate")
	}
	end := w.tls.PeerCertificates[0].NotAfter
	w.ends = end
	left := end.Sub(now)
	switch {
	case left < 0 && t.check.RefuseWhenExpired:
		return fmt.Errorf("the server's certificate ended on %s", end.UTC().Format(time.RFC3339))
	case left < 0:
		w.warn(fmt.Sprintf("the server's certificate ended on %s", end.UTC().Format(time.RFC3339)))
	case left < t.check.ExpiryWarning:
		w.warn(fmt.Sprintf("the server's certificate ends on %s, in %s", end.UTC().Format(time.RFC3339), left.Round(time.Minute)))
	}
	return nil
}

// result is a pass with what is known of the connection.
func (w *wire) result() Result { return Result{Warning: w.notice, CertificateEnd: w.ends} }

// warn adds a warning.
func (w *wire) warn(text string) {
	if w.notice != "" {
		w.notice += "; "
	}
	w.notice += text
}

// current returns the configuration with the files as they are now.
func (t *tlsTerms) current(w *wire) (*tls.Config, error) {
	roots, stale, err := t.files.authorities(t.check.CA)
	if err != nil {
		return nil, err
	}
	ours, staleOurs, err := t.files.pair(t.check.Certificate, t.check.Key)
	if err != nil {
		return nil, err
	}
	for _, problem := range []error{stale, staleOurs} {
		if problem != nil {
			w.warn(fmt.Sprintf("%v: what it was before is used", problem))
		}
	}
	if t.config != nil && t.roots == roots && t.ours == ours {
		return t.config, nil
	}
	config := &tls.Config{
		ServerName: t.name, RootCAs: roots, NextProtos: t.protos, MinVersion: tls.VersionTLS12,
		InsecureSkipVerify: t.check.SkipVerify, //nolint:gosec // as the check says
	}
	if ours != nil {
		config.Certificates = []tls.Certificate{*ours}
	}
	t.config, t.roots, t.ours = config, roots, ours
	return config, nil
}
