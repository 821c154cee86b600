package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// level is one command of a command line with the flags that belong to it.
type level struct {
	name  string
	flags []cli.Flag
	args  []string // its flags as given
}

// reorder returns the command line with every command written out, every flag
// directly behind the command that defines it and the positional arguments
// last. The flag package stops at the first positional argument, so that
// `server add web 10.0.0.1 --weight 3` would not see the weight. A flag belongs
// to the innermost command that defines it: --socket may stand at the end. What
// nobody defines stays where it is, for the flag package to refuse. Nothing
// after "--" is touched. "help" in front is --help at the end.
func reorder(app *cli.App, args []string) ([]string, error) {
	if len(args) == 0 {
		return args, nil
	}
	if len(args) > 1 && args[1] == "help" {
		args = append(append(args[:1:1], args[2:]...), "--help")
	}
	levels := []*level{{name: args[0], flags: app.Flags}}
	commands := app.Commands
	var positional []string
	for rest := args[1:]; len(rest) > 0; {
		arg := rest[0]
		rest = rest[1:]
		switch {
		case arg == "--":
			positional = append(positional, rest...)
			rest = nil
		case len(arg) > 1 && arg[0] == '-':
			owner, flag := find(levels, arg)
			owner.args = append(owner.args, arg)
			if _, ok := flag.(optional); ok && len(rest) > 0 && isInterval(rest[0]) {
				return nil, &usageError{fmt.Sprintf("%s %s: the interval is written behind =", arg, rest[0]), "write " + arg + "=" + rest[0]}
			}
			if !takesValue(flag) || strings.Contains(arg, "=") {
				continue
			}
			if len(rest) == 0 { // else it would swallow the first argument
				return nil, &usageError{"flag " + arg + " needs a value", ""}
			}
			owner.args = append(owner.args, rest[0])
			rest = rest[1:]
		case len(positional) > 0 || len(commands) == 0:
			positional = append(positional, arg)
		default:
			command, err := byPrefix(commands, arg)
			if err != nil {
				return nil, err
			}
			if command == nil { // for noCommand to refuse
				positional = append(positional, arg)
				continue
			}
			levels = append(levels, &level{name: command.Name, flags: command.Flags})
			commands = command.Subcommands
		}
	}
	var ordered []string
	for _, l := range levels {
		ordered = append(append(ordered, l.name), l.args...)
	}
	if slices.ContainsFunc(positional, func(s string) bool { return strings.HasPrefix(s, "-") }) {
		ordered = append(ordered, "--")
	}
	return append(ordered, positional...), nil
}

// isInterval reports whether a word behind --watch is meant for it.
func isInterval(word string) bool {
	_, err := time.ParseDuration(word)
	return err == nil && word != "0"
}

// byPrefix returns the command with the name, else the only visible one whose
// name begins so; nil if there is none.
func byPrefix(commands []*cli.Command, name string) (*cli.Command, error) {
	var candidates []*cli.Command
	for _, c := range commands {
		if c.HasName(name) {
			return c, nil
		}
		if !c.Hidden && name != "" && strings.HasPrefix(c.Name, name) {
			candidates = append(candidates, c)
		}
	}
	switch len(candidates) {
	case 0:
		return nil, nil
	case 1:
		return candidates[0], nil
	}
	var names []string
	for _, c := range candidates {
		names = append(names, c.Name)
	}
	return nil, &usageError{fmt.Sprintf("%q could be %s", name, alternatives(names)), "a longer beginning says which"}
}

// alternatives lists words as "a, b or c".
func alternatives(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// find returns the level that a flag belongs to and its definition; without one
// the innermost level and nil.
func find(levels []*level, arg string) (*level, cli.Flag) {
	name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	for _, l := range slices.Backward(levels) {
		for _, f := range l.flags {
			if slices.Contains(f.Names(), name) {
				return l, f
			}
		}
	}
	return levels[len(levels)-1], nil
}

func takesValue(f cli.Flag) bool {
	documented, ok := f.(cli.DocGenerationFlag)
	return ok && documented.TakesValue()
}
