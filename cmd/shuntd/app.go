package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/config"
	"github.com/shunt-lb/shunt/director/ipvs"
	"github.com/shunt-lb/shunt/director/ipvs/kernel"
)

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2 // flags or configuration
)

// run is the whole command: it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends a daemon that hangs
	return report(stderr, newApp(stdout, stderr).RunContext(ctx, args))
}

// usageError is a command line or configuration that cannot be used.
type usageError struct {
	err  error
	hint string
}

// Error returns the cause's text.
func (e *usageError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *usageError) Unwrap() error { return e.err }

// usage is a usage error with a text of its own.
func usage(hint, format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...), hint}
}

// report prints an error with what to do about it and returns the exit code.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	code, hint := exitFailed, ""
	wrong, isUsage := errors.AsType[*usageError](err)
	bypassed, isBypassed := errors.AsType[*director.BypassedError](err)
	switch {
	case isUsage:
		code, hint = exitUsage, wrong.hint
	case errors.Is(err, api.ErrInUse):
		hint = "stop it first, or give this one its own --socket, --pin-dir, --state and --interface"
	case errors.Is(err, ipvs.ErrInUse):
		hint = "stop it first, or run this one in a network namespace of its own: each has one IPVS"
	case isBypassed:
		err = fmt.Errorf("%w\n%s", err, strings.Join(bypassed.Rules, "\n"))
		hint = "if these rules need not hold for the services, start with --force-migration; else with the data plane ipvs, as before"
	case errors.Is(err, kernel.ErrNotLoaded):
		hint = "modprobe ip_vs, and name it in a file in /etc/modules-load.d for the next boot; or use --dataplane xdp"
	case errors.Is(err, fs.ErrPermission):
		hint = "run as root, or with the capabilities CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON (for the ipvs data plane the first alone) and write access to the pin and socket folders"
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(stderr, "shuntd: %s\n", strings.TrimSuffix(line, "\n"))
	}
	if hint != "" {
		fmt.Fprintf(stderr, "hint: %s\n", hint)
	}
	return code
}

func newApp(stdout, stderr io.Writer) *cli.App {
	badFlag := func(_ *cli.Context, err error, _ bool) error {
		text := strings.Replace(err.Error(), "flag provided but not defined: ", "unknown flag ", 1)
		return usage("`shuntd --help` shows how", "%s", text)
	}
	return &cli.App{
		Name:        "shuntd",
		Usage:       "the daemon of the Shunt layer-4 director",
		Description: "Flags override the configuration file. Stopping the daemon does not stop the traffic:\n`shunt detach`, or `shuntd detach` where no daemon runs, removes the data plane.",
		Version:     version,
		Writer:      stdout,
		ErrWriter:   stderr,
		Flags: append(configFlags(),
			&cli.StringFlag{Name: "socket", Value: config.DefaultSocket, EnvVars: []string{"SHUNT_SOCKET"}, Usage: "the control `SOCKET`"},
			stateFlag(),
			&cli.BoolFlag{Name: "force-migration", Usage: "take services over from the kernel's IPVS although firewall rules will not hold for them any more"},
			&cli.StringFlag{Name: "log-level", Value: "info", Usage: "`LEVEL`: debug, info, warn or error"},
			&cli.StringFlag{Name: "log-format", Value: "text", Usage: "`FORMAT`: text or json"},
		),
		Commands: []*cli.Command{
			{
				Name: "doctor", Usage: "say what is wrong with this host for Shunt, without a daemon",
				Flags:  append(configFlags(), &cli.BoolFlag{Name: "all", Usage: "show what is right too"}),
				Action: diagnose, OnUsageError: badFlag, HideHelpCommand: true,
			},
			{
				Name: "detach", Usage: "remove what a daemon that is gone left in the kernel; all connections end",
				Flags: detachFlags(), Action: detach, OnUsageError: badFlag, HideHelpCommand: true,
			},
			{
				Name: helperCommand, Hidden: true, Action: help, OnUsageError: badFlag, HideHelpCommand: true,
				Flags: []cli.Flag{&cli.BoolFlag{Name: asRoot}, &cli.StringFlag{Name: "dataplane"}},
			},
			{
				Name: "version", Usage: "print the version", Action: printVersion,
				OnUsageError: badFlag, HideHelpCommand: true,
			},
		},
		Action:          start,
		OnUsageError:    badFlag,
		ExitErrHandler:  func(*cli.Context, error) {}, // run maps errors to exit codes
		HideVersion:     true,                         // `shuntd version`
		HideHelpCommand: true,
	}
}

// configFlags say what the data plane is: the file, and what overrides it.
func configFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Usage: "the configuration `FILE`; none: nothing is configured at the start"},
		&cli.StringSliceFlag{Name: "interface", Aliases: []string{"i"}, Usage: "attach to `INTERFACE`; may be given several times"},
		&cli.StringFlag{Name: "dataplane", Value: director.PlaneXDP, Usage: "move packets by `PLANE`: xdp, or ipvs, the kernel's own"},
		pinDirFlag(),
		&cli.BoolFlag{Name: "generic", Usage: "attach in generic mode, which every driver has: slow, for tests only"},
		&cli.StringFlag{Name: "max-connections", Usage: "size the IPv4 table for `N` connections (1048576, 1Mi), the IPv6 table for a quarter"},
	}
}

func pinDirFlag() cli.Flag {
	return &cli.StringFlag{Name: "pin-dir", Value: config.DefaultPinDir, Usage: "keep the data plane in `FOLDER`, on a bpffs; one daemon each"}
}

func stateFlag() cli.Flag {
	return &cli.StringFlag{Name: "state", Value: config.DefaultStateDir, Usage: "keep the revisions in `FOLDER`; one daemon each"}
}

// start reads flags and file, and serves until a signal comes.
func start(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	// First of all: until somebody listens, a SIGHUP ends the process.
	hangups := listenHangup()
	defer hangups.stop()
	cfg, err := readSettings(c)
	if err != nil {
		return err
	}
	log, level, err := logger(c.App.ErrWriter, cfg.Director.LogLevel, cfg.Director.LogFormat)
	if err != nil {
		return err
	}
	warn(log, cfg)
	return serve(c.Context, cfg, surroundings{
		open: openPlane, hangups: hangups, log: log, level: level, forceMigration: c.Bool("force-migration"),
		help:     startHelper,
		restrict: func() (string, error) { return dropPrivileges(neededBy(cfg.Director.Dataplane)) },
		load: func() (config.Config, error) {
			if c.String("config") == "" {
				return config.Config{}, errors.New("shuntd was started without a configuration file")
			}
			return readSettings(c)
		},
	})
}

func printVersion(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.App.Writer, "shuntd %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

func noArguments(c *cli.Context) error {
	if c.Args().Present() {
		return usage("`shuntd --help` shows how", "unexpected argument %q", c.Args().First())
	}
	return nil
}
