package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const withoutServers = `services:
  - {listen: "tcp://192.0.2.10:80", name: web, scheduler: wrr, method: nat, servers: [{address: 10.0.0.11:8080, weight: 3}]}
  - {listen: "udp://[2001:db8::10]:53", scheduler: sh, flags: [sh-port, sh-fallback], vip: external, method: dr, servers: [{address: "2001:db8:1::1", weight: 0}]}
`

// TestApply_asks: on a terminal, what is removed is asked about first.
func TestApply_asks(t *testing.T) {
	const question = "This removes 1 server, which cuts 1 connection. Go on? [y/N] "
	for _, test := range []struct {
		answer, want string
		code         int
		servers      int
	}{
		{"n\r", "shunt: apply: not confirmed; nothing was changed", exitFailed, 2},
		{"\r", "shunt: apply: not confirmed; nothing was changed", exitFailed, 2},
		{"\x04", "shunt: apply: not confirmed; nothing was changed", exitFailed, 2},
		{"\x03", "shunt: apply: interrupted; nothing was changed", exitFailed, 2},
		{"yes\r", "revision 2: 1 step done", exitOK, 1},
		{"Y\r", "revision 2: 1 step done", exitOK, 1},
	} {
		t.Run(strings.Trim(test.answer, "\r"), func(t *testing.T) {
			d := seededDaemon(t)
			file := filepath.Join(t.TempDir(), "shunt.yaml")
			if err := os.WriteFile(file, []byte(withoutServers), 0o600); err != nil {
				t.Fatal(err)
			}
			term := startTerminal(t, []string{"TERM=dumb"}, "shunt", "apply", "-f", file)
			term.expect("- remove server 10.0.0.12:80 from tcp://192.0.2.10:80\r\n" + question)
			term.send(test.answer)
			code, text := term.wait()
			if code != test.code || !strings.Contains(text, test.want) {
				t.Errorf("code %d, text %q: want %d and %q", code, text, test.code, test.want)
			}
			if got := len(d.director.State().Services[0].Servers); got != test.servers {
				t.Errorf("%d servers, want %d", got, test.servers)
			}
		})
	}
}

// TestApply_asks_nobody: with --yes, and where only additions are made.
func TestApply_asks_nobody(t *testing.T) {
	seededDaemon(t)
	file := filepath.Join(t.TempDir(), "shunt.yaml")
	if err := os.WriteFile(file, []byte(withoutServers), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"apply", "-f", file, "--yes"}, {"rollback", "1"}} {
		code, text := startTerminal(t, []string{"TERM=dumb"}, "shunt", args...).wait()
		if code != exitOK || strings.Contains(text, "Go on?") || !strings.Contains(text, "1 step done") {
			t.Errorf("shunt %v: code %d, %q", args, code, text)
		}
	}
}

// TestRemove_asks: a service or a server with connections is asked about, one
// without is not.
func TestRemove_asks(t *testing.T) {
	d := seededDaemon(t)
	term := startTerminal(t, []string{"TERM=dumb"}, "shunt", "service", "remove", "web")
	term.expect("This removes service tcp://192.0.2.10:80, which cuts 8 connections. Go on? [y/N] ")
	term.send("n\r")
	if code, text := term.wait(); code != exitFailed || !strings.Contains(text, "service remove: not confirmed") {
		t.Errorf("code %d, %q", code, text)
	}
	term = startTerminal(t, []string{"TERM=dumb"}, "shunt", "server", "remove", "web", "10.0.0.12")
	term.expect("This removes server 10.0.0.12 of tcp://192.0.2.10:80, which cuts 1 connection. Go on? [y/N] ")
	term.send("y\r")
	if code, text := term.wait(); code != exitOK || !strings.Contains(text, "1 connection cut") {
		t.Errorf("code %d, %q", code, text)
	}
	if code, text := startTerminal(t, nil, "shunt", "service", "remove", "web", "--yes").wait(); code != exitOK || strings.Contains(text, "Go on?") {
		t.Errorf("code %d, %q", code, text)
	}
	if services := d.director.State().Services; len(services) != 1 {
		t.Errorf("%d services, want 1", len(services))
	}
}

// TestKill_asks: on a terminal, what is killed is counted and asked about first,
// unless nothing matches.
func TestKill_asks(t *testing.T) {
	d := seededDaemon(t)
	d.fake.SetStats(filledStats())
	d.fake.SetConnections(filledConnections()...)
	for _, test := range []struct {
		args, question, answer, want string
		code                         int
	}{
		{"--service web", "This removes 3 connections and 2 templates. Go on? [y/N] ", "n\r", "conn kill: not confirmed; nothing was changed", exitFailed},
		{"--service web --kind template", "This removes 2 templates. Go on? [y/N] ", "y\r", "2 templates killed", exitOK},
		{"--kind template", "", "", "0 templates killed", exitOK},
		{"--client 198.51.100.7", "This removes 1 connection. Go on? [y/N] ", "y\r", "1 connection killed, templates included", exitOK},
		{"--client 198.51.100.8 --yes", "", "", "1 connection killed, templates included", exitOK},
	} {
		term := startTerminal(t, []string{"TERM=dumb"}, "shunt", append([]string{"conn", "kill"}, strings.Fields(test.args)...)...)
		if test.question != "" {
			term.expect(test.question)
			term.send(test.answer)
		}
		if code, text := term.wait(); code != test.code || !strings.Contains(text, test.want) || strings.Contains(text, "Go on?") {
			t.Errorf("%s: code %d, %q", test.args, code, text)
		}
	}
	term := startTerminal(t, []string{"TERM=dumb"}, "shunt", "server", "remove", "web", "10.0.0.11:8080")
	term.expect("This removes server 10.0.0.11:8080 of tcp://192.0.2.10:80, which cuts 7 connections and 1 template. Go on? [y/N] ")
	term.send("y\r")
	if code, text := term.wait(); code != exitOK || !strings.Contains(text, "7 connections and 1 template cut") {
		t.Errorf("code %d, %q", code, text)
	}
}
