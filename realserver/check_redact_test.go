package realserver_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/realserver"
)

func TestRedact(t *testing.T) {
	check := func() realserver.Check {
		return realserver.Check{
			HTTP: &realserver.HTTPCheck{
				Method: "POST", Path: "/a?token=x", Host: "example.org", Match: "ok",
				Headers: []realserver.Header{{Name: "Authorization", Value: "Bearer x"}, {Name: "X-Empty"}},
			},
			Exchange: &realserver.ExchangeCheck{Send: []byte("AUTH x"), Expect: "OK"},
			Script:   &realserver.ScriptCheck{Command: []string{"/usr/bin/check", "", "x"}, User: "nobody"},
		}
	}
	whole := check()
	want := realserver.Check{
		HTTP: &realserver.HTTPCheck{
			Method: "POST", Path: "/a?(redacted)", Host: "example.org", Match: "ok",
			Headers: []realserver.Header{{Name: "Authorization", Value: "(redacted)"}, {Name: "X-Empty"}},
		},
		Exchange: &realserver.ExchangeCheck{Send: []byte("(redacted)"), Expect: "OK"},
		Script:   &realserver.ScriptCheck{Command: []string{"/usr/bin/check", "", "(redacted)"}, User: "nobody"},
	}
	if diff := cmp.Diff(want, whole.Redact()); diff != "" {
		t.Errorf("redacted (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(check(), whole); diff != "" {
		t.Errorf("what was redacted is another (-want +got):\n%s", diff)
	}
	plain := realserver.Check{HTTP: &realserver.HTTPCheck{Path: "/a?"}, Exchange: &realserver.ExchangeCheck{Expect: "x"}, Script: &realserver.ScriptCheck{}}
	if diff := cmp.Diff(plain, plain.Redact()); diff != "" {
		t.Errorf("without secrets (-want +got):\n%s", diff)
	}
}

// What is wrong with a value that may be a secret is said without it.
func TestProblemsWithoutSecrets(t *testing.T) {
	for _, h := range []realserver.HTTPCheck{
		{Path: "a?secret"},
		{Path: "/a?secret b"},
		{Path: "/a?secret\x01"},
		{Headers: []realserver.Header{{Name: "X-A", Value: "secret\x01"}}},
	} {
		if err := (realserver.Check{Kind: realserver.CheckHTTP, HTTP: &h}).Validate(); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v", h, err)
		}
	}
	for _, text := range []string{"Authorization secret", "X-A: secret\x01"} {
		if _, err := realserver.ParseHeader(text); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
