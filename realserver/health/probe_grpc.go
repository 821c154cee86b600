package health

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/shunt-lb/shunt/realserver"
)

// maxHealthReply is how large a reply may be: it holds one number, bytes.
const maxHealthReply = 4096

// grpcProbe calls grpc.health.v1.Health/Check over a connection of its own.
type grpcProbe struct {
	link    *connector
	service string
	host    string
}

func newGRPCProbe(check realserver.Check, link *connector, s *shared) *grpcProbe {
	link.terms = newTLSTerms(check.TLS, link.host(), s.files, "h2")
	p := &grpcProbe{link: link, host: link.asked.String()}
	if check.TLS != nil {
		p.host = defaultTo(check.TLS.ServerName, p.host)
	}
	if check.GRPC != nil {
		p.service = check.GRPC.Service
	}
	return p
}

func (p *grpcProbe) ask(ctx context.Context) Result {
	conn, err := p.link.connect(ctx, "tcp")
	if err != nil {
		return Result{Err: err}
	}
	defer conn.Close()
	result := conn.result()
	client, err := p.client(conn)
	if err != nil {
		result.Err = fmt.Errorf("begin gRPC: %w", err)
		return result
	}
	defer client.Close()
	reply, err := grpc_health_v1.NewHealthClient(client).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: p.service})
	switch {
	case err != nil && over(ctx) != nil:
		result.Err = because("ask for the health", over(ctx))
	case err != nil:
		result.Err = fmt.Errorf("ask for the health: %s: %s", status.Code(err), printable(status.Convert(err).Message()))
	case reply.Status != grpc_health_v1.HealthCheckResponse_SERVING:
		result.Err = fmt.Errorf("the service is %s", printable(reply.Status.String()))
	default:
		result.Detail = reply.Status.String()
	}
	return result
}

// client returns a client that speaks over the connection, once.
func (p *grpcProbe) client(conn *wire) (*grpc.ClientConn, error) {
	unused := make(chan net.Conn, 1)
	unused <- conn.Conn
	return grpc.NewClient("passthrough:///"+p.link.asked.String(),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case conn := <-unused:
				return conn, nil
			default:
				return nil, errors.New("the connection was closed")
			}
		}),
		grpc.WithTransportCredentials(given{secure: conn.tls != nil}),
		grpc.WithAuthority(p.host), grpc.WithUserAgent("shunt"),
		grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithDisableHealthCheck(), grpc.WithNoProxy(),
		grpc.WithMaxHeaderListSize(maxHeader),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxHealthReply)),
	)
}

// given are credentials of a connection that has its TLS already.
type given struct{ secure bool }

func (g given) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	level := credentials.NoSecurity
	if g.secure {
		level = credentials.PrivacyAndIntegrity
	}
	return conn, givenInfo{credentials.CommonAuthInfo{SecurityLevel: level}}, nil
}

func (given) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are a client's")
}

// Info says which :scheme the requests have.
func (g given) Info() credentials.ProtocolInfo {
	if g.secure {
		return credentials.ProtocolInfo{SecurityProtocol: "tls"}
	}
	return credentials.ProtocolInfo{SecurityProtocol: "insecure"}
}

func (g given) Clone() credentials.TransportCredentials { return g }

func (given) OverrideServerName(string) error { return nil }

type givenInfo struct{ credentials.CommonAuthInfo }

func (givenInfo) AuthType() string { return "given" }
