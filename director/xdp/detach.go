package xdp

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"

	"github.com/shunt-lb/shunt/bpf"
)

// Detach removes what a daemon that is not running left in the kernel: programs,
// maps with all connections, virtual addresses. Errors wrap bpf.ErrInUse if one
// is running.
func Detach(_ context.Context, pinDir string, log *slog.Logger) error {
	opts := Options{PinDir: pinDir, Log: log}.withDefaults()
	if _, err := os.Stat(opts.PinDir); errors.Is(err, fs.ErrNotExist) {
		opts.Log.Info("nothing to detach: no pins", "pins", opts.PinDir)
		return nil
	}
	plane, err := bpf.Open(opts.PinDir, bpf.Limits{})
	if errors.Is(err, bpf.ErrLayout) || errors.Is(err, bpf.ErrKernel) || errors.Is(err, bpf.ErrForeign) {
		opts.Log.Warn("the pinned maps cannot be read: virtual addresses stay on lo", "err", err)
		return bpf.Remove(opts.PinDir)
	}
	if err != nil {
		return err
	}
	if !plane.Adopted {
		opts.Log.Info("nothing was attached", "pins", opts.PinDir)
		return plane.Remove()
	}
	r, err := read(plane)
	if err != nil {
		return errors.Join(err, plane.Close())
	}
	v, err := newVIPs()
	if err != nil {
		return errors.Join(err, plane.Close())
	}
	defer v.close()
	var errs []error
	for _, a := range r.model(newArena(plane.Limits.Words)).managedAddresses() {
		errs = append(errs, v.remove(a))
	}
	return errors.Join(append(errs, plane.Remove())...)
}
