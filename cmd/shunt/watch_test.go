package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestWatch_separates_looks: without a terminal each look begins with a line of
// its own, and an interruption is a good end.
func TestWatch_separates_looks(t *testing.T) {
	seededDaemon(t)
	for _, test := range []struct{ format, want string }{{"table", "--- 20"}, {"yaml", "---"}, {"json", "{"}} {
		t.Run(test.format, func(t *testing.T) {
			command := exec.Command("shunt", "timeouts", "-o", test.format, "--watch=100ms")
			command.Stderr = os.Stderr
			stdout, err := command.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			looks := 0
			for lines := bufio.NewScanner(stdout); looks < 3 && lines.Scan(); {
				if strings.HasPrefix(lines.Text(), test.want) {
					looks++
				}
			}
			if err := command.Process.Signal(syscall.SIGINT); err != nil {
				t.Error(err)
			}
			_, _ = io.Copy(io.Discard, stdout) // what was printed meanwhile
			if err := command.Wait(); err != nil || looks != 3 {
				t.Errorf("%d looks, then %v", looks, err)
			}
		})
	}
}

// TestWatch_redraws_a_terminal: in place, cut to its size, in colours; ^C ends
// it well.
func TestWatch_redraws_a_terminal(t *testing.T) {
	d := seededDaemon(t)
	term := startTerminal(t, []string{"TERM=xterm", "NO_COLOR="}, "shunt", "server", "list", "--watch=100ms")
	for range 3 {
		term.expect(topLeft)
	}
	frame := term.expect(clearRest)
	if !strings.HasPrefix(frame, "every 100ms: shunt server list, ") || !strings.Contains(frame, "\x1b[32mreachable\x1b[0m"+clearLine) {
		t.Errorf("frame %q", frame)
	}
	// A daemon that goes is shown in the place of the table, and one that comes
	// back as well.
	d.stop()
	term.expect("shuntd is not running")
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	term.expect("reachable")
	term.send("\x03")
	if code, _ := term.wait(); code != exitOK {
		t.Errorf("code %d", code)
	}
}

// TestWatch_cuts_to_the_screen: a terminal of 24 lines shows no more.
func TestWatch_cuts_to_the_screen(t *testing.T) {
	seededDaemon(t)
	term := startTerminal(t, []string{"TERM=xterm"}, "shunt", "service", "list", "-o", "json", "--watch")
	term.expect(topLeft)
	frame := term.expect(clearRest)
	if lines := strings.Count(frame, "\n") + 1; lines != 24 || !strings.Contains(frame, " more lines)") {
		t.Errorf("%d lines: %q", lines, frame)
	}
	term.send("\x03")
	if code, _ := term.wait(); code != exitOK {
		t.Errorf("code %d", code)
	}
}

// TestWatch_first_look_must_succeed: a daemon that is not there is an error.
func TestWatch_first_look_must_succeed(t *testing.T) {
	t.Setenv("SHUNT_SOCKET", "/nonexistent/shuntd.sock")
	term := startTerminal(t, nil, "shunt", "status", "--watch")
	if code, text := term.wait(); code != exitFailed || !strings.Contains(text, "shuntd is not running") {
		t.Errorf("code %d, %q", code, text)
	}
}
