package health_test

import (
	"bufio"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/health"
)

// web is a server of many faces, which answers in the clear by HTTP/1.1 and HTTP/2.
func web(t testing.TB) netip.AddrPort {
	t.Helper()
	server := httptest.NewUnstartedServer(faces())
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return addrOf(server.Listener.Addr())
}

func faces() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s host=%s agent=%s x=%s proto=%d", r.Method, r.URL.RequestURI(), r.Host, r.UserAgent(), r.Header.Values("X-Test"), r.ProtoMajor)
	})
	mux.HandleFunc("/teapot", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/teapot", http.StatusFound) })
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { // 10 GB
		chunk := []byte(strings.Repeat("x", 1<<16))
		for range 10 << 30 >> 16 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := io.WriteString(w, "x"); err != nil || http.NewResponseController(w).Flush() != nil || r.Context().Err() != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	mux.HandleFunc("/hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/hints", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		_, _ = io.WriteString(w, "after the hints")
	})
	return mux
}

func TestHTTP(t *testing.T) {
	server := web(t)
	type terms = realserver.HTTPCheck
	only := func(first, last uint16) []realserver.StatusRange {
		return []realserver.StatusRange{{First: first, Last: last}}
	}
	for _, test := range []struct {
		name    string
		http    terms
		timeout time.Duration
		detail  string
		fails   []string
	}{
		{"plain", terms{}, patient, "status 200", nil},
		{"path, host and headers", terms{
			Path: "/a%2Fb?q=1", Host: "www.example.org", Method: "OPTIONS", Headers: []realserver.Header{{Name: "x-test", Value: "1"}, {Name: "X-Test", Value: "2"}},
			Match: `^OPTIONS /a%2Fb\?q=1 host=www\.example\.org agent=shunt x=\[1 2\] proto=`,
		}, patient, "status 200", nil},
		{"own agent", terms{Headers: []realserver.Header{{Name: "user-agent", Value: "me"}}, Match: "agent=me "}, patient, "", nil},
		{"host is the address", terms{Match: "host=" + server.String() + " "}, patient, "", nil},
		{"HEAD", terms{Method: "HEAD"}, patient, "status 200", nil},
		{"POST", terms{Method: "POST", Match: "^POST /"}, patient, "status 200", nil},
		{"redirects are not followed", terms{Path: "/moved"}, patient, "status 302", nil},
		{"status", terms{Path: "/teapot", Status: only(418, 418)}, patient, "status 418", nil},
		{"wrong status", terms{Path: "/teapot"}, patient, "", []string{"status 418 is not one that will do"}},
		{"wrong body", terms{Match: "^pong$"}, patient, "", []string{`"^pong$" is not in the body's`}},
		{"interim answers", terms{Path: "/hints", Match: "^after the hints$"}, patient, "status 200", nil},
		{"digest", terms{Method: "PUT", Path: "/d", Host: "h", Digest: sha("PUT /d host=h agent=shunt x=[] proto=")}, patient, "", nil},
		{"wrong digest", terms{Digest: sha("other")}, patient, "", []string{"the body's digest is "}},
		{"a large body that no one looks at", terms{Path: "/large"}, patient, "status 200", nil},
		{"a large body's first MiB", terms{Path: "/large", Match: "pong"}, patient, "", []string{"is not in the body's 1048576 bytes"}},
		{"a large body's digest", terms{Path: "/large", Digest: sha("")}, patient, "", []string{"the body has more than 16777216 bytes"}},
		{"a slow body that no one looks at", terms{Path: "/slow"}, patient, "status 200", nil},
		{"a slow body", terms{Path: "/slow", Match: "pong"}, hurried, "", []string{"read the body: no answer in time"}},
		{"hangs", terms{Path: "/hang"}, hurried, "", []string{"no answer in time"}},
	} {
		for version := 1; version <= 2; version++ {
			t.Run(fmt.Sprintf("%s by HTTP/%d", test.name, version), func(t *testing.T) {
				t.Parallel()
				terms := test.http
				terms.Version = version
				if test.name == "digest" {
					text := fmt.Sprintf("PUT /d host=h agent=shunt x=[] proto=%d", version)
					terms.Digest = strings.ToUpper(sha(text))
					if version == 2 {
						sum := md5.Sum([]byte(text))
						terms.Digest = hex.EncodeToString(sum[:])
					}
				}
				got := probe(t, realserver.Check{Kind: realserver.CheckHTTP, HTTP: &terms}, server, test.timeout)
				if test.fails != nil {
					wantFail(t, got, test.fails...)
				} else {
					wantPass(t, got, test.detail)
				}
			})
		}
	}
}

func sha(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// TestHTTPPeers asks those who do not speak HTTP as they should.
func TestHTTPPeers(t *testing.T) {
	// late reads the request before it answers.
	late := func(answer string) func(net.Conn) {
		return func(conn net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = io.WriteString(conn, answer)
			}
		}
	}
	const head = "HTTP/1.1 200 OK\r\n"
	for _, test := range []struct {
		name    string
		server  func(net.Conn)
		version int
		match   string
		timeout time.Duration
		fails   []string
	}{
		{"no HTTP", late("220 mail\r\n\r\n"), 1, "", patient, []string{"read the response: malformed HTTP"}},
		{"closes", late(""), 1, "", patient, []string{"read the response: the connection was closed"}},
		{"hangs", hang, 1, "", hurried, []string{"read the response: no answer in time"}},
		{"drips", drip("HTTP/1.1 200 OK "), 1, "", hurried, []string{"read the response: no answer in time"}},
		{"half a line", say("HTTP/1.1"), 1, "", hurried, []string{"read the response: no answer in time"}},
		{"endless header", late(head + strings.Repeat("X: y\r\n", 100<<10)), 1, "", patient, []string{"its header has more than 65536 bytes"}},
		{"endless line", late(strings.Repeat("x", 1<<20)), 1, "", patient, []string{"its header has more than 65536 bytes"}},
		{"endless interim answers", late(strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 100)), 1, "", patient, []string{"more than 8 interim ones"}},
		{"short body", late(head + "Content-Length: 10\r\n\r\nabc"), 1, "abc", patient, []string{"read the body: the connection was closed"}},
		{"wrong chunk", late(head + "Transfer-Encoding: chunked\r\n\r\nzz\r\nabc"), 1, "abc", patient, []string{"read the body: "}},
		{"HTTP/1.1 where HTTP/2 was asked for", say(head + "Content-Length: 0\r\n\r\n"), 2, "", patient, []string{"HTTP/2"}},
		{"no HTTP/2", say(strings.Repeat("\xff", 100)), 2, "", patient, []string{"HTTP/2"}},
		{"hangs by HTTP/2", hang, 2, "", hurried, []string{"no answer in time"}},
		{"closes by HTTP/2", func(net.Conn) {}, 2, "", patient, []string{"HTTP/2"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			check := realserver.Check{Kind: realserver.CheckHTTP, HTTP: &realserver.HTTPCheck{Version: test.version, Match: test.match}}
			wantFail(t, probe(t, check, serve(t, test.server), test.timeout), test.fails...)
		})
	}
	wantFail(t, probe(t, realserver.Check{Kind: realserver.CheckHTTP}, closedPort(t), patient), "connection refused")
}

// TestHTTPMemory looks at what answers of 10 GB cost.
func TestHTTPMemory(t *testing.T) {
	server := web(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for version := 1; version <= 2; version++ {
		for _, terms := range []realserver.HTTPCheck{
			{Version: version, Path: "/large"},
			{Version: version, Path: "/large", Match: "pong"},
			{Version: version, Path: "/large", Match: "x", Digest: sha("")},
		} {
			probe(t, realserver.Check{Kind: realserver.CheckHTTP, HTTP: &terms}, server, patient)
		}
	}
	runtime.ReadMemStats(&after)
	// Six servers' and probes' own, and four MiB that are matched, each grown by doubling.
	if used := after.TotalAlloc - before.TotalAlloc; used > 32<<20 {
		t.Errorf("%d bytes were allocated", used)
	}
}

// early is a connection whose clock reaches deadlines before the director's does.
type early struct{ net.Conn }

func (c early) SetDeadline(at time.Time) error { return c.Conn.SetDeadline(at.Add(-stepwise / 2)) }

// Half a line is no answer in time and not a malformed one, wherever it is cut.
func TestCutAnswer(t *testing.T) {
	for _, test := range []struct {
		check realserver.Check
		text  string
		want  string
	}{
		{realserver.Check{Kind: realserver.CheckHTTP}, "HTTP/1.1", "read the response: no answer in time"},
		{realserver.Check{Kind: realserver.CheckHTTP}, "HTTP/1.1 200 OK\r\nServ", "read the response: no answer in time"},
		{realserver.Check{Kind: realserver.CheckSMTP}, "22", "read the greeting: no answer in time"},
		{realserver.Check{Kind: realserver.CheckSMTP}, "220 ok\r\n250-mx\r\n2", "read the reply to EHLO: no answer in time"},
	} {
		t.Run(test.want, func(t *testing.T) {
			t.Parallel()
			server := serve(t, say(test.text))
			dial := func(ctx context.Context, network string, _ uint16) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, server.String())
				return early{conn}, err
			}
			prober, err := health.NewProber(test.check, health.Target{Server: server}, dial, health.Env{})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), stepwise)
			wantFail(t, prober.Probe(ctx), test.want)
			cancel()
			prober.Close()
		})
	}
}
