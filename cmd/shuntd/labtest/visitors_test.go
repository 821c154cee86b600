package labtest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/smtp"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shunt-lb/shunt/director/directortest"
)

// asking is what a client asks once, over a connection of its own, without another try.
type asking func(ctx context.Context, client *directortest.Namespace) error

// How visitors ask: how often, and for how long they wait.
const (
	visitEvery = 100 * time.Millisecond
	visitFor   = time.Second
)

// visitors ask a service at a steady pace, whatever becomes of it.
type visitors struct {
	mu       sync.Mutex // guards what follows
	answered int
	failed   []time.Time // when they began
}

// run asks until the context ends, each time with so much patience.
func (v *visitors) run(ctx context.Context, client *directortest.Namespace, every, patience time.Duration, ask asking) {
	var all sync.WaitGroup
	defer all.Wait()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			all.Go(func() { v.one(client, patience, ask) })
		}
	}
}

func (v *visitors) one(client *directortest.Namespace, patience time.Duration, ask asking) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := ask(ctx, client)
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil {
		v.failed = append(v.failed, began)
		return
	}
	v.answered++
}

// answers is how many requests were answered so far.
func (v *visitors) answers() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.answered
}

// failures is how many failed of those that began in between.
func (v *visitors) failures(from, to time.Time) (n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, at := range v.failed {
		if !at.Before(from) && at.Before(to) {
			n++
		}
	}
	return n
}

// askHTTP wants the page state, by HTTP/1, or by HTTP/2, with TLS if there are terms.
func askHTTP(to netip.AddrPort, version int, terms *tls.Config) asking {
	return func(ctx context.Context, client *directortest.Namespace) error {
		// The transport would go on to connect after the time is over, and keep what it got.
		asked, end := context.WithCancel(ctx)
		defer end()
		dial := func(context.Context, string, string) (net.Conn, error) {
			conn, err := dialFrom(client, "tcp", to)(asked, "", "")
			if err == nil {
				context.AfterFunc(asked, func() { _ = conn.Close() })
			}
			return conn, err
		}
		transport := &http.Transport{DisableKeepAlives: true, DialContext: dial, TLSClientConfig: terms, Protocols: new(http.Protocols)}
		transport.Protocols.SetHTTP1(version == 1)
		transport.Protocols.SetUnencryptedHTTP2(version == 2 && terms == nil)
		transport.Protocols.SetHTTP2(version == 2 && terms != nil)
		scheme := "http"
		if terms != nil {
			scheme = "https"
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://www.example/state", nil)
		if err != nil {
			return err
		}
		answer, err := transport.RoundTrip(request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(io.LimitReader(answer.Body, 1000))
		if err == nil && (answer.StatusCode != http.StatusOK || !strings.HasPrefix(string(text), "in service")) {
			err = fmt.Errorf("%s: %s", answer.Status, text)
		}
		return err
	}
}

// askGRPC wants the server's health.
func askGRPC(to netip.AddrPort) asking {
	return func(ctx context.Context, client *directortest.Namespace) error {
		dial := dialFrom(client, "tcp", to)
		c, err := grpc.NewClient("passthrough:///grpc", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry(), grpc.WithNoProxy(),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx, "", "") }))
		if err != nil {
			return err
		}
		defer c.Close()
		reply, err := grpc_health_v1.NewHealthClient(c).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		if err == nil && reply.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			err = errors.New(reply.Status.String())
		}
		return err
	}
}

// askDNS wants the address of up.example.
func askDNS(to netip.AddrPort) asking {
	query, err := (&dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 1, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("up.example."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}).Pack()
	return func(ctx context.Context, client *directortest.Namespace) error {
		if err != nil {
			return err
		}
		return exchange(ctx, client, "udp", to, func(conn net.Conn) error {
			if _, err := conn.Write(query); err != nil {
				return err
			}
			buffer := make([]byte, 1500)
			n, err := conn.Read(buffer)
			if err != nil {
				return err
			}
			var m dnsmessage.Message
			if err := m.Unpack(buffer[:n]); err != nil {
				return err
			}
			if len(m.Answers) != 1 || !strings.Contains(m.Answers[0].Body.GoString(), "198, 51, 100, 53") {
				return fmt.Errorf("answers %v", m.Answers)
			}
			return nil
		})
	}
}

// askSMTP wants to be greeted, and says goodbye.
func askSMTP(to netip.AddrPort) asking {
	return func(ctx context.Context, client *directortest.Namespace) error {
		return exchange(ctx, client, "tcp", to, func(conn net.Conn) error {
			c, err := smtp.NewClient(conn, "mx.example")
			if err != nil {
				return err
			}
			if err := c.Hello("client.example"); err != nil {
				return err
			}
			return c.Quit()
		})
	}
}

// exchange connects, and ends what is said with the context.
func exchange(ctx context.Context, client *directortest.Namespace, network string, to netip.AddrPort, say func(net.Conn) error) error {
	conn, err := dialFrom(client, network, to)(ctx, "", "")
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	return say(conn)
}
