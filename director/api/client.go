package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Client speaks the API: it is the generated RawClient with answers decoded.
// Errors the daemon answers are *Problem, as are those of reaching it. Safe for
// concurrent use.
type Client struct {
	raw    *RawClient
	http   *http.Client
	where  string // for errors: the socket or the URL
	socket bool
}

// NewSocketClient returns a client for the daemon's socket; nothing is opened
// yet.
func NewSocketClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	c := newClient("http://shunt", socket, &http.Transport{DialContext: dial})
	c.socket = true
	return c
}

// TLSClientOptions say how a daemon is reached over TLS. The files are PEM.
type TLSClientOptions struct {
	Server      string // https://director.example.org:9443
	CA          string // file of the CA that signed the daemon's certificate; empty: the system's
	Certificate string // file of the client certificate; empty: none
	Key         string // file of its key; empty: in Certificate
	TokenFile   string // file that holds a token; empty: none
}

// NewTLSClient returns a client for a daemon that listens on TLS; nothing is
// opened yet but the files, which are read.
func NewTLSClient(opts TLSClientOptions) (*Client, error) {
	where, err := url.Parse(opts.Server)
	if err != nil || where.Scheme != "https" || where.Host == "" {
		return nil, fmt.Errorf("server %q is not a URL such as https://director.example.org:9443", opts.Server)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	if opts.CA != "" {
		if config.RootCAs, err = readPool(opts.CA); err != nil {
			return nil, err
		}
	}
	if opts.Certificate != "" {
		key := opts.Key
		if key == "" {
			key = opts.Certificate
		}
		pair, err := tls.LoadX509KeyPair(opts.Certificate, key)
		if err != nil {
			return nil, fmt.Errorf("read the client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	c := newClient(where.Scheme+"://"+where.Host, opts.Server, &http.Transport{TLSClientConfig: config, Proxy: http.ProxyFromEnvironment})
	if opts.TokenFile != "" {
		text, err := os.ReadFile(opts.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("read the token: %w", err)
		}
		c.raw.RequestEditors = append(c.raw.RequestEditors, func(_ context.Context, r *http.Request) error {
			r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(text)))
			return nil
		})
	}
	return c, nil
}

func newClient(server, where string, transport *http.Transport) *Client {
	caller := &http.Client{
		Transport: transport,
		// The API has no redirects: what sends one is no shuntd.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &Client{raw: &RawClient{Server: server + "/", Client: caller}, http: caller, where: where}
}

// readPool reads the certificates of a CA.
func readPool(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read the CA: %s has no certificate in PEM", file)
	}
	return pool, nil
}

// Close releases idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// as returns a function that decodes an answer of the RawClient. Fields that
// this version does not know are passed over: the daemon may be newer.
func as[T any](c *Client) func(*http.Response, error) (T, error) {
	return func(answer *http.Response, err error) (T, error) {
		var v T
		if err := c.check(answer, err); err != nil {
			return v, err
		}
		defer func() { _ = answer.Body.Close() }()
		if err := json.NewDecoder(answer.Body).Decode(&v); err != nil {
			return v, fmt.Errorf("read the daemon's answer: %w", err)
		}
		return v, nil
	}
}

// check returns nil for a successful answer, whose body the caller closes.
func (c *Client) check(answer *http.Response, err error) error {
	if err != nil {
		return c.unreachable(err)
	}
	if answer.StatusCode < 300 {
		return nil
	}
	defer func() { _ = answer.Body.Close() }()
	var problem Problem
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxEdit)).Decode(&problem); err != nil || problem.Detail == "" {
		return fmt.Errorf("the daemon on %s answers %s: is it a shuntd?", c.where, answer.Status)
	}
	return &problem
}

// unreachable says why the daemon could not be asked, and what to do.
func (c *Client) unreachable(err error) error {
	if _, ok := errors.AsType[*Problem](err); ok {
		return err
	}
	switch {
	case c.socket && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED)):
		return newProblem(http.StatusServiceUnavailable, "not-running",
			fmt.Sprintf("shuntd is not running: nothing answers on %s", c.where),
			"start it with `shuntd --config FILE`; another socket is given by --socket")
	case c.socket && errors.Is(err, fs.ErrPermission):
		return newProblem(http.StatusForbidden, "permission",
			fmt.Sprintf("open %s: permission denied", c.where), "you must be root, or in the socket's group: try sudo")
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // the URL is made up: it would only confuse
	}
	return fmt.Errorf("ask shuntd on %s: %w", c.where, err)
}
