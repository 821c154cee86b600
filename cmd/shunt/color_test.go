package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestColors: they are for terminals that want them, unless --color says.
func TestColors(t *testing.T) {
	seededDaemon(t)
	for _, test := range []struct {
		name  string
		env   []string
		flags []string
		want  bool
	}{
		{"on_a_terminal", []string{"TERM=xterm", "NO_COLOR="}, nil, true},
		{"not_with_NO_COLOR", []string{"TERM=xterm", "NO_COLOR=1"}, nil, false},
		{"not_on_a_dumb_terminal", []string{"TERM=dumb", "NO_COLOR="}, nil, false},
		{"never", []string{"TERM=xterm", "NO_COLOR="}, []string{"--color", "never"}, false},
		{"always", []string{"TERM=dumb", "NO_COLOR=1"}, []string{"--color=always"}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, command := range [][]string{{"server", "list"}, {"service", "show", "nobody"}} {
				_, text := startTerminal(t, test.env, "shunt", append(command, test.flags...)...).wait()
				if got := strings.Contains(text, "\x1b["); got != test.want {
					t.Errorf("shunt %v: colours: %v, in %q", command, got, text)
				}
			}
		})
	}
}

// TestColors_keep_columns: a table has the same columns with and without.
func TestColors_keep_columns(t *testing.T) {
	seededDaemon(t)
	print := func(choice string) string {
		var stdout bytes.Buffer
		if code := run(t.Context(), []string{"shunt", "service", "list", "--color", choice}, streams{nil, &stdout, &stdout}); code != exitOK {
			t.Fatal(stdout.String())
		}
		return stdout.String()
	}
	colored, bare := print(colorAlways), print(colorNever)
	if colored == bare || readable(colored) != bare {
		t.Errorf("with colours %q, without %q", colored, bare)
	}
}

func TestWidth(t *testing.T) {
	for text, want := range map[string]int{"": 0, "weight 3 → 1": 12, palette(true).in(red, "gone"): 4, "a\x1b[1mb\x1b[0m": 2} {
		if got := width(text); got != want {
			t.Errorf("width(%q) = %d, want %d", text, got, want)
		}
	}
}
