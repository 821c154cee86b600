package keepalived_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/config/keepalived"
	"github.com/shunt-lb/shunt/director/directortest/importtest"
)

var update = flag.Bool("update", false, "write the summaries of what is carried to testdata")

// debian are where the package keepalived of Debian has its samples. Its
// documentation is compressed where files are large.
var debian = []string{"/usr/share/doc/keepalived/samples/keepalived.conf.*", "/etc/keepalived/keepalived.conf.sample"}

// TestSamples pins what is carried of each sample configuration that Debian's
// package ships. CI fails if it is skipped: scripts/setup.sh installs the package.
func TestSamples(t *testing.T) {
	var samples []string
	for _, pattern := range debian {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		samples = append(samples, names...)
	}
	if len(samples) == 0 {
		t.Skip("there are no samples here: apt-get install keepalived, or run scripts/setup.sh")
	}
	const shipped = 26 // with Debian 12's 2.2.7; later versions have more
	if len(samples) < shipped {
		t.Errorf("%d samples, want %d at least: %v", len(samples), shipped, samples)
	}
	for _, sample := range samples {
		t.Run(sampleName(sample), func(t *testing.T) {
			data, err := os.ReadFile(sample)
			if err != nil {
				t.Fatal(err)
			}
			name := sampleName(sample)
			result, err := keepalived.Import(name, data, keepalived.Options{})
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", "samples", name+".txt"), result.String())
			importtest.Taken(t, result)
		})
	}
	t.Run("all_are_there", func(t *testing.T) {
		goldens, err := filepath.Glob("testdata/samples/*.txt")
		if err != nil {
			t.Fatal(err)
		}
		for _, golden := range goldens {
			name := strings.TrimSuffix(filepath.Base(golden), ".txt")
			found := false
			for _, sample := range samples {
				found = found || sampleName(sample) == name
			}
			if !found {
				t.Errorf("%s: the package ships no %s any more", golden, name)
			}
		}
	})
}

// sampleName tells the sample of /etc from that of the documentation.
func sampleName(path string) string {
	name := filepath.Base(path)
	if filepath.Dir(path) == "/etc/keepalived" {
		name = "etc." + name
	}
	return name
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
