package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf/bpftest/bench"
	"github.com/shunt-lb/shunt/scripts/bench/control"
)

// result is bench.json.
type result struct {
	Machine      string              `json:"machine"`
	CPUs         int                 `json:"cpus"`
	Kernel       string              `json:"kernel"`
	Instructions string              `json:"instructions_from"` // hardware, or icount-6.1
	Rows         []bench.Row         `json:"rows"`
	Sweeps       []bench.SweepResult `json:"sweeps,omitempty"`
	HashTable    []bench.Comparison  `json:"beside_hash,omitempty"` // decision 0001
	Peers        []peer              `json:"peers,omitempty"`
	Control      []control.Row       `json:"control,omitempty"`
}

// peer is a way of forwarding through two veths, without what the generator takes.
type peer struct {
	Name         string  `json:"name"`
	Instructions float64 `json:"instructions"` // in the guest, always
	NS           float64 `json:"ns"`
	Rounds       int     `json:"rounds"`
}

func describe() result {
	r := result{CPUs: runtime.NumCPU(), Machine: "unknown", Instructions: "hardware"}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(name) == "model name" {
				r.Machine = strings.TrimSpace(value)
				break
			}
		}
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		r.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	return r
}

// goal is what the issue asks of a row, net of the wrapper.
type goal struct {
	prefix       string
	instructions float64 // IPv4; 100 more for IPv6
	ratio        float64 // of floor-lookup's time, with more than one connection
}

var goals = []goal{
	{"dr-hit/", 300, 0.7},
	{"nat-hit/", 330, 0.7},
	{"nat-reply/", 330, 0.7},
	{"not-ours/", 130, 0},
	{"new-dr/", 900, 0},
	{"new-nat/", 1300, 0},
}

const (
	goalSweepSeconds = 0.15 // at a million connections
	goalBytesEach    = 176
	million          = 1 << 20
	goalPeers        = 6 // times the instructions
)

// print writes the table of goals and results.
func (r result) print(w io.Writer) {
	fmt.Fprintf(w, "%s, %d CPUs, kernel %s; instructions: %s\n", r.Machine, r.CPUs, r.Kernel, r.Instructions)
	if len(r.Rows) > 0 {
		r.printFastPath(w)
	}
	control.Print(w, r.Control)
}

func (r result) printFastPath(w io.Writer) {
	fmt.Fprintln(w)
	fmt.Fprintf(w, "%-30s %12s %6s %9s %8s %6s  %s\n", "row", "instructions", "goal", "ns", "x floor", "goal", "verdict")
	for _, row := range r.Rows {
		r.printRow(w, row)
	}
	for i := range r.Sweeps {
		printSweep(w, &r.Sweeps[i])
	}
	r.printPeers(w)
	r.printComparisons(w)
}

func printSweep(w io.Writer, s *bench.SweepResult) {
	seconds, verdict := "-", ""
	if s.Connections == million {
		seconds, verdict = fmt.Sprint(goalSweepSeconds), judge(s.Seconds <= goalSweepSeconds)
	}
	fmt.Fprintf(w, "\nsweep of %d connections, %d removed: %.3f s, goal %s: %s\n", s.Connections, s.Removed, s.Seconds, seconds, verdict)
	for _, part := range []struct {
		name string
		bench.Slices
	}{{"its slices", s.Slices}, {"slices of one that removes all", s.Expired}} {
		fmt.Fprintf(w, "%s: median %.0f us, at most %.0f; %d of %d beyond %d us\n", part.name, part.Median, part.Max, part.Late, part.Count, bench.SliceGoal)
	}
	fmt.Fprintf(w, "memory: %.0f B for each NAT connection, goal %d: %s\n", s.BytesEach, goalBytesEach, judge(s.BytesEach <= goalBytesEach))
}

// printPeers writes what the ways of forwarding take; the first is the drop that
// the others are without.
func (r result) printPeers(w io.Writer) {
	if len(r.Peers) < 3 {
		return
	}
	fmt.Fprintf(w, "\n%-30s %12s %9s   UDP, 64 octets, through two veths, without the generator\n", "peers", "instructions", "ns")
	for _, p := range r.Peers[1:] {
		fmt.Fprintf(w, "%-30s %12.0f %9.0f\n", p.Name, p.Instructions, p.NS)
	}
	shunt, nft := r.Peers[1], r.Peers[2]
	times := nft.Instructions / shunt.Instructions
	fmt.Fprintf(w, "nft DNAT takes %.1f times Shunt's instructions (goal %d: %s), %.1f times its ns\n",
		times, goalPeers, judge(times >= goalPeers), nft.NS/shunt.NS)
}

// printComparisons writes our table beside the kernel's HASH.
func (r result) printComparisons(w io.Writer) {
	if len(r.HashTable) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%-24s %9s %9s %9s\n", "table beside HASH", "table ns", "HASH ns", "ratio")
	for _, c := range r.HashTable {
		for _, o := range c.Operations {
			fmt.Fprintf(w, "%-24s %9.0f %9.0f %9.2f\n", fmt.Sprintf("%s/%d", o.Name, c.Keys), o.TableNS, o.HashNS, o.Ratio)
		}
		if c.HashSweepSeconds > 0 {
			fmt.Fprintf(w, "HASH: a pass over %d keys deletes a tenth in %.3f s\n", c.Keys, c.HashSweepSeconds)
		}
	}
}

func (r result) printRow(w io.Writer, row bench.Row) {
	var verdicts []string
	limit, bound := "", ""
	for _, g := range goals {
		if !strings.HasPrefix(row.Name, g.prefix) {
			continue
		}
		allowed := g.instructions
		if strings.Contains(row.Name, "/tcp6") || strings.Contains(row.Name, "/udp6") {
			allowed += 100
		}
		limit = fmt.Sprintf("%.0f", allowed)
		if row.Instructions != nil {
			verdicts = append(verdicts, judge(*row.Instructions <= allowed))
		}
		if g.ratio > 0 && row.FloorRatio != nil && !strings.HasSuffix(row.Name, "/1") {
			bound = fmt.Sprint(g.ratio)
			verdicts = append(verdicts, judge(*row.FloorRatio <= g.ratio))
		}
	}
	fmt.Fprintf(w, "%-30s %12s %6s %9s %8s %6s  %s\n", row.Name, figure(row.Instructions, 0), limit,
		figure(row.NS, 1), figure(row.FloorRatio, 2), bound, strings.Join(verdicts, ", "))
}

func judge(met bool) string {
	if met {
		return "met"
	}
	return "MISSED"
}

func figure(v *float64, digits int) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.*f", digits, *v)
}
