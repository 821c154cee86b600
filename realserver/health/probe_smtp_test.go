package health_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
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
		{"hangs after the greeting", say(ready), stepwise, "", []string{"read the reply to EHLO: no answer in time"}},
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

// upgrading answers as mail does, offers STARTTLS and goes on over TLS with the answers of secure.
func upgrading(config *tls.Config, after string, secure map[string]string) func(net.Conn) {
	return func(conn net.Conn) {
		fmt.Fprint(conn, "220 mx.example.org ESMTP\r\n")
		lines := bufio.NewScanner(conn)
		for lines.Scan() {
			switch verb, _, _ := strings.Cut(lines.Text(), " "); verb {
			case "EHLO":
				fmt.Fprint(conn, "250-mx.example.org\r\n250-SIZE 1000\r\n250 starttls\r\n")
			case "STARTTLS":
				fmt.Fprint(conn, after)
				if strings.HasPrefix(after, "220") {
					mail("", secure)(tls.Server(conn, config))
				}
				return
			default:
				return
			}
		}
	}
}

func TestSMTP_STARTTLS(t *testing.T) {
	const ahead = "220 go ahead\r\n"
	a := newAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{a.server("mx", 1000*time.Hour)}}
	mutual := config.Clone()
	mutual.ClientAuth = tls.RequireAnyClientCert
	ends := &tls.Config{Certificates: []tls.Certificate{a.server("ends", time.Hour)}}
	ended := &tls.Config{Certificates: []tls.Certificate{a.server("ended", -time.Hour)}}
	named := &tls.Config{Certificates: []tls.Certificate{a.server("named", 1000*time.Hour, "mail.example.org")}}
	hello := map[string]string{"EHLO": "250 $ again\r\n"}
	trusted := realserver.TLSCheck{CA: a.file}
	a.server("probe", 1000*time.Hour)
	for _, test := range []struct {
		name    string
		server  func(net.Conn)
		tls     *realserver.TLSCheck
		timeout time.Duration
		warning string
		fails   []string
	}{
		{"goes on", upgrading(config, ahead, hello), &trusted, patient, "", nil},
		{"by name", upgrading(named, ahead, hello), &realserver.TLSCheck{CA: a.file, ServerName: "mail.example.org"}, patient, "", nil},
		{"another's certificate", upgrading(named, ahead, hello), &trusted, patient, "", []string{"agree on TLS as 127.0.0.1: ", "certificate"}},
		{"nobody's certificate", upgrading(config, ahead, hello), nil, patient, "", []string{"agree on TLS as 127.0.0.1: ", "certificate"}},
		{"ends soon", upgrading(ends, ahead, hello), &trusted, patient, "the server's certificate ends on ", nil},
		{"has ended", upgrading(ended, ahead, hello), &trusted, patient, "", []string{"certificate has expired"}},
		{"has ended, unverified", upgrading(ended, ahead, hello), &realserver.TLSCheck{SkipVerify: true}, patient, "the server's certificate ended on ", nil},
		{"wants ours", upgrading(mutual, ahead, hello), &realserver.TLSCheck{CA: a.file, Certificate: a.dir + "/probe.pem", Key: a.dir + "/probe.key"}, patient, "", nil},
		{"misses ours", upgrading(mutual, ahead, hello), &trusted, patient, "", []string{"read the reply to EHLO: ", "certificate required"}},
		{"refuses then", upgrading(config, ahead, map[string]string{"EHLO": "421 busy\r\n"}), &trusted, patient, "", []string{"read the reply to EHLO: the server says 421 busy"}},
		{"refuses to begin", upgrading(config, "454 not now\r\n", nil), &trusted, patient, "", []string{"read the reply to STARTTLS: the server says 454 not now"}},
		{"does not offer it", mail("220 mx\r\n", map[string]string{"EHLO": "250-STARTTLS\r\n250-X-STARTTLS\r\n250 HELP STARTTLS\r\n"}), &trusted, patient, "", []string{"the server does not offer STARTTLS"}},
		{"knows no EHLO", mail("220 mx\r\n", map[string]string{"EHLO": "502 what?\r\n", "HELO": "250 hello\r\n"}), &trusted, patient, "", []string{"read the reply to EHLO: the server says 502 what?"}},
		{"speaks in the clear", upgrading(config, ahead+"250 injected\r\n", hello), &trusted, patient, "", []string{"14 bytes in the clear came after the reply to STARTTLS"}},
		{"closes", upgrading(config, "", nil), &trusted, patient, "", []string{"read the reply to STARTTLS: the connection was closed"}},
		{"hangs", func(conn net.Conn) { upgrading(config, "", nil)(conn); hang(conn) }, &trusted, stepwise, "", []string{"read the reply to STARTTLS: no answer in time"}},
		{"has TLS come first", func(conn net.Conn) { mail("220 mx\r\n", hello)(tls.Server(conn, config)) }, &trusted, hurried, "", []string{"read the greeting: no answer in time"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			check := realserver.Check{Kind: realserver.CheckSMTP, SMTP: &realserver.SMTPCheck{Hello: "me.example.org", STARTTLS: true}, TLS: test.tls}
			got := probe(t, check, serve(t, test.server), test.timeout)
			if test.fails != nil {
				wantFail(t, got, test.fails...)
				return
			}
			wantPass(t, got, "mx.example.org ESMTP")
			if !strings.HasPrefix(got.Warning, test.warning) || (test.warning == "") != (got.Warning == "") || got.CertificateEnd.IsZero() {
				t.Errorf("it warns %q, and the certificate ends at %s: want a warning %q", got.Warning, got.CertificateEnd, test.warning)
			}
		})
	}
}

// TestSMTP_STARTTLS_of_aiosmtpd asks a mail server of its own kind, which refuses mail
// before STARTTLS.
func TestSMTP_STARTTLS_of_aiosmtpd(t *testing.T) {
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import aiosmtpd").Run(); err != nil {
		if os.Getenv("REQUIRE_PRIVILEGED") == "1" {
			t.Fatal(err)
		}
		t.Skip("there is no aiosmtpd: scripts/setup.sh installs it")
	}
	a := newAuthority(t)
	a.server("mx", 1000*time.Hour)
	const program = `
import asyncio, ssl, sys
from aiosmtpd.smtp import SMTP
async def main(certificate, key):
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    async def serve(**terms):
        server = await asyncio.get_running_loop().create_server(lambda: SMTP(object(), hostname="mx.example.org", **terms), "127.0.0.1", 0)
        return server.sockets[0].getsockname()[1]
    print(await serve(tls_context=tls, require_starttls=True), await serve(), flush=True)
    await asyncio.sleep(600)
asyncio.run(main(*sys.argv[1:]))
`
	cmd := exec.Command(python, "-c", program, a.dir+"/mx.pem", a.dir+"/mx.key")
	cmd.Env, cmd.Stderr = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1"), os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	var port, plain uint16
	if _, err := fmt.Fscan(out, &port, &plain); err != nil {
		t.Fatalf("read the ports of aiosmtpd: %v", err)
	}
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port) }
	check := realserver.Check{Kind: realserver.CheckSMTP, SMTP: &realserver.SMTPCheck{Hello: "me.example.org", STARTTLS: true}, TLS: &realserver.TLSCheck{CA: a.file}}
	wantPass(t, probe(t, check, at(port), patient), "mx.example.org Python SMTP")
	wantFail(t, probe(t, check, at(plain), patient), "the server does not offer STARTTLS")
	check.TLS = nil
	wantFail(t, probe(t, check, at(port), patient), "agree on TLS as 127.0.0.1: ", "certificate")
}
