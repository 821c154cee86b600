package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/cmd/shunt/ipvsadm"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/config"
)

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// streams are what the command reads from and prints to.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// run is the whole command: it returns the exit code. What is interrupted ends
// with the context.
func run(ctx context.Context, args []string, s streams) int {
	if len(args) > 0 && ipvsadm.Is(args[0]) {
		return asIPVSadm(ctx, args, s)
	}
	app := newApp(s)
	if len(args) > 1 && args[1] == completeCommand {
		complete(ctx, app, args[2:])
		return exitOK
	}
	ordered, err := reorder(app, args)
	if err == nil {
		err = app.RunContext(ctx, ordered)
	}
	return report(s.err, paletteFor(colorChoice(args), s.err), err)
}

// streamsOf returns what the command was started with. c.App.Writer is another
// while --watch looks.
func streamsOf(c *cli.Context) streams { return c.App.Metadata["streams"].(streams) }

// colorChoice finds --color before the command line has been understood: it may
// be what is wrong with it.
func colorChoice(args []string) string {
	for i, arg := range args {
		if choice, found := strings.CutPrefix(strings.TrimLeft(arg, "-"), "color="); found {
			return choice
		}
		if strings.TrimLeft(arg, "-") == "color" && i+1 < len(args) {
			return args[i+1]
		}
	}
	return colorAuto
}

// exitStatus ends the command with a code and no word more: what was printed
// says all.
type exitStatus int

// Error says what the code is.
func (e exitStatus) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// report prints an error as operators expect it and returns the exit code.
func report(w io.Writer, p palette, err error) int {
	if err == nil {
		return exitOK
	}
	if status, ok := errors.AsType[exitStatus](err); ok {
		return int(status)
	}
	code, hint := exitFailed, ""
	if usage, ok := errors.AsType[*usageError](err); ok {
		code, hint = exitUsage, usage.hint
	}
	if problem, ok := errors.AsType[*api.Problem](err); ok {
		hint = problem.Hint
	}
	for line := range strings.Lines(config.Report(err)) {
		if strings.HasPrefix(line, "  ") { // an excerpt of a file
			fmt.Fprint(w, p.in(faint, strings.TrimSuffix(line, "\n"))+"\n")
			continue
		}
		fmt.Fprintf(w, "%s %s\n", p.in(red, "shunt:"), strings.TrimSuffix(line, "\n"))
	}
	if hint != "" {
		fmt.Fprintf(w, "%s %s\n", p.in(bold, "hint:"), hint)
	}
	return code
}

// The categories of commands in the help.
const (
	categoryServices = "Services and servers"
	categoryWhole    = "The configuration as a whole"
	categoryObserve  = "Observation"
	categoryTools    = "Tools"
)

func newApp(s streams) *cli.App {
	app := &cli.App{
		Name:  "shunt",
		Usage: "control the Shunt layer-4 director on this host",
		Description: examples("A SERVICE is written as its URL, tcp://192.0.2.10:80, or by its name. Commands can be shortened\n"+
			"as long as only one is meant, and so can names where something is only shown: a change wants\n"+
			"them whole. Flags may stand anywhere after the command they belong to. The exit code is 0, 1 if\n"+
			"the command failed, or 2 if it could not be understood.",
			"shunt status",
			"shunt service add tcp://192.0.2.10:80 --name web",
			"shunt apply -f shunt.yaml"),
		Version:         version,
		Writer:          s.out,
		ErrWriter:       s.err,
		Metadata:        map[string]any{"streams": s},
		Flags:           globalFlags(),
		Action:          noCommand,
		ExitErrHandler:  func(*cli.Context, error) {}, // run maps errors to exit codes
		OnUsageError:    badFlag,
		HideVersion:     true, // `shunt version`
		HideHelpCommand: true, // reorder makes --help of it
	}
	for _, group := range []struct {
		category string
		commands []*cli.Command
	}{
		{categoryServices, []*cli.Command{serviceCommand(), serverCommand(), poolCommand(), connCommand(), timeoutsCommand(), syncCommand(), detachCommand()}},
		{categoryWhole, []*cli.Command{
			applyCommand(), diffCommand(), exportCommand(), importCommand(), migrateCommand(), historyCommand(), rollbackCommand(), reloadCommand(),
			configCommand(),
		}},
		{categoryObserve, []*cli.Command{
			statusCommand(), topCommand(), statsCommand(), zeroCommand(), dropsCommand(), captureCommand(), healthCommand(), drainsCommand(), driftCommand(), eventsCommand(), doctorCommand(),
		}},
		{categoryTools, []*cli.Command{schedulerCommand(), completionCommand(), manCommand(), tokenCommand(), versionCommand()}},
	} {
		for _, command := range group.commands {
			command.Category = group.category
			app.Commands = append(app.Commands, command)
		}
	}
	prepare(app.Commands)
	return app
}

// globalFlags say which daemon is meant, and how it is shown.
func globalFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name: "socket", Value: api.DefaultSocket, EnvVars: []string{"SHUNT_SOCKET"},
			Usage: "the daemon's control `SOCKET`",
		},
		&cli.StringFlag{Name: "server", EnvVars: []string{"SHUNT_SERVER"}, Usage: "the daemon of another host instead, `https://HOST:PORT`"},
		&cli.StringFlag{Name: "cacert", EnvVars: []string{"SHUNT_CACERT"}, Usage: "`FILE` with the authority of the server's certificate (the host's own are trusted otherwise)"},
		&cli.StringFlag{Name: "cert", EnvVars: []string{"SHUNT_CERT"}, Usage: "`FILE` with the client certificate to show"},
		&cli.StringFlag{Name: "key", EnvVars: []string{"SHUNT_KEY"}, Usage: "`FILE` with the certificate's key"},
		&cli.StringFlag{Name: "token-file", EnvVars: []string{"SHUNT_TOKEN_FILE"}, Usage: "`FILE` with the token to show"},
		&cli.StringFlag{
			Name: "color", Value: colorAuto, Usage: "`WHEN` to use colours: auto (on a terminal, unless NO_COLOR is set), always or never",
			Action: func(c *cli.Context, choice string) error {
				if !slices.Contains([]string{colorAuto, colorAlways, colorNever}, choice) {
					return usage(c, "unknown --color %q: want auto, always or never", choice)
				}
				return nil
			},
		},
	}
}
