package health_test

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/shunt-lb/shunt/realserver"
)

func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// grpcServer serves the health of the server that is given.
func grpcServer(t testing.TB, answers grpc_health_v1.HealthServer, options ...grpc.ServerOption) netip.AddrPort {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	if answers != nil {
		grpc_health_v1.RegisterHealthServer(server, answers)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return addrOf(listener.Addr())
}

// answering is a health server that is a function.
type answering struct {
	grpc_health_v1.UnimplementedHealthServer
	check func(context.Context, *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error)
}

func (a answering) Check(ctx context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	return a.check(ctx, r)
}

func TestGRPC(t *testing.T) {
	known := grpchealth.NewServer()
	known.SetServingStatus("up", grpc_health_v1.HealthCheckResponse_SERVING)
	known.SetServingStatus("down", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	good := grpcServer(t, known)
	hanging := grpcServer(t, answering{check: func(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	refusing := grpcServer(t, answering{check: func(context.Context, *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
		return nil, status.Error(codes.PermissionDenied, "not you\n"+strings.Repeat("x", 10<<10))
	}})
	// raw answers the call with a body of its own, framed or not.
	raw := func(body string) netip.AddrPort {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Trailer", "Grpc-Status")
			_, _ = io.WriteString(w, body)
			w.Header().Set("Grpc-Status", "0")
		}))
		server.Config.Protocols = new(http.Protocols)
		server.Config.Protocols.SetUnencryptedHTTP2(true)
		server.Start()
		t.Cleanup(server.Close)
		return addrOf(server.Listener.Addr())
	}
	for _, test := range []struct {
		name    string
		server  netip.AddrPort
		service string
		timeout time.Duration
		fails   []string
	}{
		{"as a whole", good, "", patient, nil},
		{"a service", good, "up", patient, nil},
		{"a service that is down", good, "down", patient, []string{"the service is NOT_SERVING"}},
		{"a service that is not known", good, "other", patient, []string{"ask for the health: NotFound: unknown service"}},
		{"no health service", grpcServer(t, nil), "", patient, []string{"ask for the health: Unimplemented"}},
		{"refuses", refusing, "", patient, []string{"ask for the health: PermissionDenied: not you"}},
		{"a handmade answer", raw("\x00\x00\x00\x00\x02\x08\x01"), "", patient, nil},
		{"a state that is none", raw("\x00\x00\x00\x00\x02\x08\x63"), "", patient, []string{"the service is 99"}},
		{"an empty answer", raw("\x00\x00\x00\x00\x00"), "", patient, []string{"the service is UNKNOWN"}},
		{"no message", raw(""), "", patient, []string{"ask for the health: Internal"}},
		{"no protobuf", raw("\x00\x00\x00\x00\x02\xff\xff"), "", patient, []string{"ask for the health: Internal"}},
		{"a message that is cut off", raw("\x00\x00\x00\x00\x09\x08"), "", patient, []string{"ask for the health: Internal"}},
		{"a large message", raw("\x00\x7f\xff\xff\xff" + strings.Repeat("x", 1<<20)), "", patient, []string{"ask for the health: ResourceExhausted"}},
		{"hangs", hanging, "", hurried, []string{"ask for the health: no answer in time"}},
		{"hangs after the connection", serve(t, hang), "", hurried, []string{"ask for the health: no answer in time"}},
		{"no HTTP/2", serve(t, say("220 mail\r\n"+strings.Repeat("x", 1<<10))), "", patient, []string{"ask for the health: "}},
		{"closes", serve(t, func(net.Conn) {}), "", patient, []string{"ask for the health: Unavailable"}},
		{"closed", closedPort(t), "", patient, []string{"connect to", "connection refused"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := probe(t, realserver.Check{Kind: realserver.CheckGRPC, GRPC: &realserver.GRPCCheck{Service: test.service}}, test.server, test.timeout)
			if test.fails != nil {
				wantFail(t, got, test.fails...)
			} else {
				wantPass(t, got, "SERVING")
			}
		})
	}
	a := newAuthority(t)
	secure := grpcServer(t, known, grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{a.server("g", time.Hour*1000, "grpc.example.org")}})))
	check := realserver.Check{Kind: realserver.CheckGRPC, TLS: &realserver.TLSCheck{CA: a.file, ServerName: "grpc.example.org"}}
	wantPass(t, probe(t, check, secure, patient), "SERVING")
	check.TLS = &realserver.TLSCheck{CA: a.file}
	wantFail(t, probe(t, check, secure, patient), "agree on TLS as 127.0.0.1")
}
