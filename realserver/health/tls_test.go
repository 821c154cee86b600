package health_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/health"
)

// secureWeb is a server that speaks HTTP/1.1, and HTTP/2 if told so, over TLS.
func secureWeb(t testing.TB, config *tls.Config, protocol string) netip.AddrPort {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(r.Proto + " for " + r.TLS.ServerName))
	}))
	server.TLS = config
	server.EnableHTTP2 = protocol == "h2"
	server.Config.ErrorLog = quiet()
	server.StartTLS()
	t.Cleanup(server.Close)
	return addrOf(server.Listener.Addr())
}

func TestTLS(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	const day = 24 * time.Hour
	byAddress, byName := a.server("address", 100*day), a.server("name", 100*day, "www.example.org")
	soon, ended := a.server("soon", 3*day, "www.example.org"), a.server("ended", -time.Hour, "www.example.org")
	a.server("us", 100*day)
	one := func(pair tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{pair}} }
	mutual := one(byAddress)
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	mutual.ClientCAs.AddCert(a.cert)
	old := one(byAddress)
	old.MaxVersion = tls.VersionTLS11
	type terms = realserver.TLSCheck
	for _, test := range []struct {
		name   string
		server *tls.Config
		tls    terms
		http   realserver.HTTPCheck
		warns  string
		fails  []string
	}{
		{"by the address", one(byAddress), terms{CA: a.file}, realserver.HTTPCheck{Match: " for $"}, "", nil},
		{"by the server's name", one(byName), terms{CA: a.file, ServerName: "www.example.org"}, realserver.HTTPCheck{Match: " for www.example.org$"}, "", nil},
		{"by the HTTP host", one(byName), terms{CA: a.file}, realserver.HTTPCheck{Host: "www.example.org:8443", Match: " for www.example.org$"}, "", nil},
		{"another's name", one(byName), terms{CA: a.file}, realserver.HTTPCheck{Host: "mail.example.org"}, "", []string{"agree on TLS as mail.example.org", "www.example.org"}},
		{"another authority", one(byAddress), terms{CA: other.file}, realserver.HTTPCheck{}, "", []string{"agree on TLS", "unknown authority"}},
		{"no authority", one(byAddress), terms{}, realserver.HTTPCheck{}, "", []string{"agree on TLS"}},
		{"any certificate will do", one(byName), terms{SkipVerify: true}, realserver.HTTPCheck{}, "", nil},
		{"ends soon", one(soon), terms{CA: a.file, ServerName: "www.example.org"}, realserver.HTTPCheck{}, "the server's certificate ends on ", nil},
		{"ends soon, which will do", one(soon), terms{CA: a.file, ServerName: "www.example.org", ExpiryWarning: day}, realserver.HTTPCheck{}, "", nil},
		{"ended", one(ended), terms{CA: a.file, ServerName: "www.example.org"}, realserver.HTTPCheck{}, "", []string{"agree on TLS", "expired"}},
		{"ended, any will do", one(ended), terms{SkipVerify: true}, realserver.HTTPCheck{}, "the server's certificate ended on ", nil},
		{"ended, any other will do", one(ended), terms{SkipVerify: true, RefuseWhenExpired: true}, realserver.HTTPCheck{}, "", []string{"the server's certificate ended on "}},
		{"ours is wanted", mutual, terms{CA: a.file}, realserver.HTTPCheck{}, "", []string{"certificate required"}},
		{"ours is shown", mutual, terms{CA: a.file, Certificate: a.dir + "/us.pem", Key: a.dir + "/us.key"}, realserver.HTTPCheck{}, "", nil},
		{"old versions only", old, terms{CA: a.file}, realserver.HTTPCheck{}, "", []string{"agree on TLS", "protocol version"}},
	} {
		for _, protocol := range []string{"http/1.1", "h2"} {
			t.Run(test.name+" by "+protocol, func(t *testing.T) {
				t.Parallel()
				server := secureWeb(t, test.server.Clone(), protocol)
				got := probe(t, realserver.Check{Kind: realserver.CheckHTTP, TLS: &test.tls, HTTP: &test.http}, server, patient)
				switch {
				case test.fails != nil && test.name == "ours is wanted" && protocol == "h2":
					// It writes on while the alert comes, and may be told of the closed connection first.
					wantFail(t, got, "HTTP/2")
					return
				case test.fails != nil:
					wantFail(t, got, test.fails...)
					return
				}
				wantPass(t, got, "status 200")
				if leaf, err := x509.ParseCertificate(test.server.Certificates[0].Certificate[0]); err != nil || !got.CertificateEnd.Equal(leaf.NotAfter) {
					t.Errorf("the certificate's end is %s, want %s, %v", got.CertificateEnd, leaf.NotAfter, err)
				}
				if (test.warns == "") != (got.Warning == "") || !strings.Contains(got.Warning, test.warns) {
					t.Errorf("it warns %q, want %q", got.Warning, test.warns)
				}
			})
		}
	}
}

// TestALPN asks servers that speak one protocol for each version.
func TestALPN(t *testing.T) {
	a := newAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{a.server("s", time.Hour*1000)}}
	first, both := secureWeb(t, config.Clone(), "http/1.1"), secureWeb(t, config.Clone(), "h2")
	check := func(version int, match string) realserver.Check {
		return realserver.Check{Kind: realserver.CheckHTTP, TLS: &realserver.TLSCheck{CA: a.file}, HTTP: &realserver.HTTPCheck{Version: version, Match: match}}
	}
	wantPass(t, probe(t, check(0, "^HTTP/1.1"), first, patient), "")
	wantPass(t, probe(t, check(0, "^HTTP/2.0"), both, patient), "")
	wantPass(t, probe(t, check(1, "^HTTP/1.1"), both, patient), "")
	wantPass(t, probe(t, check(2, "^HTTP/2.0"), both, patient), "")
	wantFail(t, probe(t, check(2, ""), first, patient), "no application protocol")
	wantFail(t, probe(t, check(0, ""), web(t), patient), "agree on TLS")
	wantFail(t, probe(t, check(0, ""), serve(t, hang), hurried), "agree on TLS as 127.0.0.1: no answer in time")
	wantFail(t, probe(t, check(0, ""), serve(t, drip("\x16\x03\x03\x40\x00")), hurried), "agree on TLS")
	wantPass(t, probe(t, realserver.Check{Kind: realserver.CheckTCP, TLS: &realserver.TLSCheck{CA: a.file}}, first, patient), "")
	wantFail(t, probe(t, realserver.Check{Kind: realserver.CheckTCP, TLS: &realserver.TLSCheck{CA: a.file}}, web(t), patient), "agree on TLS")
	wantPass(t, probe(t, realserver.Check{
		Kind: realserver.CheckTCP, TLS: &realserver.TLSCheck{CA: a.file},
		Exchange: &realserver.ExchangeCheck{Send: []byte("GET / HTTP/1.0\r\n\r\n"), Expect: "HTTP/1.0 for"},
	}, first, patient), "HTTP/1.0 for")
}

// TestCertificateFiles changes files between the probes of one prober.
func TestCertificateFiles(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	server := secureWeb(t, &tls.Config{Certificates: []tls.Certificate{a.server("s", time.Hour*1000)}}, "h2")
	file := filepath.Join(t.TempDir(), "ca.pem")
	replace := func(with string) {
		t.Helper()
		text, err := os.ReadFile(with)
		if err := errors.Join(err, os.WriteFile(file+".new", text, 0o600), os.Rename(file+".new", file)); err != nil {
			t.Fatal(err)
		}
	}
	env := health.NewEnv("")
	defer env.Close()
	prober, err := health.NewProber(realserver.Check{Kind: realserver.CheckHTTP, TLS: &realserver.TLSCheck{CA: file}}, health.Target{Server: server}, nil, env)
	if err != nil {
		t.Fatal(err)
	}
	defer prober.Close()
	ask := func() health.Result {
		ctx, cancel := context.WithTimeout(context.Background(), patient)
		defer cancel()
		return prober.Probe(ctx)
	}
	wantFail(t, ask(), "read certificates", "no such file")
	replace(a.file)
	wantPass(t, ask(), "")
	replace(other.file)
	wantFail(t, ask(), "unknown authority")
	replace(a.file)
	wantPass(t, ask(), "")
	// Our own file is no fault of the server.
	replace(a.dir + "/s.key")
	got := ask()
	wantPass(t, got, "")
	if want := "read certificates of " + file + ": there is none: what it was before is used"; got.Warning != want {
		t.Errorf("it warns %q, want %q", got.Warning, want)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if got = ask(); got.Err != nil || !strings.Contains(got.Warning, "no such file") {
		t.Errorf("error %v, warning %q", got.Err, got.Warning)
	}
	replace(a.file)
	if got = ask(); got.Err != nil || got.Warning != "" {
		t.Errorf("error %v, warning %q", got.Err, got.Warning)
	}
}
