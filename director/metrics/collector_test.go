package metrics_test

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/director/metrics"
)

var update = flag.Bool("update", false, "write the golden files anew")

// neverHappened is a line of an event that was not published.
var neverHappened = regexp.MustCompile(`(?m)^shunt_events_total\{.*\} 0\n`)

// scrape returns the answer of a handler of /metrics.
func scrape(t *testing.T, handler http.Handler) string {
	t.Helper()
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if recorder.Code != http.StatusOK {
		t.Fatalf("status %d: %s", recorder.Code, recorder.Body)
	}
	return recorder.Body.String()
}

// strict returns what a pedantic registry shows of the source.
func strict(t *testing.T, s *source) string {
	t.Helper()
	return scrape(t, promhttp.HandlerFor(registry(collector(s, io.Discard)), promhttp.HandlerOpts{}))
}

// families returns the names of the # TYPE lines, in order.
func families(text string) []string {
	var names []string
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) == 4 && fields[1] == "TYPE" {
			names = append(names, fields[2])
		}
	}
	return names
}

func TestExposition(t *testing.T) {
	for name, s := range map[string]*source{
		"two-servers.prom": state(1, 2),
		"no-dataplane.prom": func() *source {
			s := state(1, 2)
			s.err = errNoMap
			return s
		}(),
		"before-the-first-revision.prom": {},
		"ipvs.prom":                      kernel(),
	} {
		t.Run(name, func(t *testing.T) {
			got := strings.ReplaceAll(strict(t, s), runtime.Version(), "GOVERSION")
			got = neverHappened.ReplaceAllString(got, "") // the names of all events are another test's
			file := "testdata/" + name
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got; -update writes it):\n%s", file, diff)
			}
		})
	}
}

func TestScrapeHasEveryNameAndNoOther(t *testing.T) {
	var want []string
	for _, info := range metrics.Names() {
		want = append(want, info.Name)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, families(strict(t, state(1, 1)))); diff != "" {
		t.Errorf("names (-Names +scrape):\n%s", diff)
	}
}

// TestAvailableServers: of weight 0, unreachable, overloaded, draining, and one
// that takes new connections.
func TestAvailableServers(t *testing.T) {
	text := strict(t, state(1, 5))
	for _, line := range []string{
		`shunt_service_servers{service="tcp://192.0.0.1:80"} 5`,
		`shunt_service_available_servers{service="tcp://192.0.0.1:80"} 1`,
		`shunt_server_weight{server="10.0.0.1:8080",service="tcp://192.0.0.1:80"} 0`,
		`shunt_server_reachable{server="10.0.0.2:8080",service="tcp://192.0.0.1:80"} 0`,
		`shunt_server_overloaded{server="10.0.0.3:8080",service="tcp://192.0.0.1:80"} 1`,
		`shunt_server_draining{server="10.0.0.4:8080",service="tcp://192.0.0.1:80"} 1`,
		`shunt_server_overloaded{server="10.0.0.5:8080",service="tcp://192.0.0.1:80"} 0`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("no line %q", line)
		}
	}
}

func TestEveryEventIsCounted(t *testing.T) {
	text := strict(t, state(0, 0))
	for _, info := range event.Names() {
		n := 0
		if info.Name == event.Change {
			n = 1 // collector published it
		}
		if line := fmt.Sprintf("\nshunt_events_total{name=%q} %d\n", info.Name, n); !strings.Contains(text, line) {
			t.Errorf("no line %q", line)
		}
	}
}

func TestLint(t *testing.T) {
	problems, err := testutil.GatherAndLint(registry(collector(state(2, 2), io.Discard)))
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		t.Errorf("%s: %s", problem.Metric, problem.Text)
	}
}

func TestNoCounterIsAGaugesNameWithTotal(t *testing.T) {
	// In OpenMetrics a counter's family is called without its suffix.
	names := map[string]bool{}
	for _, info := range metrics.Names() {
		bare, isTotal := strings.CutSuffix(info.Name, "_total")
		if isTotal != (info.Type == metrics.Counter) {
			t.Errorf("%s is a %s", info.Name, info.Type)
		}
		if names[bare] {
			t.Errorf("%s: there are a counter and a gauge, or two, of that name", bare)
		}
		names[bare] = true
	}
}

func TestFailedReadingsAreCounted(t *testing.T) {
	s := state(1, 1)
	r := promhttp.HandlerFor(registry(collector(s, io.Discard)), promhttp.HandlerOpts{})
	for _, want := range []struct {
		err       error
		up, count string
	}{{nil, "1", "0"}, {errNoMap, "0", "1"}, {errNoMap, "0", "2"}, {nil, "1", "2"}} {
		s.err = want.err
		text := scrape(t, r)
		for _, line := range []string{"shunt_dataplane_up " + want.up, "shunt_scrape_errors_total " + want.count, "shunt_revision_number 7"} {
			if !strings.Contains(text, "\n"+line+"\n") {
				t.Errorf("reading with error %v: no line %q", want.err, line)
			}
		}
		if got := strings.Contains(text, "shunt_server_weight"); got != (want.err == nil) {
			t.Errorf("reading with error %v: servers shown: %v", want.err, got)
		}
	}
}

func TestHandler(t *testing.T) {
	text := scrape(t, collector(state(1, 1), io.Discard).Handler())
	for _, name := range []string{"shunt_build_info", "go_goroutines", "process_open_fds", "promhttp_metric_handler_errors_total"} {
		if !slices.Contains(families(text), name) {
			t.Errorf("the handler shows no %s", name)
		}
	}
}

func TestBadStateLeavesTheRestStanding(t *testing.T) {
	t.Run("a_sample_twice", func(t *testing.T) {
		s := state(2, 2)
		s.stats.Interfaces = append(s.stats.Interfaces, s.stats.Interfaces[0])
		var log bytes.Buffer
		handler := collector(s, &log).Handler()
		text := scrape(t, handler)
		if got := strings.Count(text, "\nshunt_interface_attached{"); got != 2 {
			t.Errorf("%d interfaces shown, want 2", got)
		}
		if got := strings.Count(text, "\nshunt_server_weight{"); got != 4 {
			t.Errorf("%d servers shown, want 4", got)
		}
		if !strings.Contains(log.String(), `interface_attached`) {
			t.Errorf("the log does not name the sample: %q", log.String())
		}
		if text = scrape(t, handler); !strings.Contains(text, `promhttp_metric_handler_errors_total{cause="gathering"} 1`) {
			t.Error("the error was not counted")
		}
	})

	t.Run("a_label_that_is_no_text", func(t *testing.T) {
		s := state(0, 0)
		s.stats.Interfaces = []director.InterfaceStats{{Name: "v\xffet\"h\n", Mode: "native"}}
		if text := strict(t, s); !strings.Contains(text, `shunt_interface_attached{interface="v`+"\uFFFD"+`et\"h\n",mode="native"} 1`) {
			t.Errorf("the interface is not shown:\n%s", text)
		}
	})
}

// TestScrapeOfThousandServices has 1 000 services of 10 servers: every one must
// be shown, and the size stays within what a server of nothing else can hand out.
func TestScrapeOfThousandServices(t *testing.T) {
	const services, servers = 1000, 10
	text := scrape(t, collector(state(services, servers), io.Discard).Handler())
	for _, name := range []string{"shunt_server_connections_total", "shunt_server_weight", "shunt_server_reachable"} {
		if got := strings.Count(text, "\n"+name+"{"); got != services*servers {
			t.Errorf("%d samples of %s, want %d", got, name, services*servers)
		}
	}
	for _, name := range []string{"shunt_service_bytes_total", "shunt_service_packets_total"} {
		if got := strings.Count(text, "\n"+name+"{"); got != 2*services {
			t.Errorf("%d samples of %s, want %d", got, name, 2*services)
		}
	}
	if got, limit := len(text), 24<<20; got > limit {
		t.Errorf("a scrape of %d bytes, want at most %d", got, limit)
	}
}

func BenchmarkScrape1000x10(b *testing.B) {
	handler := collector(state(1000, 10), io.Discard).Handler()
	request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	request.Header.Set("Accept-Encoding", "gzip")
	b.ReportAllocs()
	for b.Loop() {
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request)
		b.ReportMetric(float64(recorder.Body.Len()), "gzip-bytes")
	}
}
