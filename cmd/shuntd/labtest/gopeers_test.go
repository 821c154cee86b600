package labtest

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shunt-lb/shunt/director/directortest"
)

// mood is how a server written in Go does.
type mood int

const (
	fine    mood = iota
	wrong        // it answers that it is not in service
	slow         // it answers too late
	hung         // it takes connections and says nothing
	expired      // it shows a certificate that has ended
)

// goPeer is a server of golang.org's, or grpc.io's, in a real server's namespace.
type goPeer struct {
	ns    *directortest.Namespace
	at    netip.AddrPort
	serve func(*goPeer, net.Listener) (stop func())
	stop  func()

	mu   sync.Mutex // guards what follows
	mood mood
	held []net.Conn // that it took while it hung
}

// runGo starts one that ends with the test.
func runGo(t *testing.T, server *directortest.Server, port uint16, serve func(*goPeer, net.Listener) func()) *goPeer {
	t.Helper()
	p := &goPeer{ns: server.Namespace, at: netip.AddrPortFrom(server.Addr4, port), serve: serve}
	ok(t, p.start())
	t.Cleanup(func() { ok(t, p.kill()) })
	return p
}

func (p *goPeer) start() error {
	listener, err := p.ns.Listen(context.Background(), p.at)
	if err == nil {
		p.stop = p.serve(p, gate{listener, p})
	}
	return err
}

// kill closes its port and its connections.
func (p *goPeer) kill() error {
	p.stop()
	return p.becomes(fine)()
}

// becomes returns how to change its mood.
func (p *goPeer) becomes(m mood) func() error {
	return func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.mood = m
		for _, c := range p.held {
			_ = c.Close() // its client may be gone
		}
		p.held = nil
		return nil
	}
}

func (p *goPeer) is() mood {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mood
}

// hesitates waits as long as its mood wants, or until nobody waits for it.
func (p *goPeer) hesitates(ctx context.Context) {
	if p.is() != slow {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(late):
	}
}

// gate keeps connections from a server that hangs.
type gate struct {
	net.Listener
	peer *goPeer
}

// Accept returns the next connection that is served.
func (g gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil || !g.peer.hold(c) {
			return c, err
		}
	}
}

func (p *goPeer) hold(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mood == hung {
		p.held = append(p.held, c)
	}
	return p.mood == hung
}

// serveHTTP2 serves HTTP/2, in the clear or with the certificate of the mood.
func serveHTTP2(good, ended *tls.Certificate) func(*goPeer, net.Listener) func() {
	return func(p *goPeer, listener net.Listener) func() {
		server := &http.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if p.hesitates(r.Context()); p.is() == wrong {
					http.Error(w, "maintenance", http.StatusServiceUnavailable)
					return
				}
				_, _ = io.WriteString(w, "in service\n") // the client sees what is missing
			}),
			Protocols: new(http.Protocols), ErrorLog: log.New(io.Discard, "", 0),
		}
		server.Protocols.SetUnencryptedHTTP2(good == nil)
		server.Protocols.SetHTTP2(good != nil)
		done := make(chan struct{})
		go func() {
			defer close(done)
			if good == nil {
				_ = server.Serve(listener) // until stop
				return
			}
			server.TLSConfig = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				if p.is() == expired {
					return ended, nil
				}
				return good, nil
			}}
			_ = server.ServeTLS(listener, "", "")
		}()
		return func() {
			_ = server.Close() // its connections may be gone
			<-done
		}
	}
}

// serveGRPC serves the health of a gRPC server.
func serveGRPC(p *goPeer, listener net.Listener) func() {
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, healthOf{peer: p})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // until stop
	}()
	return func() {
		server.Stop()
		<-done
	}
}

type healthOf struct {
	grpc_health_v1.UnimplementedHealthServer
	peer *goPeer
}

// Check says that all services are in the peer's mood.
func (h healthOf) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	h.peer.hesitates(ctx)
	status := grpc_health_v1.HealthCheckResponse_SERVING
	if h.peer.is() == wrong {
		status = grpc_health_v1.HealthCheckResponse_NOT_SERVING
	}
	return &grpc_health_v1.HealthCheckResponse{Status: status}, nil
}
