package ipvsadm

import (
	"io"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director/directortest"
)

// marked has sockets send packets of a firewall mark.
func marked(mark int) func(string, string, syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) (err error) {
		controlled := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark) })
		if controlled != nil {
			return controlled
		}
		return err
	}
}

// Connections, counters and rates of real traffic, by both on one table: of a TCP
// service with templates, of IPv6, of a firewall mark with templates, of UDP, and of
// calls by their SIP.
func TestGuestTraffic(t *testing.T) {
	p := newPair(t)
	serveAll(t, p.own)
	p.script(
		"-A -t 192.0.2.1:80 -s rr -p 300 -M 255.255.255.0", "-a -t 192.0.2.1:80 -r 10.0.0.1:8080 -m", "-a -t 192.0.2.1:80 -r 10.0.0.2:8080 -m -x 9 -y 3",
		"-A -t [2001:db8::1]:80 -s wlc", "-a -t [2001:db8::1]:80 -r [2001:db8:1::1]:8080 -m",
		"-A -f 7 -s rr -p 60", "-a -f 7 -r 10.0.0.1 -m", "-A -f 9 -s rr", "-a -f 9 -r 10.0.0.2 -m", "-A -f 10 -s rr", "-a -f 10 -r 10.0.0.2:8080 -m",
		"-A -t 192.0.2.7:0 -s rr -p 60", "-a -t 192.0.2.7:0 -r 10.0.0.1:8080 -m", "-A -f 8 -6 -s rr -p 60 -M 64", "-a -f 8 -6 -r 2001:db8:1::1 -m",
		"-A -u 192.0.2.1:53 -s rr", "-a -u 192.0.2.1:53 -r 10.0.0.2:5353 -m",
		"-A -u 192.0.2.1:5060 -s rr -p 60 --pe sip", "-a -u 192.0.2.1:5060 -r 10.0.0.1:5353 -m",
	)
	for _, c := range []struct {
		network, to string
		mark        int
		payload     string
		times       int
	}{
		{"tcp", "192.0.2.1:80", 0, "hello", 4},
		{"tcp", "[2001:db8::1]:80", 0, strings.Repeat("hello", 1000), 2},
		{"tcp", "192.0.2.7:8080", 7, "hello", 2},
		{"tcp", "192.0.2.7:8080", 9, "hello", 1},
		{"tcp", "192.0.2.1:443", 10, "hello", 1},
		{"tcp", "192.0.2.7:8080", 0, "hello", 1},
		{"tcp", "[2001:db8::7]:8080", 8, "hello", 1},
		{"udp", "192.0.2.1:53", 0, "hello", 3},
		{"udp", "192.0.2.1:5060", 0, "INVITE sip:a@example.org SIP/2.0\r\nCall-ID: 1234567890@example.org\r\nContent-Length: 0\r\n\r\n", 1},
	} {
		for range c.times {
			talk(t, p.own, c.network, c.to, c.mark, c.payload)
		}
	}
	for _, test := range []struct{ line, seen string }{
		{"-L -n -c", `(?m)^TCP \d\d:\d\d  ESTABLISHED .*:\d+ +192\.0\.2\.1:80 +10\.0\.0\.[12]:8080$`},
		{"-L -n -c", `(?m)^TCP \d\d:\d\d  \S+ +192\.0\.2\.0:0 +192\.0\.2\.1:80 +10\.0\.0\.[12]:8080$`},
		{"-L -n -c", `(?m)^IP  \d\d:\d\d  \S+ +\S+:0 +0\.0\.0\.7:0 +10\.0\.0\.1:0$`},
		{"-L -n -c", `(?m)^IP  \d\d:\d\d  \S+ +\[\S+\]:0 +\[0:8::\]:0 +\[2001:db8:1::1\]:0$`},
		{"-L -n -c --persistent-conn", `(?m)^UDP .* 10\.0\.0\.1:5353 +sip +1234567890@example\.org$`},
		{"-L -n --stats", `(?m)^TCP  192\.0\.2\.1:80 +4 `},
		{"-L -n --stats --exact", `(?m)^TCP  \[2001:db8::1\]:80 +2 `},
		{"-L -n --rate", `(?m)^TCP  192\.0\.2\.1:80 +\d+ +[1-9]`},
		{"-L -n --rate --exact", ""},
		{"-L -n --persistent-conn", `(?m)^  -> 10\.0\.0\.2:8080 +1 +[1-9]`},
		{"-L -n --thresholds", `(?m)^  -> 10\.0\.0\.2:8080 +9 +3 +[1-9]`},
		{"-L -n", ""},
		{"-L -n --stats -t 192.0.2.1:80", ""},
	} {
		p.agree(t, test.line, test.seen)
	}
	// Both zero the same.
	p.script("-Z -t 192.0.2.1:80")
	p.agree(t, "-L -n --stats", `(?m)^TCP  192\.0\.2\.1:80 +0 +0`)
	p.agree(t, "-L -n --stats", `(?m)^TCP  \[2001:db8::1\]:80 +2 `)
	p.script("-Z")
	p.agree(t, "-L -n --stats", `(?m)^TCP  \[2001:db8::1\]:80 +0 +0 `)
}

// serveAll puts the addresses on the loopback interface and has servers on it that
// echo.
func serveAll(t *testing.T, n *directortest.Namespace) {
	t.Helper()
	for _, address := range []string{
		"192.0.2.1/32", "192.0.2.7/32", "10.0.0.1/32", "10.0.0.2/32", "2001:db8::1/128", "2001:db8::7/128", "2001:db8:1::1/128",
	} {
		if err := n.AddAddress("lo", netip.MustParsePrefix(address)); err != nil {
			t.Fatal(err)
		}
	}
	err := n.Do(func() error {
		tcp, err := net.Listen("tcp", ":8080")
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = tcp.Close() })
		go func() {
			for {
				c, err := tcp.Accept()
				if err != nil {
					return
				}
				go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
			}
		}()
		udp, err := net.ListenPacket("udp4", ":5353")
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = udp.Close() })
		go func() {
			buffer := make([]byte, 2048)
			for {
				n, from, err := udp.ReadFrom(buffer)
				if err != nil {
					return
				}
				_, _ = udp.WriteTo(buffer[:n], from)
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// talk sends the payload; over TCP it waits for the echo and leaves the connection
// open until the end of the test.
func talk(t *testing.T, n *directortest.Namespace, network, to string, mark int, payload string) {
	t.Helper()
	err := n.Do(func() error {
		dialer := net.Dialer{}
		if mark != 0 {
			dialer.Control = marked(mark)
		}
		c, err := dialer.DialContext(t.Context(), network, to)
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := c.Write([]byte(payload)); err != nil || network == "udp" {
			return err
		}
		_, err = io.ReadFull(c, make([]byte, len(payload)))
		return err
	})
	if err != nil {
		t.Fatalf("%s %s: %v", network, to, err)
	}
}

// agree compares a list of a table that moves: counters lag behind and timers run,
// so it is shown until both show the same, and the pattern was in it.
func (p *pair) agree(t *testing.T, line, seen string) {
	t.Helper()
	pattern := regexp.MustCompile(seen)
	var diff string
	for range 60 {
		got := p.ipvsadm(line)
		want := reals(t, p.own, "", strings.Fields(line)...)
		diff = cmp.Diff(want, got)
		switch {
		case diff != "":
		case !pattern.MatchString(got.Out):
			diff = "they agree on, without " + seen + ":\n" + got.Out
		default:
			return
		}
	}
	t.Errorf("ipvsadm %s (-real +Shunt's): %s", line, diff)
}
