package directortest_test

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/directortest"
)

func newNamespace(t *testing.T) *directortest.Namespace {
	t.Helper()
	directortest.Privileged(t)
	n, err := directortest.NewNamespace("test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func threadNamespace(t *testing.T) string {
	t.Helper()
	name, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestNamespaceDoChangesOnlyItsOwnThread(t *testing.T) {
	n := newNamespace(t)
	home := threadNamespace(t)
	for range 50 {
		var inside string
		if err := n.Do(func() error { inside = threadNamespace(t); return nil }); err != nil {
			t.Fatal(err)
		}
		if inside == home {
			t.Fatal("Do ran f outside the namespace")
		}
		runtime.Gosched()
		if got := threadNamespace(t); got != home {
			t.Fatalf("after Do the caller is in %s, want %s", got, home)
		}
	}
	// Only its own thread stays; the others end soon after Do has returned.
	deadline := time.Now().Add(10 * time.Second)
	for threadsAbroad(t, home) > 1 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if got := threadsAbroad(t, home); got != 1 {
		t.Errorf("%d threads are in other namespaces after 50 calls, want 1", got)
	}
}

func threadsAbroad(t *testing.T, home string) int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, task := range tasks {
		if name, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/net"); err == nil && name != home {
			count++
		}
	}
	return count
}

func TestNamespaceDoReportsErrors(t *testing.T) {
	n := newNamespace(t)
	want := errors.New("refused")
	if err := n.Do(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("Do returned %v, want %v", err, want)
	}
	err := n.Do(func() error { runtime.Goexit(); return nil })
	if err == nil || !strings.Contains(err.Error(), "did not return") {
		t.Errorf("Do returned %v for a function that left its goroutine", err)
	}
}

func TestNamespaceCommand(t *testing.T) {
	n := newNamespace(t)
	var inside string
	if err := n.Do(func() error { inside = threadNamespace(t); return nil }); err != nil {
		t.Fatal(err)
	}
	out, err := n.Command(t.Context(), "readlink", "/proc/self/ns/net").Output()
	if err != nil || string(bytes.TrimSpace(out)) != inside {
		t.Errorf("the command ran in %s, %v, want %s", out, err, inside)
	}
	_, err = n.Command(t.Context(), "sh", "-c", "echo no such thing >&2; exit 3").Output()
	if err == nil || !strings.Contains(err.Error(), "no such thing") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("failing command: %v", err)
	}
	out, err = n.Command(t.Context(), "sh", "-c", "echo a; echo b >&2").CombinedOutput()
	if err != nil || string(out) != "a\nb\n" {
		t.Errorf("both outputs: %q, %v", out, err)
	}
	if err := n.Command(t.Context(), "/nonexistent").Run(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing program: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.Command(t.Context(), "true").Run(); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("start in a closed namespace: %v", err)
	}
}

func TestNamespaceSysctlAndOffloadNameTheirObject(t *testing.T) {
	n := newNamespace(t)
	if err := n.Sysctl("net/ipv4/ip_forward", "1"); err != nil {
		t.Fatal(err)
	}
	if got, err := n.ReadSysctl("net/ipv4/ip_forward"); err != nil || got != "1" {
		t.Errorf("ip_forward = %q, %v", got, err)
	}
	for want, err := range map[string]error{
		"net/none":            n.Sysctl("net/none", "1"),
		"of eth7 in test":     n.SetOffload("eth7", directortest.GRO, directortest.On),
		"find link eth8":      n.AddRouteFrom(directortest.VIP4, netip.MustParsePrefix("10.0.0.0/8"), "eth8"),
		"\"eth89012345678901": n.SetOffload("eth890123456789012", directortest.GRO, directortest.Off),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
	counters, err := n.Counters()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"TcpInCsumErrors", "UdpInCsumErrors", "Udp6InCsumErrors", "TcpExtTCPTimeouts", "IpForwDatagrams"} {
		if _, found := counters[name]; !found {
			t.Errorf("no counter %s", name)
		}
	}
}
