package control

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/directortest"
)

// TestMeasure measures at a small size: the benchmark works, and every goal has
// its row.
func TestMeasure(t *testing.T) {
	directortest.Bpffs(t) // mounts it
	t.Chdir("../../..")   // where make runs it
	pins, err := os.ReadDir("/sys/fs/bpf")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := Measure(t.Context(), Options{Services: 3, Rounds: 1, Idle: 50 * time.Millisecond, Log: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range rows {
		names = append(names, strings.TrimSuffix(r.Name, "/3x10"))
		if r.Rounds < 1 || r.Most < r.Median || r.Median <= 0 && r.Unit != "%" {
			t.Errorf("row %+v", r)
		}
	}
	want := []string{
		"apply", "edit/returned", "edit/packet", "add/returned", "add/packet", "drift", "scrape", "scrape/size", "idle/cpu", "idle/rss",
	}
	if !slices.Equal(names, want) {
		t.Errorf("rows %q, want %q", names, want)
	}
	for name := range goals {
		if at, ok := strings.CutSuffix(name, "/1000x10"); !ok || !slices.Contains(names, at) {
			t.Errorf("goal %s has no row", name)
		}
	}
	after, err := os.ReadDir("/sys/fs/bpf")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range after {
		mine := strings.HasPrefix(entry.Name(), "shunt-bench-")
		if mine && !slices.ContainsFunc(pins, func(e os.DirEntry) bool { return e.Name() == entry.Name() }) {
			t.Errorf("%s is left on the bpffs", entry.Name())
		}
	}
}

func TestPrintJudges(t *testing.T) {
	var out bytes.Buffer
	Print(&out, []Row{
		{Name: "apply/1000x10", Unit: "s", Median: 4.9, Most: 9, Rounds: 3, Goal: 5},
		{Name: "drift/1000x10", Unit: "s", Median: 5.1, Most: 6, Rounds: 3, Goal: 5},
		{Name: "scrape/1000x10", Unit: "s", Median: 5.1, Most: 6, Rounds: 3},
	})
	lines := strings.Split(out.String(), "\n")
	for i, want := range []string{"met", "MISSED", ""} {
		fields := strings.Fields(lines[2+i])
		if want == "" {
			fields = append(fields[:5:5], "", "") // neither goal nor verdict
		}
		if len(fields) != 7 || fields[6] != want {
			t.Errorf("line %q, want the verdict %q", lines[2+i], want)
		}
	}
}
