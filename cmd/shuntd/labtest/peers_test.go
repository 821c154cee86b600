package labtest

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shunt-lb/shunt/director/directortest"
)

// peer is a server program of Debian's in a real server's namespace, which fails in
// the ways that real ones do.
type peer struct {
	t       *testing.T
	ns      *directortest.Namespace
	name    string
	command []string

	process *directortest.Cmd
	ended   chan struct{} // closed when the process has ended
	log     *logText      // of the last start
}

// start starts it; there is no wait until it answers.
func (p *peer) start() {
	p.t.Helper()
	p.log, p.ended = newLogText(), make(chan struct{})
	p.process = p.ns.Command(context.Background(), p.command[0], p.command[1:]...)
	p.process.Stdout, p.process.Stderr = p.log, p.log
	if err := p.process.Start(); err != nil {
		p.t.Fatal(err)
	}
	process, ended := p.process, p.ended
	go func() {
		_ = process.Wait() // how it ended does not matter
		close(ended)
	}()
}

// run starts it and ends it with the test.
func (p *peer) run() *peer {
	p.t.Helper()
	p.start()
	p.t.Cleanup(func() {
		p.kill()
		if p.t.Failed() {
			p.t.Logf("%s said:\n%s", p.name, p.log)
		}
	})
	return p
}

// kill ends it as kill -9 does: its port is closed.
func (p *peer) kill() {
	_ = p.process.Process.Kill() // it may have ended
	<-p.ended
}

// signal stops it or lets it go on: it hangs, and its port is open.
func (p *peer) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.process.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// lose has the host drop packets that it sends: all of them, or half; of "" none any more.
func (p *peer) lose(which string) {
	p.t.Helper()
	rules := "delete table inet shunt_lab\n"
	if which != "" {
		rules = fmt.Sprintf("table inet shunt_lab { chain out { type filter hook output priority 0; meta l4proto { tcp, udp } %s drop; }; }\n", which)
	}
	cmd := p.ns.Command(p.t.Context(), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("nft: %v: %s", err, out)
	}
}

// What lose may drop.
const (
	everything = "meta mark 0" // of any packet that nobody marked
	half       = "numgen random mod 2 == 0"
)

// nginx serves the folder that it returns, on port 80.
func nginx(t *testing.T, ns *directortest.Namespace) (*peer, string) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(root), 0o755); err != nil { // nginx' user reads it
		t.Fatal(err)
	}
	folder := t.TempDir()
	configuration := filepath.Join(folder, "nginx.conf")
	text := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log stderr;
events { worker_connections 64; }
http {
	access_log off;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	server { listen 80; listen [::]:80; root %[2]s; }
}
`, folder, root)
	if err := os.WriteFile(configuration, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, ns: ns, name: "nginx", command: []string{"/usr/sbin/nginx", "-e", "stderr", "-c", configuration}}
	return p.run(), root
}

// dnsmasq answers for the name up.example on the server's address.
func dnsmasq(t *testing.T, ns *directortest.Namespace, addr netip.Addr) *peer {
	t.Helper()
	p := &peer{t: t, ns: ns, name: "dnsmasq", command: []string{
		"/usr/sbin/dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--pid-file=",
		"--bind-interfaces", "--listen-address=" + addr.String(), "--address=/up.example/198.51.100.53", "--log-facility=-",
	}}
	return p.run()
}

// aiosmtpd takes mail on port 25 of the server's address.
func aiosmtpd(t *testing.T, ns *directortest.Namespace, addr netip.Addr) *peer {
	t.Helper()
	p := &peer{t: t, ns: ns, name: "aiosmtpd", command: []string{
		"/usr/bin/python3", "-m", "aiosmtpd", "--nosetuid", "--listen", netip.AddrPortFrom(addr, 25).String(),
	}}
	return p.run()
}

// must ends the test on an error of what it sets up.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
