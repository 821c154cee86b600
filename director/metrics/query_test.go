package metrics_test

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/director/metrics"
)

// vocabulary is what expressions may use: every metric that Prometheus has of a
// director, with its labels.
type vocabulary map[string]metrics.Info

// targetLabels are on every sample: Prometheus adds them.
var targetLabels = []string{"job", "instance"}

// What of PromQL is used. A function of ofCounters wants a counter's range, and a
// counter wants one of them.
var (
	functions   = []string{"sum", "min", "max", "count", "time", "rate", "increase", "changes", "histogram_quantile"}
	ofCounters  = []string{"rate", "increase"}
	modifiers   = []string{"by", "without", "on", "ignoring", "group_left", "group_right"}
	otherWords  = []string{"and", "or", "unless", "bool"}
	packetKinds = []director.PacketKind{director.PacketPass, director.PacketDrop, director.PacketAnswer, director.PacketNote, director.PacketFault}
)

// words returns the vocabulary of a real scrape: ours, those of the runtime and
// of the process, and up, which Prometheus makes.
func words(t *testing.T) vocabulary {
	t.Helper()
	v := vocabulary{"up": {Name: "up", Type: metrics.Gauge}}
	for line := range strings.Lines(scrape(t, collector(state(1, 1), io.Discard).Handler())) {
		if fields := strings.Fields(line); len(fields) == 4 && fields[1] == "TYPE" {
			v[fields[2]] = metrics.Info{Name: fields[2], Type: metrics.Type(fields[3])}
		}
	}
	for _, info := range metrics.Names() {
		if info.Type != metrics.Histogram {
			v[info.Name] = info
			continue
		}
		delete(v, info.Name)
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			part := metrics.Info{Name: info.Name + suffix, Type: metrics.Counter, Labels: info.Labels}
			if suffix == "_bucket" {
				part.Labels = append(slices.Clone(info.Labels), "le")
			}
			v[part.Name] = part
		}
	}
	return v
}

// query is what an expression uses.
type query struct {
	metrics  []metrics.Info
	problems []string
}

func (q *query) problem(format string, args ...any) {
	q.problems = append(q.problems, fmt.Sprintf(format, args...))
}

// anyHas reports whether one of the metrics has the label.
func anyHas(all []metrics.Info, label string) bool {
	return slices.Contains(targetLabels, label) || slices.ContainsFunc(all, func(m metrics.Info) bool {
		return slices.Contains(m.Labels, label)
	})
}

var isWord = regexp.MustCompile(`^[A-Za-z_:]`)

var token = regexp.MustCompile(`"[^"]*"|[A-Za-z_:][A-Za-z0-9_:]*|[0-9.]+|[=!]~|[=!<>]=|\[[^\]]*\]|\S`)

// parse reads an expression as far as its words go: metrics, their labels and
// matchers, whether counters are made rates of, functions, brackets.
func (v vocabulary) parse(expr string) query {
	var q query
	depth := 0 // of brackets
	tokens := append(token.FindAllString(expr, -1), "")
	all := v.of(tokens)
	for i := 0; tokens[i] != ""; i++ {
		word, next := tokens[i], tokens[i+1]
		switch {
		case word == "(":
			depth++
		case word == ")":
			if depth--; depth < 0 {
				q.problem("a bracket too many")
				return q
			}
		case !isWord.MatchString(word), slices.Contains(otherWords, word):
		case slices.Contains(modifiers, word):
			for i += 2; i < len(tokens)-1 && tokens[i] != ")"; i++ {
				if label := tokens[i]; label != "," && !anyHas(all, label) {
					q.problem("no metric of the expression has the label %q of %s", label, word)
				}
			}
		case next == "(":
			if !slices.Contains(functions, word) {
				q.problem("unknown function %q", word)
			}
		case slices.Contains(functions, word) && slices.Contains(modifiers, next): // sum by (...)
		default:
			before := ""
			if i >= 2 {
				before = tokens[i-2]
			}
			i += v.metric(&q, word, before, tokens[i+1:])
		}
	}
	if depth > 0 {
		q.problem("a bracket is not closed")
	}
	return q
}

// of returns the known metrics among the tokens.
func (v vocabulary) of(tokens []string) []metrics.Info {
	var all []metrics.Info
	for _, word := range tokens {
		if info, known := v[word]; known {
			all = append(all, info)
		}
	}
	return all
}

// metric judges a metric, its matchers and its range, and returns how many
// tokens those are. before is the function it is the argument of.
func (v vocabulary) metric(q *query, name, before string, rest []string) int {
	info, known := v[name]
	if !known {
		q.problem("there is no metric %s", name)
	}
	q.metrics = append(q.metrics, info)
	n := 0
	if rest[0] == "{" {
		for n = 1; n+2 < len(rest) && rest[n] != "}"; n += 3 {
			if rest[n] == "," {
				n++
			}
			v.matcher(q, info, rest[n], strings.Trim(rest[n+2], `"`))
		}
		n++
	}
	isRange := strings.HasPrefix(rest[n], "[")
	switch {
	case known && info.Type == metrics.Counter && (!isRange || !slices.Contains(ofCounters, before)):
		q.problem("%s is a counter: take its rate", name)
	case info.Type == metrics.Gauge && isRange && slices.Contains(ofCounters, before):
		q.problem("%s is a gauge: it has no rate", name)
	}
	if isRange {
		n++
	}
	return n
}

// matcher judges label and value of a matcher.
func (v vocabulary) matcher(q *query, info metrics.Info, label, value string) {
	if info.Name != "" && !slices.Contains(targetLabels, label) && !slices.Contains(info.Labels, label) {
		q.problem("%s has no label %q", info.Name, label)
	}
	for value := range strings.SplitSeq(value, "|") {
		switch {
		case strings.HasPrefix(value, "$"):
		case label == "kind" && info.Name == "shunt_server_evidence_total":
			if !slices.Contains([]string{"unanswered", "reset", "unreachable"}, value) {
				q.problem("there is no evidence %q", value)
			}
		case label == "result" && !slices.Contains([]string{"passed", "failed", "told", "skipped"}, value):
			q.problem("there is no result %q", value)
		case label == "change" && !slices.Contains([]string{"registered", "renewed", "left", "expired"}, value):
			q.problem("there is no change %q of leases", value)
		case label == "kind" && !slices.Contains(packetKinds, director.PacketKind(value)):
			q.problem("there is no kind %q", value)
		case label == "direction" && value != "in" && value != "out":
			q.problem("there is no direction %q", value)
		case label == "name" && info.Name == "shunt_events_total" && !slices.ContainsFunc(event.Names(), func(i event.Info) bool {
			return string(i.Name) == value
		}):
			q.problem("there is no event %q", value)
		}
	}
}

func TestQueriesAreJudged(t *testing.T) {
	v := words(t)
	for expr, want := range map[string]string{
		`sum by (service) (rate(shunt_service_bytes_total{service=~"$service",direction="in"}[1m])) * 8`:                      "",
		`shunt_table_keys / (2 * (shunt_table_limit_connections > 0)) > 0.8`:                                                  "",
		`rate(shunt_service_refused_total{limit!="table-full"}[5m]) > 10`:                                                     "",
		`sum by (service) (rate(shunt_service_bytes_total[1m])) * on (service) group_left (name) shunt_service_info{job="a"}`: "",
		`time() - shunt_last_reconcile_timestamp_seconds > 60 and up == 1`:                                                    "",
		`histogram_quantile(0.99, sum by (le, check) (rate(shunt_check_duration_seconds_bucket{result="passed"}[5m])))`:       "",
		`sum by (le) (rate(shunt_check_duration_seconds_count[5m]))`:                                                          `no metric of the expression has the label "le" of by`,
		`shunt_check_duration_seconds`:                       "there is no metric shunt_check_duration_seconds",
		`rate(shunt_server_evidence_total{kind="drop"}[5m])`: `there is no evidence "drop"`,
		`rate(shunt_lease_changes_total{change="gone"}[5m])`: `there is no change "gone" of leases`,
		`rate(shunt_check_results_total{result="bad"}[5m])`:  `there is no result "bad"`,
		`changes(shunt_revision_number[5m]) > bool 0`:        "",
		`shunt_nothing`:                                             "there is no metric shunt_nothing",
		`rate(shunt_nothing{a="b"}[1m])`:                            "there is no metric shunt_nothing",
		`shunt_servers{service="a"}`:                                `shunt_servers has no label "service"`,
		`rate(shunt_packet_events_total{name="a",kind="drip"}[1m])`: `there is no kind "drip"`,
		`rate(shunt_service_bytes_total{direction="up"}[1m])`:       `there is no direction "up"`,
		`increase(shunt_events_total{name=~"drift|drifts"}[1m])`:    `there is no event "drifts"`,
		`sum by (server) (shunt_service_servers)`:                   `no metric of the expression has the label "server" of by`,
		`shunt_service_connections_total`:                           "shunt_service_connections_total is a counter: take its rate",
		`changes(shunt_service_connections_total[1m])`:              "shunt_service_connections_total is a counter: take its rate",
		`rate(shunt_servers[1m])`:                                   "shunt_servers is a gauge: it has no rate",
		`summ(shunt_servers)`:                                       `unknown function "summ"`,
		`sum(shunt_servers`:                                         "a bracket is not closed",
		`sum(shunt_servers))`:                                       "a bracket too many",
	} {
		if got := strings.Join(v.parse(expr).problems, "; "); got != want {
			t.Errorf("%s:\n got %q\nwant %q", expr, got, want)
		}
	}
}
