package metrics_test

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
)

// rules is a file of Prometheus's rules as far as alerts use it.
type rules struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert       string
			Expr        string
			For         string
			Labels      map[string]string
			Annotations map[string]string
		}
	}
}

// usedLabel is how an alert's text names a label.
var usedLabel = regexp.MustCompile(`\{\{\s*\$labels\.(\w+)`)

func TestAlerts(t *testing.T) {
	text, err := os.ReadFile("alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file rules
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	v, seen := words(t), map[string]bool{}
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			t.Run(rule.Alert, func(t *testing.T) {
				if seen[rule.Alert] || rule.Alert == "" {
					t.Error("no name, or twice")
				}
				seen[rule.Alert] = true
				q := v.parse(rule.Expr)
				for _, problem := range q.problems {
					t.Errorf("%s: %s", rule.Expr, problem)
				}
				if len(q.metrics) == 0 {
					t.Errorf("%s names no metric", rule.Expr)
				}
				if d, err := time.ParseDuration(rule.For); rule.For != "" && (err != nil || d <= 0) {
					t.Errorf("for: %q is no duration", rule.For)
				}
				if severity := rule.Labels["severity"]; !slices.Contains([]string{"critical", "warning", "info"}, severity) {
					t.Errorf("severity %q", severity)
				}
				for _, field := range []string{"summary", "description"} {
					if rule.Annotations[field] == "" {
						t.Errorf("no %s", field)
					}
					for _, match := range usedLabel.FindAllStringSubmatch(rule.Annotations[field], -1) {
						if !anyHas(q.metrics, match[1]) {
							t.Errorf("%s: %s has no label %q", field, rule.Expr, match[1])
						}
					}
				}
			})
		}
	}
	for _, want := range []string{
		"ShuntServerUnreachable", "ShuntDrops", "ShuntTablePressure", "ShuntTableFull", "ShuntTableFullSoon", "ShuntLimitHit", "ShuntLocalPorts", "ShuntFlood", "ShuntDriftNotRepaired", "ShuntInterfaceDetached", "ShuntFault",
		"ShuntServiceWithoutQuorum", "ShuntPanic", "ShuntSorryServers", "ShuntServerDown", "ShuntServerFlapping", "ShuntLeaseExpired", "ShuntRegistrationRefused",
		"ShuntChecksLate", "ShuntChecksOverdue", "ShuntChecksNotAsked", "ShuntProbesWithoutPort", "ShuntCertificateEnds", "ShuntCertificateEndsSoon", "ShuntNotifyFailed",
	} {
		if !seen[want] {
			t.Errorf("there is no alert %s", want)
		}
	}
}
