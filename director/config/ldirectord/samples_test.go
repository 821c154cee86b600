package ldirectord_test

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/config/ldirectord"
	"github.com/shunt-lb/shunt/director/directortest/importtest"
)

var update = flag.Bool("update", false, "write the summaries of what is carried to testdata")

const debian = "/usr/share/doc/ldirectord/examples/ldirectord.cf"

// sample reads a file of Debian's package. CI fails if the test is skipped:
// scripts/setup.sh installs the package.
func sample(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("there is no %s here: apt-get install ldirectord, or run scripts/setup.sh", path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestSamples pins what is carried of the configurations that Debian's package
// ships: the one of /etc, the example, and all that the example has in comments.
func TestSamples(t *testing.T) {
	for name, text := range map[string]string{
		"ldirectord.cf":             string(sample(t, "/etc/ha.d/ldirectord.cf")),
		"ldirectord.cf.example":     string(sample(t, debian)),
		"ldirectord.cf.uncommented": uncommented(string(sample(t, debian))),
	} {
		t.Run(name, func(t *testing.T) {
			result, err := ldirectord.Import(name, []byte(text), ldirectord.Options{})
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", "samples", name+".txt"), result.String())
			importtest.Taken(t, result)
		})
	}
}

// uncommented makes directives of the comments that are such, as the example's
// reader is to do.
func uncommented(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		inner := strings.TrimLeft(line, "#")
		if bare := strings.TrimLeft(inner, " \t"); line != inner && strings.Contains(bare, "=") && !strings.Contains(strings.SplitN(bare, "=", 2)[0], "Note") {
			lines[i] = inner
		}
	}
	return strings.ReplaceAll(strings.Join(lines, "\n"), "\t#", "\t")
}

// golden compares a text with the file, which -update writes.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}
