package directortest

import (
	"context"
	"io"
	"slices"

	"github.com/shunt-lb/shunt/director"
)

var (
	_ director.DropCounter = (*Fake)(nil)
	_ director.Capturer    = (*Fake)(nil)
)

// fakeDrops is what a Fake has as a director.DropCounter and a director.Capturer.
type fakeDrops struct {
	drops    []director.Drop
	captures []director.CaptureRequest
	capture  func(ctx context.Context, w io.Writer) (director.CaptureReport, error)
}

// SetDrops sets what Drops returns.
func (f *Fake) SetDrops(drops ...director.Drop) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drops.drops = drops
}

// Drops returns what SetDrops has set.
func (f *Fake) Drops(context.Context) ([]director.Drop, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.drops.drops), nil
}

// SetCapture sets what Capture does.
func (f *Fake) SetCapture(capture func(ctx context.Context, w io.Writer) (director.CaptureReport, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drops.capture = capture
}

// Captures returns the requests that Capture was called with, and forgets them.
func (f *Fake) Captures() []director.CaptureRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	requests := f.drops.captures
	f.drops.captures = nil
	return requests
}

// Capture does what SetCapture has set; without, it writes nothing.
func (f *Fake) Capture(ctx context.Context, request director.CaptureRequest, w io.Writer) (director.CaptureReport, error) {
	f.mu.Lock()
	f.drops.captures = append(f.drops.captures, request)
	capture := f.drops.capture
	f.mu.Unlock()
	if capture == nil {
		return director.CaptureReport{}, nil
	}
	return capture(ctx, w)
}
