package labtest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// status reads a field of the process' /proc status.
func status(t *testing.T, pid int, field string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no %s in the process' status:\n%s", field, text)
	return ""
}

const (
	// minimal are the capabilities that the data plane cannot do without.
	minimal = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_BPF | 1<<unix.CAP_PERFMON
	// running are those that the daemon keeps if it has them; helping its helper's.
	running = minimal | 1<<unix.CAP_NET_RAW
	helping = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_KILL
)

// wantRights fails the test unless every thread of the process has just those.
func wantRights(t *testing.T, pid int, want uint64) {
	t.Helper()
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		tid, err := strconv.Atoi(thread.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range []string{"CapEff", "CapPrm"} {
			got, err := strconv.ParseUint(status(t, tid, field), 16, 64)
			if err != nil || got != want {
				t.Errorf("thread %d has %s %#x (%v), want %#x", tid, field, got, err, want)
			}
		}
		if got := status(t, tid, "NoNewPrivs"); got != "1" {
			t.Errorf("thread %d has NoNewPrivs %s", tid, got)
		}
	}
}

// helper returns the daemon's, a child of whichever of its threads.
func helper(t *testing.T, d *daemon) int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", d.process.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var children []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil && !os.IsNotExist(err) { // a thread that has ended
			t.Fatal(err)
		}
		children = append(children, strings.Fields(string(text))...)
	}
	if len(children) != 1 {
		t.Fatalf("the daemon has the children %v, want one", children)
	}
	pid, err := strconv.Atoi(children[0])
	ok(t, err)
	return pid
}

// A daemon that root starts keeps what running takes and gives up the rest; it
// can do all its work with that.
func TestRootGivesUpRights(t *testing.T) {
	t.Parallel()
	p := startPair(t, nat)
	wantRights(t, p.d.process.Process.Pid, running)
	wantRights(t, helper(t, p.d), helping)
	if got, err := strconv.ParseUint(status(t, p.d.process.Process.Pid, "CapBnd"), 16, 64); err != nil || got != running {
		t.Errorf("bounding set %#x (%v), want %#x", got, err, running)
	}
	p.requests(t, 10)
	p.d.do(t, "service remove web --yes\nservice add tcp://192.0.2.10:80 --name web")
	p.d.do(t, "detach")
	p.d.wait(t)
	nothingLeft(t, p.lab, p.d)
}

// asUser starts a daemon as a user of its own with those capabilities and nothing else.
func asUser(t *testing.T, lab *directortest.Lab, capabilities ...uintptr) *daemon {
	t.Helper()
	const nobody = 65534
	d := newDaemon(t, lab.Director, lab.DirectorLinks)
	// What tmpfiles.conf and the unit prepare.
	through(t, "/sys/fs/bpf")
	for _, folder := range []string{filepath.Dir(d.pins), filepath.Dir(d.socket)} {
		ok(t, os.Chown(folder, nobody, nobody))
	}
	d.credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	d.ambient = capabilities
	d.start(t)
	if got := strings.Fields(status(t, d.process.Process.Pid, "Uid")); got[0] != "65534" || got[1] != "65534" {
		t.Errorf("it runs as %v", got)
	}
	return d
}

// The daemon works as a user of its own with what the data plane takes and nothing
// else: it starts, serves, restarts, detaches.
func TestUnprivilegedUser(t *testing.T) {
	t.Parallel()
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 1})
	if _, err := lab.ServeHTTP(80); err != nil {
		t.Fatal(err)
	}
	d := asUser(t, lab, unix.CAP_NET_ADMIN, unix.CAP_BPF, unix.CAP_PERFMON)
	wantRights(t, d.process.Process.Pid, minimal)
	d.do(t, "service add tcp://192.0.2.10:80 --name web\nserver add web "+lab.Servers[0].Addr4.String()+" --method nat")
	answers := func() {
		t.Helper()
		p := pair{lab: lab, d: d, vip: netip.AddrPortFrom(vip4, 80)}
		if got := p.requests(t, 5)[lab.Servers[0].Name]; got != 5 {
			t.Errorf("%d answers, want 5", got)
		}
	}
	answers()
	d.stop(t)
	answers()
	d.start(t)
	answers()
	d.do(t, "detach")
	d.wait(t)
	nothingLeft(t, lab, d)
}

// capabilities are those by their names in a unit.
var capabilities = map[string]uintptr{
	"CAP_NET_ADMIN": unix.CAP_NET_ADMIN, "CAP_BPF": unix.CAP_BPF, "CAP_PERFMON": unix.CAP_PERFMON, "CAP_NET_RAW": unix.CAP_NET_RAW,
	"CAP_SETUID": unix.CAP_SETUID, "CAP_SETGID": unix.CAP_SETGID, "CAP_KILL": unix.CAP_KILL, "CAP_SYS_ADMIN": unix.CAP_SYS_ADMIN,
}

// With the unit's capabilities a daemon that had nothing to check at its start runs its
// first script as another user, pings, and asks a server by dr at the virtual address:
// it is down without that address, although its port is open. The daemon itself has
// none of the rights any more that this takes.
func TestFirstChecksOfTheUnit(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "scripts/package/shuntd.service"))
	ok(t, err)
	var rights []uintptr
	for line := range strings.Lines(string(text)) {
		for _, name := range strings.Fields(strings.TrimPrefix(line, "AmbientCapabilities=")) {
			if value, known := capabilities[name]; known && strings.HasPrefix(line, "AmbientCapabilities=") {
				rights = append(rights, value)
			}
		}
	}
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 1})
	if _, err := lab.ServeHTTP(80); err != nil {
		t.Fatal(err)
	}
	d := asUser(t, lab, rights...)
	pid, helps := d.process.Process.Pid, helper(t, d)
	wantRights(t, pid, running)
	wantRights(t, helps, helping)
	server := lab.Servers[0]
	file := filepath.Join(t.TempDir(), "shunt.yaml")
	const pace = "interval: 200ms, timeout: 200ms, rise: 1, fall: 1"
	writeFile(t, file, fmt.Sprintf(`services:
- {name: script, listen: "tcp://192.0.2.10:81", method: nat, servers: [{address: "%[1]s:80"}], check: {script: {command: [/bin/grep, -q, "^Uid:.1.1.1.1", /proc/self/status], user: daemon}, %[2]s}}
- {name: root, listen: "tcp://192.0.2.10:82", method: nat, servers: [{address: "%[1]s:80"}], check: {script: {command: [/bin/true], user: root}, %[2]s}}
- {name: ping, listen: "tcp://192.0.2.10:83", method: nat, servers: [{address: "%[1]s:80"}], check: {icmp: {}, %[2]s}}
- {name: path, listen: "tcp://192.0.2.10:80", method: dr, servers: [{address: "%[1]s:80"}], check: {tcp: {}, %[2]s}}
`, server.Addr4, pace))
	d.shunt(t, "apply", "-f", file, "--yes")
	state := func(service string) (bool, string) {
		s := read[api.HealthReport](t, d, "health", service, "-o", "json").Services[0].Servers[0]
		return s.Up, s.Why
	}
	for _, service := range []string{"script", "ping", "path"} {
		await(t, service+" is up", func() bool { up, _ := state(service); return up })
	}
	await(t, "a command of root's is refused", func() bool {
		up, why := state("root")
		return !up && strings.Contains(why, "no command was root's, or of root's group, when the daemon began: restart it")
	})
	address := &netlink.Addr{IPNet: &net.IPNet{IP: vip4.AsSlice(), Mask: net.CIDRMask(32, 32)}}
	loopback, err := server.Netlink().LinkByName("lo")
	ok(t, err)
	ok(t, server.Netlink().AddrDel(loopback, address))
	await(t, "a server without the virtual address is down", func() bool { up, _ := state("path"); return !up })
	ok(t, server.Netlink().AddrAdd(loopback, address))
	await(t, "it is up with it", func() bool { up, _ := state("path"); return up })
	wantRights(t, pid, running)
	d.stop(t)
	await(t, "the helper ends with the daemon", func() bool { return errors.Is(unix.Kill(helps, 0), unix.ESRCH) })
}

// passages are the folders that tests let other users go through now: how many tests do,
// and the mode that a folder had before.
var passages = struct {
	sync.Mutex
	tests map[string]int
	modes map[string]os.FileMode
}{tests: make(map[string]int), modes: make(map[string]os.FileMode)}

// through lets other users reach what is in the folder for the length of a test, and of
// others beside it.
func through(t *testing.T, folder string) {
	t.Helper()
	passages.Lock()
	defer passages.Unlock()
	if passages.tests[folder] == 0 {
		info, err := os.Stat(folder)
		ok(t, err)
		mode := info.Mode() & (os.ModePerm | os.ModeSticky)
		ok(t, os.Chmod(folder, mode|0o011))
		passages.modes[folder] = mode
	}
	passages.tests[folder]++
	t.Cleanup(func() {
		passages.Lock()
		defer passages.Unlock()
		if passages.tests[folder]--; passages.tests[folder] == 0 {
			_ = os.Chmod(folder, passages.modes[folder])
		}
	})
}

// Without the capabilities it says which are missing and leaves nothing.
func TestUserWithoutRights(t *testing.T) {
	t.Parallel()
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 1})
	d := newDaemon(t, lab.Director, lab.DirectorLinks)
	through(t, "/sys/fs/bpf")
	for _, folder := range []string{filepath.Dir(d.pins), filepath.Dir(d.socket)} {
		if err := os.Chown(folder, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	d.credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	d.fails(t, 1, "CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON")
	d.noPins(t)
}
