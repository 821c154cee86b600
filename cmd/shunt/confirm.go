package main

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

// yesFlag is on every command that may ask.
func yesFlag() cli.Flag {
	return &cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask"}
}

// canAnswer reports whether somebody is there to be asked.
func canAnswer(s streams) bool { return isTerminal(s.in) && isTerminal(s.out) }

// confirm asks before something is removed, if somebody can answer.
func confirm(c *cli.Context, removed string, cut losses) error {
	s := streamsOf(c)
	if removed == "" || c.Bool("yes") || !canAnswer(s) {
		return nil
	}
	which := ""
	if cut != (losses{}) {
		which = ", which cuts " + cut.String()
	}
	if err := write(s.out, fmt.Appendf(nil, "This removes %s%s. Go on? [y/N] ", removed, which)); err != nil {
		return err
	}
	answer := make(chan string, 1) // one answer, sent once
	go func() {
		line, _ := bufio.NewReader(s.in).ReadString('\n')
		answer <- line
	}()
	select {
	case <-c.Context.Done(): // ^C; the reader ends with the process
		_ = write(s.out, []byte("\n"))
		return fmt.Errorf("%s: interrupted; nothing was changed", commandName(c))
	case line := <-answer:
		if text := strings.ToLower(strings.TrimSpace(line)); text == "y" || text == "yes" {
			return nil
		}
		return fmt.Errorf("%s: not confirmed; nothing was changed", commandName(c))
	}
}

// confirmCut asks before something is removed that cuts connections or templates.
// Where nobody can answer, it wants --yes: a script that takes servers out one by
// one would else end their connections unheard.
func confirmCut(c *cli.Context, removed string, cut losses) error {
	switch {
	case cut == (losses{}):
		return nil
	case !c.Bool("yes") && !canAnswer(streamsOf(c)):
		return &api.Problem{
			Detail: fmt.Sprintf("%s: %s has %s, which this would cut; nothing was changed", commandName(c), removed, cut),
			Hint:   "let them end first (`shunt server drain`), or cut them by --yes",
		}
	}
	return confirm(c, removed, cut)
}
