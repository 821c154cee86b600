package health

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/shunt-lb/shunt/realserver"
)

// secondRequest returns the request as HTTP/2 has it.
func secondRequest(h realserver.HTTPCheck, secure bool) *http.Request {
	target := &url.URL{Scheme: "http", Host: h.Host}
	if secure {
		target.Scheme = "https"
	}
	// The path goes out as it is written.
	path, query, hasQuery := strings.Cut(h.Path, "?")
	target.Opaque, target.RawQuery, target.ForceQuery = "//"+h.Host+path, query, hasQuery
	header := http.Header{}
	for name, value := range defaultHeaders(h) {
		header.Set(name, value)
	}
	for _, field := range h.Headers {
		header.Add(field.Name, field.Value)
	}
	return &http.Request{
		Method: h.Method, URL: target, Host: h.Host, Header: header,
		Proto: "HTTP/2.0", ProtoMajor: 2,
	}
}

// dialedKey is where the transport finds the connection that a probe has made.
type dialedKey struct{}

// newHTTP2Transport returns what speaks HTTP/2 over connections that it is given, over
// TLS or with prior knowledge in the clear (RFC 9113 §3.3). Windows are small: a body
// that no one reads does not fill memory.
func newHTTP2Transport() *http.Transport {
	given := func(ctx context.Context, _, _ string) (net.Conn, error) {
		if conn, ok := ctx.Value(dialedKey{}).(net.Conn); ok {
			return conn, nil
		}
		return nil, errors.New("there is no connection")
	}
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Transport{
		DialContext: given, DialTLSContext: given, Protocols: &protocols,
		TLSClientConfig:    &tls.Config{MinVersion: tls.VersionTLS12},
		DisableCompression: true, MaxResponseHeaderBytes: maxHeader,
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerConnection: 128 << 10, MaxReceiveBufferPerStream: 64 << 10, MaxReadFrameSize: 16 << 10},
	}
}

// askSecond speaks HTTP/2 over a connection.
func (p *httpProbe) askSecond(ctx context.Context, conn *wire) Result {
	client, err := p.shared.http2.NewClientConn(context.WithValue(ctx, dialedKey{}, conn.Conn), p.second.URL.Scheme, p.link.asked.String())
	if err != nil {
		return Result{Err: because("begin HTTP/2", err)}
	}
	defer client.Close()
	response, err := client.RoundTrip(p.second.Clone(ctx))
	if err != nil {
		if ended := over(ctx); ended != nil {
			err = ended
		} else if alert := conn.alert(); alert != nil {
			err = alert // net/http hides it before the first answer
		}
		return Result{Err: because("ask over HTTP/2", err)}
	}
	defer response.Body.Close()
	return p.verdict.of(response, p.shared)
}
