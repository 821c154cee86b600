package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"
)

// The shortest and the usual time between two looks of --watch.
const (
	minWatch     = 100 * time.Millisecond
	defaultWatch = 2 * time.Second
)

// interval is the value of --watch, which may be left out.
type interval time.Duration

// Set reads "2s"; "true" is what the flag package says for a bare --watch.
func (i *interval) Set(text string) error {
	if text == "true" {
		*i = interval(defaultWatch)
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < minWatch {
		return fmt.Errorf("want a duration such as 2s, %s at least", minWatch)
	}
	*i = interval(d)
	return nil
}

// String returns the duration.
func (i *interval) String() string { return time.Duration(*i).String() }

// IsBoolFlag tells the flag package that the value may be left out.
func (*interval) IsBoolFlag() bool { return true }

// optional is a flag whose value may be left out: --watch or --watch=5s.
type optional struct{ *cli.GenericFlag }

// TakesValue reports that the next argument is not the flag's value.
func (optional) TakesValue() bool { return false }

// String is the flag's line of help.
func (o optional) String() string { return "--" + o.Name + "[=INTERVAL]\t" + plainUsage(o) }

// watchFlag is on every command that reads.
func watchFlag() cli.Flag {
	return optional{&cli.GenericFlag{
		Name: "watch", Value: new(interval), HasBeenSet: false,
		Usage: fmt.Sprintf("look again and again, every `INTERVAL` (%s), until ^C", defaultWatch),
	}}
}

// reading is a command's action that --watch repeats. On a terminal each look
// replaces the one before; else each begins with a line of its own. It ends
// well when it is interrupted.
func reading(action cli.ActionFunc) cli.ActionFunc {
	return func(c *cli.Context) error {
		if !c.IsSet("watch") {
			return action(c)
		}
		every := time.Duration(*c.Generic("watch").(*interval))
		err := watch(c, action, every)
		if c.Context.Err() != nil {
			return nil
		}
		return err
	}
}

// watch draws until the context ends. The first look must succeed; if a later
// one fails, what is wrong is shown in its place: the daemon may restart.
func watch(c *cli.Context, action cli.ActionFunc, every time.Duration) error {
	out := streamsOf(c).out
	draw := separate(c)
	if isTerminal(out) {
		draw = redraw(out.(*os.File), commandName(c), every)
		defer fmt.Fprint(out, showAll)
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for first := true; ; first = false {
		var frame bytes.Buffer
		c.App.Writer = &frame
		err := action(c)
		c.App.Writer = out
		if c.Context.Err() != nil || first && err != nil {
			return err
		}
		if err != nil {
			report(&frame, colors(c), err)
		}
		if err := draw(frame.Bytes()); err != nil {
			return err
		}
		if !sleep(c.Context, ticker.C) {
			return nil
		}
	}
}

// sleep waits for the tick; false if the context ended.
func sleep(ctx context.Context, tick <-chan time.Time) bool {
	select {
	case <-ctx.Done():
		return false
	case <-tick:
		return true
	}
}

// separate prints frames one after another: YAML as documents, JSON as it is,
// and tables with the time above.
func separate(c *cli.Context) func([]byte) error {
	return func(frame []byte) error {
		heading := ""
		switch c.String("output") {
		case formatJSON, formatJSONL:
		case formatYAML:
			heading = "---\n"
		default:
			heading = "--- " + time.Now().Format(time.RFC3339) + "\n"
		}
		return write(streamsOf(c).out, append([]byte(heading), frame...))
	}
}

// What terminals understand (ECMA-48 and DEC private modes): lines longer than
// the screen are cut while watching.
const (
	topLeft   = "\x1b[H"
	clearLine = "\x1b[K"
	clearRest = "\x1b[J"
	cutLines  = "\x1b[?7l"
	showAll   = "\x1b[?7h"
)

// redraw draws frames over one another, cut to the screen's height.
func redraw(out *os.File, name string, every time.Duration) func([]byte) error {
	return func(frame []byte) error {
		text := fmt.Sprintf("every %s: shunt %s, %s\n\n%s", every, name, time.Now().Format(time.TimeOnly), frame)
		lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		if _, height, err := term.GetSize(int(out.Fd())); err == nil && height > 1 && len(lines) > height {
			more := len(lines) - (height - 1)
			lines = append(lines[:height-1], fmt.Sprintf("(%d more lines)", more))
		}
		_, err := io.WriteString(out, cutLines+topLeft+strings.Join(lines, clearLine+"\r\n")+clearLine+clearRest)
		if err != nil {
			return fmt.Errorf("write the answer: %w", err)
		}
		return nil
	}
}
