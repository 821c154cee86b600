package health_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/health"
)

func TestMain(m *testing.M) {
	if os.Getenv(asDaemon) != "" {
		whatRuns()
		return
	}
	goleak.VerifyTestMain(m)
}

// TestNewProber makes probers that cannot ask.
func TestNewProber(t *testing.T) {
	server := netip.MustParseAddrPort("192.0.2.7:80")
	for _, test := range []struct {
		name   string
		check  realserver.Check
		target health.Target
		want   string
	}{
		{"a wrong check", realserver.Check{Kind: "ftp"}, health.Target{Server: server}, `make ftp check of 192.0.2.7:80: unknown check "ftp": want one of tcp, http, dns, udp, icmp, grpc, smtp, script, file`},
		{"no port", realserver.Check{Kind: realserver.CheckTCP}, health.Target{Server: netip.MustParseAddrPort("192.0.2.7:0")}, "make tcp check of 192.0.2.7:0: 192.0.2.7 has no port: give the check one"},
		{"no address", realserver.Check{Kind: realserver.CheckICMP}, health.Target{}, "make icmp check of invalid AddrPort: there is no address to ask"},
	} {
		prober, err := health.NewProber(test.check, test.target, nil, health.Env{})
		if prober != nil || err == nil || err.Error() != test.want {
			t.Errorf("%s: error %v, want %s", test.name, err, test.want)
		}
	}
}

// TestDial gives probes another way to the target.
func TestDial(t *testing.T) {
	address := web(t)
	target := health.Target{Server: netip.MustParseAddrPort("192.0.2.7:8080"), Virtual: netip.MustParseAddrPort("198.51.100.1:80"), Via: "tcp://198.51.100.1:80"}
	var port uint16
	dial := func(ctx context.Context, network string, asked uint16) (net.Conn, error) {
		port = asked
		if network != "tcp" {
			return nil, errors.New("no way")
		}
		var d net.Dialer
		return d.DialContext(ctx, network, address.String())
	}
	ask := func(check realserver.Check) health.Result {
		t.Helper()
		prober, err := health.NewProber(check, target, dial, health.Env{})
		if err != nil {
			t.Fatal(err)
		}
		defer prober.Close()
		ctx, cancel := context.WithTimeout(context.Background(), patient)
		defer cancel()
		return prober.Probe(ctx)
	}
	wantPass(t, ask(realserver.Check{Kind: realserver.CheckHTTP, HTTP: &realserver.HTTPCheck{Match: `host=198\.51\.100\.1 `}}), "")
	if port != 0 {
		t.Errorf("port %d was asked for, want the service's, 0", port)
	}
	wantPass(t, ask(realserver.Check{Kind: realserver.CheckHTTP, Port: 81, HTTP: &realserver.HTTPCheck{Match: `host=198\.51\.100\.1:81 `}}), "")
	if port != 81 {
		t.Errorf("port %d was asked for, want 81", port)
	}
	wantFail(t, ask(realserver.Check{Kind: realserver.CheckDNS, DNS: &realserver.DNSCheck{Name: "a"}}), "connect to 198.51.100.1:80: no way")
}

// TestCheckPort asks another port than the server's.
func TestCheckPort(t *testing.T) {
	address := serve(t, hang)
	check := tcpCheck("", "")
	check.Port = address.Port()
	wantPass(t, probe(t, check, netip.AddrPortFrom(address.Addr(), closedPort(t).Port()), patient), "")
}

// TestProberEnds cancels probes of every kind that would wait for ever.
func TestProberEnds(t *testing.T) {
	silent := serve(t, hang)
	udp := addrOf(listenUDP(t).LocalAddr())
	tls := &realserver.TLSCheck{SkipVerify: true}
	for _, test := range []struct {
		name   string
		check  realserver.Check
		server netip.AddrPort
	}{
		{"tcp", tcpCheck("", "x"), silent},
		{"tls", realserver.Check{Kind: realserver.CheckTCP, TLS: tls}, silent},
		{"http", realserver.Check{Kind: realserver.CheckHTTP}, silent},
		{"http2", realserver.Check{Kind: realserver.CheckHTTP, HTTP: &realserver.HTTPCheck{Version: 2}}, silent},
		{"https", realserver.Check{Kind: realserver.CheckHTTP, TLS: tls}, silent},
		{"grpc", realserver.Check{Kind: realserver.CheckGRPC}, silent},
		{"smtp", realserver.Check{Kind: realserver.CheckSMTP}, silent},
		{"dns by TCP", realserver.Check{Kind: realserver.CheckDNS, DNS: &realserver.DNSCheck{Name: "a", TCP: true}}, silent},
		{"dns", realserver.Check{Kind: realserver.CheckDNS, DNS: &realserver.DNSCheck{Name: "a"}}, udp},
		{"udp", realserver.Check{Kind: realserver.CheckUDP, Exchange: &realserver.ExchangeCheck{Expect: "x"}}, udp},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			env := health.NewEnv("")
			defer env.Close()
			prober, err := health.NewProber(test.check, health.Target{Server: test.server}, nil, env)
			if err != nil {
				t.Fatal(err)
			}
			defer prober.Close()
			// No deadline: only the cancellation ends it.
			ctx, cancel := context.WithCancel(context.Background())
			time.AfterFunc(20*time.Millisecond, cancel)
			got := prober.Probe(ctx)
			if wantFail(t, got, "the probe was ended"); !errors.Is(got.Err, context.Canceled) {
				t.Errorf("%v is not context.Canceled", got.Err)
			}
		})
	}
}
