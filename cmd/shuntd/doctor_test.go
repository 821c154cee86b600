package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
)

// TestDoctorWithoutADaemon: it shows what is not in order, or with --all
// everything, the most urgent first, and counts. What it finds is the host's
// matter, and so is its exit code.
func TestDoctorWithoutADaemon(t *testing.T) {
	ranks := map[string]int{"error": 0, "warning": 1, "unknown": 2, "info": 3, "ok": 4}
	shown := func(args ...string) (severities []string, counts string) {
		var stdout, stderr bytes.Buffer
		code := run(append([]string{"shuntd", "doctor", "--interface", "lo"}, args...), &stdout, &stderr)
		lines := strings.Split(strings.TrimSuffix(stdout.String(), "\n"), "\n")
		for _, line := range lines[:len(lines)-1] {
			severity, _, _ := strings.Cut(line, " ")
			if severity == "" { // why, or fix
				continue
			}
			if last := len(severities) - 1; last >= 0 && ranks[severities[last]] > ranks[severity] {
				t.Errorf("%v: %q is behind %s", args, line, severities[last])
			}
			if _, known := ranks[severity]; !known {
				t.Errorf("%v: a line begins with no severity: %q", args, line)
			}
			severities = append(severities, severity)
		}
		wrong := len(severities) > 0 && severities[0] == "error"
		if want := map[bool]int{true: exitFailed, false: exitOK}[wrong]; code != want {
			t.Errorf("%v: exit code %d, want %d: %s", args, code, want, &stderr)
		}
		return severities, lines[len(lines)-1]
	}
	few, counts := shown()
	all, same := shown("--all")
	if len(few) == len(all) || all[len(all)-1] != "ok" || len(few) > 0 && few[len(few)-1] == "ok" {
		t.Errorf("without --all %v, with it %v", few, all)
	}
	if counts != same || !regexp.MustCompile(`^[0-9]+ findings: (.+, )?([0-9]+ ok|nothing wrong)$`).MatchString(counts) {
		t.Errorf("counted %q and %q", counts, same)
	}
}
