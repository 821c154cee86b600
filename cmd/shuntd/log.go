package main

import (
	"io"
	"log/slog"
)

// logger returns a logger as the settings ask, and its level, which can be
// changed later.
func logger(w io.Writer, level, format string) (*slog.Logger, *slog.LevelVar, error) {
	at := new(slog.LevelVar)
	if err := at.UnmarshalText([]byte(level)); err != nil {
		return nil, nil, usage("", "--log-level: unknown level %q: want debug, info, warn or error", level)
	}
	opts := slog.HandlerOptions{Level: at}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, &opts)), at, nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, &opts)), at, nil
	default:
		return nil, nil, usage("", "--log-format: unknown format %q: want text or json", format)
	}
}
