package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf/decap"
	"github.com/shunt-lb/shunt/realserver/agent"
	"github.com/shunt-lb/shunt/realserver/agent/role"
)

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// run is the whole command: it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	return report(stderr, newApp(stdout, stderr).Run(args))
}

// usageError is a command line that cannot be understood.
type usageError struct {
	err  error
	hint string
}

// Error returns the cause's text.
func (e *usageError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *usageError) Unwrap() error { return e.err }

// usage is a usage error with a text of its own.
func usage(c *cli.Context, format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...), fmt.Sprintf("`%s --help` shows how", path(c))}
}

// path is the command as it is called: "shunt-agent decap start".
func path(c *cli.Context) string {
	if c.Command == nil || c.Command.HelpName == "" {
		return c.App.Name
	}
	return c.Command.HelpName
}

// report prints an error with what to do about it and returns the exit code.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	code, hint := exitFailed, ""
	wrong, isUsage := errors.AsType[*usageError](err)
	switch {
	case isUsage:
		code, hint = exitUsage, wrong.hint
	case errors.Is(err, agent.ErrNoInterface):
		hint = "`ip link` lists the interfaces"
	case errors.Is(err, role.ErrNoRoute):
		hint = "name it: --interface, or interfaces below host in the settings"
	case errors.Is(err, errUnfit):
		hint = "`shunt-agent prepare` mends what it can, given the same flags; with --dry-run it says what it would do"
	case errors.Is(err, decap.ErrNoBPFFS):
		hint = "systemd mounts it at the boot; in a container, it must be given to that"
	case errors.Is(err, decap.ErrInUse):
		hint = "an interface has one XDP program: that of a director (shuntd) on the same host takes its packets first"
	case errors.Is(err, decap.ErrVersion):
		hint = "`shunt-agent decap start` replaces it without a gap, `shunt-agent decap stop` removes it"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EPERM):
		hint = "run as root"
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(stderr, "shunt-agent: %s\n", strings.TrimSuffix(line, "\n"))
	}
	if hint != "" {
		fmt.Fprintf(stderr, "hint: %s\n", hint)
	}
	return code
}

func newApp(stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:        "shunt-agent",
		Usage:       "what a real server does for its Shunt director",
		Description: "The exit code is 0, 1 if the command failed, or 2 if it could not be understood.",
		Version:     version,
		Writer:      stdout,
		ErrWriter:   stderr,
		Commands: []*cli.Command{
			runCommand(),
			prepareCommand(),
			checkCommand(),
			undoCommand(),
			decapCommand(),
			completionCommand(),
			{Name: "version", Usage: "print the version", Action: printVersion},
		},
		Action:          noCommand,
		ExitErrHandler:  func(*cli.Context, error) {}, // run maps errors to exit codes
		OnUsageError:    badFlag,
		HideVersion:     true, // `shunt-agent version`
		HideHelpCommand: true,

		EnableBashCompletion: true, // --generate-bash-completion, which the scripts use
	}
	complete(app.Commands)
	return app
}

// complete gives all commands what they have in common.
func complete(commands []*cli.Command) {
	for _, c := range commands {
		c.OnUsageError, c.HideHelpCommand = badFlag, true
		complete(c.Subcommands)
	}
}

func badFlag(c *cli.Context, err error, _ bool) error {
	return usage(c, "%s", strings.Replace(err.Error(), "flag provided but not defined: ", "unknown flag ", 1))
}

// noCommand is what a command does that has others below it.
func noCommand(c *cli.Context) error {
	if name := c.Args().First(); name != "" {
		return usage(c, "unknown command %q", name)
	}
	return usage(c, "no command given")
}

func noArguments(c *cli.Context) error {
	if c.Args().Present() {
		return usage(c, "unexpected argument %q", c.Args().First())
	}
	return nil
}

func printVersion(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.App.Writer, "shunt-agent %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
