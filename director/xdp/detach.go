package xdp

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director/vip"
)

// Detach removes what a daemon that is not running left in the kernel: programs,
// maps with all connections, virtual addresses. Errors wrap bpf.ErrInUse if one
// is running.
func Detach(pinDir string, log *slog.Logger) error {
	if pinDir == "" {
		return errNoPinDir
	}
	if _, err := os.Stat(pinDir); errors.Is(err, fs.ErrNotExist) {
		log.Info("nothing to detach: no pins", "pins", pinDir)
		return nil
	}
	plane, err := bpf.Open(pinDir, bpf.Limits{})
	if errors.Is(err, bpf.ErrLayout) || errors.Is(err, bpf.ErrKernel) || errors.Is(err, bpf.ErrForeign) {
		log.Warn("the pinned maps cannot be read: virtual addresses stay on lo", "err", err)
		return bpf.Remove(pinDir)
	}
	if err != nil {
		return err
	}
	if !plane.Adopted {
		log.Info("nothing was attached", "pins", pinDir)
		return plane.Remove()
	}
	r, err := read(plane)
	if err != nil {
		return errors.Join(err, plane.Close())
	}
	host, err := vip.Open()
	if err != nil {
		return errors.Join(err, plane.Close())
	}
	defer host.Close()
	var errs []error
	for _, a := range r.model(newArena(plane.Limits.Words)).managedAddresses() { // read from services alone
		errs = append(errs, host.Remove(a))
	}
	locals, err := localsOf(plane)
	errs = append(errs, err)
	for _, a := range locals {
		errs = append(errs, host.Remove(a))
	}
	return errors.Join(append(errs, plane.Remove())...)
}
