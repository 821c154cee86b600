package migrate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// passes bounds how often the source is read: each time finds what came to be
// there while it was read before, which is less each time.
const passes = 8

// carry loads the source's connections until a reading finds none that is new.
func (m *Mover) carry(ctx context.Context, source Source, key director.ServiceKey, report *ServiceReport) error {
	for range passes {
		loaded, err := m.load(ctx, source, key, report)
		if err != nil || loaded == 0 {
			return err
		}
	}
	return nil // new ones come all the time; those that are left are the last reading's
}

// rest loads what has come to be in the source since the last reading: all of it,
// because nothing more comes there from its beginning on. What is not loaded would
// be cut; that is an error unless it is meant.
func (m *Mover) rest(ctx context.Context, source Source, key director.ServiceKey, force bool, report *ServiceReport) error {
	if err := missed(report, force); err != nil {
		return err
	}
	if err := m.opts.Target.HoldMigration(ctx, key); err != nil {
		return err
	}
	if _, err := m.load(ctx, source, key, report); err != nil {
		return err
	}
	return missed(report, force)
}

// missed is an error if the last reading found connections that could not be loaded.
func missed(report *ServiceReport, force bool) error {
	n := total(report.Skipped)
	if n == 0 || force {
		return nil
	}
	return fmt.Errorf("%w: connections that could not be loaded and would be cut: %d (%s): force the move if that is meant", director.ErrUnsupported, n, reasons(report.Skipped))
}

// load reads the source's connections of the service once.
func (m *Mover) load(ctx context.Context, source Source, key director.ServiceKey, report *ServiceReport) (uint64, error) {
	var failed error
	loaded, err := m.opts.Target.Load(ctx, key, func(yield func(conntrack.Connection) bool) {
		for c, err := range source.Connections(ctx, key) {
			if err != nil {
				failed = fmt.Errorf("read the connections: %w", err)
				return
			}
			if !yield(c) {
				return
			}
		}
	})
	report.Loaded += loaded.Loaded
	report.Skipped = loaded.Skipped // each reading meets the same ones again
	return loaded.Loaded, errors.Join(failed, err)
}

// count says how many connections there are to load.
func count(ctx context.Context, source Source, report *ServiceReport) error {
	for _, err := range source.Connections(ctx, report.Key) {
		if err != nil {
			return fmt.Errorf("read the connections of %s: %w", report.Key, err)
		}
		report.Loaded++
	}
	return nil
}

// expired is the reason of connections that nobody misses.
const expired = "expired"

// total is how many connections are missed.
func total(skipped map[string]uint64) (sum uint64) {
	for reason, n := range skipped {
		if reason != expired {
			sum += n
		}
	}
	return sum
}

func reasons(skipped map[string]uint64) string {
	var all []string
	for _, reason := range slices.Sorted(maps.Keys(skipped)) {
		if reason != expired {
			all = append(all, fmt.Sprintf("%d %s", skipped[reason], reason))
		}
	}
	return strings.Join(all, ", ")
}
