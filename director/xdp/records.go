package xdp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/conntrack/record"
	"github.com/shunt-lb/shunt/director"
)

// skipService is why a record is not loaded: there is no service of its key here.
const skipService = "no-such-service"

// Dump writes the connections and templates that match as records.
func (d *Dataplane) Dump(ctx context.Context, filter director.ConnectionFilter, w io.Writer) (uint64, error) {
	view, err := d.lockedView(ctx)
	if err != nil {
		return 0, err
	}
	host, err := os.Hostname()
	if err != nil {
		return 0, fmt.Errorf("dump connections: tell the host's name: %w", err)
	}
	records, err := record.NewWriter(w, record.Header{Created: time.Now(), Director: host, Version: d.opts.Version})
	if err != nil {
		return 0, fmt.Errorf("dump connections: %w", err)
	}
	out := dumper{view: view, records: records}
	for _, kind := range out.kinds(filter.Kind) {
		filter.Kind = kind
		if err := d.walk(ctx, view.matcher(filter), out.write); err != nil || out.err != nil {
			return out.written, fmt.Errorf("dump connections: %w", errors.Join(err, out.err))
		}
	}
	if err := records.Close(); err != nil {
		return out.written, fmt.Errorf("dump connections: %w", err)
	}
	return out.written, nil
}

// dumper is one run of Dump.
type dumper struct {
	view    *view
	records *record.Writer
	record  record.Record
	written uint64
	err     error
}

// kinds returns what is written one after the other: a template comes before the
// connections under it.
func (o *dumper) kinds(wanted director.ConnectionKind) []director.ConnectionKind {
	isPersistent := func(s *serviceView) bool { return s != nil && s.persistence.Timeout != 0 }
	if wanted != "" || !slices.ContainsFunc(o.view.services, isPersistent) {
		return []director.ConnectionKind{wanted}
	}
	return []director.ConnectionKind{director.KindTemplate, director.KindConnection}
}

func (o *dumper) write(s *bpf.Slot, traffic *conntrack.Traffic) bool {
	e := s.Entry()
	key, c, _ := o.view.connection(&e)
	o.record.Connection, o.record.Connection.Traffic = c, traffic
	o.record.Service = record.Service(key)
	if o.err = o.records.Write(&o.record); o.err == nil {
		o.written++
	}
	return o.err == nil
}

// LoadRecords makes the connections of the records its own, as Load does, of the
// services that are here under their keys. An error leaves what came before it, and
// the report is of that. What a record says of traffic is left out: it is counted
// anew.
func (d *Dataplane) LoadRecords(ctx context.Context, r io.Reader) (director.LoadReport, error) {
	report := director.LoadReport{Skipped: map[string]uint64{}}
	l, err := d.newRecordLoader(ctx, &report)
	if err == nil {
		err = l.load(ctx, r)
	}
	if err != nil {
		err = fmt.Errorf("load connections: %w", err)
	}
	return report, err
}

// recordLoader is one run of LoadRecords. Records of each service are loaded in
// their order: templates come before the connections under them.
type recordLoader struct {
	report   *director.LoadReport
	services map[director.ServiceKey]*loadRun
}

// loadRun are records of one service that are read and not yet loaded.
type loadRun struct {
	loader
	connections []conntrack.Connection
}

func (d *Dataplane) newRecordLoader(ctx context.Context, report *director.LoadReport) (*recordLoader, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(ctx); err != nil {
		return nil, err
	}
	l := &recordLoader{report: report, services: map[director.ServiceKey]*loadRun{}}
	for key, svc := range d.model.byKey {
		if !svc.removed {
			l.services[key] = &loadRun{loader: loader{
				Dataplane: d, key: key, isProven: isProvenRecord, report: director.LoadReport{Skipped: report.Skipped},
			}}
		}
	}
	return l, nil
}

// isProvenRecord: another director knows it.
func isProvenRecord(c *conntrack.Connection) bool { return c.Proven }

func (l *recordLoader) load(ctx context.Context, r io.Reader) error {
	records, err := record.NewReader(r)
	if err != nil {
		return err
	}
	for next, readErr := range records.All() {
		if readErr != nil {
			err = readErr
			break
		}
		run := l.services[director.ServiceKey(next.Service)]
		if run == nil {
			l.report.Skipped[skipService]++
			continue
		}
		run.connections = append(run.connections, next.Connection)
		if len(run.connections) < bpf.LoadBatch {
			continue
		}
		if err := l.flush(ctx, run); err != nil {
			return err
		}
	}
	for _, run := range l.services {
		if flushErr := l.flush(ctx, run); flushErr != nil {
			return errors.Join(err, flushErr)
		}
	}
	return err
}

// flush loads what has been read of the service.
func (l *recordLoader) flush(ctx context.Context, run *loadRun) error {
	if len(run.connections) == 0 {
		return nil
	}
	before := run.report
	err := run.flush(ctx, run.connections)
	l.report.Loaded += run.report.Loaded - before.Loaded
	l.report.Known += run.report.Known - before.Known
	if errors.Is(err, director.ErrNotFound) { // removed meanwhile
		l.report.Skipped[skipService] += uint64(len(run.connections))
		err = nil
	}
	run.connections = run.connections[:0]
	if err != nil {
		return fmt.Errorf("of %s: %w", run.key, err)
	}
	return nil
}
