package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestManPages: there is a page for each command, and groff has nothing to say
// about any.
func TestManPages(t *testing.T) {
	folder := t.TempDir()
	var stderr bytes.Buffer
	if code := run(t.Context(), []string{"shunt", "man", "--dir", folder}, streams{nil, &stderr, &stderr}); code != exitOK {
		t.Fatal(stderr.String())
	}
	pages, err := filepath.Glob(filepath.Join(folder, "*.1"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{filepath.Join(folder, "shunt.1")}
	for _, command := range newApp(streams{}).Commands {
		want = append(want, filepath.Join(folder, "shunt-"+command.Name+".1"))
	}
	slices.Sort(want)
	if !slices.Equal(pages, want) {
		t.Errorf("pages %v, want %v", pages, want)
	}
	if _, err := exec.LookPath("groff"); err != nil {
		if os.Getenv("REQUIRE_PRIVILEGED") == "1" {
			t.Fatalf("%v: scripts/setup.sh installs it", err)
		}
		t.Skipf("%v: scripts/setup.sh installs it", err)
	}
	for _, page := range pages {
		render := exec.Command("groff", "-man", "-Tutf8", "-ww", "-P-cbou", page)
		var warnings bytes.Buffer
		render.Stderr = &warnings
		text, err := render.Output()
		if err != nil || warnings.Len() > 0 {
			t.Errorf("%s: %v: %s", page, err, warnings.String())
		}
		for _, section := range []string{"NAME", "SYNOPSIS", "DESCRIPTION", "SEE ALSO"} {
			if !bytes.Contains(text, []byte("\n"+section+"\n")) {
				t.Errorf("%s has no section %s:\n%s", page, section, text)
			}
		}
	}
}

// TestManPage_shows_what_the_help_has: flags, placeholders and examples.
func TestManPage_shows_what_the_help_has(t *testing.T) {
	var stdout bytes.Buffer
	if code := run(t.Context(), []string{"shunt", "man", "serve"}, streams{nil, &stdout, &stdout}); code != exitOK {
		t.Fatal(stdout.String())
	}
	for _, want := range []string{
		".TH \"SHUNT\\-SERVER\" \"1\"", ".B \"shunt server add\"\n", ".SS \"shunt server drain SERVICE ADDRESS[:PORT]\"\n",
		".B \"\\-\\-why, \\-m TEXT\"\n", ".B \"\\-\\-watch[=INTERVAL]\"\n", "shunt server drain web 10.0.0.11:8080 \\-\\-why \\(aqkernel update\\(aq\n",
	} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("no %q in\n%s", want, stdout.String())
		}
	}
}

func TestEscape(t *testing.T) {
	for text, want := range map[string]string{
		".so /etc/passwd": `\&.so /etc/passwd`,
		`a\b`:             `a\eb`,
		"'quoted' -x ~^`": `\(aqquoted\(aq \-x \(ti\(ha\(ga`,
	} {
		if got := escape(text); got != want {
			t.Errorf("escape(%q) = %q, want %q", text, got, want)
		}
	}
}
