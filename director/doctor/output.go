package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// What a program may print and how long it may take.
const (
	maxOutput  = 64 << 20
	maxRunning = 10 * time.Second
)

var errLong = fmt.Errorf("it printed more than %d MiB", maxOutput>>20)

// bounded is a buffer that refuses to grow for ever.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxOutput {
		return 0, errLong
	}
	return b.Buffer.Write(p)
}

// output runs a program of the system in this thread's network namespace and
// returns what it prints. Errors wrap exec.ErrNotFound if it is not installed.
func (i *inspection) output(name string, args ...string) ([]byte, error) {
	path, err := exec.LookPath(name)
	for _, folder := range []string{"/usr/sbin", "/sbin"} { // not in every user's PATH
		if err != nil {
			path, err = exec.LookPath(filepath.Join(folder, name))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", name, exec.ErrNotFound)
	}
	ctx, cancel := context.WithTimeout(i.ctx, maxRunning)
	defer cancel()
	command := exec.CommandContext(ctx, path, args...)
	var stdout, stderr bounded
	command.Stdout, command.Stderr = &stdout, &stderr
	command.WaitDelay = time.Second // a grandchild may hold the pipes
	if err := command.Run(); err != nil {
		if stdout.Len() > 0 && errors.Is(err, errLong) {
			err = errLong
		}
		return nil, fmt.Errorf("run %s %s: %w: %s", name, strings.Join(args, " "), err, shorten(strings.TrimSpace(stderr.String())))
	}
	return stdout.Bytes(), nil
}
