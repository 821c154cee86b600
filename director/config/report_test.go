package config_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/config"
)

func TestReport(t *testing.T) {
	long := "      - {address: 10.0.0.1, " + strings.Repeat(" ", 60) + "weight: none, method: nat} # " + strings.Repeat("x", 100)
	text := "director:\n\n  mode: natve\nservices:\n  - listen: \"t\tcp://\"  # \x1b[31m\u00a0é\n    servers:\n" + long + "\n"
	_, err := config.Parse("f.yaml", []byte(strings.ReplaceAll(text, "\x1b", "\u200b")))
	want := `f.yaml:3:9: director.mode: unknown word "natve": want native or generic; did you mean native?
  3 |   mode: natve
    |         ^
f.yaml:5:13: services[0].listen: unknown protocol "t\tcp": want tcp, udp or sctp
  4 | services:
  5 |   - listen: "t cp://"  # �[31m` + "\u00a0" + `é
    |             ^
f.yaml:7:97: services[0].servers[0].weight: "none" is not a weight: want 0 to 2147483647
  7 | …                                                             weight: none, method: nat} # xxxxxxxxx…
    |                                                                       ^
`
	if diff := cmp.Diff(want, config.Report(err)); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, config.Report(fmt.Errorf("apply: %w", err))); diff != "" {
		t.Errorf("wrapped (-want +got):\n%s", diff)
	}
}

func TestReportOthers(t *testing.T) {
	if got := config.Report(nil); got != "" {
		t.Errorf("nil: %q", got)
	}
	if got := config.Report(errors.New("no such file")); got != "no such file\n" {
		t.Errorf("another error: %q", got)
	}
}

// Positions are the YAML library's, whatever ends a line.
func TestExcerptLines(t *testing.T) {
	for _, end := range []string{"\n", "\r\n", "\r", "\u0085", "\u2028", "\u2029"} {
		_, err := config.Parse("f", []byte("# é"+end+"director:"+end+"  x: 1"+end))
		if report := config.Report(err); !strings.Contains(report, "\n  2 | director:\n  3 |   x: 1\n    |   ^\n") {
			t.Errorf("lines ended by %q:\n%s", end, report)
		}
	}
}

func TestReportIsBounded(t *testing.T) {
	_, err := config.Parse("f", []byte("services: ["+strings.Repeat("x,", 100_000)+"]"))
	report := config.Report(err)
	if n := strings.Count(report, "\n"); n != 301 || !strings.HasSuffix(report, "\nand 99900 more errors\n") {
		t.Errorf("%d lines, the last %q", n, report[len(report)-30:])
	}
	if len(report) > 100_000 {
		t.Errorf("%d bytes", len(report))
	}
}
