package keepalived_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/shunt-lb/shunt/director/config/keepalived"
	"github.com/shunt-lb/shunt/director/config/translation"
	"github.com/shunt-lb/shunt/director/directortest/importtest"
)

// fixtures are the configurations that are written for these tests, and how they
// are read.
var fixtures = map[string]keepalived.Options{
	"lenient.conf":  {Files: translation.Host{}},
	"web.conf":      {},
	"checks.conf":   {},
	"kernel.conf":   {},
	"template.conf": {ID: "main", Files: translation.Host{}},
}

// imported translates a fixture.
func imported(t testing.TB, name string) translation.Result {
	t.Helper()
	path := filepath.Join("testdata", "fixtures", name)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	result, err := keepalived.Import(path, data, fixtures[name])
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// TestFixtures pins what is carried of them; TestGuestKeepalived says that it is
// right.
func TestFixtures(t *testing.T) {
	for name := range fixtures {
		t.Run(name, func(t *testing.T) {
			golden(t, filepath.Join("testdata", "fixtures", name+".txt"), imported(t, name).String())
			importtest.Taken(t, imported(t, name))
		})
	}
}
