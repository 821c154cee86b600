package health_test

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/realserver"
)

func tcpCheck(send, expect string) realserver.Check {
	c := realserver.Check{Kind: realserver.CheckTCP}
	if send != "" || expect != "" {
		c.Exchange = &realserver.ExchangeCheck{Send: []byte(send), Expect: expect}
	}
	return c
}

func TestTCP(t *testing.T) {
	echo := func(conn net.Conn) { _, _ = io.Copy(conn, conn) }
	for _, test := range []struct {
		name    string
		server  func(net.Conn) // nil: the port is closed
		check   realserver.Check
		timeout time.Duration
		detail  string
		fails   []string // nil: it passes
	}{
		{"open", hang, tcpCheck("", ""), patient, "", nil},
		{"closed", nil, tcpCheck("", ""), patient, "", []string{"connect to 127.0.0.1:", "connection refused"}},
		{"greeting", say("220 ready\r\n"), tcpCheck("", "^220 "), patient, "220", nil},
		{"answer", echo, tcpCheck("PING\r\n", "PING"), patient, "PING", nil},
		{"other answer", echo, tcpCheck("PING\r\n", "PONG"), hurried, "", []string{`expect "PONG"`, "no answer in time"}},
		{"hangs", hang, tcpCheck("x", "y"), hurried, "", []string{`expect "y"`, "no answer in time"}},
		{"closes", func(net.Conn) {}, tcpCheck("", "y"), patient, "", []string{`"y" is not in the answer of 0 bytes`}},
		{"drips what is wanted", drip("-pong"), tcpCheck("", "pong"), patient, "pong", nil},
		{"drips for ever", drip("abc"), tcpCheck("", "pong"), hurried, "", []string{"no answer in time"}},
		{"too much", say(strings.Repeat("x", 100<<10)), tcpCheck("", "pong"), patient, "", []string{"not in the answer's first 65536 bytes"}},
		{"late in much", say(strings.Repeat("x", 60<<10) + "pong"), tcpCheck("", "pong"), patient, "pong", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := closedPort(t)
			if test.server != nil {
				server = serve(t, test.server)
			}
			got := probe(t, test.check, server, test.timeout)
			if test.fails != nil {
				wantFail(t, got, test.fails...)
			} else {
				wantPass(t, got, test.detail)
			}
			if got.At.IsZero() || got.Took <= 0 {
				t.Errorf("it began at %s and took %s", got.At, got.Took)
			}
		})
	}
}

// TestTCPUnread sends more than anyone takes: the probe ends in time all the same.
func TestTCPUnread(t *testing.T) {
	t.Parallel()
	stop := make(chan struct{})
	server := serve(t, func(net.Conn) { <-stop })
	defer close(stop)
	check := tcpCheck(strings.Repeat("x", 60<<10), "y")
	for range 3 {
		wantFail(t, probe(t, check, server, hurried), "no answer in time")
	}
}

func TestUDP(t *testing.T) {
	check := func(send, expect string) realserver.Check {
		return realserver.Check{Kind: realserver.CheckUDP, Exchange: &realserver.ExchangeCheck{Send: []byte(send), Expect: expect}}
	}
	answering := func(answer string) netip.AddrPort {
		conn := listenUDP(t)
		go func() {
			var buffer [1 << 16]byte
			for {
				n, from, err := conn.ReadFrom(buffer[:])
				if err != nil {
					return
				}
				if answer != "" {
					_, _ = conn.WriteTo([]byte(answer+string(buffer[:n])), from)
				}
			}
		}()
		return addrOf(conn.LocalAddr())
	}
	silent, echo := answering(""), answering("re: ")
	gone := listenUDP(t)
	refusing := addrOf(gone.LocalAddr())
	gone.Close()
	wantPass(t, probe(t, check("hi", "^re: hi$"), echo, patient), "re: hi")
	wantPass(t, probe(t, check("", "^re: $"), echo, patient), "re:")
	wantPass(t, probe(t, check("hi", ""), echo, patient), "answer of 6 bytes")
	wantPass(t, probe(t, check("hi", ""), silent, hurried), "no answer, no refusal")
	wantPass(t, probe(t, realserver.Check{Kind: realserver.CheckUDP}, silent, hurried), "no answer, no refusal")
	wantFail(t, probe(t, check("hi", "pong"), echo, patient), `"pong" is not in the answer of 6 bytes`)
	wantFail(t, probe(t, check("hi", "pong"), silent, hurried), "wait for an answer: no answer in time")
	wantFail(t, probe(t, check("hi", ""), refusing, patient), "connection refused")
	wantFail(t, probe(t, realserver.Check{Kind: realserver.CheckUDP}, refusing, patient), "connection refused")
}

// listenUDP returns a socket that is closed at the end of the test.
func listenUDP(t testing.TB) net.PacketConn {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
