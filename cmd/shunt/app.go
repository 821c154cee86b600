package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// run is the whole command: it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	app := newApp(stdout, stderr)
	args, err := reorder(app, args)
	if err == nil {
		err = app.RunContext(ctx, args)
	}
	return report(stderr, err)
}

// report prints an error as operators expect it and returns the exit code.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	code, hint := exitFailed, ""
	if usage, ok := errors.AsType[*usageError](err); ok {
		code, hint = exitUsage, usage.hint
	}
	if problem, ok := errors.AsType[*api.Problem](err); ok {
		hint = problem.Hint
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(stderr, "shunt: %s\n", strings.TrimSuffix(line, "\n"))
	}
	if hint != "" {
		fmt.Fprintf(stderr, "hint: %s\n", hint)
	}
	return code
}

// usageError is a command line that cannot be understood.
type usageError struct{ text, hint string }

// Error returns the text.
func (e *usageError) Error() string { return e.text }

func newApp(stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:        "shunt",
		Usage:       "control the Shunt layer-4 director on this host",
		Description: "A SERVICE is written as its URL, tcp://192.0.2.10:80, or by its name.\nFlags may stand anywhere after the command they belong to.",
		Version:     version,
		Writer:      stdout,
		ErrWriter:   stderr,
		Flags: []cli.Flag{
			&cli.StringFlag{
				Name: "socket", Value: api.DefaultSocket, EnvVars: []string{"SHUNT_SOCKET"},
				Usage: "the daemon's control `SOCKET`",
			},
		},
		Commands: []*cli.Command{
			serviceCommand(), serverCommand(), connCommand(), statusCommand(), statsCommand(),
			dropsCommand(), timeoutsCommand(), detachCommand(), versionCommand(),
		},
		Action:          noCommand,
		ExitErrHandler:  func(*cli.Context, error) {}, // run maps errors to exit codes
		OnUsageError:    badFlag,
		HideVersion:     true, // `shunt version`
		HideHelpCommand: true, // reorder makes --help of it
	}
	prepare(app.Commands)
	return app
}

// prepare gives every command the usage-error handling of the whole.
func prepare(commands []*cli.Command) {
	for _, c := range commands {
		c.OnUsageError = badFlag
		c.HideHelpCommand = true
		if len(c.Subcommands) > 0 {
			c.Action = noCommand
			prepare(c.Subcommands)
		}
	}
}

// noCommand runs where a command is missing or unknown.
func noCommand(c *cli.Context) error {
	var names []string
	for _, known := range c.Command.VisibleCommands() {
		names = append(names, known.Name)
	}
	name := commandName(c)
	hint := "one of: " + strings.Join(names, ", ") + "; `" + strings.TrimSpace("shunt "+name) + " --help` says more"
	if name != "" {
		name += ": "
	}
	if !c.Args().Present() {
		return &usageError{name + "no command given", hint}
	}
	return &usageError{fmt.Sprintf("%sunknown command %q", name, c.Args().First()), hint}
}

// badFlag turns what the flag package says into a usage error.
func badFlag(c *cli.Context, err error, _ bool) error {
	text := strings.Replace(err.Error(), "flag provided but not defined: ", "unknown flag ", 1)
	return usage(c, "%s", text)
}

// usage is a usage error of the command that runs.
func usage(c *cli.Context, format string, args ...any) error {
	name, text := commandName(c), fmt.Sprintf(format, args...)
	if name == "" {
		return &usageError{text, "`shunt --help` shows how"}
	}
	return &usageError{name + ": " + text, "`shunt " + name + " --help` shows how"}
}

// commandName is the command's name without the program's: "service add".
func commandName(c *cli.Context) string {
	return strings.TrimSpace(strings.TrimPrefix(c.Command.HelpName, c.App.Name))
}

// arguments returns the positional arguments when there are as many as names;
// a name in brackets may be missing.
func arguments(c *cli.Context, names ...string) ([]string, error) {
	args := c.Args().Slice()
	for i, name := range names {
		if i >= len(args) && !strings.HasPrefix(name, "[") {
			return nil, usage(c, "%s is missing", name)
		}
		if i < len(args) && args[i] == "" {
			return nil, usage(c, "%s is empty", strings.Trim(name, "[]"))
		}
	}
	if len(args) > len(names) {
		return nil, usage(c, "unexpected argument %q", args[len(names)])
	}
	for len(args) < len(names) {
		args = append(args, "")
	}
	return args, nil
}

// client returns a client for the daemon the flags name. An empty SHUNT_SOCKET is
// none.
func client(c *cli.Context) *api.Client {
	return api.NewClient(cmp.Or(c.String("socket"), api.DefaultSocket))
}
