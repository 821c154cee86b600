package labtest

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// ldirectord is Debian's, in the director's namespace, whose ipvsadm is shunt.
type ldirectord struct {
	d      *daemon
	folder string // with its configuration and a link ipvsadm
	place  place

	process *directortest.Cmd
	ended   chan struct{} // closed when the process has ended
	log     *logText      // of the last start
	ran     []string      // commands of the starts before
}

// place is where ldirectord finds its ipvsadm.
type place int

const (
	// sbin: /sbin/ipvsadm, of another mount namespace, is shunt, as with
	// BindReadOnlyPaths= of a systemd unit.
	sbin place = iota
	// beside: with -d ldirectord prefers a file of the name in the folder where it is
	// started.
	beside
)

// newLdirectord prepares one. With -d it stays in the foreground and logs the command
// lines that it runs.
func newLdirectord(t *testing.T, d *daemon, where place) *ldirectord {
	t.Helper()
	l := &ldirectord{d: d, folder: t.TempDir(), place: where}
	if err := os.Symlink(filepath.Join(binaries, "shunt"), filepath.Join(l.folder, "ipvsadm")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if l.process != nil {
			l.kill()
		}
		if t.Failed() && l.log != nil {
			t.Logf("ldirectord said:\n%s", l.log)
		}
	})
	return l
}

// file is its configuration, of a name that no other has: it looks for a pid file of
// that name, and removes it at its end.
func (l *ldirectord) file() string { return filepath.Join(l.folder, "shunt-lab.cf") }

// start starts it with the configuration.
func (l *ldirectord) start(t *testing.T, configuration string) {
	t.Helper()
	writeFile(t, l.file(), configuration)
	if l.log != nil {
		l.ran = l.commands()
	}
	l.log, l.ended = newLogText(), make(chan struct{})
	args := []string{"/usr/sbin/ldirectord", "-d", l.file(), "start"}
	dir := l.folder
	if l.place == sbin {
		bind := fmt.Sprintf(`mount --bind %s /usr/sbin/ipvsadm && exec "$@"`, filepath.Join(l.folder, "ipvsadm"))
		args = append([]string{"unshare", "--mount", "sh", "-c", bind, "sh"}, args...)
		dir = "/"
	}
	l.process = l.d.ns.Command(context.Background(), args[0], args[1:]...)
	l.process.Dir = dir
	l.process.Env = append(os.Environ(), "SHUNT_SOCKET="+l.d.socket)
	l.process.Stdout, l.process.Stderr = l.log, l.log
	if err := l.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func(p *directortest.Cmd, ended chan struct{}) {
		_ = p.Wait() // how it ended is in its ProcessState
		close(ended)
	}(l.process, l.ended)
}

// reload gives it another configuration.
func (l *ldirectord) reload(t *testing.T, configuration string) {
	t.Helper()
	writeFile(t, l.file(), configuration)
	if err := l.process.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// kill ends it as kill -9 does.
func (l *ldirectord) kill() {
	_ = l.process.Process.Kill() // it may have ended
	<-l.ended
}

// stop ends it as an operator does.
func (l *ldirectord) stop(t *testing.T) {
	t.Helper()
	if err := l.process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-l.ended:
	case <-time.After(limit):
		t.Fatal("ldirectord does not end")
	}
	if code := l.process.ProcessState.ExitCode(); code != 0 {
		t.Errorf("ldirectord ended with %d", code)
	}
}

var (
	command = regexp.MustCompile(`(?m)^Running system\((?:\.|/sbin)/ipvsadm (.*?) *\)$`)
	change  = regexp.MustCompile(`(?m)^(Added|Changed|Restored|Quiescent|Readd|Deleted|Purged) .*$`)
)

// commands are the ipvsadm command lines that change something, as it ran them.
func (l *ldirectord) commands() []string {
	all := slices.Clone(l.ran)
	for _, line := range command.FindAllStringSubmatch(l.log.String(), -1) {
		all = append(all, line[1])
	}
	return all
}

// changes are what it says that it changed.
func (l *ldirectord) changes() []string { return change.FindAllString(l.log.String(), -1) }

// noneFailed fails the test if an ipvsadm did, or if a line of a list was not
// understood.
func (l *ldirectord) noneFailed(t *testing.T) {
	t.Helper()
	for line := range strings.Lines(l.log.String()) {
		if strings.Contains(line, "Running system") {
			continue
		}
		if strings.Contains(line, "ipvsadm") && strings.Contains(line, "failed") || strings.Contains(line, "line read from ipvsadm") {
			t.Errorf("ldirectord: %s", line)
		}
	}
}

// readiness is what a server answers to ldirectord's checks, at a port of its own.
type readiness struct{ status atomic.Int32 }

// hangUp stands for a status: the connection is closed without an answer.
const hangUp = 0

// ready begins with 200.
func ready(t *testing.T, ns *directortest.Namespace, port uint16) *readiness {
	t.Helper()
	r := &readiness{}
	r.status.Store(http.StatusOK)
	listener, err := ns.Listen(t.Context(), netip.AddrPortFrom(netip.IPv6Unspecified(), port))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		status := int(r.status.Load())
		if status == hangUp {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(status)
		fmt.Fprintln(w, "in service")
	})
	server := &http.Server{Handler: mux}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener) // until it is closed
	}()
	t.Cleanup(func() {
		_ = server.Close() // its listener may have been closed
		<-ended
	})
	return r
}

// offered are the weights of the service's servers by address.
func (d *daemon) offered(t *testing.T, service string) map[string]uint32 {
	t.Helper()
	weights := map[string]uint32{}
	for _, s := range read[api.Service](t, d, "service", "show", service).Servers {
		weights[s.Address] = s.Weight
	}
	return weights
}

// paired are the clients of the connections with a server, one that was removed
// included.
func (d *daemon) paired(t *testing.T, server string) []string {
	t.Helper()
	var all []string
	for _, c := range read[[]api.Connection](t, d, "conn", "list", "--server", server) {
		all = append(all, c.Client)
	}
	slices.Sort(all)
	return all
}
