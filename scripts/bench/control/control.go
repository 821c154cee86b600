// Package control measures the control plane: the real daemon and CLI in a
// namespace lab, from the command to the packet that shows it, at as many
// services as the goals of issue 3 are given for.
//
// It knows how to set the scene (scene.go) and what to measure (measure.go); what
// the figures are compared with is in result.go. Times are wall time as a person
// before the terminal has it: a command's start and end are in them.
package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Options are the parameters of a measurement.
type Options struct {
	Services int // of 10 servers each
	Rounds   int // of a change; less of what takes long
	// Idle is how long the daemon is watched while nobody asks it anything.
	Idle time.Duration
	// Log is told what is being measured.
	Log func(format string, args ...any)
}

// Measure builds the binaries and measures all rows. It needs root.
func Measure(ctx context.Context, o Options) (rows []Row, err error) {
	folder, err := os.MkdirTemp("", "shunt-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	o.Log("control plane: building the binaries")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", folder+string(filepath.Separator), "./cmd/shuntd", "./cmd/shunt")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the binaries (run me at the top of the repository): %w\n%s", err, text)
	}
	s, err := newScene(ctx, folder, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for _, measure := range []func(context.Context) ([]Row, error){
		s.apply, s.edits, s.additions, s.repairs, s.scrapes, s.idle,
	} {
		more, err := measure(ctx)
		if err != nil {
			return nil, fmt.Errorf("measure the control plane: %w; the daemon said:\n%s", err, s.tail())
		}
		rows = append(rows, more...)
	}
	return rows, nil
}
