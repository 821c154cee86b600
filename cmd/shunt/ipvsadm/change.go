package ipvsadm

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"syscall"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	language "github.com/shunt-lb/shunt/director/config/ipvsadm"
)

// change carries out commands that change the table, all of them or none: they
// are applied to the configuration as a value, which is sent back on the condition
// that it is still the newest.
func (s *session) change(lines []language.Line) int {
	client, err := s.client()
	if err != nil {
		return s.failed(language.Help, language.ExitUsage, err)
	}
	defer takeTurn(s.ctx, s.options.Folder, turnTime)()
	rivals, daemon := contest{}, restart{patience: s.options.Patience}
	var sent *table // whose answer was lost
	for {
		t, revision, err := s.table(client, lines)
		if err != nil {
			return s.failed(language.Help, language.ExitRefused, err)
		}
		if sent != nil && sameConfiguration(t.state, sent.state) {
			s.done(sent, lines)
			return exitOK
		}
		for _, line := range lines {
			if r := t.change(line.Command); r != nil {
				s.refuse(r)
				return s.atLine(line, len(lines))
			}
		}
		if r := t.lacking(); r != nil {
			s.refuse(r)
			s.explain([]string{"nothing was changed"}, "")
			return language.ExitRefused
		}
		// The guard against the removal of many is not ipvsadm's.
		terms := api.Terms{Revision: revision, Force: true, Why: s.why()}
		_, err = client.Apply(s.ctx, api.ConfigurationOf(t.state), terms)
		problem, isProblem := errors.AsType[*api.Problem](err)
		switch {
		case err == nil:
			s.done(t, lines)
			return exitOK
		case isProblem && problem.Code == api.ProblemCodeConflict && rivals.again(s.ctx):
		case daemon.awaited(s.ctx, err): // it may have been done all the same
			sent = t
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

// sameConfiguration reports whether two states are the same as configurations.
func sameConfiguration(a, b director.State) bool {
	configured := func(s director.State) api.Configuration {
		c := api.ConfigurationOf(s.Normalize())
		if len(c.Sync) == 0 {
			c.Sync = nil // none is none here
		}
		return c
	}
	return reflect.DeepEqual(configured(a), configured(b))
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

// table reads the table that the configuration and the kernel make, and the
// configuration's revision. The kernel is read where the commands need it: that takes
// a request for each service that it has.
func (s *session) table(client *api.Client, lines []language.Line) (t *table, revision uint64, err error) {
	err = s.patiently(func() error {
		var before api.Configuration
		if before, revision, err = client.Configuration(s.ctx); err != nil {
			return err
		}
		state, err := before.State()
		if err != nil {
			return fmt.Errorf("read the daemon's answer: %w", err)
		}
		t = newTable(state)
		if !wantKernel(lines, state) {
			return nil
		}
		found, err := client.Found(s.ctx)
		if err != nil {
			return err
		}
		return t.add(found)
	})
	return t, revision, err
}

// wantKernel reports whether commands need to know more than the configuration:
// whether a service is somebody else's, which sync daemons run, and which servers are
// being drained.
func wantKernel(lines []language.Line, state director.State) bool {
	for _, line := range lines {
		c := line.Command
		key := c.Service.Key()
		switch c.Operation {
		case language.EditService, language.DeleteService, language.DeleteServer:
		case language.AddServer, language.EditServer:
			if c.Operation == language.EditServer && c.Server.Weight != 0 || !sameFamily(c.Server.Address.Addr(), key.Address.Addr()) {
				return true
			}
		default:
			return true
		}
		if state.Service(key) < 0 {
			return true
		}
	}
	return false
}

// add adds what the kernel holds.
func (t *table) add(found api.Found) error {
	for _, model := range found.Services {
		service, err := model.Configured()
		if err != nil {
			return fmt.Errorf("read the daemon's answer: service %s: %w", model.Listen, err)
		}
		if model.Foreign {
			t.foreign[service.Key] = service
			continue
		}
		for _, server := range service.Servers {
			if server.Draining {
				t.draining[member{service.Key, server.Address}] = true
			}
		}
	}
	for _, daemon := range found.Sync {
		if daemon.Foreign {
			t.foreignSync[director.SyncRole(daemon.Role)] = true
		}
	}
	return nil
}

// atLine says which line of a restore was refused.
func (s *session) atLine(line language.Line, of int) int {
	if line.Number > 0 {
		s.explain([]string{fmt.Sprintf("line %d: %s", line.Number, strings.Join(line.Args, " ")), "nothing was changed"}, "")
	}
	return language.ExitRefused
}

// done says what a change that was made did not do: -C leaves what is not Shunt's,
// and a server that is being drained has weight 0 whatever it is given.
func (s *session) done(t *table, lines []language.Line) {
	flushed, told := false, make(map[member]bool)
	for _, line := range lines {
		c := line.Command
		switch c.Operation {
		case language.Flush:
			flushed = true
		case language.AddServer, language.EditServer:
			key := c.Service.Key()
			m := member{key, key.ServerAddress(c.Server.Address)}
			if t.draining[m] && c.Server.Weight != 0 && !told[m] {
				told[m] = true
				s.explain([]string{fmt.Sprintf("server %s of %s is being drained: its weight stays 0 until that ends", m.server, m.service)},
					fmt.Sprintf("`shunt server drain %s %s --cancel` ends it", m.service, m.server))
			}
		}
	}
	if n := len(t.foreign); n > 0 && flushed {
		s.explain([]string{fmt.Sprintf("services in the kernel that are not Shunt's, and stay there: %d", n)}, adoptHint)
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
	err = s.patiently(func() error { return client.Zero(s.ctx, ref) })
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
