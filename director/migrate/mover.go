package migrate

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/event"
)

// Source is the data plane that services leave.
type Source interface {
	// Services returns its services. What it keeps for all of them, such as
	// timeouts and rules, each service has as its own.
	Services(ctx context.Context) ([]director.Service, error)
	// Connections iterates over the connections and templates of the service.
	Connections(ctx context.Context, key director.ServiceKey) iter.Seq2[conntrack.Connection, error]
	// Remove removes the service, and nothing else: its virtual address stays.
	Remove(ctx context.Context, key director.ServiceKey) error
	Close() error
}

// Director is what a Mover needs of the director of the data plane that services
// come to. *director.Director is one.
type Director interface {
	State() director.State
	Features() director.Features
	Found(ctx context.Context) (director.State, error)
	AddService(ctx context.Context, by director.Request, service director.Service) (director.Outcome, error)
	EditService(ctx context.Context, by director.Request, key director.ServiceKey, edit func(*director.Service) error) (director.Outcome, error)
	Kill(ctx context.Context, filter director.ConnectionFilter) (uint64, error)
	RemoveService(ctx context.Context, by director.Request, key director.ServiceKey) (director.Outcome, error)
}

// Mover moves services. Safe for concurrent use: one move runs at a time.
type Mover struct {
	opts Options
	mu   sync.Mutex
}

// Options are a Mover's parts.
type Options struct {
	Director Director
	Target   director.Loader
	// Open opens the source for one move. ErrNoSource if the host has none.
	Open func(ctx context.Context) (Source, error)
	// Bypassed names the rules of the host's firewall that packets to the services
	// come by on their way to the source, and not on that to the target.
	Bypassed func(ctx context.Context, services []director.Service) ([]string, error)
	Events   *event.Stream // nil: events are dropped
	Log      *slog.Logger  // nil: slog.Default()
}

// ErrNoSource is what Options.Open returns where the kernel has no IPVS.
var ErrNoSource = errors.New("the kernel has no IPVS in use")

// New returns a Mover.
func New(opts Options) *Mover {
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	return &Mover{opts: opts}
}

// Request says what to move.
type Request struct {
	Services []director.ServiceKey // empty: all that the source has
	Force    bool                  // although firewall rules would be bypassed
	DryRun   bool                  // only say what would be done
}

// Report is what became of a move.
type Report struct {
	Services []ServiceReport
	Bypassed []string // firewall rules that do not hold for the services any more
}

// ServiceReport is what became of one service.
type ServiceReport struct {
	Key     director.ServiceKey
	Servers int
	// Moved is false for a trial, and for what was not reached.
	Moved bool
	// Loaded connections and templates were taken over; for a trial: would be.
	Loaded uint64
	// Skipped are those that were not, by the reason.
	Skipped map[string]uint64
	// Notes are what is not the same after the move.
	Notes []string
}

// Move moves services, one after another. A refusal, such as a *director.BypassedError or
// what the target does not have, changes nothing. A failure on the way takes the
// service at hand back; those before it stay moved, and the report has them.
func (m *Mover) Move(ctx context.Context, by director.Request, r Request) (Report, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	source, err := m.opts.Open(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("migrate: %w", err)
	}
	defer m.close(source)
	all, err := source.Services(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("migrate: read the services: %w", err)
	}
	services, err := m.choose(all, r.Services)
	if err != nil {
		return Report{}, fmt.Errorf("migrate: %w", err)
	}
	report := Report{Services: make([]ServiceReport, len(services))}
	for i, service := range services {
		report.Services[i] = ServiceReport{Key: service.Key, Servers: len(service.Servers), Notes: notes(service)}
	}
	if report.Bypassed, err = m.bypassed(ctx, all, services); err != nil {
		return Report{}, fmt.Errorf("migrate: %w", err)
	}
	if r.DryRun {
		for i := range report.Services {
			if err := count(ctx, source, &report.Services[i]); err != nil {
				return report, fmt.Errorf("migrate: %w", err)
			}
		}
		return report, nil
	}
	if len(report.Bypassed) > 0 && !r.Force {
		return report, fmt.Errorf("migrate: %w", &director.BypassedError{Rules: report.Bypassed})
	}
	for i, service := range services {
		if err := m.move(ctx, by, source, service.Key, r.Force, &report.Services[i]); err != nil {
			m.publish(event.MigrationFailed, service.Key, fmt.Sprintf("migrate service %s: %v", service.Key, err))
			return report, fmt.Errorf("migrate service %s: %w", service.Key, err)
		}
	}
	return report, nil
}

func (m *Mover) close(source Source) {
	if err := source.Close(); err != nil {
		m.opts.Log.Warn("close what services were moved from", "err", err)
	}
}

// move moves one service, as the source has it when its turn comes.
func (m *Mover) move(ctx context.Context, by director.Request, source Source, key director.ServiceKey, force bool, report *ServiceReport) error {
	_, isOld := find(m.opts.Director.State().Services, key)
	if err := m.begin(ctx, by, source, key, isOld); err != nil {
		return err
	}
	err := m.carry(ctx, source, key, report)
	if err == nil {
		err = m.rest(ctx, source, key, force, report)
	}
	if err == nil {
		err = m.opts.Target.EndMigration(ctx, key)
	}
	if err != nil {
		return errors.Join(err, m.back(ctx, by, key, isOld))
	}
	if !isOld {
		if err := m.follow(ctx, by, source, key); err != nil {
			return fmt.Errorf("it is served by XDP now, and by the kernel's IPVS: %w", err)
		}
	}
	if err := source.Remove(ctx, key); err != nil && !errors.Is(err, director.ErrNotFound) {
		return fmt.Errorf("it is served by XDP now; remove it from the kernel's IPVS: %w", err)
	}
	report.Moved = true
	m.publish(event.Migrated, key, fmt.Sprintf("service %s moved from the kernel's IPVS to XDP with its connections: %d loaded, %d not",
		key, report.Loaded, total(report.Skipped)))
	return nil
}

// begin makes the service in the target, where what it does not know is left to the
// source. What is left there of an earlier one of the same key goes first: the
// source's connections and templates have their servers by now.
func (m *Mover) begin(ctx context.Context, by director.Request, source Source, key director.ServiceKey, isOld bool) error {
	if isOld {
		return m.opts.Target.BeginMigration(ctx, key)
	}
	service, err := m.now(ctx, source, key)
	if err != nil {
		return err
	}
	if _, err := m.opts.Director.Kill(ctx, director.ConnectionFilter{Service: key}); err != nil {
		return fmt.Errorf("remove what is left of an earlier one: %w", err)
	}
	if err := m.opts.Target.BeginMigration(ctx, key); err != nil {
		return err
	}
	if _, err := m.opts.Director.AddService(ctx, by, service); err != nil {
		return errors.Join(err, m.opts.Target.EndMigration(context.WithoutCancel(ctx), key))
	}
	return nil
}

// now reads a service of the source as the target is to have it.
func (m *Mover) now(ctx context.Context, source Source, key director.ServiceKey) (director.Service, error) {
	all, err := source.Services(ctx)
	if err != nil {
		return director.Service{}, fmt.Errorf("read the services: %w", err)
	}
	service, ok := find(all, key)
	if !ok {
		return director.Service{}, fmt.Errorf("%w in the kernel's IPVS any more", director.ErrNotFound)
	}
	service = moved(service, director.State{Timeouts: m.opts.Director.State().Timeouts})
	return service, errors.Join(service.Validate(), m.opts.Director.Features().Check(director.State{Services: []director.Service{service}}))
}

// follow carries to the target what somebody changed of the service in the source
// while it was moved, such as the weight of a server that has failed.
func (m *Mover) follow(ctx context.Context, by director.Request, source Source, key director.ServiceKey) error {
	service, err := m.now(ctx, source, key)
	if errors.Is(err, director.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	by.Base = 0
	_, err = m.opts.Director.EditService(ctx, by, key, func(s *director.Service) error { *s = service; return nil })
	return err
}

// back leaves a service that could not be moved to the source: its packets go to
// the stack again. One that was desired before goes on as it is, half here and half
// there, until it is moved: the mark stays, so that nothing is cut.
func (m *Mover) back(ctx context.Context, by director.Request, key director.ServiceKey, isOld bool) error {
	ctx = context.WithoutCancel(ctx)
	if isOld {
		return m.opts.Target.BeginMigration(ctx, key)
	}
	by.Why, by.Base = "it could not be moved", 0
	if _, err := m.opts.Director.RemoveService(ctx, by, key); err != nil {
		// It is here still, and held back perhaps.
		return errors.Join(fmt.Errorf("leave it to the kernel's IPVS again: %w", err), m.opts.Target.BeginMigration(ctx, key))
	}
	// Packets of what was loaded would be dropped as those of a removed service.
	if _, err := m.opts.Director.Kill(ctx, director.ConnectionFilter{Service: key}); err != nil {
		return fmt.Errorf("leave its connections to the kernel's IPVS again: %w", err)
	}
	return m.opts.Target.EndMigration(ctx, key)
}

func (m *Mover) publish(name event.Name, key director.ServiceKey, message string) {
	m.opts.Events.Publish(event.Event{Name: name, Service: key.String(), Message: message})
}
