// Package metrics shows the director to Prometheus. Its collector reads the data
// plane, the newest revision, drift and the counts of events when it is scraped,
// and keeps nothing between two scrapes but the number of failed readings.
//
// It owns the metrics' names, which are stable, and what goes with them: the
// board for Grafana (grafana.json) and the rules for alerts (alerts.yaml), which
// tests hold to the names. It knows no connection: a label's values are bounded
// by what is configured. It does not serve by itself: director/api has the
// handler under /metrics.
//
// Start reading at Names; metrics.md is the same for operators.
package metrics
