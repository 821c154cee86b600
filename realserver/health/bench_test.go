package health_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/health"
)

// run asks over and over. The peer is in this process: its work is in the figures.
func run(b *testing.B, check realserver.Check, server netip.AddrPort) {
	b.Helper()
	env := health.NewEnv("root")
	defer env.Close()
	prober, err := health.NewProber(check, health.Target{Server: server}, nil, env)
	if err != nil {
		b.Fatal(err)
	}
	defer prober.Close()
	b.ReportAllocs()
	for b.Loop() {
		ctx, cancel := context.WithTimeout(context.Background(), patient)
		if result := prober.Probe(ctx); result.Err != nil {
			b.Fatal(result.Err)
		}
		cancel()
	}
}

// answerer answers every connection with few instructions, so that the figure is the
// probe's.
func answerer(b *testing.B, answer string) netip.AddrPort {
	return serve(b, func(conn net.Conn) {
		var buffer [1024]byte
		if _, err := conn.Read(buffer[:]); err == nil {
			_, _ = conn.Write([]byte(answer))
		}
	})
}

func BenchmarkTCP(b *testing.B) {
	run(b, realserver.Check{Kind: realserver.CheckTCP}, serve(b, func(net.Conn) {}))
}

func BenchmarkHTTP(b *testing.B) {
	const answer = "HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: text/html\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"
	b.Run("probe", func(b *testing.B) {
		run(b, realserver.Check{Kind: realserver.CheckHTTP}, answerer(b, answer))
	})
	b.Run("match", func(b *testing.B) {
		run(b, realserver.Check{Kind: realserver.CheckHTTP, HTTP: &realserver.HTTPCheck{Match: "^ok"}}, answerer(b, answer))
	})
	b.Run("transport", func(b *testing.B) { // for comparison
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		url := "http://" + answerer(b, answer).String() + "/"
		b.ReportAllocs()
		for b.Loop() {
			ctx, cancel := context.WithTimeout(context.Background(), patient)
			request, _ := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			response, err := client.Do(request)
			if err != nil {
				b.Fatal(err)
			}
			response.Body.Close()
			cancel()
		}
	})
}

func BenchmarkHTTPS(b *testing.B) {
	a := newAuthority(b)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{a.server("s", patient*1000)}}
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	for name, version := range map[string]int{"1": 1, "2": 2} {
		b.Run(name, func(b *testing.B) {
			run(b, realserver.Check{
				Kind: realserver.CheckHTTP, TLS: &realserver.TLSCheck{CA: a.file}, HTTP: &realserver.HTTPCheck{Version: version},
			}, addrOf(server.Listener.Addr()))
		})
	}
}

func BenchmarkGRPC(b *testing.B) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, grpchealth.NewServer())
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	run(b, realserver.Check{Kind: realserver.CheckGRPC}, addrOf(listener.Addr()))
}

func BenchmarkICMP(b *testing.B) {
	run(b, realserver.Check{Kind: realserver.CheckICMP}, netip.MustParseAddrPort("127.0.0.1:0"))
}

func BenchmarkScript(b *testing.B) {
	run(b, realserver.Check{Kind: realserver.CheckScript, Script: &realserver.ScriptCheck{Command: []string{"/bin/true"}}}, netip.MustParseAddrPort("127.0.0.1:0"))
}

func BenchmarkFile(b *testing.B) {
	path := filepath.Join(b.TempDir(), "weight")
	if err := os.WriteFile(path, []byte("100\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	run(b, realserver.Check{Kind: realserver.CheckFile, File: &realserver.FileCheck{Path: path}}, netip.MustParseAddrPort("127.0.0.1:0"))
}
