// Package importtest checks what the importers of other programs' configurations make, for
// their tests.
package importtest

import (
	"testing"

	"github.com/shunt-lb/shunt/director/config"
	"github.com/shunt-lb/shunt/director/config/translation"
)

// Taken checks that what was imported is a configuration that shuntd takes, and means
// the same there.
func Taken(t *testing.T, result translation.Result) {
	t.Helper()
	text, err := config.Format(result.State)
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse("imported.yaml", text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	again := c.State.Normalize()
	if len(again.Services) != len(result.State.Services) {
		t.Fatalf("%d services became %d", len(result.State.Services), len(again.Services))
	}
	for i, s := range result.State.Services {
		if !s.Health.Equal(again.Services[i].Health) {
			t.Errorf("%s: %+v became %+v\n%s", s.Key, s.Health, again.Services[i].Health, text)
		}
	}
}
