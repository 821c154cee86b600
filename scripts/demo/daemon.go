package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/shunt-lb/shunt/director/directortest"
)

// startLimit is how long the daemon may take until it answers.
const startLimit = 30 * time.Second

// daemon is a running shuntd in the director's namespace.
type daemon struct {
	bin     string
	folder  string // holds the socket
	pins    string
	ns      *directortest.Namespace
	process *directortest.Cmd
	log     syncBuffer
}

// startDaemon starts shuntd with a pin folder of its own and waits until it
// answers.
func startDaemon(ctx context.Context, lab *directortest.Lab, bin string) (*daemon, error) {
	folder, err := os.MkdirTemp("", "shunt-demo-")
	if err != nil {
		return nil, err
	}
	d := &daemon{
		bin: bin, folder: folder, ns: lab.Director,
		pins: filepath.Join("/sys/fs/bpf", filepath.Base(folder)),
	}
	args := []string{"--socket", d.socket(), "--pin-dir", d.pins, "--state", d.state(), "--max-connections", "64Ki"}
	for _, name := range lab.DirectorLinks {
		args = append(args, "--interface", name)
	}
	title("Starting the daemon")
	fmt.Printf("# shuntd %s\n", strings.Join(args, " "))
	d.process = d.ns.Command(ctx, filepath.Join(bin, "shuntd"), args...)
	d.process.Stdout, d.process.Stderr = &d.log, &d.log
	if err := d.process.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start shuntd: %w (make builds it)", err), d.remove())
	}
	if err := d.ready(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%w; it said:\n%s", err, d.log.String()), d.remove())
	}
	return d, nil
}

func (d *daemon) socket() string { return filepath.Join(d.folder, "shunt.sock") }

func (d *daemon) state() string { return filepath.Join(d.folder, "state") }

// ready waits for the first answer on the socket.
func (d *daemon) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	exited := make(chan error, 1)
	go func() { exited <- d.process.Wait() }()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-exited:
			return fmt.Errorf("shuntd ended: %w", errors.Join(err, ctx.Err()))
		case <-ctx.Done():
			return fmt.Errorf("shuntd does not answer after %s", startLimit)
		case <-tick.C:
			if _, err := d.query(ctx, "status"); err == nil {
				return nil
			}
		}
	}
}

// cli runs shunt as an operator does, showing command and answer.
func (d *daemon) cli(ctx context.Context, args ...string) error {
	fmt.Printf("# shunt %s\n", strings.Join(args, " "))
	out, err := d.query(ctx, args...)
	os.Stdout.Write(out)
	return err
}

// query runs shunt and returns what it prints.
func (d *daemon) query(ctx context.Context, args ...string) ([]byte, error) {
	args = append([]string{"--socket", d.socket()}, args...)
	out, err := d.ns.Command(ctx, filepath.Join(d.bin, "shunt"), args...).Output()
	if err != nil {
		return out, fmt.Errorf("shunt %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}

// remove ends the daemon if it still runs, and takes away what it left in the
// kernel; after a detach that is nothing.
func (d *daemon) remove() error {
	if d.process.Process != nil {
		_ = d.process.Process.Kill() // it may have ended
		_ = d.process.Wait()         // and killed is no failure here
	}
	var err error
	if _, missing := os.Stat(d.pins); missing == nil {
		out, detachErr := d.ns.Command(context.Background(), filepath.Join(d.bin, "shuntd"), "detach", "--pin-dir", d.pins).CombinedOutput()
		if detachErr != nil {
			err = fmt.Errorf("shuntd detach: %w: %s", detachErr, out)
		}
		// Pins are all that keeps programs and tables alive.
		err = errors.Join(err, os.RemoveAll(d.pins))
	}
	return errors.Join(err, os.RemoveAll(d.folder))
}

// syncBuffer collects what a process writes while others read it.
type syncBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write adds to the text.
func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// String returns the text so far.
func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
