package main

import (
	"bufio"
	"bytes"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/shunt-lb/shunt/director"
)

// TestEvents_follow: what comes is printed as it comes, also after the daemon
// was away, and an interruption is a good end.
func TestEvents_follow(t *testing.T) {
	d := seededDaemon(t)
	command := exec.Command("shunt", "events", "--follow", "--since", "0", "--name", "change", "-o", "json")
	var stderr bytes.Buffer
	command.Stderr = &stderr
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	expect := func(text string) {
		t.Helper()
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), "{") || !strings.Contains(lines.Text(), text) {
			t.Fatalf("line %q (%v): want %q", lines.Text(), lines.Err(), text)
		}
	}
	key := d.director.State().Services[0].Key
	edit := func(text string) {
		t.Helper()
		_, err := d.director.EditService(t.Context(), director.Request{Why: text}, key, func(s *director.Service) error {
			s.Name = text
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	expect("revision 1 by shuntd")
	edit("first")
	expect("revision 2 ")
	d.stop()
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	edit("second")
	expect("revision 3 ")
	if err := command.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() { // to the end
	}
	if err := command.Wait(); err != nil {
		t.Errorf("%v: %s", err, stderr.String())
	}
	if !strings.Contains(stderr.String(), "the daemon is away; waiting for it") {
		t.Errorf("stderr %q", stderr.String())
	}
}
