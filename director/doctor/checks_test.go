package doctor_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/doctor"
)

// TestChecksDocument compares checks.md with the table in the code.
func TestChecksDocument(t *testing.T) {
	text, err := os.ReadFile("checks.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented, coded [][2]string
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 6 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		documented = append(documented, [2]string{strings.Trim(cells[1], " `"), strings.TrimSpace(cells[2])})
		for _, cell := range cells[1:5] {
			if strings.TrimSpace(cell) == "" {
				t.Errorf("an empty cell: %s", line)
			}
		}
	}
	for _, c := range doctor.Checks() {
		coded = append(coded, [2]string{c.ID, c.Title})
		if c.Good == "" {
			t.Errorf("%s: nothing is said when all is well", c.ID)
		}
	}
	if diff := cmp.Diff(coded, documented); diff != "" {
		t.Errorf("checks.md (-code +document):\n%s", diff)
	}
}
