package xdp

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/shunt-lb/shunt/director"
)

// No directory is not the default one: that may be another daemon's.
func TestPinDirIsRequired(t *testing.T) {
	if _, err := Open(t.Context(), Options{Interfaces: []string{"lo"}}); !errors.Is(err, director.ErrInvalid) {
		t.Errorf("Open: %v, want it invalid", err)
	}
	if err := Detach("", slog.New(slog.DiscardHandler)); !errors.Is(err, director.ErrInvalid) {
		t.Errorf("Detach: %v, want it invalid", err)
	}
}
