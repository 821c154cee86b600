package directortest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"syscall"
)

// Cmd is a process to run inside a namespace. Use it like the exec.Cmd it
// holds. Only the network is another: the file systems, /sys/fs/bpf among them,
// are the caller's (unlike ip netns exec, which mounts another /sys).
//
// The process is killed when its namespace is closed and when this program
// dies, whichever comes first.
type Cmd struct {
	*exec.Cmd

	ns   *Namespace
	once sync.Once // guards the one call of exec.Cmd.Wait
	err  error     // of that call
}

// Command prepares a process inside the namespace. The context kills it as
// with exec.CommandContext.
func (n *Namespace) Command(ctx context.Context, name string, args ...string) *Cmd {
	return &Cmd{Cmd: exec.CommandContext(ctx, name, args...), ns: n}
}

// Start starts the process without waiting for it.
func (c *Cmd) Start() error {
	if c.SysProcAttr == nil {
		c.SysProcAttr = &syscall.SysProcAttr{}
	}
	// The signal comes when the thread that forked ends, so the fork is done
	// on the namespace's thread, which lives as long as the namespace.
	c.SysProcAttr.Pdeathsig = syscall.SIGKILL

	c.ns.mu.Lock()
	defer c.ns.mu.Unlock()
	if c.ns.closed {
		return fmt.Errorf("start %s: network namespace %s is closed", c.Path, c.ns.Name)
	}
	started := make(chan error)
	c.ns.jobs <- func() { started <- c.Cmd.Start() }
	if err := <-started; err != nil {
		return err
	}
	c.ns.children[c] = struct{}{}
	return nil
}

// Wait waits for the process to end. Safe to call more than once and from
// several goroutines.
func (c *Cmd) Wait() error {
	c.once.Do(func() {
		c.err = c.Cmd.Wait()
		c.ns.mu.Lock()
		delete(c.ns.children, c)
		c.ns.mu.Unlock()
	})
	return c.err
}

// Run starts the process and waits for it.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the process and returns what it wrote to standard output. Its
// standard error is part of the returned error.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, errors.New("output: standard output is set already")
	}
	var stdout, stderr bytes.Buffer
	c.Stdout = &stdout
	if c.Stderr == nil {
		c.Stderr = &stderr
	}
	err := c.Run()
	if err != nil && stderr.Len() > 0 {
		err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), err
}

// CombinedOutput runs the process and returns what it wrote to standard output
// and standard error.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	if c.Stdout != nil || c.Stderr != nil {
		return nil, errors.New("combined output: standard output or error is set already")
	}
	var both bytes.Buffer
	c.Stdout, c.Stderr = &both, &both
	err := c.Run()
	return both.Bytes(), err
}
