package main

import (
	"io"
	"log/slog"
)

// logger returns a logger as the flags ask.
func logger(w io.Writer, level, format string) (*slog.Logger, error) {
	var opts slog.HandlerOptions
	var at slog.Level
	if err := at.UnmarshalText([]byte(level)); err != nil {
		return nil, usage("", "--log-level: unknown level %q: want debug, info, warn or error", level)
	}
	opts.Level = at
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, &opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, &opts)), nil
	default:
		return nil, usage("", "--log-format: unknown format %q: want text or json", format)
	}
}
