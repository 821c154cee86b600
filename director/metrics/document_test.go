package metrics_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/metrics"
)

var codeSpan = regexp.MustCompile("`([^`]+)`")

// rows returns the cells of metrics.md's tables of that many columns whose first
// is code.
func rows(t *testing.T, columns int) [][]string {
	t.Helper()
	text, err := os.ReadFile("metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var all [][]string
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != columns+2 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		cells = cells[1 : columns+1]
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		all = append(all, cells)
	}
	return all
}

func TestDocumentHasTheNames(t *testing.T) {
	got := map[string]metrics.Info{}
	for _, cells := range rows(t, 4) {
		info := metrics.Info{Name: strings.Trim(cells[0], "`"), Type: metrics.Type(cells[1]), Help: cells[3]}
		for _, span := range codeSpan.FindAllStringSubmatch(cells[2], -1) {
			info.Labels = append(info.Labels, span[1])
		}
		if _, twice := got[info.Name]; twice {
			t.Errorf("metrics.md has %s twice", info.Name)
		}
		got[info.Name] = info
	}
	want := map[string]metrics.Info{}
	for _, info := range metrics.Names() {
		want[info.Name] = info
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics.md (-Names +tables):\n%s", diff)
	}
}

func TestDocumentHasTheLabels(t *testing.T) {
	var want, got []string
	for _, info := range metrics.Names() {
		want = append(want, info.Labels...)
	}
	for _, cells := range rows(t, 2) {
		got = append(got, strings.Trim(cells[0], "`"))
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(slices.Compact(want), got); diff != "" {
		t.Errorf("metrics.md's labels (-Names +table):\n%s", diff)
	}
}
