package main

import (
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director"
)

// TestDrain_asks: on a terminal, what would be cut at once is asked about first.
func TestDrain_asks(t *testing.T) {
	const question = "This removes 7 connections of server 10.0.0.11:8080 of tcp://192.0.2.10:80. Go on? [y/N] "
	for _, test := range []struct {
		answer, want string
		code, drains int
	}{
		{"n\r", "shunt: server drain: not confirmed; nothing was changed", exitFailed, 0},
		{"\x03", "shunt: server drain: interrupted; nothing was changed", exitFailed, 0},
		{"y\r", "7 connections left (2 active, 5 inactive, 0 udp), being removed", exitOK, 1},
	} {
		t.Run(strings.Trim(test.answer, "\r"), func(t *testing.T) {
			d := seededDaemon(t)
			term := startTerminal(t, []string{"TERM=dumb"}, "shunt", "server", "drain", "web", "10.0.0.11:8080", "--kill")
			term.expect(question)
			term.send(test.answer)
			if code, text := term.wait(); code != test.code || !strings.Contains(text, test.want) {
				t.Errorf("code %d, text %q: want %d and %q", code, text, test.code, test.want)
			}
			if got := len(d.director.State().Drains); got != test.drains {
				t.Errorf("%d drains, want %d", got, test.drains)
			}
		})
	}
	t.Run("nothing_to_cut", func(t *testing.T) {
		d := seededDaemon(t)
		d.hasLeft(0, 2)
		for _, line := range []string{"drain web 10.0.0.11:8080 --kill --deadline 1h", "drain web 10.0.0.12 --kill"} {
			code, text := startTerminal(t, []string{"TERM=dumb"}, "shunt", append([]string{"server"}, strings.Fields(line)...)...).wait()
			if code != exitOK || strings.Contains(text, "Go on?") {
				t.Errorf("%s: code %d, text %q", line, code, text)
			}
		}
	})
}

// TestDrain_waits: --wait prints what is left as it changes, through a restart of
// the daemon, to the end.
func TestDrain_waits(t *testing.T) {
	begin := func(t *testing.T) (*daemon, *terminal) {
		t.Helper()
		d := seededDaemon(t)
		d.hasLeft(3, 1)
		term := startTerminal(t, []string{"TERM=dumb"}, "shunt", "server", "drain", "web", "10.0.0.11:8080", "--wait")
		term.expect("  draining: 3 connections left (2 active, 1 inactive, 0 udp)\r\n")
		return d, term
	}
	t.Run("until_none_is_left", func(t *testing.T) {
		d, term := begin(t)
		d.hasLeft(2, 1)
		term.expect("  draining: 2 connections left (1 active, 1 inactive, 0 udp)\r\n")
		d.stop()
		term.expect("shunt: the daemon is away; waiting for it\r\n")
		d.hasLeft(0, 1)
		if err := d.start(); err != nil {
			t.Fatal(err)
		}
		term.expect("shunt: the daemon is back\r\n")
		if code, text := term.wait(); code != exitOK || !strings.HasSuffix(text, "  drained: no connection is left\r\n") {
			t.Errorf("code %d, text %q", code, text)
		}
	})
	t.Run("until_it_is_cancelled", func(t *testing.T) {
		d, term := begin(t)
		if _, err := d.director.CancelDrain(t.Context(), director.Request{}, filledWeb, filledA); err != nil {
			t.Fatal(err)
		}
		if code, text := term.wait(); code != exitFailed || !strings.Contains(text, "shunt: server drain: server 10.0.0.11:8080 of tcp://192.0.2.10:80: it is not being drained any more") {
			t.Errorf("code %d, text %q", code, text)
		}
	})
	t.Run("until_it_is_interrupted", func(t *testing.T) {
		d, term := begin(t)
		term.send("\x03")
		if code, text := term.wait(); code != exitFailed || !strings.Contains(text, "shunt: server drain: interrupted; the drain goes on") {
			t.Errorf("code %d, text %q", code, text)
		}
		if len(d.director.State().Drains) != 1 {
			t.Error("the drain does not go on")
		}
	})
}
