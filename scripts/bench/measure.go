package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shunt-lb/shunt/bpf/bpftest/bench"
)

// counted is what the guest prints after its marker: instructions as nanoseconds.
type counted struct {
	Rows  []bench.Row       `json:"rows"`
	Sweep bench.SweepResult `json:"sweep"`
	Peers []bench.Peer      `json:"peers"`
}

const (
	peerRounds  = 5
	peerPackets = 1 << 14
)

const marker = "shunt-bench "

// guestSweep is small enough to be made under emulation; costs are for each
// connection.
const guestSweep = 1 << 14

func measureInGuest(quick bool) error {
	rows, err := bench.Rows(options(quick, true))
	if err != nil {
		return err
	}
	chosen, err := bench.Schedulers(options(quick, true))
	if err != nil {
		return err
	}
	rows = append(rows, chosen...)
	templates, err := bench.Templates(options(quick, true))
	if err != nil {
		return err
	}
	rows = append(rows, templates...)
	sweep, err := bench.Sweep(guestSweep, 1)
	if err != nil {
		return err
	}
	c := counted{Rows: rows, Sweep: sweep}
	if !quick {
		if c.Peers, err = bench.Peers(peerRounds, peerPackets); err != nil {
			return err
		}
	}
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	_, err = fmt.Printf("\n%s%s\n", marker, text)
	return err
}

// measure runs on this machine and, for want of a counter, in the guest.
func measure(ctx context.Context, quick bool) (result, error) {
	r := describe()
	var err error
	if r.Rows, err = bench.Rows(options(quick, false)); err != nil {
		return r, err
	}
	chosen, err := bench.Schedulers(options(quick, false))
	if err != nil {
		return r, err
	}
	r.Rows = append(r.Rows, chosen...)
	templates, err := bench.Templates(options(quick, false))
	if err != nil {
		return r, err
	}
	r.Rows = append(r.Rows, templates...)
	if r.CPUs < 2 {
		logLine("hits in a flood are not measured: there is one CPU, and it takes two")
	} else if r.Floods, err = bench.Floods(floodOptions()); err != nil {
		return r, err
	}
	if r.Memory, err = measureMemory(ctx); err != nil {
		return r, err
	}
	rounds := 5
	if quick {
		rounds = 3
	}
	for _, size := range sweepSizes(quick) {
		logLine("sweep of %d connections", size)
		sweep, err := bench.Sweep(size, rounds)
		if err != nil {
			return r, err
		}
		r.Sweeps = append(r.Sweeps, sweep)
		r.Rows = append(r.Rows, sweep.Row)
	}
	if !quick {
		for _, keys := range []uint32{1, 1 << 16, million, 2 * million} {
			c, err := bench.Compare(keys, rounds)
			if err != nil {
				return r, err
			}
			r.HashTable = append(r.HashTable, c)
		}
		peers, err := bench.Peers(peerRounds, peerPackets)
		if err != nil {
			return r, err
		}
		for _, p := range peers {
			r.Peers = append(r.Peers, peer{Name: p.Name, NS: p.Net, Rounds: p.Rounds})
		}
	}
	counter := bench.OpenCounter()
	if counter == nil {
		r.Instructions = "icount-6.1"
	} else if err := counter.Close(); err != nil || quick {
		return r, err
	}
	// The peers' packets are handled by whatever thread: they are always counted here.
	fmt.Fprintln(os.Stderr, "counting instructions in the guest")
	guest, err := runGuest(ctx, quick)
	if err != nil {
		return r, err
	}
	if counter == nil {
		r.merge(guest)
	}
	for i, p := range guest.Peers {
		r.Peers[i].Instructions = p.Net
	}
	return r, nil
}

// sweepSizes are those of the tables that are swept; the largest takes 1.5 GiB.
func sweepSizes(quick bool) []uint32 {
	if quick {
		return []uint32{1 << 16, million}
	}
	return []uint32{1 << 16, million, 4 * million}
}

// merge takes the instructions from the guest's rows. What the guest measured at
// fewer connections only is taken from there and says so.
func (r *result) merge(guest counted) {
	byName := map[string]bench.Row{}
	for _, row := range guest.Rows {
		byName[row.Name] = row
	}
	for i := range r.Rows {
		row := &r.Rows[i]
		if found, ok := byName[row.Name]; ok {
			row.Instructions = found.NS
			continue
		}
		if strings.HasPrefix(row.Name, "sweep/") {
			row.Instructions = guest.Sweep.Row.NS
			row.Note += fmt.Sprintf("; instructions at %d connections", guest.Sweep.Connections)
			continue
		}
		base := filepath.Dir(row.Name)
		for _, size := range []string{"65536", "1"} {
			if found, ok := byName[base+"/"+size]; ok {
				row.Instructions, row.Note = found.NS, "instructions at "+size+" connections, the table as full"
				break
			}
		}
	}
	for i := range r.Sweeps {
		sweep := &r.Sweeps[i].Row
		at := slices.IndexFunc(r.Rows, func(row bench.Row) bool { return row.Name == sweep.Name })
		*sweep = r.Rows[at]
	}
}

// runGuest builds this program and runs it in the guest.
func runGuest(ctx context.Context, quick bool) (c counted, err error) {
	folder, err := os.MkdirTemp("", "shunt-bench-")
	if err != nil {
		return c, err
	}
	defer os.RemoveAll(folder)
	binary := filepath.Join(folder, "bench")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./scripts/bench")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return c, fmt.Errorf("build for the guest (run me at the top of the repository): %w", err)
	}
	args := []string{"-i", "-m", "1024", "-k", "nft_chain_nat nft_nat nft_numgen sch_ingress cls_bpf", "-b", "nft", binary, "-guest"}
	if quick {
		args = append(args, "-quick")
	}
	guest := exec.CommandContext(ctx, "scripts/guest/run.sh", args...)
	guest.Stderr = os.Stderr
	text, err := guest.Output()
	if err != nil {
		return c, fmt.Errorf("count instructions in the guest: %w\n%s", err, text)
	}
	_, rest, found := bytes.Cut(text, []byte("\n"+marker))
	if !found {
		return c, fmt.Errorf("the guest printed no result:\n%s", text)
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	return c, json.Unmarshal(line, &c)
}
