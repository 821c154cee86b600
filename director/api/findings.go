package api

import (
	"fmt"
	"slices"
	"strings"
)

// rank orders severities by urgency; one that this version does not know comes
// before what is well.
func (e FindingSeverity) rank() int {
	const other FindingSeverity = ""
	if !e.Valid() {
		e = other
	}
	return slices.Index([]FindingSeverity{
		FindingSeverityError, FindingSeverityWarning, FindingSeverityUnknown, FindingSeverityInfo, other, FindingSeverityOk,
	}, e)
}

// SortFindings puts the most urgent findings first.
func SortFindings(findings []Finding) {
	slices.SortStableFunc(findings, func(a, b Finding) int { return a.Severity.rank() - b.Severity.rank() })
}

// NotableFindings returns the findings but for those where all is well.
func NotableFindings(findings []Finding) []Finding {
	return slices.DeleteFunc(slices.Clone(findings), func(f Finding) bool { return f.Severity == FindingSeverityOk })
}

// CountFindings says how many findings there are of each severity, in a line.
func CountFindings(findings []Finding) string {
	noun := "findings"
	if len(findings) == 1 {
		noun = "finding"
	}
	if len(NotableFindings(findings)) == 0 {
		return fmt.Sprintf("%d %s: nothing wrong", len(findings), noun)
	}
	var sums []string
	sorted := slices.Clone(findings)
	SortFindings(sorted)
	for n := 0; len(sorted) > 0; sorted = sorted[n:] {
		severity := sorted[0].Severity
		n = len(sorted)
		if other := slices.IndexFunc(sorted, func(f Finding) bool { return f.Severity != severity }); other > 0 {
			n = other
		}
		sums = append(sums, fmt.Sprintf("%d %s", n, severity))
	}
	return fmt.Sprintf("%d %s: %s", len(findings), noun, strings.Join(sums, ", "))
}

// String is the finding for people, a paragraph that begins with the severity.
func (f Finding) String() string {
	about := f.Check
	if f.Subject != "" {
		about += " " + f.Subject
	}
	text := fmt.Sprintf("%s %s: %s\n", f.Severity, about, f.What)
	for _, line := range []struct{ label, text string }{{"why", f.Why}, {"fix", f.Fix}} {
		if line.text != "" {
			text += fmt.Sprintf("  %s: %s\n", line.label, strings.ReplaceAll(line.text, "\n", "\n       "))
		}
	}
	return text
}
