package labtest

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/config"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/directortest/ipvs"
)

// The lab's addresses, as the README has them.
var (
	direct  = netip.MustParseAddr("192.0.2.20") // of the service with method dr
	far     = netip.MustParseAddr("192.0.2.30") // of the one with tunnels
	clients = netip.MustParsePrefix("10.1.0.0/16")
)

const readme = "../../../README.md"

// notRun are the shell blocks of the README that TestReadme does not run, by
// their first line, and why. All others say where they run: ```sh client.
var notRun = map[string]string{
	"make demo":                     "make test runs the demo, and would run itself",
	"make && make install":          "installs into /usr/local; the test's binaries are built like them",
	"systemctl enable --now shuntd": "no systemd runs here; TestPackages has it check the unit",
}

// block is a fenced block of a Markdown file.
type block struct {
	line  int    // of its opening fence
	kind  string // sh, text, yaml
	where string // after the kind: client, director, server
	text  string
}

func readBlocks(t *testing.T, path string) []block {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var blocks []block
	open := false
	number := 0
	for line := range strings.Lines(string(content)) {
		number++
		info, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && open:
			open = false
		case fence:
			kind, where, _ := strings.Cut(strings.TrimSpace(info), " ")
			blocks = append(blocks, block{line: number, kind: kind, where: where})
			open = true
		case open:
			blocks[len(blocks)-1].text += line
		}
	}
	return blocks
}

// TestReadme runs the README's commands in the lab in their order, with the
// configuration file it shows, and compares what they print where it says so.
func TestReadme(t *testing.T) {
	directortest.Privileged(t)
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 2})
	if _, err := lab.ServeHTTP(8080); err != nil {
		t.Fatal(err)
	}
	director := newShell(t, lab.Director)
	places := map[string][]*shell{"director": {director}, "client": {newShell(t, lab.Client)}}
	for _, s := range lab.Servers {
		places["server"] = append(places["server"], newShell(t, s.Namespace))
		// What the README says of dr and tunnels: the way back does not cross the director.
		for _, vip := range []netip.Addr{direct, far} {
			if err := s.AddRouteFrom(vip, clients, "eth0"); err != nil {
				t.Fatal(err)
			}
		}
	}
	before, ran := "", map[string]int{}
	for _, b := range readBlocks(t, readme) {
		first, _, _ := strings.Cut(b.text, "\n")
		command, _, _ := strings.Cut(first, " #")
		reason, skipped := notRun[strings.TrimSpace(command)]
		switch {
		case b.kind == "yaml" && b.where == "fragment":
			fragment(t, b)
		case b.kind == "yaml":
			if err := os.WriteFile(filepath.Join(director.folder, "shunt.yaml"), []byte(b.text), 0o600); err != nil {
				t.Fatal(err)
			}
		case b.where == inGuest: // TestGuestReadme's
		case b.kind == "text":
			if before != b.text {
				t.Fatalf("README.md:%d: the block before prints\n%s\nnot\n%s", b.line, before, b.text)
			}
		case skipped:
			t.Logf("README.md:%d: not run: %s", b.line, reason)
			ran[command]++
		case len(places[b.where]) == 0:
			t.Fatalf("README.md:%d: a block %q of %q is neither run nor in notRun", b.line, b.kind, b.where)
		default:
			for _, s := range places[b.where] {
				before = s.run(t, b)
			}
			ran[b.where]++
		}
	}
	for _, where := range []string{"director", "client", "server"} {
		if ran[where] == 0 {
			t.Errorf("no block was run in %s", where)
		}
	}
}

// inGuest is where the README's blocks run that want the kernel's IPVS.
const inGuest = "ipvs"

// TestGuestReadme runs the README's commands on the kernel's IPVS in their order.
func TestGuestReadme(t *testing.T) {
	ipvs.Guest(t)
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 2})
	director := newShell(t, lab.Director)
	ran := 0
	for _, b := range readBlocks(t, readme) {
		if b.kind == "sh" && b.where == inGuest {
			director.run(t, b)
			ran++
		}
	}
	if ran == 0 {
		t.Error("no block was run")
	}
}

// fragment checks a piece of configuration that is shown and not run.
func fragment(t *testing.T, b block) {
	t.Helper()
	if _, err := config.Parse("README.md", []byte(b.text)); err != nil {
		t.Errorf("README.md:%d: %v", b.line, err)
	}
}

// shell is a shell in a namespace of the lab that runs block after block, as
// whoever follows the README does. It has its own /run, /var/lib,
// /sys/fs/bpf and processes: nothing of the host's is touched, and all ends with it.
type shell struct {
	folder string
	input  io.Writer
	out    *logText // without errors, among them the daemon's log
	errors *logText
	blocks int
	ended  chan struct{}
}

func newShell(t *testing.T, ns *directortest.Namespace) *shell {
	t.Helper()
	s := &shell{folder: t.TempDir(), out: newLogText(), errors: newLogText(), ended: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := ns.Command(ctx, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-es")
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.folder, s.out, s.errors
	cmd.Env = append(os.Environ(), "PATH="+binaries+":"+os.Getenv("PATH"), "SHUNT_SOCKET=")
	input, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	s.input = input
	go func() {
		_ = cmd.Wait() // killed, mostly
		close(s.ended)
	}()
	t.Cleanup(func() { cancel(); <-s.ended })
	s.run(t, block{text: "mount -t tmpfs tmpfs /run\nmount -t tmpfs tmpfs /var/lib\nmount -t bpf bpf /sys/fs/bpf\n"})
	return s
}

// run runs a block to its end and returns what it printed; any failing command
// fails the test. A daemon that the block starts has answered then.
func (s *shell) run(t *testing.T, b block) string {
	t.Helper()
	s.blocks++
	from := len(s.out.String())
	done := fmt.Sprintf("@@ block %d is done", s.blocks)
	script := "{\n" + b.text + "} </dev/null\n"
	if strings.HasSuffix(b.text, "&\n") {
		script += "until shunt status >/dev/null 2>&1; do kill -0 $!; sleep 0.05; done\n"
	}
	what := ""
	if _, err := fmt.Fprintf(s.input, "%secho '%s'\n", script, done); err != nil {
		what = err.Error()
	} else {
		select {
		case <-s.out.contains(done):
		case <-s.ended:
			what = "a command failed"
		case <-time.After(limit):
			what = "the block does not end"
		}
	}
	if what != "" {
		t.Fatalf("README.md:%d: %s:\n%s\nIt said:\n%s%s", b.line, what, b.text, s.out.String()[from:], s.errors)
	}
	out, _, _ := strings.Cut(s.out.String()[from:], done)
	return out
}

// TestNotRunIsCurrent fails when the README has no block any more that notRun names.
func TestNotRunIsCurrent(t *testing.T) {
	for command := range notRun {
		found := false
		for _, b := range readBlocks(t, readme) {
			found = found || b.kind == "sh" && strings.HasPrefix(b.text, command)
		}
		if !found {
			t.Errorf("README.md has no block that begins with %q", command)
		}
	}
}
