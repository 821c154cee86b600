package directortest_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const top = "../.." // of the source tree

// readDocument returns the text of a document of the source tree.
func readDocument(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(top, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var codeSpan = regexp.MustCompile("`([^`]+)`")

// TestArchitectureHasTheImportTable compares ARCHITECTURE.md's table of packages
// with the one that TestImports holds the code to.
func TestArchitectureHasTheImportTable(t *testing.T) {
	_, section, found := strings.Cut(readDocument(t, "ARCHITECTURE.md"), "\n## Packages\n")
	if !found {
		t.Fatal("there is no section Packages")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	shown := map[string]bool{}
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.Contains(cells[1], "`") {
			continue
		}
		name := strings.Trim(cells[1], " `")
		shown[name] = true
		imports := []string{}
		for _, span := range codeSpan.FindAllStringSubmatch(cells[3], -1) {
			imports = append(imports, span[1])
		}
		allowed := slices.Sorted(slices.Values(mayImport[name]))
		if !slices.Equal(imports, allowed) {
			t.Errorf("ARCHITECTURE.md says that %s may import %v; the test's table has %v", name, imports, allowed)
		}
	}
	for name := range mayImport {
		if !shown[name] {
			t.Errorf("ARCHITECTURE.md does not show package %s", name)
		}
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// anchors returns what #... can name in a document, as GitHub derives it.
func anchors(text string) []string {
	var all []string
	for _, match := range heading.FindAllStringSubmatch(text, -1) {
		name := strings.ToLower(strings.ReplaceAll(match[1], " ", "-"))
		all = append(all, regexp.MustCompile(`[^a-z0-9_-]`).ReplaceAllString(name, ""))
	}
	return all
}

func TestLinksOfDocumentsLeadSomewhere(t *testing.T) {
	for _, name := range []string{"README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSES.md"} {
		for _, match := range link.FindAllStringSubmatch(readDocument(t, name), -1) {
			target := match[1]
			if strings.Contains(target, "://") {
				continue
			}
			file, anchor, hasAnchor := strings.Cut(target, "#")
			if file == "" {
				file = name
			}
			if _, err := os.Stat(filepath.Join(top, file)); err != nil {
				t.Errorf("%s: link to %s: %v", name, target, err)
			} else if hasAnchor && !slices.Contains(anchors(readDocument(t, file)), anchor) {
				t.Errorf("%s: link to %s: there is no such heading", name, target)
			}
		}
	}
}
