package labtest

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

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

// running are the capabilities design.md §9 names, without NET_RAW, which no
// part takes yet.
const running = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_BPF | 1<<unix.CAP_PERFMON

// wantRights fails the test unless every thread of the daemon has just those.
func wantRights(t *testing.T, d *daemon) {
	t.Helper()
	pid := d.process.Process.Pid
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
			if err != nil || got != running {
				t.Errorf("thread %d has %s %#x (%v), want %#x", tid, field, got, err, running)
			}
		}
		if got := status(t, tid, "NoNewPrivs"); got != "1" {
			t.Errorf("thread %d has NoNewPrivs %s", tid, got)
		}
	}
}

// A daemon that root starts keeps what running takes and gives up the rest; it
// can do all its work with that.
func TestRootGivesUpRights(t *testing.T) {
	p := startPair(t, nat)
	wantRights(t, p.d)
	if got, err := strconv.ParseUint(status(t, p.d.process.Process.Pid, "CapBnd"), 16, 64); err != nil || got != running {
		t.Errorf("bounding set %#x (%v), want %#x", got, err, running)
	}
	p.requests(t, 10)
	p.d.do(t, "service remove web --yes\nservice add tcp://192.0.2.10:80 --name web")
	p.d.do(t, "detach")
	p.d.wait(t)
	nothingLeft(t, p.lab, p.d)
}

// The daemon works as a user of its own with the unit's capabilities and
// nothing else: it starts, serves, restarts, detaches.
func TestUnprivilegedUser(t *testing.T) {
	const nobody = 65534
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 1})
	if _, err := lab.ServeHTTP(80); err != nil {
		t.Fatal(err)
	}
	d := newDaemon(t, lab.Director, lab.DirectorLinks)
	// What tmpfiles.conf and the unit prepare.
	through(t, "/sys/fs/bpf")
	for _, folder := range []string{filepath.Dir(d.pins), filepath.Dir(d.socket)} {
		if err := os.Chown(folder, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	d.credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	d.ambient = []uintptr{unix.CAP_NET_ADMIN, unix.CAP_BPF, unix.CAP_PERFMON}
	d.start(t)
	wantRights(t, d)
	if got := strings.Fields(status(t, d.process.Process.Pid, "Uid")); got[0] != "65534" || got[1] != "65534" {
		t.Errorf("it runs as %v", got)
	}
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

// through lets other users reach what is in the folder for the length of a test.
func through(t *testing.T, folder string) {
	t.Helper()
	info, err := os.Stat(folder)
	if err != nil {
		t.Fatal(err)
	}
	mode := info.Mode() & (os.ModePerm | os.ModeSticky)
	if err := os.Chmod(folder, mode|0o011); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(folder, mode) })
}

// Without the capabilities it says which are missing and leaves nothing.
func TestUserWithoutRights(t *testing.T) {
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
