package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director"
)

var background = context.Background()

// appendForEver appends revisions, and writes the number of each to the standard
// output when it is acknowledged. Now and then it intends a service before.
func appendForEver(dir string) {
	s, err := Open(background, dir, Options{Keep: 100})
	if err != nil {
		panic(err)
	}
	for n := s.head.Number + 1; ; n++ {
		if n%5 == 0 {
			if err := s.Intend([]director.ServiceKey{tcp("192.0.2.99:80")}); err != nil {
				panic(err)
			}
		}
		if err := s.Append(revisionOf(n)); err != nil {
			panic(err)
		}
		fmt.Println(n)
	}
}

// TestKill kills a process that appends, at any instant, and looks whether all it
// acknowledged is there. In two rounds of three one of the files is damaged too:
// before the process starts, or after it was killed.
func TestKill(t *testing.T) {
	rounds := 24
	if testing.Short() {
		rounds = 5
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	acknowledged := uint64(0)
	for round := range rounds {
		before := round%3 == 2
		if before { // the process is killed while it repairs, or after
			spoil(t, random, filepath.Join(dir, fileNames[random.IntN(copies)]))
		}
		cmd, lines, _ := child(t, "append", dir)
		for left := random.IntN(25); left > 0 && lines.Scan(); left-- {
			acknowledged = mustParse(t, lines.Text())
		}
		time.Sleep(time.Duration(random.IntN(4000)) * time.Microsecond) // chooses the instant, waits for nothing
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
			acknowledged = mustParse(t, lines.Text())
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
			t.Fatalf("the process ended by itself: %v", err)
		}
		for i, name := range fileNames { // each is good by itself
			if before {
				break
			}
			h, err := inspect(t.Context(), filepath.Join(dir, name))
			if err != nil && !os.IsNotExist(err) {
				t.Fatalf("round %d: %v", round, err)
			}
			if h.last() < acknowledged || h.last() > acknowledged+1 {
				t.Fatalf("round %d: copy %d ends at revision %d, %d was acknowledged", round, i, h.last(), acknowledged)
			}
		}
		if round%3 == 1 {
			spoil(t, random, filepath.Join(dir, fileNames[random.IntN(copies)]))
		}
		s, err := Open(t.Context(), dir, Options{Keep: 100})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		head := mustLoad(t, s).Number
		if head < acknowledged || head > acknowledged+1 {
			t.Fatalf("round %d: the newest revision is %d, %d was acknowledged", round, head, acknowledged)
		}
		acknowledged = head // shown now, so it must stay
		infos, err := s.History(0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if uint64(len(infos)) < min(head, 100) {
			t.Fatalf("round %d: %d revisions are kept", round, len(infos))
		}
		wantHistory(t, s, head-uint64(len(infos))+1, head)
		mustClose(t, s)
		wantAlike(t, dir)
	}
	t.Logf("%d revisions", acknowledged)
}

func mustParse(t *testing.T, text string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// spoil cuts the file, or changes bytes of it.
func spoil(t *testing.T, random *rand.Rand, path string) {
	t.Helper()
	data := mustRead(t, path)
	if len(data) == 0 {
		return
	}
	switch random.IntN(3) {
	case 0:
		data = data[:random.IntN(len(data))]
	case 1:
		for range 1 + random.IntN(20) {
			data[random.IntN(len(data))] ^= byte(1 << random.IntN(8))
		}
	case 2: // a page of another time, or nothing
		from, to := random.IntN(len(data)/4096)*4096, random.IntN(len(data)/4096)*4096
		copy(data[to:to+4096], data[from:])
	}
	mustWrite(t, path, data)
}

// TestSpoilt damages one file of a store in many ways.
func TestSpoilt(t *testing.T) {
	rounds := 100
	if testing.Short() {
		rounds = 30
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{})
	mustGrow(t, s, 90)
	mustClose(t, s)
	original, err := inspect(t.Context(), filepath.Join(dir, fileNames[0]))
	if err != nil {
		t.Fatal(err)
	}
	var whole [copies][]byte
	for i, name := range fileNames {
		whole[i] = mustRead(t, filepath.Join(dir, name))
	}
	repaired := 0
	for range rounds {
		var said messages
		for i, name := range fileNames {
			mustWrite(t, filepath.Join(dir, name), whole[i])
		}
		spoil(t, random, filepath.Join(dir, fileNames[random.IntN(copies)]))
		s, err := Open(t.Context(), dir, said.options())
		if err != nil {
			t.Fatal(err)
		}
		wantHistory(t, s, 85, 90)
		for _, name := range fileNames { // a sum stands for a revision and all before it
			if h, err := inspect(t.Context(), filepath.Join(dir, name)); err != nil || !slices.Equal(h.sums, original.sums) {
				t.Fatalf("%s: the revisions are not what they were (%v)", name, err)
			}
		}
		mustGrow(t, s, 1)
		wantHistory(t, s, 90, 91)
		mustClose(t, s)
		wantAlike(t, dir)
		repaired += len(said)
	}
	if repaired == 0 {
		t.Error("no damage was noticed")
	}
	t.Logf("%d of %d damages needed a repair; the others hit bytes without a meaning", repaired, rounds)
}

// TestPowerLoss makes up what may be on disk when the power fails during a
// transaction: any of its pages before the first sync, and any part of the meta
// page before the second.
func TestPowerLoss(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	path, torn := filepath.Join(dir, fileNames[0]), filepath.Join(t.TempDir(), "torn.db")
	s := mustOpen(t, dir, Options{Keep: 10})
	const page = 4096
	for n := uint64(1); n <= 150; n++ {
		before := mustRead(t, path)
		mustGrow(t, s, 1)
		after := mustRead(t, path)
		was := append(make([]byte, 0, len(after)), before...)
		was = append(was, make([]byte, len(after)-len(before))...)
		for range 3 {
			data := append([]byte(nil), was...)
			for at := 2 * page; at < len(after); at += page {
				if random.IntN(2) == 0 {
					copy(data[at:at+page], after[at:])
				}
			}
			mustWrite(t, torn, data[:len(before)+random.IntN(len(after)-len(before)+1)])
			wantEnd(t, torn, n-1, n-1)

			copy(data[2*page:], after[2*page:])
			meta := int(n%2) * page // whichever: the other is the same before and after
			if string(was[meta:meta+page]) == string(after[meta:meta+page]) {
				meta = page - meta
			}
			for range 10 {
				copy(data[meta:meta+random.IntN(100)], after[meta:])
				mustWrite(t, torn, data)
				wantEnd(t, torn, n-1, n)
			}
			copy(data, after)
			mustWrite(t, torn, data)
			wantEnd(t, torn, n, n)
		}
	}
}

func wantEnd(t *testing.T, path string, low, high uint64) {
	t.Helper()
	h, err := inspect(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if h.last() < low || h.last() > high {
		t.Fatalf("it ends at revision %d, want %d to %d", h.last(), low, high)
	}
}
