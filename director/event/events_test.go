package event_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/event"
)

// documented is a line of the table of events.md.
type documented struct {
	Name, Level string
	Fields      []string
	Help        string
}

var codeSpan = regexp.MustCompile("`([^`]+)`")

// table returns the lines of the table of events.md.
func table(t *testing.T) []documented {
	t.Helper()
	text, err := os.ReadFile("events.md")
	if err != nil {
		t.Fatal(err)
	}
	var lines []documented
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 6 || !strings.Contains(cells[1], "`") {
			continue
		}
		d := documented{Name: strings.Trim(cells[1], " `"), Level: strings.TrimSpace(cells[2]), Help: strings.TrimSpace(cells[4])}
		for _, span := range codeSpan.FindAllStringSubmatch(cells[3], -1) {
			d.Fields = append(d.Fields, span[1])
		}
		lines = append(lines, d)
	}
	return lines
}

func TestDocumentHasTheNames(t *testing.T) {
	var want, got []documented
	for _, info := range event.Names() {
		want = append(want, documented{Name: string(info.Name), Level: strings.ToLower(info.Level.String()), Help: info.Help})
	}
	for _, d := range table(t) {
		for _, field := range d.Fields {
			if !slices.Contains([]string{"service", "server", "interface", "reason", "revision"}, field) {
				t.Errorf("%s: an event has no field %q", d.Name, field)
			}
		}
		d.Fields = nil
		got = append(got, d)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events.md (-Names +table):\n%s", diff)
	}
}
