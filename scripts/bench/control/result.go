package control

import (
	"fmt"
	"io"
	"slices"
)

// Row is what one thing took.
type Row struct {
	Name   string  `json:"name"` // what, and at how many services of how many servers
	Unit   string  `json:"unit"` // s, % or MiB
	Median float64 `json:"median"`
	Most   float64 `json:"most"`
	Rounds int     `json:"rounds"`
	Goal   float64 `json:"goal,omitempty"` // of the median; 0: none
}

// goals are what issue 3 asks for, at the size it names.
var goals = map[string]float64{
	"apply/1000x10":         5,
	"edit/returned/1000x10": 0.1,
	"edit/packet/1000x10":   0.1,
	"add/returned/1000x10":  0.1,
	"add/packet/1000x10":    0.1,
	"drift/1000x10":         5,
}

func (s *scene) row(name, unit string, samples []float64) Row {
	slices.Sort(samples)
	r := Row{
		Name: fmt.Sprintf("%s/%dx%d", name, s.options.Services, serversEach), Unit: unit, Rounds: len(samples),
		Median: (samples[(len(samples)-1)/2] + samples[len(samples)/2]) / 2, Most: samples[len(samples)-1],
	}
	r.Goal = goals[r.Name]
	return r
}

// Print writes the rows as a table.
func Print(w io.Writer, rows []Row) {
	fmt.Fprintf(w, "\n%-30s %5s %9s %9s %6s %6s  %s\n", "control plane", "unit", "median", "most", "rounds", "goal", "verdict")
	for _, r := range rows {
		goal, verdict := "", ""
		if r.Goal > 0 {
			goal, verdict = fmt.Sprint(r.Goal), "MISSED"
			if r.Median <= r.Goal {
				verdict = "met"
			}
		}
		fmt.Fprintf(w, "%-30s %5s %9.3f %9.3f %6d %6s  %s\n", r.Name, r.Unit, r.Median, r.Most, r.Rounds, goal, verdict)
	}
}
