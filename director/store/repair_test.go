package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

// grown makes a store with revisions and closes it.
func grown(t *testing.T, count int) (dir string, paths [copies]string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "state")
	s := mustOpen(t, dir, Options{})
	mustGrow(t, s, count)
	mustClose(t, s)
	for i, name := range fileNames {
		paths[i] = filepath.Join(dir, name)
	}
	return dir, paths
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, entry := range entries {
		all = append(all, entry.Name())
	}
	return all
}

func TestMissingCopy(t *testing.T) {
	for i, name := range fileNames {
		t.Run(name, func(t *testing.T) {
			var said messages
			dir, paths := grown(t, 3)
			if err := os.Remove(paths[i]); err != nil {
				t.Fatal(err)
			}
			s := mustOpen(t, dir, said.options())
			said.want(t, name+" was missing", "made anew from "+fileNames[1-i])
			wantHistory(t, s, 1, 3)
			mustGrow(t, s, 1)
			mustClose(t, s)
			wantAlike(t, dir)
		})
	}
}

func TestDamagedCopyIsSetAside(t *testing.T) {
	for i, name := range fileNames {
		t.Run(name, func(t *testing.T) {
			dir, paths := grown(t, 3)
			for round := range keepDamaged + 2 {
				var said messages
				bad := mustRead(t, paths[i])[:5000+round]
				mustWrite(t, paths[i], bad)
				s := mustOpen(t, dir, said.options())
				said.want(t, paths[i], "cut: 1 of ", "set aside as "+name+damagedSuffix, "made anew from "+fileNames[1-i])
				wantHistory(t, s, 1, 3)
				mustClose(t, s)
				wantAlike(t, dir)
				var aside []string
				for _, name := range names(t, dir) {
					if strings.Contains(name, damagedSuffix) {
						aside = append(aside, name)
					}
				}
				if len(aside) != min(round+1, keepDamaged) {
					t.Fatalf("after %d repairs these are set aside: %v", round+1, aside)
				}
				if kept := mustRead(t, filepath.Join(dir, aside[len(aside)-1])); string(kept) != string(bad) {
					t.Error("what was set aside is not the damaged file")
				}
			}
		})
	}
}

func TestDamageIsLocated(t *testing.T) {
	dir, paths := grown(t, 5)
	// Everywhere: free pages hold older copies.
	data := strings.ReplaceAll(string(mustRead(t, paths[1])), `"action":"edit 4"`, `"action":"edit 5"`)
	mustWrite(t, paths[1], []byte(data))
	var said messages
	s := mustOpen(t, dir, said.options())
	said.want(t, paths[1], "revision 4: the checksum does not match")
	wantHistory(t, s, 1, 5)
}

func TestCopyThatIsBehind(t *testing.T) {
	for i, name := range fileNames {
		for behind := 1; behind <= 3; behind++ {
			t.Run(fmt.Sprintf("%s by %d", name, behind), func(t *testing.T) {
				dir, paths := grown(t, 4)
				old := mustRead(t, paths[i])
				s := mustOpen(t, dir, Options{})
				mustGrow(t, s, behind)
				mustClose(t, s)
				mustWrite(t, paths[i], old)
				var said messages
				s = mustOpen(t, dir, said.options())
				last := uint64(4 + behind)
				wantHistory(t, s, 1, last)
				if behind == 1 { // what a kill between the two writes leaves
					if len(said) != 0 {
						t.Errorf("repaired: %q", said)
					}
				} else {
					said.want(t, fmt.Sprintf("%s ended at revision 4: brought to revision %d", name, last))
				}
				mustClose(t, s)
				wantAlike(t, dir)
				if all := names(t, dir); len(all) != copies {
					t.Errorf("these files are there: %v", all)
				}
			})
		}
	}
}

func TestContradiction(t *testing.T) {
	for _, more := range []int{0, 2} {
		dir, paths := grown(t, 4)
		other, otherPaths := grown(t, 3)
		s := mustOpen(t, other, Options{})
		r := revisionOf(4)
		r.Who = "somebody else"
		if err := s.Append(r); err != nil {
			t.Fatal(err)
		}
		mustGrow(t, s, more)
		mustClose(t, s)
		ours, theirs := mustRead(t, paths[0]), mustRead(t, otherPaths[1])
		mustWrite(t, paths[1], theirs)
		_, err := Open(t.Context(), dir, Options{})
		wantError(t, err, paths[0]+" (revisions 1 to 4)", fmt.Sprintf("%s (1 to %d)", paths[1], 4+more), "contradict", "move")
		if string(mustRead(t, paths[0])) != string(ours) || string(mustRead(t, paths[1])) != string(theirs) {
			t.Error("a file was changed")
		}
	}
}

func TestBothDamaged(t *testing.T) {
	for _, missing := range []bool{false, true} {
		dir, paths := grown(t, 3)
		mustWrite(t, paths[0], []byte("no bbolt file"))
		mustWrite(t, paths[1], mustRead(t, paths[1])[:9000])
		if missing {
			if err := os.Remove(paths[1]); err != nil {
				t.Fatal(err)
			}
		}
		before := names(t, dir)
		for range 2 { // the second start finds what the first found
			_, err := Open(t.Context(), dir, Options{})
			wantError(t, err, paths[0], paths[1], "neither meta page", "restore a backup", "move it away")
		}
		if after := names(t, dir); !slices.Equal(before, after) {
			t.Errorf("files %v became %v", before, after)
		}
	}
}

func TestEmptyFileIsDamaged(t *testing.T) {
	dir, paths := grown(t, 3)
	mustWrite(t, paths[0], nil)
	var said messages
	wantHistory(t, mustOpen(t, dir, said.options()), 1, 3)
	said.want(t, "state.db: damaged: no bbolt file")
}

func TestInterruptedCreation(t *testing.T) {
	for _, left := range [][]string{
		{"state.db.new"}, {"state.db"}, {"state.db", "state.copy.db.new"}, {"state.db.new", "state.copy.db.new"},
	} {
		full, _ := grown(t, 0)
		dir := t.TempDir()
		for _, name := range left {
			data := mustRead(t, filepath.Join(full, strings.TrimSuffix(name, newSuffix)))
			if strings.HasSuffix(name, newSuffix) {
				data = data[:len(data)/3]
			}
			mustWrite(t, filepath.Join(dir, name), data)
		}
		var said messages
		s := mustOpen(t, dir, said.options())
		wantHistory(t, s, 1, 0)
		mustGrow(t, s, 1)
		mustClose(t, s)
		if all := names(t, dir); len(said) != 0 || len(all) != copies {
			t.Errorf("%v became %v, repaired: %q", left, all, said)
		}
	}
}

// change runs a transaction on a file that no store has open.
func change(t *testing.T, path string, fn func(tx *bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(fn), db.Close()); err != nil {
		t.Fatal(err)
	}
}

func putRecord(number uint64, data []byte) func(tx *bbolt.Tx) error {
	return func(tx *bbolt.Tx) error { return tx.Bucket([]byte(revisionsBucket)).Put(numberKey(number), data) }
}

func TestNewerVersionIsRefused(t *testing.T) {
	data, err := seal(revisionOf(1).RevisionInfo, stateJSON{}, wholeState, sum{})
	if err != nil {
		t.Fatal(err)
	}
	data[0] = recordVersion + 1
	own := sumOf(1, data)
	copy(data[sumOffset:], own[:])
	for i := range fileNames {
		dir, paths := grown(t, 0)
		change(t, paths[i], putRecord(1, data))
		_, err := Open(t.Context(), dir, Options{})
		newer := (*newerError)(nil)
		if !errors.As(err, &newer) || newer.Version != recordVersion+1 || newer.Revision != 1 {
			t.Errorf("Open: %v, want a newerError", err)
		}
		wantError(t, err, paths[i], "revision 1", "a newer shunt wrote it")
		if all := names(t, dir); len(all) != copies {
			t.Errorf("these files are there: %v", all)
		}
	}
}

func TestWrongRecordsAreDamage(t *testing.T) {
	h := func(t *testing.T, path string) history {
		h, err := inspect(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	record := func(number uint64, kind kind, prev sum) []byte {
		data, err := seal(revisionOf(number).RevisionInfo, stateJSON{}, kind, prev)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	bucket := func(tx *bbolt.Tx) *bbolt.Bucket { return tx.Bucket([]byte(revisionsBucket)) }
	for _, c := range []struct {
		want string
		fn   func(h history, tx *bbolt.Tx) error
	}{
		{"revision 2 is the first, and only a difference", func(_ history, tx *bbolt.Tx) error { return bucket(tx).Delete(numberKey(1)) }},
		{"revisions 2 to 2 are missing", func(_ history, tx *bbolt.Tx) error { return bucket(tx).Delete(numberKey(2)) }},
		{"revision 2 is the newest found, 3 was", func(_ history, tx *bbolt.Tx) error { return bucket(tx).Delete(numberKey(3)) }},
		{"revision 4 does not follow", func(_ history, tx *bbolt.Tx) error { return putRecord(4, record(4, difference, sum{1}))(tx) }},
		{"there is a revision 0", func(_ history, tx *bbolt.Tx) error { return putRecord(0, record(0, wholeState, sum{}))(tx) }},
		{"revision 4: 3 bytes are no record", func(_ history, tx *bbolt.Tx) error { return putRecord(4, []byte("abc"))(tx) }},
		{"revision 4: the checksum does not match", func(h history, tx *bbolt.Tx) error {
			return putRecord(4, record(5, difference, h.sums[2]))(tx)
		}},
		{"is no revision's", func(_ history, tx *bbolt.Tx) error { return bucket(tx).Put([]byte("x"), []byte("y")) }},
		{"unknown bucket", func(_ history, tx *bbolt.Tx) error {
			b, err := tx.CreateBucket([]byte("more"))
			return errors.Join(err, b.Put([]byte("x"), nil))
		}},
		{"is no value", func(_ history, tx *bbolt.Tx) error {
			_, err := bucket(tx).CreateBucket(numberKey(4))
			return err
		}},
		{"intended service", func(_ history, tx *bbolt.Tx) error {
			return tx.Bucket([]byte(intendedBucket)).Put([]byte("tcp://192.0.2.1:80"), []byte("1234"))
		}},
	} {
		t.Run(c.want, func(t *testing.T) {
			var said messages
			dir, paths := grown(t, 3)
			before := h(t, paths[0])
			change(t, paths[0], func(tx *bbolt.Tx) error { return c.fn(before, tx) })
			wantHistory(t, mustOpen(t, dir, said.options()), 1, 3)
			said.want(t, "state.db", c.want, "set aside")
		})
	}
}

func TestReplaceFailureLeavesTheGoodCopy(t *testing.T) {
	dir, paths := grown(t, 3)
	if err := os.Remove(paths[0]); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(paths[0]+newSuffix, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), dir, Options{})
	wantError(t, err, "make "+paths[0]+" from "+paths[1], newSuffix)
	if err := os.RemoveAll(paths[0] + newSuffix); err != nil {
		t.Fatal(err)
	}
	wantHistory(t, mustOpen(t, dir, Options{}), 1, 3)
	if _, err := os.Lstat(paths[0] + newSuffix); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a leftover: %v", err)
	}
}
