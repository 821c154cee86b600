package agent

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/directortest"
)

// TestLoadCommand: its number takes the place of the measured one; what is wrong is said
// once, and no load is told until it is right again.
func TestLoadCommand(t *testing.T) {
	directortest.Privileged(t)
	folder, err := os.MkdirTemp("", "shunt-load-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	program := filepath.Join(folder, "load")
	var said bytes.Buffer
	measured := 0.25
	s := Settings{LoadCommand: []string{program, "0.75"}, LoadTimeout: 5 * time.Second, LoadUser: strconv.Itoa(os.Geteuid())}
	c, err := newLoadCommand(&s, func() *Load { return &Load{Value: measured, Memory: &measured} }, slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if c.load() != nil {
		t.Error("a load is told before the command was asked")
	}
	for _, test := range []struct {
		text    string
		mode    os.FileMode
		timeout time.Duration
		value   float64 // -1: none
		says    string  // "": nothing
	}{
		{`echo "$1"`, 0o700, 0, 0.75, ""},
		{"echo 0", 0o700, 0, 0, ""},
		{"echo busy", 0o700, 0, -1, `it prints \"busy\": want a number from 0 to 1`},
		{"echo busy", 0o700, 0, -1, ""},
		{"echo 1", 0o700, 0, 1, "the load is known again"},
		{"echo 1.01", 0o700, 0, -1, `it prints \"1.01\"`},
		{"echo nan", 0o700, 0, -1, `it prints \"nan\"`},
		{"echo 0.5; exit 2", 0o700, 0, -1, "status 2"},
		{"sleep 1000", 0o700, 50 * time.Millisecond, -1, "has no end within 50ms"},
		{"echo 0.5", 0o702, 0, -1, "anyone may write"},
		{"echo 0.5", 0o700, 0, 0.5, "the load is known again"},
	} {
		said.Reset()
		if err := os.WriteFile(program, []byte("#!/bin/sh\n"+test.text+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(program, test.mode); err != nil {
			t.Fatal(err)
		}
		c.timeout = s.LoadTimeout
		if test.timeout != 0 {
			c.timeout = test.timeout
		}
		c.ask(t.Context())
		value := -1.0
		if l := c.load(); l != nil {
			value = l.Value
			if l.Memory == nil {
				t.Errorf("%s: what is measured beside it is missing", test.text)
			}
		}
		if value != test.value || !strings.Contains(said.String(), test.says) || (test.says == "") != (said.Len() == 0) {
			t.Errorf("%s: load %v, says %q, want %v, %q", test.text, value, said.String(), test.value, test.says)
		}
	}
	if os.Geteuid() == 0 {
		s.LoadUser = ""
		if c, err := newLoadCommand(&s, nil, nil); err != nil || c.command.User != "nobody" {
			t.Errorf("root's command runs as %q, %v", c.command.User, err)
		}
	}
}
