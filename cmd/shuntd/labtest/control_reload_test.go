package labtest

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/api"
)

func TestHangup(t *testing.T) {
	t.Parallel()
	p, file := newPair(t, 3, planned, 80)
	held := []*call{p.on(t, 0), p.on(t, 1)}
	hangup := func(text string) (last uint64) {
		t.Helper()
		last = p.d.lastEvent(t)
		writeFile(t, file, text)
		ok(t, p.d.process.Process.Signal(syscall.SIGHUP))
		return last
	}
	p.d.unchanged(t, func() {
		last := hangup(planned + "  - {listen: tcp://192.0.2.10:81, method: natt, servers: []}\n  - {listen: 7}\n")
		p.d.tells(t, last, "reload-failed", file+":9:43: services[1].method")  // where the method is
		p.d.tells(t, last, "reload-failed", file+":10:14: services[2].listen") // all errors at once
	})
	p.serves(t)
	p.d.unchanged(t, func() {
		last := hangup("services: []\n")
		p.d.tells(t, last, "reload-failed", "1 of 1 services")
	})
	last := hangup(grown)
	p.d.tells(t, last, "reload", "revision 2, steps: 3")
	if answers := p.requests(t, 12); answers[p.lab.Servers[0].Name] != 6 || answers[p.lab.Servers[2].Name] != 4 {
		t.Errorf("answers %v, want 6, 2 and 4 by the weights", answers)
	}
	revisions := read[[]api.RevisionInfo](t, p.d, "history", "--limit", "1")
	if len(revisions) != 1 || revisions[0].Who != "SIGHUP" || revisions[0].Number != 2 {
		t.Errorf("history %+v", revisions)
	}
	last = hangup("director: {log: {level: debug}, limits: {servers: 99}}\n" + grown)
	p.d.tells(t, last, "reload", "revision 2, steps: 0")
	p.d.waitLog(t, "limits.servers")
	// A file that does not speak of services leaves them alone.
	last = hangup("director: {connections: {timeouts: {udp: 9s}}}\n")
	p.d.tells(t, last, "reload", "revision 3, steps: 1")
	for _, c := range held {
		ok(t, c.ask())
	}
	p.d.noFaults(t)
}

// TestFileCountsAtTheFirstStartOnly restarts the daemon, and then the host as
// far as Shunt can tell: everything of the newest revision is there again, and
// nothing of a file that was changed meanwhile.
func TestFileCountsAtTheFirstStartOnly(t *testing.T) {
	t.Parallel()
	p, file := newPair(t, 3, planned, 80, 8081)
	p.d.do(t, `
		server add web 10.2.0.13 --method nat
		service edit web --scheduler mh --flags mh-port,mh-fallback --allow 10.1.0.0/16 --deny 10.1.0.4
		service add tcp://[2001:db8::10]:80 --name six --scheduler rr
		server add six [fd00:2::b]:8081 --method nat
		server add six [fd00:2::c]:8081 --method nat
		timeouts --tcp 1h --udp 7s
	`)
	configuration, head := p.d.configuration(t), p.d.head(t)
	revision := p.d.shunt(t, "history", "show", "7", "-o", "json")
	six := netip.AddrPortFrom(vip6, 80)
	same := func() {
		t.Helper()
		if diff := cmp.Diff(configuration, p.d.configuration(t)); diff != "" {
			t.Errorf("configuration (-before +after):\n%s", diff)
		}
		if now := p.d.head(t); now != head {
			t.Errorf("revision %d, want %d", now, head)
		}
		if now := p.d.shunt(t, "history", "show", "7", "-o", "json"); now != revision {
			t.Errorf("revision 7 was\n%s\nis\n%s", revision, now)
		}
		answers := send(t, p.lab.Client, []job{
			{service: "six", address: six, size: 100},
			{service: "six", address: six, size: 100},
		}, 1)["six"]
		if len(answers) != 2 {
			t.Errorf("six is answered by %v, want both servers in turn", answers)
		}
		if answers := p.requests(t, 30); len(answers) != 3 {
			t.Errorf("web is answered by %v, want three servers", answers)
		}
		if how := refused(t, p.lab.Client, p.lab.ClientAddrs4[2], p.vip); how != "nothing" {
			t.Errorf("a client that is denied got %s", how)
		}
	}
	same()
	writeFile(t, file, "services:\n  - {listen: tcp://192.0.2.66:80, method: nat, servers: []}\n")
	p.d.kill()
	p.d.start(t)
	same()

	p.d.stop(t)
	if r := p.d.offline(t, "detach", "--pin-dir", p.d.pins); r.code != 0 {
		t.Fatalf("shuntd detach: %s", r.stderr)
	}
	nothingLeft(t, p.lab, p.d)
	p.d.start(t)
	same()
	p.d.compared(t, 1)
	if d := p.d.drift(t); d.Found > 0 || len(d.Foreign) > 0 {
		t.Errorf("what a start finds missing is no drift: %+v", d)
	}

	// A file that cannot be read is an error all the same, and traffic flows on.
	p.d.stop(t)
	writeFile(t, file, "services: [")
	p.d.fails(t, 2, file+":")
	p.requests(t, 3)
	// And a store that is lost makes it a first start.
	writeFile(t, file, "services:\n  - {listen: tcp://192.0.2.66:80, method: nat, servers: []}\n")
	ok(t, os.Rename(p.d.state, filepath.Join(t.TempDir(), "state")))
	p.d.start(t)
	if s := read[api.Service](t, p.d, "service", "show", "tcp://192.0.2.66:80"); s.Foreign {
		t.Errorf("the file's service is %+v", s)
	}
	if s := read[api.Service](t, p.d, "service", "show", "tcp://192.0.2.10:80"); !s.Foreign {
		t.Errorf("the service of the lost store is %+v", s)
	}
	p.requests(t, 3)
	p.d.noFaults(t, "access-denied")
}

// A reload by the CLI says what a hangup can only log.
func TestReloadCommand(t *testing.T) {
	t.Parallel()
	p, file := newPair(t, 3, planned, 80)
	c := p.on(t, 1)
	writeFile(t, file, grown)
	if out := p.d.shunt(t, "reload", "--why", "new machine"); !strings.Contains(out, "+ add server 10.2.0.13:80") || !strings.HasSuffix(out, "revision 2: 3 steps done\n") {
		t.Errorf("it printed:\n%s", out)
	}
	p.d.unchanged(t, func() {
		writeFile(t, file, "servces: []\n")
		r := p.d.try(t, "reload")
		if r.code != 1 || !strings.Contains(r.stderr, file+":1:1") || !strings.Contains(r.stderr, "services") {
			t.Errorf("exit code %d: %s", r.code, r.stderr)
		}
	})
	ok(t, c.ask())
}
