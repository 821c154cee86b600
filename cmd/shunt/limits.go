package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
)

// What a service lets begin, and its guard.

// guardModes are those of --guard.
var guardModes = []string{director.GuardAuto.String(), director.GuardOn.String(), director.GuardOff.String()}

// limitFlags are those of `service add` and `service edit`.
func limitFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "limit-rate", Usage: "let `N` new connections a second begin, and as many at once; none: any number"},
		&cli.StringFlag{Name: "limit-connections", Usage: "let the service have `N` connections at one time; none: any number"},
		&cli.StringFlag{Name: "source-rate", Usage: "let each source network begin `N` new connections a second; none: any number"},
		&cli.StringFlag{Name: "source-connections", Usage: "let each source network have `N` connections at one time; none: any number"},
		&cli.UintFlag{Name: "source-prefix", Usage: "source networks have a prefix of this `LENGTH` (default: each client is one)"},
		&cli.StringFlag{Name: "guard", Usage: "have clients show that their address is theirs before anything of them is remembered (tcp), `MODE`: auto while connections begin that do not prove themselves, on, or off"},
		&cli.UintFlag{Name: "guard-on", Usage: "of --guard auto: on from `N` such connections a second", DefaultText: strconv.Itoa(director.DefaultGuardOn)},
		&cli.UintFlag{Name: "guard-off", Usage: "of --guard auto: off after ten seconds with fewer than `N` a second", DefaultText: "a fifth of --guard-on"},
	}
}

// readLimits puts the limits and the guard that flags name into the edit.
func readLimits(c *cli.Context, edit *api.ServiceEdit) error {
	var limits api.Limits
	var source api.SourceLimits
	for _, f := range []struct {
		name string
		to   **uint32
	}{
		{"limit-rate", &limits.Rate},
		{"limit-connections", &limits.Connections},
		{"source-rate", &source.Rate},
		{"source-connections", &source.Connections},
	} {
		var err error
		if *f.to, err = limit(c, f.name); err != nil {
			return err
		}
	}
	if c.IsSet("source-prefix") {
		length := c.Uint("source-prefix")
		if length < 1 || length > 128 {
			return usage(c, "--source-prefix %d: want 1 to 32, or 1 to 128 for IPv6", length)
		}
		source.Prefix = new(uint8(length))
	}
	if source != (api.SourceLimits{}) {
		limits.Source = &source
	}
	if limits != (api.Limits{}) {
		edit.Limits = &limits
	}
	var err error
	edit.Guard, err = guard(c)
	return err
}

// limit reads a flag; nil where it was not given, 0 for "none".
func limit(c *cli.Context, name string) (*uint32, error) {
	text := c.String(name)
	switch {
	case !c.IsSet(name):
		return nil, nil
	case text == notSet:
		return new(uint32), nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	switch {
	case err != nil:
		return nil, usage(c, "--%s: %q is not a number of connections", name, text)
	case n == 0:
		return nil, usage(c, "--%s 0 would let none begin: %s takes the limit away", name, notSet)
	}
	return new(uint32(n)), nil
}

// guard reads --guard and its thresholds; nil where none was given.
func guard(c *cli.Context) (*api.SourceGuard, error) {
	mode := c.String("guard")
	thresholds := c.IsSet("guard-on") || c.IsSet("guard-off")
	switch {
	case !c.IsSet("guard") && !thresholds:
		return nil, nil
	case c.IsSet("guard") && !slices.Contains(guardModes, mode):
		return nil, usage(c, "unknown --guard %q: want %s", mode, alternatives(guardModes))
	case thresholds && mode != director.GuardAuto.String():
		return nil, usage(c, "--guard-on and --guard-off are for --guard auto")
	}
	read := func(name string) (uint32, error) {
		n := c.Uint(name)
		if c.IsSet(name) && (n < 1 || n > director.MaxRate) {
			return 0, usage(c, "--%s %d is out of range: want 1 to %d", name, n, director.MaxRate)
		}
		return uint32(n), nil
	}
	on, err := read("guard-on")
	if err != nil {
		return nil, err
	}
	off, err := read("guard-off")
	return &api.SourceGuard{Mode: mode, On: on, Off: off}, err
}

// limitRows shows limits and guard, and what they did.
func limitRows(t *table, s api.Service) {
	if s.Limits != nil {
		t.row("limits", limitsText(s.Limits))
	}
	if s.Guard != nil {
		t.row("guard", guardText(t, s))
	}
	if s.GuardStats != nil {
		t.row("guarded", fmt.Sprintf("%s answered, %s real", count(s.GuardStats.Challenged, "first segment"), count(s.GuardStats.Validated, "client")))
	}
	if s.Refused != nil {
		t.row("refused", t.in(yellow, refusedText(*s.Refused)))
	}
}

// limitsText says what begins: "5000/s, 200000 connections; each /24 50/s, 1000
// connections".
func limitsText(l *api.Limits) string {
	words := func(rate, connections *uint32) string {
		var all []string
		if rate != nil {
			all = append(all, fmt.Sprintf("%d/s", *rate))
		}
		if connections != nil {
			all = append(all, count(uint64(*connections), "connection"))
		}
		return strings.Join(all, ", ")
	}
	text := words(l.Rate, l.Connections)
	if s := l.Source; s != nil {
		if text != "" {
			text += "; "
		}
		text += "each "
		if s.Prefix != nil {
			text += fmt.Sprintf("/%d ", *s.Prefix)
		}
		text += words(s.Rate, s.Connections)
	}
	return text
}

// guardText says when the guard is on, and whether it is: "auto, on from 5000/s, off
// below 1000/s: on now".
func guardText(t *table, s api.Service) string {
	text := s.Guard.Mode
	if s.Guard.On > 0 {
		text += fmt.Sprintf(", on from %d/s, off below %d/s", s.Guard.On, s.Guard.Off)
	}
	if s.Guard.Mode == director.GuardAuto.String() && guarding(s) {
		text += ": " + t.in(yellow, "on now")
	}
	return text
}

// guardCell says in a word when the guard is on, and whether it is.
func guardCell(t *table, s api.Service) string {
	switch {
	case s.Guard == nil:
		return ""
	case s.Guard.Mode == director.GuardAuto.String() && guarding(s):
		return t.in(yellow, "auto (on)")
	}
	return s.Guard.Mode
}

// guarding reports whether the service's guard is on at this moment.
func guarding(s api.Service) bool { return s.GuardStats != nil && s.GuardStats.On }

// refusedText counts new connections by why they were refused: "17 by service-rate, 3 by table-full".
func refusedText(refused api.Refused) string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(refused)) {
		if n := refused[name]; n > 0 {
			words = append(words, fmt.Sprintf("%d by %s", n, name))
		}
	}
	return strings.Join(words, ", ")
}

// refusedOf is how many new connections were refused in all.
func refusedOf(refused *api.Refused) uint64 {
	sum := uint64(0)
	if refused != nil {
		for _, n := range *refused {
			sum += n
		}
	}
	return sum
}
