package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// silent is an input where nothing comes.
type silent struct{ read func() }

// Read says that it is waited for, and waits for ever.
func (s silent) Read([]byte) (int, error) {
	s.read()
	select {}
}

// TestInterrupted_reads: a command that waits for its input ends when it is
// interrupted.
func TestInterrupted_reads(t *testing.T) {
	t.Setenv("SHUNT_SOCKET", "/nonexistent/shuntd.sock")
	for _, test := range []struct{ args, want string }{
		{"apply -f -", "shunt: apply: interrupted while it read the standard input\n"},
		{"diff -f -", "shunt: diff: interrupted while it read the standard input\n"},
		{"config check -", "shunt: config check: interrupted while it read the standard input\n"},
		{"config fmt -", "shunt: config fmt: interrupted while it read the standard input\n"},
	} {
		t.Run(test.args, func(t *testing.T) {
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			var stdout, stderr bytes.Buffer
			code := run(ctx, append([]string{"shunt"}, strings.Fields(test.args)...), streams{silent{interrupt}, &stdout, &stderr})
			if code != exitFailed || stdout.Len() > 0 || stderr.String() != test.want {
				t.Errorf("code %d, stdout %q, stderr %q", code, stdout.String(), stderr.String())
			}
		})
	}
}

// startOnPipe runs the command with a named pipe as its last argument, and
// returns once it reads it.
func startOnPipe(t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	command := exec.Command("shunt", append(args, pipe)...)
	command.Stderr = &stderr
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	writer, err := os.OpenFile(pipe, os.O_WRONLY, 0) // waits for the reader (fifo(7))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = writer.Close()
	})
	return command, &stderr
}

// TestInterrupted_pipes: the real command, by a real signal.
func TestInterrupted_pipes(t *testing.T) {
	for _, args := range []string{"config fmt", "config check"} {
		for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			t.Run(args+" "+signal.String(), func(t *testing.T) {
				command, stderr := startOnPipe(t, strings.Fields(args)...)
				if err := command.Process.Signal(signal); err != nil {
					t.Fatal(err)
				}
				err := command.Wait()
				if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != exitFailed || !strings.Contains(stderr.String(), args+": interrupted while it read ") {
					t.Errorf("%v, stderr %q", err, stderr)
				}
			})
		}
	}
}

// TestInterrupted_twice: what does not heed the first signal ends by another.
func TestInterrupted_twice(t *testing.T) {
	command, _ := startOnPipe(t, "--server", "https://127.0.0.1:1", "status", "--token-file")
	ended := make(chan error, 1) // one value, sent once
	go func() { ended <- command.Wait() }()
	for {
		_ = command.Process.Signal(syscall.SIGINT) // it may have ended just now
		select {
		case err := <-ended:
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT {
				t.Errorf("it ended by %v", err)
			}
			return
		case <-time.After(10 * time.Millisecond): // as fast as nobody types
		}
	}
}
