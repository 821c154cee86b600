package labtest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// daemon is shuntd in a namespace, with a socket and pins of its own.
type daemon struct {
	ns     *directortest.Namespace
	socket string
	pins   string
	state  string
	args   []string // of every start
	// program is another shuntd than the one that was built for all tests; "": that one.
	program string
	// damaged: the test has spoilt the tables, whose check at its end is left out.
	damaged bool

	credential *syscall.Credential // nil: root
	ambient    []uintptr           // capabilities of a user

	process *directortest.Cmd
	ended   chan struct{} // closed when the process has ended
	log     *logText      // of the last start
}

// newDaemon prepares a daemon on the interfaces; flags come last. The test's end
// kills it and takes its pins away.
func newDaemon(t *testing.T, ns *directortest.Namespace, interfaces []string, flags ...string) *daemon {
	t.Helper()
	folder, err := os.MkdirTemp("", "shunt-lab-") // t.TempDir's paths are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	d := &daemon{
		ns: ns, socket: filepath.Join(folder, "s"), pins: filepath.Join(directortest.Bpffs(t), "pins"),
	}
	d.state = filepath.Join(folder, "state")
	d.args = []string{"--socket", d.socket, "--pin-dir", d.pins, "--state", d.state, "--max-connections", "16Ki"}
	for _, name := range interfaces {
		d.args = append(d.args, "--interface", name)
	}
	d.args = append(d.args, flags...)
	t.Cleanup(func() {
		if d.process != nil {
			d.check(t)
			d.kill()
		}
		if t.Failed() && d.log != nil {
			t.Logf("shuntd said:\n%s", d.log)
		}
	})
	return d
}

// startDaemon starts one on all interfaces of the lab's director.
func startDaemon(t *testing.T, lab *directortest.Lab, flags ...string) *daemon {
	t.Helper()
	d := newDaemon(t, lab.Director, lab.DirectorLinks, flags...)
	d.start(t)
	return d
}

// start starts it and returns when it is ready.
func (d *daemon) start(t *testing.T) {
	t.Helper()
	d.log, d.ended = newLogText(), make(chan struct{})
	program := cmp.Or(d.program, filepath.Join(binaries, "shuntd"))
	d.process = d.as(d.ns.Command(context.Background(), program, d.args...))
	d.process.Stdout, d.process.Stderr = d.log, d.log
	if err := d.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func(p *directortest.Cmd, ended chan struct{}) {
		_ = p.Wait() // how it ended is in its ProcessState
		close(ended)
	}(d.process, d.ended)
	d.waitLog(t, "msg=ready")
}

// as gives a command the daemon's user.
func (d *daemon) as(cmd *directortest.Cmd) *directortest.Cmd {
	if d.credential != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: d.credential, AmbientCaps: d.ambient}
	}
	return cmd
}

// waitLog waits for a text in the log.
func (d *daemon) waitLog(t *testing.T, text string) {
	t.Helper()
	select {
	case <-d.log.contains(text):
	case <-d.ended:
		t.Fatalf("shuntd ended (%s) without saying %q:\n%s", d.process.ProcessState, text, d.log)
	case <-time.After(limit):
		t.Fatalf("shuntd does not say %q:\n%s", text, d.log)
	}
}

// check wants the connection tables to be sound, if the daemon still runs.
func (d *daemon) check(t *testing.T) {
	t.Helper()
	select {
	case <-d.ended:
		return
	default:
	}
	if d.damaged {
		return
	}
	cmd := d.ns.Command(context.Background(), filepath.Join(binaries, "shunt"), "--socket", d.socket, "conn", "check")
	if r := execute(t, cmd); r.code != 0 {
		t.Errorf("the connection tables: %s%s", r.stdout, r.stderr)
	}
}

// kill ends it as kill -9 does.
func (d *daemon) kill() {
	_ = d.process.Process.Kill() // it may have ended
	<-d.ended
}

// stop ends it as an operator does, and fails the test unless it ends well.
func (d *daemon) stop(t *testing.T) {
	t.Helper()
	if err := d.process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.wait(t)
}

// wait waits for its end by itself.
func (d *daemon) wait(t *testing.T) {
	t.Helper()
	select {
	case <-d.ended:
	case <-time.After(limit):
		t.Fatalf("shuntd does not end:\n%s", d.log)
	}
	if code := d.process.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("shuntd ended with %d:\n%s", code, d.log)
	}
}

// result is how a command ended.
type result struct {
	code   int
	stdout string
	stderr string
}

// execute runs a command in the namespace to its end.
func execute(t *testing.T, cmd *directortest.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// try runs shunt and returns how it ended.
func (d *daemon) try(t *testing.T, args ...string) result {
	t.Helper()
	args = append([]string{"--socket", d.socket}, args...)
	return execute(t, d.ns.Command(t.Context(), filepath.Join(binaries, "shunt"), args...))
}

// shunt runs shunt, which must succeed, and returns what it printed.
func (d *daemon) shunt(t *testing.T, args ...string) string {
	t.Helper()
	r := d.try(t, args...)
	if r.code != 0 {
		t.Fatalf("shunt %s: exit code %d: %s", strings.Join(args, " "), r.code, r.stderr)
	}
	return r.stdout
}

// do runs several commands, one a line.
func (d *daemon) do(t *testing.T, lines string) {
	t.Helper()
	for line := range strings.Lines(lines) {
		if words := strings.Fields(line); len(words) > 0 {
			d.shunt(t, words...)
		}
	}
}

// read decodes what shunt prints as JSON.
func read[T any](t *testing.T, d *daemon, args ...string) T {
	t.Helper()
	out := d.shunt(t, append(args, "-o", "json")...)
	var v T
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("shunt %s: %v in %s", strings.Join(args, " "), err, out)
	}
	return v
}

// counters returns those of a service and, by address, of its servers.
func (d *daemon) counters(t *testing.T, service string) (api.Counters, map[string]api.Counters) {
	t.Helper()
	stats := read[[]api.ServiceStats](t, d, "stats", service)
	if len(stats) != 1 {
		t.Fatalf("shunt stats %s shows %d services", service, len(stats))
	}
	servers := map[string]api.Counters{}
	for _, s := range stats[0].Servers {
		servers[s.Address] = s.Counters
	}
	return stats[0].Counters, servers
}

// events returns the counts of all events by name.
func (d *daemon) events(t *testing.T) map[string]uint64 {
	t.Helper()
	counts := map[string]uint64{}
	for _, e := range read[[]api.PacketEvent](t, d, "drops", "--all") {
		counts[e.Name] = e.Count
	}
	return counts
}

// noFaults fails the test if packets were dropped for a reason not named, or
// anything happened that cannot.
func (d *daemon) noFaults(t *testing.T, expected ...string) {
	t.Helper()
	for _, e := range read[[]api.PacketEvent](t, d, "drops") {
		if e.Kind == "fault" || e.Kind == "drop" && !slices.Contains(expected, e.Name) {
			t.Errorf("%d packets counted as %s (%s): %s", e.Count, e.Name, e.Kind, e.Help)
		}
	}
}

// server returns what is observed of one server.
func (d *daemon) server(t *testing.T, service, address string) api.Server {
	t.Helper()
	s := read[api.Service](t, d, "service", "show", service)
	i := slices.IndexFunc(s.Servers, func(s api.Server) bool { return s.Address == address })
	if i < 0 {
		t.Fatalf("service %s has no server %s: %+v", service, address, s.Servers)
	}
	return s.Servers[i]
}

// connections returns how many there are, by the arguments of conn count.
func (d *daemon) connections(t *testing.T, args ...string) uint64 {
	t.Helper()
	return read[api.ConnectionCount](t, d, append([]string{"conn", "count"}, args...)...).Count
}

// configuration returns all that operators can change, as text.
func (d *daemon) configuration(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, s := range read[[]api.Service](t, d, "service", "list") {
		fmt.Fprintln(&all, s.Listen, s.Name, s.Scheduler, s.Flags, s.VIP)
		for _, r := range s.Servers {
			fmt.Fprintln(&all, "  ", r.Address, r.Method, r.Weight)
		}
	}
	return all.String() + d.shunt(t, "timeouts", "-o", "json")
}

// await asks until the answer is yes.
func await(t *testing.T, what string, yes func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for !yes() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// logText collects what a process writes and tells when a text is in it.
type logText struct {
	mu    sync.Mutex
	text  strings.Builder
	waits map[string]chan struct{}
}

func newLogText() *logText { return &logText{waits: map[string]chan struct{}{}} }

// Write adds to the text.
func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	l.tell()
	return len(p), nil
}

// String returns the text so far.
func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// contains returns a channel that is closed once want is in the text.
func (l *logText) contains(want string) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := make(chan struct{})
	if other, ok := l.waits[want]; ok {
		return other
	}
	l.waits[want] = c
	l.tell()
	return c
}

func (l *logText) tell() {
	for want, c := range l.waits {
		if c != nil && strings.Contains(l.text.String(), want) {
			close(c)
			delete(l.waits, want)
		}
	}
}
