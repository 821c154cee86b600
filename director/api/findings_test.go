package api_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/api"
)

// findingsOf are findings whose checks are named after their severities.
func findingsOf(severities string) []api.Finding {
	var all []api.Finding
	for _, severity := range strings.Fields(severities) {
		all = append(all, api.Finding{Check: severity, Severity: api.FindingSeverity(severity)})
	}
	return all
}

func checksOf(findings []api.Finding) string {
	var all []string
	for _, f := range findings {
		all = append(all, f.Check)
	}
	return strings.Join(all, " ")
}

func TestFindings(t *testing.T) {
	for _, test := range []struct{ severities, sorted, notable, counts string }{
		{"ok", "ok", "", "1 finding: nothing wrong"},
		{"ok ok", "ok ok", "", "2 findings: nothing wrong"},
		{"", "", "", "0 findings: nothing wrong"},
		{"ok info", "info ok", "info", "2 findings: 1 info, 1 ok"},
		{
			"ok info unknown warning error warning", "error warning warning unknown info ok",
			"error warning warning unknown info", "6 findings: 1 error, 2 warning, 1 unknown, 1 info, 1 ok",
		},
		// Of a daemon that is newer.
		{"ok terrible error", "error terrible ok", "error terrible", "3 findings: 1 error, 1 terrible, 1 ok"},
	} {
		t.Run(test.severities, func(t *testing.T) {
			all := findingsOf(test.severities)
			if got := api.CountFindings(all); got != test.counts {
				t.Errorf("counted %q, want %q", got, test.counts)
			}
			if got := checksOf(all); got != test.severities {
				t.Errorf("counting changed the order: %s", got)
			}
			api.SortFindings(all)
			if got := checksOf(all); got != test.sorted {
				t.Errorf("sorted %s, want %s", got, test.sorted)
			}
			if got := checksOf(api.NotableFindings(all)); got != test.notable {
				t.Errorf("notable %s, want %s", got, test.notable)
			}
		})
	}
}

func TestFindingAsText(t *testing.T) {
	f := api.Finding{
		Check: "rp-filter", Subject: "eth0", Severity: api.FindingSeverityError, What: "rp_filter is 1",
		Why: "answers do not come this way", Fix: "first\nsecond",
	}
	want := "error rp-filter eth0: rp_filter is 1\n  why: answers do not come this way\n  fix: first\n       second\n"
	if diff := cmp.Diff(want, f.String()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	f = api.Finding{Check: "jit", Severity: api.FindingSeverityOk, What: "it is on"}
	if got := f.String(); got != "ok jit: it is on\n" {
		t.Errorf("without why and fix: %q", got)
	}
}
