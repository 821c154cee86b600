package differential

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// OutEnv names the folder that the guest's run leaves its cases in, CasesEnv a
// folder with cases that are replayed beside those of testdata/differential.
const (
	OutEnv   = "SHUNT_OUT"
	CasesEnv = "SHUNT_CASES"
)

// Load reads all cases of a folder's files, each a JSON array.
func Load(folder string) ([]Case, error) {
	paths, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("no cases in %s", folder)
	}
	slices.Sort(paths)
	var all []Case
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var cases []Case
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&cases); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, cases...)
	}
	return all, nil
}

// Save writes cases as a file of a folder, one a line.
func Save(folder, name string, cases []Case) error {
	var b bytes.Buffer
	b.WriteString("[\n")
	for i, c := range cases {
		line, err := json.Marshal(c)
		if err != nil {
			return fmt.Errorf("case %s: %w", c.Name, err)
		}
		b.Write(line)
		if i < len(cases)-1 {
			b.WriteByte(',')
		}
		b.WriteByte('\n')
	}
	b.WriteString("]\n")
	return os.WriteFile(filepath.Join(folder, name+".json"), b.Bytes(), 0o644)
}

// Recorded returns the cases of testdata/differential, and those of CasesEnv.
func Recorded(t testing.TB) []Case {
	t.Helper()
	folder, err := recordedFolder()
	if err != nil {
		t.Fatal(err)
	}
	folders := []string{folder}
	if more := os.Getenv(CasesEnv); more != "" {
		folders = append(folders, more)
	}
	var all []Case
	for _, folder := range folders {
		cases, err := Load(folder)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, cases...)
	}
	return all
}

// recordedFolder walks up from the test's directory: in the source tree, and in
// a guest, which has only the folders testdata of it.
func recordedFolder() (string, error) {
	folder, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; folder = filepath.Dir(folder) {
		path := filepath.Join(folder, "testdata", "differential")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
		if folder == filepath.Dir(folder) {
			return "", errors.New("no folder testdata/differential above the test's: recorded cases are read from the source tree")
		}
	}
}

// Script returns a case as people read it.
func Script(c Case) string {
	settings := c
	settings.Events = nil
	lines := []string{fmt.Sprintf("%+v", settings)}
	for _, e := range c.Events {
		lines = append(lines, e.String())
	}
	return strings.Join(lines, "\n")
}
