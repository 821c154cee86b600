package metrics

import (
	"context"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/event"
)

// Source is what the collector reads: a *director.Director.
type Source interface {
	Stats(ctx context.Context) (director.Stats, error)
	Head() director.Revision
	Drift() director.Drift
	Drops(ctx context.Context) ([]director.Drop, error)
}

var _ Source = (*director.Director)(nil)

// Options are the parameters of New.
type Options struct {
	Source    Source        // required
	Events    *event.Stream // required: counts the events
	Version   string        // of the daemon
	Dataplane string        // xdp or ipvs
	Started   time.Time     // when the daemon started
	// Health returns what is known of servers' health. Nil: nothing of it is shown.
	Health func() Health
	Log    *slog.Logger // gets what a scrape could not show; nil: slog.Default()
}

// timeout is how long a scrape waits for the data plane: half of what Prometheus
// waits for a scrape by default.
const timeout = 5 * time.Second

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return o
}

// Collector is a prometheus.Collector that reads when it is scraped. Safe for
// concurrent use.
type Collector struct {
	opts    Options
	metrics map[string]described
	failed  atomic.Uint64 // scrapes that could not read the data plane
}

var _ prometheus.Collector = (*Collector)(nil)

type described struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

// New returns a Collector of the source.
func New(opts Options) *Collector {
	c := &Collector{opts: opts.withDefaults(), metrics: make(map[string]described)}
	for _, info := range Names() {
		c.metrics[info.Name] = described{prometheus.NewDesc(info.Name, info.Help, info.Labels, nil), info.Type.valueType()}
	}
	return c
}

// Describe tells all metrics.
func (c *Collector) Describe(descs chan<- *prometheus.Desc) {
	for _, metric := range c.metrics {
		descs <- metric.desc
	}
}

// Collect reads everything there is to show. If the data plane cannot be read,
// its counters are left out and shunt_dataplane_up is 0: a counter shown as 0
// would be taken for a restart, and a gauge for the truth.
func (c *Collector) Collect(metrics chan<- prometheus.Metric) {
	s := scrape{c.metrics, metrics}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	stats, err := c.opts.Source.Stats(ctx)
	up := 1.0
	if err != nil {
		up = 0
		c.failed.Add(1)
		c.opts.Log.Debug("scrape without the data plane's counters", "err", err)
	}
	s.add(nameDataplaneUp, up)
	s.add(nameScrapeErrors, float64(c.failed.Load()))
	s.add(nameBuildInfo, 1, c.opts.Version, runtime.Version(), c.opts.Dataplane)
	s.add(nameStartTime, seconds(c.opts.Started))
	s.addHead(c.opts.Source.Head())
	s.addDrift(c.opts.Source.Drift())
	for name, n := range c.opts.Events.Counts() {
		s.add(nameEvents, float64(n), string(name))
	}
	if c.opts.Health != nil {
		s.addHealth(c.opts.Health())
	}
	if err == nil {
		s.addStats(stats)
		s.addDrops(c.opts.Source.Drops(ctx))
	}
}

// scrape is one run of Collect.
type scrape struct {
	metrics map[string]described
	out     chan<- prometheus.Metric
}

// add gives a sample; the labels are in the order of Names. An interface may be
// called anything (kernel: net/core/dev.c, dev_valid_name), a label must be
// UTF-8.
func (s scrape) add(name string, value float64, labels ...string) {
	for i := range labels {
		labels[i] = strings.ToValidUTF8(labels[i], "\uFFFD")
	}
	metric := s.metrics[name]
	s.out <- prometheus.MustNewConstMetric(metric.desc, metric.kind, value, labels...)
}

// addTimes gives a histogram.
func (s scrape) addTimes(name string, t Times, labels ...string) {
	atMost := make(map[float64]uint64, len(t.AtMost))
	for bound, n := range t.AtMost {
		atMost[bound.Seconds()] = n
	}
	s.out <- prometheus.MustNewConstHistogram(s.metrics[name].desc, t.Count, t.Sum.Seconds(), atMost, labels...)
}

// seconds returns the time since 1970; 0 for the zero time, which says never.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / float64(time.Second)
}
