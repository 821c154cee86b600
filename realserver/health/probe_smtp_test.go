package health_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/realserver"
)

// mail greets and answers each command by its verb.
func mail(greeting string, answers map[string]string) func(net.Conn) {
	return func(conn net.Conn) {
		fmt.Fprint(conn, greeting)
		lines := bufio.NewScanner(conn)
		for lines.Scan() {
			verb, _, _ := strings.Cut(lines.Text(), " ")
			if verb == "QUIT" {
				return
			}
			fmt.Fprint(conn, strings.ReplaceAll(answers[verb], "$", lines.Text()))
		}
	}
}

func TestSMTP(t *testing.T) {
	const ready = "220-mx.example.org ESMTP\r\n220 ready\r\n"
	ok := map[string]string{"EHLO": "250-mx greets $\r\n250-PIPELINING\r\n250 HELP\r\n"}
	for _, test := range []struct {
		name    string
		server  func(net.Conn)
		timeout time.Duration
		detail  string
		fails   []string
	}{
		{"greets", mail(ready, ok), patient, "mx.example.org ESMTP", nil},
		{"is old", mail("220 old\r\n", map[string]string{"EHLO": "502 what?\r\n", "HELO": "250 hello\r\n"}), patient, "old", nil},
		{"refuses at once", mail("554 no\r\n", ok), patient, "", []string{"read the greeting: the server says 554 no"}},
		{"refuses EHLO", mail(ready, map[string]string{"EHLO": "421 busy\r\n"}), patient, "", []string{"read the reply to EHLO: the server says 421 busy"}},
		{"refuses both", mail(ready, map[string]string{"EHLO": "500 no\r\n", "HELO": "550 no, \x1b[31m$\r\n"}), patient, "", []string{"read the reply to HELO: the server says 550 no, .[31mHELO me.example.org"}},
		{"no SMTP", mail("HTTP/1.1 200 OK\r\n", ok), patient, "", []string{"read the greeting: "}},
		{"a long line", say("220 " + strings.Repeat("x", 1<<20)), patient, "", []string{"read the greeting: the connection was closed"}},
		{"endless lines", say(strings.Repeat("220-x\r\n", 100<<10)), patient, "", []string{"read the greeting: the connection was closed"}},
		{"drips", drip("220-x\r\n"), hurried, "", []string{"read the greeting: no answer in time"}},
		{"hangs", hang, hurried, "", []string{"read the greeting: no answer in time"}},
		{"hangs after the greeting", say(ready), hurried, "", []string{"read the reply to EHLO: no answer in time"}},
		{"closes", func(net.Conn) {}, patient, "", []string{"read the greeting: the connection was closed"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			check := realserver.Check{Kind: realserver.CheckSMTP, SMTP: &realserver.SMTPCheck{Hello: "me.example.org"}}
			got := probe(t, check, serve(t, test.server), test.timeout)
			if test.fails != nil {
				wantFail(t, got, test.fails...)
			} else {
				wantPass(t, got, test.detail)
			}
		})
	}
	a := newAuthority(t)
	pair := a.server("mx", time.Hour*1000)
	secure := serve(t, func(conn net.Conn) {
		mail(ready, ok)(tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{pair}}))
	})
	wantPass(t, probe(t, realserver.Check{Kind: realserver.CheckSMTP, TLS: &realserver.TLSCheck{CA: a.file}}, secure, patient), "mx.example.org")
	wantFail(t, probe(t, realserver.Check{Kind: realserver.CheckSMTP}, closedPort(t), patient), "connection refused")
}
