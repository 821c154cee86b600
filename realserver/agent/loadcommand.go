package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"strconv"
	"sync"
	"time"

	"github.com/shunt-lb/shunt/realserver/script"
)

// defaultLoadUser runs the command where the agent is root and nobody is named.
const defaultLoadUser = "nobody"

// loadCommand asks an operator's command for the load, beside what sends it: a command
// that hangs delays no message.
type loadCommand struct {
	command        script.Command
	timeout, every time.Duration
	measured       func() *Load
	log            *slog.Logger
	said           string // why it failed last; "": it did not

	mu    sync.Mutex
	value *float64 // nil: it is not known
}

// newLoadCommand returns one that was not asked yet; all but its value is measured.
func newLoadCommand(s *Settings, measured func() *Load, log *slog.Logger) (*loadCommand, error) {
	who := s.LoadUser
	own := strconv.Itoa(os.Geteuid())
	switch {
	case who == "" && os.Geteuid() == 0:
		who = defaultLoadUser
	case who == "":
		who = own
	case os.Geteuid() != 0:
		if found, err := user.Lookup(who); who != own && (err != nil || found.Uid != own) {
			return nil, fmt.Errorf("run the load command as %s: the agent is user %s, and only root can", who, own)
		}
	}
	return &loadCommand{
		command: script.Command{Args: s.LoadCommand, User: who},
		timeout: s.LoadTimeout, every: s.Lease / 4, measured: measured, log: log,
	}, nil
}

// keep asks until the context ends.
func (c *loadCommand) keep(ctx context.Context) {
	for wait := time.Duration(0); pause(ctx, wait); wait = jitter(c.every) {
		c.ask(ctx)
	}
}

// ask asks once. What is wrong is said once, until it is something else.
func (c *loadCommand) ask(ctx context.Context) {
	asked, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	value, err := c.read(asked)
	if ctx.Err() != nil {
		return
	}
	said := ""
	if err != nil {
		said = err.Error()
	}
	switch {
	case said == c.said:
	case err != nil:
		c.log.Warn("the load is not known, and none is told", "err", err)
	default:
		c.log.Info("the load is known again")
	}
	c.said = said
	c.mu.Lock()
	defer c.mu.Unlock()
	c.value = value
}

func (c *loadCommand) read(ctx context.Context) (*float64, error) {
	output, status, err := c.command.Run(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("ask the load command: %s has no end within %s", c.command.Args[0], c.timeout)
	}
	if err != nil {
		return nil, fmt.Errorf("ask the load command: %w", err)
	}
	if status != 0 {
		return nil, fmt.Errorf("ask the load command: %s: status %d: %.100q", c.command.Args[0], status, output)
	}
	value, err := strconv.ParseFloat(output, 64)
	if err != nil || !(value >= 0 && value <= 1) { // not a number is neither
		return nil, fmt.Errorf("ask the load command: %s: it prints %.100q: want a number from 0 to 1", c.command.Args[0], output)
	}
	return &value, nil
}

// load is what is measured, with the command's value; nil while that is not known.
func (c *loadCommand) load() *Load {
	c.mu.Lock()
	value := c.value
	c.mu.Unlock()
	if value == nil {
		return nil
	}
	l := c.measured()
	if l == nil {
		l = &Load{}
	}
	l.Value = *value
	return l
}
