package labtest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/shunt-lb/shunt/director/directortest"
)

// late is how long after a request a slow server answers: later than any check or
// client waits.
const late = 1500 * time.Millisecond

// peer is a server program of Debian's in a real server's namespace, which fails in
// the ways that real ones do.
type peer struct {
	t       *testing.T
	ns      *directortest.Namespace
	name    string
	command []string
	env     []string // besides the test's
	folder  string   // that what it says of itself is in

	process *directortest.Cmd
	ended   chan struct{} // closed when the process has ended
	log     *logText      // of the last start
}

// start starts it; there is no wait until it answers.
func (p *peer) start() error {
	p.log, p.ended = newLogText(), make(chan struct{})
	p.process = p.ns.Command(context.Background(), p.command[0], p.command[1:]...)
	p.process.Stdout, p.process.Stderr = p.log, p.log
	p.process.Env = append(os.Environ(), p.env...)
	if err := p.process.Start(); err != nil {
		return err
	}
	process, ended := p.process, p.ended
	go func() {
		_ = process.Wait() // how it ended does not matter
		close(ended)
	}()
	return nil
}

// run starts it and ends it with the test.
func (p *peer) run() *peer {
	p.t.Helper()
	ok(p.t, p.start())
	p.t.Cleanup(func() {
		ok(p.t, p.kill())
		if p.t.Failed() {
			p.t.Logf("%s said:\n%s", p.name, p.log)
		}
	})
	return p
}

// kill ends it as kill -9 does: its port is closed.
func (p *peer) kill() error {
	_ = p.process.Process.Kill() // it may have ended
	<-p.ended
	return nil
}

// signals returns how to stop it, or have it go on, or look at its files.
func (p *peer) signals(s syscall.Signal) func() error {
	return func() error { return p.process.Process.Signal(s) }
}

// says returns how to have one of its files hold a text; of "" there is none.
func (p *peer) says(name, text string) func() error {
	return func() error {
		path := filepath.Join(p.folder, name)
		if text == "" {
			return os.Remove(path)
		}
		// It may be read at any time: never half of it.
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			return err
		}
		if err := os.Chmod(path+".new", 0o644); err != nil {
			return err
		}
		return os.Rename(path+".new", path)
	}
}

// both returns how to do one thing after the other.
func both(first, second func() error) func() error {
	return func() error {
		if err := first(); err != nil {
			return err
		}
		return second()
	}
}

// openFolder returns a folder that servers of any user may read.
func openFolder(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	ok(t, os.Chmod(filepath.Dir(folder), 0o755))
	ok(t, os.Chmod(folder, 0o755))
	return folder
}

// queue is how many connections nginx has wait to be accepted; a short one is full soon
// after it stops, and its first segments are dropped.
const queue, shortQueue = 511, 1

// nginx serves its folder on ports of all addresses; while there is a file slow in it, a
// few bytes a second.
func nginx(t *testing.T, ns *directortest.Namespace, backlog int, ports ...uint16) *peer {
	t.Helper()
	root, folder := openFolder(t), t.TempDir()
	configuration := filepath.Join(folder, "nginx.conf")
	listen := ""
	for _, port := range ports {
		listen += fmt.Sprintf("listen %d backlog=%d; ", port, backlog)
	}
	writeFile(t, configuration, fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log stderr;
events { worker_connections 64; }
http {
	access_log off;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	server { %[3]s root %[2]s; if (-f %[2]s/slow) { set $limit_rate 8; } }
}
`, folder, root, listen))
	p := &peer{t: t, ns: ns, name: "nginx", folder: root, command: []string{"/usr/sbin/nginx", "-e", "stderr", "-c", configuration}}
	ok(t, p.says("state", "in service\n")())
	return p.run()
}

// What is in dnsmasq's file, which it reads after a SIGHUP: what it does not have there
// it asks of another server, which is slow.
const (
	rightHost = "198.51.100.53 up.example\n"
	wrongHost = "198.51.100.99 up.example\n"
	otherHost = "198.51.100.53 down.example\n"
)

// dnsmasq answers for the name up.example on the server's address.
func dnsmasq(t *testing.T, server *directortest.Server) *peer {
	t.Helper()
	folder := openFolder(t)
	upstream := netip.MustParseAddrPort("127.0.0.1:5353")
	slowResolver(t, server.Namespace, upstream)
	p := &peer{t: t, ns: server.Namespace, name: "dnsmasq", folder: folder, command: []string{
		"/usr/sbin/dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--pid-file=",
		"--bind-interfaces", "--listen-address=" + server.Addr4.String(), "--addn-hosts=" + filepath.Join(folder, "hosts"),
		"--cache-size=0", "--server=127.0.0.1#5353", "--log-facility=-",
	}}
	ok(t, p.says("hosts", rightHost)())
	return p.run()
}

// slowResolver answers any query with the right address, too late.
func slowResolver(t *testing.T, ns *directortest.Namespace, at netip.AddrPort) {
	t.Helper()
	conn, err := ns.ListenPacket(t.Context(), at)
	ok(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buffer[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Additionals = true, nil
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 1},
				Body:   &dnsmessage.AResource{A: [4]byte{198, 51, 100, 53}},
			}}
			if answer, err := m.Pack(); err == nil {
				time.AfterFunc(late, func() { _, _ = conn.WriteTo(answer, from) }) // nobody waits for it
			}
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-done })
}

// aiosmtpd takes mail on port 25 of the server's address, in the mood that its file says:
// of "wrong" it is busy, of "slow" late.
func aiosmtpd(t *testing.T, server *directortest.Server) *peer {
	t.Helper()
	folder := openFolder(t)
	writeFile(t, filepath.Join(folder, "moody.py"), fmt.Sprintf(`
import asyncio, os
class Handler:
    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        session.host_name = hostname
        if os.path.exists(%[1]q + "/slow"):
            await asyncio.sleep(%[2]v)
        if os.path.exists(%[1]q + "/wrong"):
            return ["421 busy"]
        return responses
`, folder, late.Seconds()))
	p := &peer{
		t: t, ns: server.Namespace, name: "aiosmtpd", folder: folder, env: []string{"PYTHONPATH=" + folder, "PYTHONDONTWRITEBYTECODE=1"},
		command: []string{"/usr/bin/python3", "-m", "aiosmtpd", "--nosetuid", "--class", "moody.Handler", "--listen", netip.AddrPortFrom(server.Addr4, 25).String()},
	}
	return p.run()
}

// lose returns how to have the host drop half of the packets that it sends from a port.
func lose(ns *directortest.Namespace, protocol string, port uint16) func() error {
	return func() error {
		_, err := nft(ns, fmt.Sprintf(
			"table inet lose_%d { chain out { type filter hook output priority 0; %s sport %[1]d numgen random mod 2 == 0 counter drop; }; }", port, protocol))
		return err
	}
}

// find returns how to end that, and notes how many packets were lost.
func find(ns *directortest.Namespace, port uint16, lost *int) func() error {
	return func() error {
		table := fmt.Sprintf("table inet lose_%d", port)
		text, err := nft(ns, "list "+table)
		if err != nil {
			return err
		}
		_, counter, _ := strings.Cut(text, "counter packets ")
		if _, err := fmt.Sscan(counter, lost); err != nil {
			return fmt.Errorf("read what was lost of %s: %w", text, err)
		}
		_, err = nft(ns, "delete "+table) // both in one command end nft 1.0.6 by a signal
		return err
	}
}

func nft(ns *directortest.Namespace, command string) (string, error) {
	cmd := ns.Command(context.Background(), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(command + "\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("nft: %w: %s", err, out)
	}
	return string(out), err
}

// vanish takes the server's only link down: nobody answers for its address any more.
func vanish(server *directortest.Server) error {
	link, err := server.Netlink().LinkByName("eth0")
	if err != nil {
		return err
	}
	return server.Netlink().LinkSetDown(link)
}

// reappear takes it up again, with the route that went with it.
func reappear(lab *directortest.Lab, server *directortest.Server) error {
	link, err := server.Netlink().LinkByName("eth0")
	if err != nil {
		return err
	}
	if err := server.Netlink().LinkSetUp(link); err != nil {
		return err
	}
	return server.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.2.0.1"))
}

// dialFrom returns how clients in the namespace connect.
func dialFrom(ns *directortest.Namespace, network string, to netip.AddrPort) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return ns.Dial(ctx, network, netip.AddrPort{}, to)
	}
}
