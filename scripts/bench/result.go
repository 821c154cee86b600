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
	Floods       []bench.FloodRow    `json:"floods,omitempty"`
	Memory       *memory             `json:"memory,omitempty"`
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

// goal is what the issues ask of a row, net of the wrapper.
type goal struct {
	prefix       string
	instructions float64
	more6        float64 // for IPv6
	ratio        float64 // of floor-lookup's time, with more than one connection
	over         string  // the row that the instructions are above, without its protocol; "": none
}

var goals = []goal{
	{prefix: "dr-hit/", instructions: 300, more6: 100, ratio: 0.7},
	{prefix: "nat-hit/", instructions: 330, more6: 100, ratio: 0.7},
	{prefix: "nat-reply/", instructions: 330, more6: 100, ratio: 0.7},
	{prefix: "not-ours/", instructions: 130, more6: 100},
	{prefix: "new-dr/", instructions: 900, more6: 100},
	{prefix: "new-nat/", instructions: 1300, more6: 100},
	{prefix: "guard-syn/", instructions: 500},
	{prefix: "refused-syn/", instructions: 500},
	{prefix: "proof-dr/", instructions: 150, over: "dr-hit/"},
	{prefix: "proof-nat/", instructions: 150, over: "nat-hit/"},
}

const (
	goalSweepSeconds = 0.15 // at a million connections
	goalBytesNAT     = 176
	goalBytesDR      = 96
	goalFlood        = 1.1 // times what a hit takes beside packets that are not ours
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
	r.printFloods(w)
	if r.Memory != nil {
		r.Memory.print(w)
	}
	for i := range r.Sweeps {
		printSweep(w, &r.Sweeps[i])
	}
	r.printPeers(w)
	r.printComparisons(w)
}

// printFloods writes what hits take while a flood runs.
func (r result) printFloods(w io.Writer) {
	if len(r.Floods) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%-30s %9s %9s %6s %5s %9s  %s\n", "hits beside another CPU's", "not ours", "flood", "ratio", "goal", "SYN/s", "verdict")
	for _, f := range r.Floods {
		fmt.Fprintf(w, "%-30s %9.1f %9.1f %6.2f %5.1f %9.0f  %s\n", f.Name, f.NotOursNS, f.FloodNS, f.Ratio, goalFlood, f.FloodRate, judge(f.Ratio <= goalFlood))
	}
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
			allowed += g.more6
		}
		if g.over != "" {
			base := r.instructions(g.over + strings.TrimPrefix(row.Name, g.prefix) + "/1")
			if base == nil {
				continue
			}
			allowed += *base
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

// instructions are those of the row; nil if there are none.
func (r result) instructions(name string) *float64 {
	for _, row := range r.Rows {
		if row.Name == name {
			return row.Instructions
		}
	}
	return nil
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
