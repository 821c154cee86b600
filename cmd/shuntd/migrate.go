package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/doctor"
	"github.com/shunt-lb/shunt/director/ipvs"
	"github.com/shunt-lb/shunt/director/migrate"
)

// mover moves services from the kernel's IPVS to the data plane; nil if that is
// none that services can be moved to.
func (d *instance) mover() *migrate.Mover {
	target, ok := d.plane.(director.Loader)
	if !ok {
		return nil
	}
	return migrate.New(migrate.Options{
		Director: d.director, Target: target, Open: d.openSource, Bypassed: d.bypassed, Events: d.events, Log: d.log,
	})
}

// migrations returns what moves services for callers of the API; nil if the data
// plane is none that services can be moved to.
func (d *instance) migrations() func(context.Context, director.Request, api.Migration) (api.MigrationReport, error) {
	mover := d.mover()
	if mover == nil {
		return nil
	}
	return func(ctx context.Context, by director.Request, m api.Migration) (api.MigrationReport, error) {
		report, err := mover.Move(ctx, by, migrate.Request{Services: m.Services, Force: m.Force, DryRun: m.DryRun})
		return migrationModel(report), err
	}
}

func migrationModel(r migrate.Report) api.MigrationReport {
	model := api.MigrationReport{Services: []api.MigratedService{}, Bypassed: append([]string{}, r.Bypassed...)}
	for _, s := range r.Services {
		model.Services = append(model.Services, api.MigratedService{
			Service: s.Key.String(), Servers: s.Servers, Moved: s.Moved, Connections: s.Loaded, Skipped: s.Skipped, Notes: s.Notes,
		})
	}
	return model
}

// takeOver prepares that services which the last run had on the kernel's IPVS come
// to XDP with their connections. What it returns finishes that once the director
// has started.
func (d *instance) takeOver(ctx context.Context, initial director.State) (func(context.Context), error) {
	mover := d.mover()
	if mover == nil {
		return func(context.Context) {}, nil
	}
	head, _, err := d.revisions.Load()
	if err != nil {
		return nil, fmt.Errorf("read the store: %w", err)
	}
	desired := head.State
	if head.Number == 0 {
		desired = initial
	}
	keys, err := mover.Prepare(ctx, desired, d.forceMigration)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) {
		by := director.Request{Who: "shuntd", Why: "the data plane is another one than that of the last run"}
		if _, err := mover.Finish(ctx, by, keys); err != nil {
			d.log.Error("services are on XDP and on the kernel's IPVS: `shunt migrate ipvs-to-xdp` tries again", "err", err)
		}
	}, nil
}

// bypassed names what the host's firewall does with packets to the services.
func (d *instance) bypassed(ctx context.Context, services []director.Service) ([]string, error) {
	host := hostOf(d.settings, director.State{Services: services})
	findings, err := doctor.Bypassed(ctx, host)
	var rules []string
	for _, f := range findings {
		rules = append(rules, f.What)
	}
	return rules, err
}

// source is the kernel's IPVS as what services are moved from.
type source struct {
	*ipvs.Dataplane
	persistent map[director.ServiceKey]bool // as last read
}

// openSource opens the kernel's IPVS, where it is loaded: asking the kernel for it
// would load it.
func (d *instance) openSource(ctx context.Context) (migrate.Source, error) {
	if _, err := os.Stat("/proc/thread-self/net/ip_vs"); errors.Is(err, fs.ErrNotExist) {
		return nil, migrate.ErrNoSource
	}
	plane, err := ipvs.Open(ctx, ipvs.Options{Driver: "genetlink", Log: d.log, Beside: true})
	if err != nil {
		return nil, fmt.Errorf("open the kernel's IPVS: %w", err)
	}
	return &source{Dataplane: plane}, nil
}

// Services returns all services, with the timeouts and rules that the kernel has
// for all.
func (s *source) Services(ctx context.Context) ([]director.Service, error) {
	found, err := s.Found(ctx)
	if err != nil {
		return nil, err
	}
	rules, err := kernelRules()
	if err != nil {
		return nil, err
	}
	s.persistent = make(map[director.ServiceKey]bool)
	for i := range found.Services {
		service := &found.Services[i]
		s.persistent[service.Key] = service.Persistence.Timeout > 0 && !service.OnePacket
		service.Timeouts = found.Timeouts
		if service.Rules = rules; service.Key.Protocol != conntrack.TCP {
			service.Rules.SloppyTCP, service.Rules.ConnReuse = false, director.ReuseClosed
		}
	}
	return found.Services, nil
}

// Connections returns the service's. Those of a persistent service are their client's
// template's: the kernel does not show whose, and makes none without one (kernel:
// ip_vs_core.c, ip_vs_sched_persist).
func (s *source) Connections(ctx context.Context, key director.ServiceKey) iter.Seq2[conntrack.Connection, error] {
	return func(yield func(conntrack.Connection, error) bool) {
		for c, err := range s.Dataplane.Connections(ctx, director.ConnectionFilter{Service: key}) {
			c.UnderTemplate = s.persistent[key] && !c.Template
			if !yield(c, err) {
				return
			}
		}
	}
}

// Remove removes the service. Of its address this data plane knows nothing: it was
// opened for the move, and did not put it on the host.
func (s *source) Remove(ctx context.Context, key director.ServiceKey) error {
	return s.Apply(ctx, []director.Operation{director.RemoveService{Key: key}})
}

// sysctls is where the kernel keeps what it has for all services.
const sysctls = "/proc/sys/net/ipv4/vs"

// kernelRules reads the sysctls that are rules of a service here.
func kernelRules() (director.Rules, error) {
	values := map[string]int{}
	for _, name := range []string{"sloppy_tcp", "expire_nodest_conn", "expire_quiescent_template", "conn_reuse_mode"} {
		text, err := os.ReadFile(filepath.Join(sysctls, name))
		if err != nil {
			return director.Rules{}, fmt.Errorf("read the kernel's rules: %w", err)
		}
		if values[name], err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
			return director.Rules{}, fmt.Errorf("read the kernel's rules: %s: %w", name, err)
		}
	}
	rules := director.Rules{
		SloppyTCP:               values["sloppy_tcp"] != 0,
		ExpireNoDestConn:        values["expire_nodest_conn"] != 0,
		ExpireQuiescentTemplate: values["expire_quiescent_template"] != 0,
	}
	// Kernel: ip_vs_core.c, is_new_conn_expected: bit 1 adds FIN_WAIT, and 0 is never.
	switch mode := values["conn_reuse_mode"]; {
	case mode == 0:
		rules.ConnReuse = director.ReuseNever
	case mode&2 != 0:
		rules.ConnReuse = director.ReuseFinWait
	}
	return rules, nil
}
