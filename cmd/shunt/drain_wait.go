package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
)

// drainLook is how often --wait asks; the daemon itself looks once a second.
const drainLook = 500 * time.Millisecond

// wait prints how far the drain is as it changes, until nothing is left or, where
// nothing is removed, the deadline has passed. A daemon that restarts is waited
// for.
func (s drained) wait(c *cli.Context, client *api.Client) error {
	ticker := time.NewTicker(drainLook)
	defer ticker.Stop()
	told, away := "", false
	for {
		d, err := s.status(c, client)
		switch {
		case c.Context.Err() != nil:
			return fmt.Errorf("%s: interrupted; the drain goes on", commandName(c))
		case err == nil:
			if away {
				away = false
				fmt.Fprintln(c.App.ErrWriter, "shunt: the daemon is back")
			}
			if text := drainText(d) + deadlineText(d); text != told {
				told = text
				if err := write(c.App.Writer, fmt.Appendf(nil, "%s  %s\n", time.Now().Format(time.RFC3339), text)); err != nil {
					return err
				}
			}
			switch phase := director.DrainPhase(d.Phase); {
			case phase == director.PhaseDrained:
				return nil
			case phase == director.PhaseOverdue && !d.Kill:
				return exitStatus(exitFailed)
			}
		case errors.Is(err, errDrainEnded), !isAway(err):
			return err
		case !away:
			away = true
			fmt.Fprintln(c.App.ErrWriter, "shunt: the daemon is away; waiting for it")
		}
		sleep(c.Context, ticker.C) // the next look tells why it ended
	}
}
