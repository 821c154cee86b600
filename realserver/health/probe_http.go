package health

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"

	"github.com/shunt-lb/shunt/realserver"
)

// Limits of what is taken of an answer, bytes.
const (
	maxHeader = 64 << 10
	maxMatch  = 1 << 20
	maxDigest = 16 << 20
	// maxInterim is how many answers before the last one (RFC 9110 §15.2) are passed over.
	maxInterim = 8
)

// httpProbe makes a request over a connection of its own, which shows that the server
// takes new ones. Redirects are answers like others.
//
// HTTP/1.1 is spoken here and not through http.Transport, of which a request costs two
// goroutines, a quarter more time and four times the memory (BenchmarkHTTP).
type httpProbe struct {
	link    *connector
	shared  *shared
	version int
	method  string
	request []byte // HTTP/1.1, complete
	second  *http.Request
	verdict verdict
}

func newHTTPProbe(check realserver.Check, link *connector, s *shared) *httpProbe {
	var h realserver.HTTPCheck
	if check.HTTP != nil {
		h = *check.HTTP
	}
	h.Host = defaultTo(h.Host, link.authority(check.TLS != nil))
	h.Method = defaultTo(h.Method, http.MethodGet)
	h.Path = defaultTo(h.Path, "/")
	protos := map[int][]string{0: {"h2", "http/1.1"}, 1: {"http/1.1"}, 2: {"h2"}}[h.Version]
	link.terms = newTLSTerms(check.TLS, bareHost(h.Host), s.files, protos...)
	return &httpProbe{
		link: link, shared: s, version: h.Version, method: h.Method,
		request: firstRequest(h), second: secondRequest(h, check.TLS != nil), verdict: newVerdict(h),
	}
}

func defaultTo(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// authority is the address asked as a URL has it, without the scheme's own port.
func (c *connector) authority(secure bool) string {
	if port := c.asked.Port(); port == 80 && !secure || port == 443 && secure {
		if c.asked.Addr().Is6() {
			return "[" + c.host() + "]"
		}
		return c.host()
	}
	return c.asked.String()
}

// bareHost returns the host without port and brackets.
func bareHost(host string) string {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, _, _ = strings.Cut(inner, "]")
		return inner
	}
	host, _, _ = strings.Cut(host, ":")
	return host
}

// firstRequest returns the request as HTTP/1.1 has it (RFC 9112 §3).
func firstRequest(h realserver.HTTPCheck) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", h.Method, h.Path, h.Host)
	for name, value := range defaultHeaders(h) {
		fmt.Fprintf(&b, "%s: %s\r\n", name, value)
	}
	for _, header := range h.Headers {
		fmt.Fprintf(&b, "%s: %s\r\n", header.Name, header.Value)
	}
	switch h.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		b.WriteString("Content-Length: 0\r\n")
	}
	b.WriteString("Connection: close\r\n\r\n")
	return []byte(b.String())
}

// defaultHeaders are those sent unless the check has its own.
func defaultHeaders(h realserver.HTTPCheck) map[string]string {
	headers := map[string]string{"User-Agent": "shunt", "Accept": "*/*"}
	for _, header := range h.Headers {
		delete(headers, http.CanonicalHeaderKey(header.Name))
	}
	return headers
}

func (p *httpProbe) ask(ctx context.Context) Result {
	conn, err := p.link.connect(ctx, "tcp")
	if err != nil {
		return Result{Err: err}
	}
	defer conn.Close()
	result, spoken := conn.result(), p.version
	if conn.tls != nil {
		spoken = 1
		if conn.tls.NegotiatedProtocol == "h2" {
			spoken = 2
		} else if p.version == 2 {
			result.Err = errors.New("the server does not speak HTTP/2 over TLS")
			return result
		}
	}
	var answer Result
	if spoken == 2 {
		answer = p.askSecond(ctx, conn)
	} else {
		answer = p.askFirst(ctx, conn)
	}
	result.Err, result.Detail = answer.Err, answer.Detail
	return result
}

// askFirst speaks HTTP/1.1.
func (p *httpProbe) askFirst(ctx context.Context, conn *wire) Result {
	if _, err := conn.Write(p.request); err != nil {
		return Result{Err: because("send the request", err)}
	}
	limited := &io.LimitedReader{R: conn, N: maxHeader}
	reader := p.shared.readers.Get().(*bufio.Reader)
	reader.Reset(limited)
	defer func() {
		reader.Reset(nil)
		p.shared.readers.Put(reader)
	}()
	for range maxInterim {
		response, err := http.ReadResponse(reader, &http.Request{Method: p.method})
		if err != nil {
			if limited.N <= 0 {
				return Result{Err: fmt.Errorf("read the response: its header has more than %d bytes", maxHeader)}
			}
			if ended := over(ctx); ended != nil {
				err = ended // what came until then may be half a line, which has no meaning
			}
			return Result{Err: because("read the response", err)}
		}
		if response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols {
			limited.N = maxDigest + maxHeader // The verdict reads less.
			return p.verdict.of(response, p.shared)
		}
	}
	return Result{Err: fmt.Errorf("read the response: more than %d interim ones", maxInterim)}
}

// verdict says what answers will do.
type verdict struct {
	status []realserver.StatusRange
	match  *regexp.Regexp
	digest string // lower case
}

// newVerdict returns the verdict of a validated check.
func newVerdict(h realserver.HTTPCheck) verdict {
	v := verdict{status: h.Status, digest: strings.ToLower(h.Digest)}
	if len(v.status) == 0 {
		v.status = []realserver.StatusRange{{First: 200, Last: 399}}
	}
	if h.Match != "" {
		v.match = regexp.MustCompile(h.Match)
	}
	return v
}
