package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a program on a pseudo-terminal of its own.
type terminal struct {
	t       *testing.T
	command *exec.Cmd
	master  *os.File
	chunks  chan []byte // unbuffered: each waits for the reader
	seen    bytes.Buffer
}

// deadline is for programs that hang: they are given up, and the test fails.
const deadline = time.Minute

// startTerminal runs the program on a terminal of 80 columns and 24 lines.
func startTerminal(t *testing.T, env []string, name string, args ...string) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80})
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(name, args...)
	command.Stdin, command.Stdout, command.Stderr = slave, slave, slave
	command.Env = append(os.Environ(), env...)
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	_ = slave.Close()
	term := &terminal{t: t, command: command, master: master, chunks: make(chan []byte)}
	go term.read()
	t.Cleanup(func() {
		_ = command.Process.Kill()
		for range term.chunks { // until the program's side is closed
		}
		_ = command.Wait()
		_ = master.Close()
	})
	return term
}

// read hands over what the program prints; EIO is the end (tty(4)).
func (t *terminal) read() {
	defer close(t.chunks)
	for {
		chunk := make([]byte, 4096)
		n, err := t.master.Read(chunk)
		if n > 0 {
			t.chunks <- chunk[:n]
		}
		if err != nil {
			return
		}
	}
}

// send types text.
func (t *terminal) send(text string) {
	t.t.Helper()
	if _, err := io.WriteString(t.master, text); err != nil {
		t.t.Fatal(err)
	}
}

// expect waits for the text and forgets what came up to it.
func (t *terminal) expect(text string) string {
	t.t.Helper()
	timeout := time.After(deadline)
	for {
		if before, after, found := strings.Cut(t.seen.String(), text); found {
			t.seen.Reset()
			t.seen.WriteString(after)
			return before
		}
		select {
		case chunk, ok := <-t.chunks:
			if !ok {
				t.t.Fatalf("the program ended without %q; seen:\n%s", text, readable(t.seen.String()))
			}
			t.seen.Write(chunk)
		case <-timeout:
			t.t.Fatalf("no %q; seen:\n%s", text, readable(t.seen.String()))
		}
	}
}

// wait returns the program's exit code and what it printed since.
func (t *terminal) wait() (int, string) {
	t.t.Helper()
	timeout := time.After(deadline)
	for {
		select {
		case chunk, ok := <-t.chunks:
			if ok {
				t.seen.Write(chunk)
				continue
			}
			err := t.command.Wait()
			if exit, ok := errors.AsType[*exec.ExitError](err); ok {
				return exit.ExitCode(), t.seen.String()
			}
			if err != nil {
				t.t.Fatal(err)
			}
			return 0, t.seen.String()
		case <-timeout:
			t.t.Fatalf("the program does not end; seen:\n%s", readable(t.seen.String()))
		}
	}
}

var controls = regexp.MustCompile(`\x1b(\[[0-9;?<>=]*[A-Za-z]|[=>78]|\][^\x07]*\x07)|[\r\x07]`)

// readable takes the controls of a terminal out of a text.
func readable(text string) string { return controls.ReplaceAllString(text, "") }
