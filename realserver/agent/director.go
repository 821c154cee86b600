package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// askFor is how long a director may take to answer.
const askFor = 5 * time.Second

// maxAnswer is how much of an answer is read, in bytes.
const maxAnswer = 64 << 10

// director is one that servers are registered at.
type director struct {
	url    string
	agent  string
	token  string // file; read for each message, as it may be replaced
	client *http.Client
}

// message is a registration (director/api/openapi.yaml, Registration).
type message struct {
	Boot     string        `json:"boot"`
	Sequence uint64        `json:"sequence"`
	Lifetime string        `json:"lifetime"`
	Server   messageServer `json:"server"`
	Draining bool          `json:"draining,omitempty"`
	Load     *Load         `json:"load,omitempty"`
}

type messageServer struct {
	Address string `json:"address"`
	Method  string `json:"method"`
	Weight  uint32 `json:"weight"`
}

// leased is the answer to one (Lease).
type leased struct {
	Connections *uint64   `json:"connections"` // left, of a server that drains
	LeftOut     []leftOut `json:"left-out"`
}

// leftOut is a service in which the registration has no effect.
type leftOut struct {
	Service string `json:"service"`
	Why     string `json:"why"`
}

// newDirector returns a director of the settings. The files of certificates are read.
func newDirector(where string, s *Settings) (*director, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	if s.CA != "" {
		text, err := os.ReadFile(s.CA)
		if err != nil {
			return nil, fmt.Errorf("read the CA: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("read the CA: %s has no certificate in PEM", s.CA)
		}
	}
	if s.Certificate != "" {
		key := s.Key
		if key == "" {
			key = s.Certificate
		}
		// For each connection anew: it may have been replaced.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(s.Certificate, key)
			if err != nil {
				err = fmt.Errorf("read the certificate %s with the key of %s: %w", s.Certificate, key, err)
			}
			return &pair, err
		}
	}
	return &director{
		url: strings.TrimSuffix(where, "/"), agent: s.Agent, token: s.TokenFile,
		client: &http.Client{
			Transport:     &http.Transport{TLSClientConfig: config, IdleConnTimeout: time.Minute},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// register says the message of the pool's member.
func (d *director) register(ctx context.Context, pool string, m message) (leased, error) {
	var answer leased
	body, err := json.Marshal(m)
	if err != nil {
		return answer, err
	}
	text, err := d.send(ctx, http.MethodPut, d.member(pool), body)
	if err == nil {
		err = json.Unmarshal(text, &answer)
	}
	if err != nil {
		return answer, fmt.Errorf("register in pool %s at %s: %w", pool, d.url, err)
	}
	return answer, nil
}

// AskDirectors asks each director for each pool of the settings, as its agent may. The
// errors, by director, say who cannot be reached, or does not know the agent or the pool.
func AskDirectors(ctx context.Context, s Settings) map[string]error {
	wrong := map[string]error{}
	for _, where := range s.Directors {
		d, err := newDirector(where, &s)
		if err != nil {
			wrong[where] = err
			continue
		}
		asked := map[string]bool{}
		for _, m := range s.Members {
			if asked[m.Pool] || wrong[where] != nil {
				continue
			}
			asked[m.Pool] = true
			if _, err := d.send(ctx, http.MethodGet, d.url+"/v1/pools/"+url.PathEscape(m.Pool), nil); err != nil {
				wrong[where] = fmt.Errorf("ask for pool %s at %s: %w", m.Pool, d.url, err)
			}
		}
		d.client.CloseIdleConnections()
	}
	return wrong
}

// refusedError is what a director says no with.
type refusedError struct {
	status     int // of HTTP
	code, text string
}

// Error returns the text, with the director's hint.
func (e *refusedError) Error() string { return e.text }

// isSuperseded reports whether a director has heard a later run of the agent: it never
// takes a message of this one again.
func isSuperseded(err error) bool {
	refused, ok := errors.AsType[*refusedError](err)
	return ok && refused.code == "superseded"
}

// isDenied reports whether a director does not let the agent in: its credentials, name,
// pool or address are not what the director has.
func isDenied(err error) bool {
	refused, ok := errors.AsType[*refusedError](err)
	return ok && (refused.status == http.StatusUnauthorized || refused.status == http.StatusForbidden)
}

// causeOf returns the innermost error's words: those around it may have ports of the
// moment, and be others each time.
func causeOf(err error) string {
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return err.Error()
}

// deregister takes the member away.
func (d *director) deregister(ctx context.Context, pool, boot string, sequence uint64) error {
	_, err := d.send(ctx, http.MethodDelete, fmt.Sprintf("%s?boot=%s&sequence=%d", d.member(pool), url.QueryEscape(boot), sequence), nil)
	if err != nil {
		return fmt.Errorf("leave pool %s at %s: %w", pool, d.url, err)
	}
	return nil
}

func (d *director) member(pool string) string {
	return d.url + "/v1/pools/" + url.PathEscape(pool) + "/members/" + url.PathEscape(d.agent)
}

// send returns the body of a good answer, or what a bad one says.
func (d *director) send(ctx context.Context, method, where string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, where, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if d.token != "" {
		text, err := os.ReadFile(d.token)
		if err != nil {
			return nil, fmt.Errorf("read the token: %w", err)
		}
		request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(text)))
	}
	answer, err := d.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil || answer.StatusCode < 300 {
		return text, err
	}
	var problem struct {
		Detail string `json:"detail"`
		Hint   string `json:"hint"`
		Code   string `json:"code"`
	}
	if json.Unmarshal(text, &problem) != nil || problem.Detail == "" {
		return nil, fmt.Errorf("it answers %s: is it a shuntd?", answer.Status)
	}
	if problem.Hint != "" {
		problem.Detail += ": " + problem.Hint
	}
	return nil, &refusedError{answer.StatusCode, problem.Code, fmt.Sprintf("%.500s", problem.Detail)}
}
