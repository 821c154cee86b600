package doctor_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director/doctor"
)

// tree is a prepared /proc and /sys, for conditions that cannot be made on the
// machine of the tests: a kernel without JIT, a bad clock, interrupts, limits.
type tree string

func newTree(t *testing.T, files map[string]string) tree {
	t.Helper()
	root := tree(t.TempDir())
	for name, text := range files {
		root.write(t, name, text)
	}
	return root
}

func (r tree) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(string(r), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// run carries out a fix on the tree: sysctl -w name=value and echo value > file,
// which is all that fixes do to /proc and /sys.
func (r tree) run(t *testing.T, fix string) {
	t.Helper()
	for command := range strings.SplitSeq(fix, ";") {
		command, _, _ = strings.Cut(strings.TrimSpace(command), " #")
		if settings, found := strings.CutPrefix(command, "sysctl -w "); found {
			for setting := range strings.FieldsSeq(settings) {
				name, value, _ := strings.Cut(setting, "=")
				r.exists(t, "proc/sys/"+strings.ReplaceAll(name, ".", "/"))
				r.write(t, "proc/sys/"+strings.ReplaceAll(name, ".", "/"), value)
			}
		} else if echo, found := strings.CutPrefix(command, "echo "); found {
			value, file, _ := strings.Cut(echo, " > ")
			r.exists(t, file)
			r.write(t, file, value)
		} else {
			t.Fatalf("not a command for a tree: %s", command)
		}
	}
}

func (r tree) exists(t *testing.T, name string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(string(r), name)); err != nil {
		t.Fatalf("the fix is about another file: %v", err)
	}
}

// here inspects this namespace with the tree's files.
func (r tree) here(t *testing.T, h doctor.Host) []doctor.Finding {
	t.Helper()
	h.Root = string(r)
	findings, err := doctor.Inspect(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	return findings
}

// card is a network card that the machine of the tests does not have. What is
// not set the driver does not tell.
type card struct {
	driver   string
	features map[string]bool
	queues   map[string]doctor.Queues // by interface
	hashing  map[string]doctor.Hashing
}

func (c *card) Driver(string) (string, error)            { return c.driver, nil }
func (c *card) Features(string) (map[string]bool, error) { return c.features, nil }

func (c *card) Queues(name string) (doctor.Queues, error) {
	if q, found := c.queues[name]; found {
		return q, nil
	}
	return doctor.Queues{}, unix.EOPNOTSUPP
}

func (c *card) Hashing(name string) (doctor.Hashing, error) {
	if h, found := c.hashing[name]; found {
		return h, nil
	}
	return doctor.Hashing{}, unix.EOPNOTSUPP
}

func symlink(t *testing.T, to, from string) {
	t.Helper()
	if err := os.Symlink(to, from); err != nil {
		t.Fatal(err)
	}
}

// sendUDP sends an empty datagram from this thread's network namespace.
func sendUDP(to netip.AddrPort) error {
	family, sockaddr := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(to.Port())})
	if to.Addr().Is4() {
		sockaddr.(*unix.SockaddrInet4).Addr = to.Addr().As4()
	} else {
		family, sockaddr = unix.AF_INET6, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, []byte("knock"), 0, sockaddr)
}

// since skips a test that needs a newer kernel than this one.
func since(t *testing.T, major, minor int, what string) {
	t.Helper()
	var system unix.Utsname
	if err := unix.Uname(&system); err != nil {
		t.Fatal(err)
	}
	var have [2]int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(system.Release[:]), "%d.%d", &have[0], &have[1]); err != nil {
		t.Fatal(err)
	}
	if have[0] < major || have[0] == major && have[1] < minor {
		t.Skipf("needs Linux %d.%d: %s", major, minor, what)
	}
}
