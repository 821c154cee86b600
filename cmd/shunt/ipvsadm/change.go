package ipvsadm

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	language "github.com/shunt-lb/shunt/director/config/ipvsadm"
)

// attempts is how often a change is made anew because somebody else made one
// meanwhile.
const attempts = 20

// change carries out commands that change the table, all of them or none: they
// are applied to the configuration as a value, which is sent back on the condition
// that it is still the newest.
func (s *session) change(lines []language.Line) int {
	client, err := s.client()
	if err != nil {
		return s.failed(language.Help, language.ExitUsage, err)
	}
	for attempt := 1; ; attempt++ {
		before, revision, err := client.Configuration(s.ctx)
		if err != nil {
			return s.failed(language.Help, language.ExitRefused, err)
		}
		t, err := s.table(client, before)
		if err != nil {
			return s.failed(language.Help, language.ExitRefused, err)
		}
		for _, line := range lines {
			if r := t.change(line.Command); r != nil {
				s.refuse(r)
				return s.atLine(line, len(lines))
			}
		}
		// The guard against the removal of many is not ipvsadm's.
		terms := api.Terms{Revision: revision, Force: true, Why: s.why()}
		_, err = client.Apply(s.ctx, api.ConfigurationOf(t.state), terms)
		problem, isProblem := errors.AsType[*api.Problem](err)
		switch {
		case err == nil:
			s.left(t, lines)
			return exitOK
		case isProblem && problem.Code == api.ProblemCodeConflict && attempt < attempts && s.ctx.Err() == nil:
		default:
			if len(lines) == 1 {
				return s.failed(lines[0].Command.Operation, language.ExitRefused, err)
			}
			status := s.failed(operationOf(problem), language.ExitRefused, err)
			s.explain([]string{"nothing was changed"}, "")
			return status
		}
	}
}

// operationOf is whose words fit a problem of several commands: which of them is
// at fault is not told.
func operationOf(p *api.Problem) language.Operation {
	if p == nil {
		return language.Help
	}
	switch p.Code {
	case api.ProblemCodeSchedulerMissing, api.ProblemCodeServiceExists:
		return language.AddService
	case api.ProblemCodeServerExists, api.ProblemCodeNoServer:
		return language.AddServer
	case api.ProblemCodeSyncRunning, api.ProblemCodeNoInterface:
		return language.StartDaemon
	case api.ProblemCodeNoSync:
		return language.StopDaemon
	default:
		return language.Help
	}
}

// table reads the table that the configuration and the kernel make.
func (s *session) table(client *api.Client, before api.Configuration) (*table, error) {
	state, err := before.State()
	if err != nil {
		return nil, fmt.Errorf("read the daemon's answer: %w", err)
	}
	found, err := client.Found(s.ctx)
	if err != nil {
		return nil, err
	}
	t := newTable(state)
	for _, service := range found.Services {
		if !service.Foreign {
			continue
		}
		key, err := director.ParseFoundKey(service.Listen)
		if err != nil {
			return nil, fmt.Errorf("read the daemon's answer: %w", err)
		}
		t.foreign[key] = true
	}
	for _, daemon := range found.Sync {
		if daemon.Foreign {
			t.foreignSync[director.SyncRole(daemon.Role)] = true
		}
	}
	return t, nil
}

// atLine says which line of a restore was refused.
func (s *session) atLine(line language.Line, of int) int {
	if line.Number > 0 {
		s.explain([]string{fmt.Sprintf("line %d: %s", line.Number, strings.Join(line.Args, " ")), "nothing was changed"}, "")
	}
	return language.ExitRefused
}

// left says so where -C leaves something.
func (s *session) left(t *table, lines []language.Line) {
	for _, line := range lines {
		if n := len(t.foreign); n > 0 && line.Command.Operation == language.Flush {
			s.explain([]string{fmt.Sprintf("services in the kernel that are not Shunt's, and stay there: %d", n)}, adoptHint)
			return
		}
	}
}

// why tells the history which command made the revision.
func (s *session) why() string {
	text := strings.Join(append([]string{s.options.Program}, s.options.Args...), " ")
	if api.CheckWhy(text) != nil {
		return s.options.Program
	}
	return text
}

// zero carries out -Z.
func (s *session) zero(c language.Command) int {
	client, err := s.client()
	if err != nil {
		return s.failed(language.Help, language.ExitUsage, err)
	}
	ref := ""
	if c.Has(language.OptService) {
		ref = c.Service.Key().String()
	}
	err = client.Zero(s.ctx, ref)
	problem, ok := errors.AsType[*api.Problem](err)
	switch {
	case err == nil:
		return exitOK
	case ok && (problem.Code == api.ProblemCodeNoService || problem.Code == api.ProblemCodeInvalid):
		return s.refuse(&refusal{of: language.Zero, errno: syscall.ESRCH})
	default:
		return s.failed(language.Zero, language.ExitRefused, err)
	}
}
