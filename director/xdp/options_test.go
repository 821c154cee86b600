package xdp

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/bpf"
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

// What maps that are adopted have is told where something else was asked for.
func TestTellKept(t *testing.T) {
	has := bpf.Limits{Connections4: 1024, Sources: 64}
	for _, tt := range []struct {
		opts Options
		want []string
	}{
		{Options{MaxConnections: 1024, MaxSources: 64}, nil},
		{Options{MaxConnections: 4096}, nil}, // Run resizes these tables
		{Options{MaxSources: 128}, []string{"table of source networks keeps"}},
	} {
		var log bytes.Buffer
		tt.opts.Log = slog.New(slog.NewTextHandler(&log, nil))
		tt.opts.tellKept(has)
		if got := strings.Count(log.String(), "\n"); got != len(tt.want) {
			t.Errorf("%+v: %d warnings, want %d:\n%s", tt.opts, got, len(tt.want), log.String())
		}
		for _, want := range tt.want {
			if !strings.Contains(log.String(), want) {
				t.Errorf("no warning %q in\n%s", want, log.String())
			}
		}
	}
}
