package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// topShell runs the command as a shell does, which says before and after how
// the terminal is set, and the exit code.
const topShell = `echo before $(stty -g) >&2; shunt top --interval 100ms; echo code $? >&2; echo after $(stty -g) >&2`

// colorControl sets a colour (ECMA-48 §8.3.117).
var colorControl = regexp.MustCompile(`\x1b\[[34][0-8][;m]`)

// startTopDaemon starts a daemon and returns it with the variable that names its
// socket.
func startTopDaemon(t *testing.T) (d *daemon, variable string) {
	t.Helper()
	d = &daemon{socket: filepath.Join(t.TempDir(), "run", "shuntd.sock")}
	d.seed()
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.stop() })
	return d, "SHUNT_SOCKET=" + d.socket
}

// ended waits for the shell and returns the exit code it saw, and what the
// program printed at its end. The terminal must be set as it was before.
func (t *terminal) ended(before string) (code, left string) {
	t.t.Helper()
	left = t.expect("code ")
	code = strings.TrimSpace(t.expect("after "))
	_, rest := t.wait()
	if after := strings.TrimSpace(rest); after != before {
		t.t.Errorf("the terminal was set %s, and is %s", before, after)
	}
	return code, left
}

// settings returns how the terminal is set before the command.
func (t *terminal) settings() string {
	t.t.Helper()
	t.expect("before ")
	return strings.TrimSpace(t.expect("\n"))
}

// TestTopTerminal: in a real terminal top shows what the daemon says, obeys keys
// and leaves the terminal as it was. Terminals without colours get none.
func TestTopTerminal(t *testing.T) {
	for _, test := range []struct {
		name         string
		env          []string
		leave, color string // what leaves the terminal's modes; what red is, if there is any
		cut          string // what stands for text there is no room for
	}{
		{"xterm", []string{"TERM=xterm-256color", "NO_COLOR=", "LC_ALL=C.UTF-8"}, "\x1b[?1049l", "\x1b[31m", "…"},
		{"no_color", []string{"TERM=xterm-256color", "NO_COLOR=1", "LC_ALL=C.UTF-8"}, "\x1b[?1049l", "", "…"},
		{"ascii", []string{"TERM=vt100", "NO_COLOR=", "LC_ALL=C"}, "\x1b[?1l\x1b>", "", "~"},
		{"other_charset", []string{"TERM=vt100", "NO_COLOR=", "LC_ALL=de_DE.ISO-8859-15"}, "\x1b[?1l\x1b>", "", "~"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, socket := startTopDaemon(t)
			term := startTerminal(t, append(test.env, socket), "sh", "-c", topShell)
			before := term.settings()
			screen := term.emulate(80, 24)
			screen.shows("h help  q quit")
			screen.shows("udp://[2001:db8::10]:53   0/1     0     1     0     0     0      0      0") // read twice
			term.send("/web\r\r")
			screen.shows("web > servers  by SERVER")
			screen.shows("10.0.0.12:80       1 dr     down      1     0")
			term.send("\x1b[B") // down
			screen.shows("10.0.0.12:80  unreachable: no answer to ARP on eth1")
			screen.setSize(40, 10)
			screen.shows(test.cut + "\n") // the title is too long
			term.send("q")
			code, left := term.ended(before)
			if code != "0" || !strings.Contains(left, test.leave) {
				t.Errorf("exit code %s after %q", code, left)
			}
			raw := string(screen.raw)
			if test.color == "" && colorControl.MatchString(raw) || !strings.Contains(raw, test.color) {
				t.Errorf("colours are not as they should be: %q", raw)
			}
			if strings.HasPrefix(test.env[0], "TERM=vt100") && strings.ContainsFunc(raw, func(r rune) bool { return r > 0x7e }) {
				t.Errorf("there is more than ASCII in %q", raw)
			}
		})
	}
}

// TestTopReconnects: the daemon goes away and comes back while top looks; a
// larger terminal shows more; ^Z stops nothing where no shell could go on.
func TestTopReconnects(t *testing.T) {
	d, socket := startTopDaemon(t)
	term := startTerminal(t, []string{"TERM=xterm", socket}, "sh", "-c", topShell)
	before := term.settings()
	screen := term.emulate(80, 24)
	screen.shows("web  tcp://192.0.2.10:80  wrr  2 servers  1 unreachable")
	d.stop()
	screen.shows("STALE for 0s: shuntd is not running: nothing answers on ")
	screen.shows("web  tcp://192.0.2.10:80  wrr  2 servers  1 unreachable")
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	screen.shows("drops 0/s")
	screen.setSize(160, 40)
	screen.shows("SERVICE                 LISTEN                  SCHED   SRV") // there is room for them now
	term.send("\x1aD")
	screen.shows("packet events  by PPS")
	term.send("\x03")
	if code, left := term.ended(before); code != "0" {
		t.Errorf("exit code %s after %q", code, left)
	}
}

// TestTopStops: ^Z gives the terminal back to the shell, and fg goes on.
func TestTopStops(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash")
	}
	_, socket := startTopDaemon(t)
	term := startTerminal(t, []string{"TERM=xterm", "PS1=ready: ", socket}, bash, "--norc", "--noprofile", "--noediting", "-i")
	term.expect("ready: ")
	term.send("shunt top\n")
	screen := term.emulate(80, 24)
	screen.shows("h help  q quit")
	term.send("\x1a")
	screen.shows("Stopped")
	if !strings.Contains(string(screen.raw), "\x1b[?1049l") {
		t.Errorf("the shell has the terminal as top left it: %q", screen.raw)
	}
	term.send("fg\n")
	screen.shows("h help  q quit")
	term.send("q")
	screen.shows("ready:")
	term.send("exit $?\n")
	if code, left := term.wait(); code != 0 {
		t.Errorf("exit code %d after %q", code, left)
	}
}

// TestTopSignal: a signal ends top as a key does.
func TestTopSignal(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			_, socket := startTopDaemon(t)
			term := startTerminal(t, []string{"TERM=xterm", socket}, "shunt", "top")
			term.emulate(80, 24).shows("h help  q quit")
			if err := term.command.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if code, left := term.wait(); code != 0 || !strings.Contains(left, "\x1b[?1049l") {
				t.Errorf("exit code %d after %q", code, left)
			}
		})
	}
}

// TestTopRefuses: what top cannot do is said before the terminal is touched.
func TestTopRefuses(t *testing.T) {
	_, socket := startTopDaemon(t)
	for _, test := range []struct {
		name, command string
		env           []string
		code          int
		want          string
	}{
		{"no_terminal", "shunt top | cat; exit 2", nil, 2, "shunt: top needs a terminal\r\nhint: `shunt stats --watch` prints\r\n"},
		{"unknown_terminal", "shunt top", []string{"TERM=nonesuch"}, 2, "shunt: top cannot use this terminal: TERM=nonesuch: "},
		{"dumb_terminal", "shunt top", []string{"TERM=dumb"}, 2, "shunt: top cannot use this terminal: TERM=dumb: "},
		{"no_daemon", "shunt --socket /nonexistent/s top", nil, 1, "shunt: shuntd is not running: nothing answers on /nonexistent/s\r\n"},
		{"interval", "shunt top --interval 1ms", nil, 2, "shunt: top: --interval 1ms is too short: want 100ms at least\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			env := append([]string{"TERM=xterm", "NO_COLOR=1", socket}, test.env...)
			code, text := startTerminal(t, env, "sh", "-c", test.command).wait()
			if code != test.code || !strings.HasPrefix(text, test.want) || strings.Contains(text, "\x1b") {
				t.Errorf("exit code %d, %q; want %d, %q", code, text, test.code, test.want)
			}
		})
	}
}
