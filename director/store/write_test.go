package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
)

func TestFailedWriteIsWithdrawn(t *testing.T) {
	for i, name := range fileNames {
		t.Run(name, func(t *testing.T) {
			var said messages
			dir := t.TempDir()
			s := mustOpen(t, dir, said.options())
			mustGrow(t, s, 5)
			// Writes to a descriptor for reading fail as those to a failing disk do.
			fail := func() {
				reading, err := os.Open(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				defer reading.Close()
				if err := unix.Dup3(int(reading.Fd()), int(s.replicas[i].file.Fd()), unix.O_CLOEXEC); err != nil {
					t.Fatal(err)
				}
			}
			fail()
			wantError(t, s.Append(revisionOf(6)), "store revision 6", "write", name)
			wantHistory(t, s, 1, 5)
			wantAlike(t, dir)
			fail()
			wantError(t, s.Intend([]director.ServiceKey{tcp("192.0.2.1:80")}), "write", name)
			if _, intended, err := s.Load(); err != nil || len(intended) != 0 {
				t.Errorf("intended: %v, %v", intended, err)
			}
			mustClose(t, s)
			s = mustOpen(t, dir, said.options())
			if _, intended, err := s.Load(); err != nil || len(intended) != 0 {
				t.Errorf("intended after reopening: %v, %v", intended, err)
			}
			wantHistory(t, s, 1, 5)
			mustGrow(t, s, 2)
			wantHistory(t, s, 1, 7)
			mustClose(t, s)
			wantAlike(t, dir)
			if len(said) != 0 {
				t.Errorf("repaired: %q", said)
			}
		})
	}
}

// TestFailedWithdrawal has the second copy fail, and the first too when what was
// written to it is to be taken back.
func TestFailedWithdrawal(t *testing.T) {
	var said messages
	dir := filepath.Join(t.TempDir(), "state")
	s := mustOpen(t, dir, said.options())
	mustGrow(t, s, 5)
	calls := 0
	s.mu.Lock()
	err := s.write(func(tx *bbolt.Tx) error {
		if calls++; calls == copies {
			return errors.Join(errors.New("no more"), os.Rename(dir, dir+"-away"))
		}
		return putRecord(6, []byte("anything"))(tx)
	})
	s.mu.Unlock()
	wantError(t, err, fileNames[1], "no more", "withdraw it, else it may be there after a restart", wayOut)
	wantError(t, s.Append(revisionOf(6)), "revision 6", dir)
	if _, err := s.Revision(5); err == nil {
		t.Error("a revision was read from a folder that is not there")
	}
	if err := os.Rename(dir+"-away", dir); err != nil {
		t.Fatal(err)
	}
	mustGrow(t, s, 2)
	wantHistory(t, s, 1, 7)
	mustClose(t, s)
	wantAlike(t, dir)
}

func TestDamageWhileRunning(t *testing.T) {
	for _, name := range fileNames {
		for _, size := range []int64{0, 4096, 9000} {
			t.Run(fmt.Sprintf("%s cut to %d", name, size), func(t *testing.T) {
				var said messages
				dir := t.TempDir()
				s := mustOpen(t, dir, said.options())
				mustGrow(t, s, 70)
				if err := os.Truncate(filepath.Join(dir, name), size); err != nil {
					t.Fatal(err)
				}
				wantHistory(t, s, 1, 70) // from the other, if need be
				// The first write may meet the damage, and is withdrawn then.
				if err := s.Append(revisionOf(71)); err != nil {
					wantError(t, err, name, "damaged")
					mustGrow(t, s, 1)
				}
				mustGrow(t, s, 1)
				wantHistory(t, s, 60, 72)
				said.want(t, name, "set aside")
				mustClose(t, s)
				wantAlike(t, dir)
			})
		}
	}
}

func TestExchangedWhileRunning(t *testing.T) {
	for i, name := range fileNames {
		var said messages
		dir := t.TempDir()
		path := filepath.Join(dir, name)
		s := mustOpen(t, dir, said.options())
		mustGrow(t, s, 3)
		old := mustRead(t, path)
		mustGrow(t, s, 3)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		mustGrow(t, s, 1)
		said.want(t, name+" was missing")
		said = nil
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		mustWrite(t, path, old) // an old backup
		mustGrow(t, s, 1)
		said.want(t, name+" ended at revision 3: brought to revision 7")
		wantHistory(t, s, 1, 8)
		mustClose(t, s)
		wantAlike(t, dir)
		if i == 0 {
			continue
		}
		s = mustOpen(t, dir, Options{})
		for _, name := range fileNames {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		wantError(t, s.Append(revisionOf(9)), "revision 9", "no copy can be used")
	}
}

// TestFullDisk appends with all amounts of free space, so that the disk is full
// at any point of either write.
func TestFullDisk(t *testing.T) {
	directortest.Privileged(t)
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=8m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	var said messages
	dir, filler := filepath.Join(disk, "state"), filepath.Join(disk, "filler")
	s := mustOpen(t, dir, said.options())
	mustGrow(t, s, 3)
	failed := map[string]int{}
	large := func(n uint64) director.Revision { // so that there is something to find room for
		r := revisionOf(n)
		r.Why = strings.Repeat("x", 40_000)
		return r
	}
	for free := int64(0); free <= 40*4096; free += 4096 {
		head := mustLoad(t, s).Number
		fill(t, filler, free)
		for number := head + 1; ; number++ {
			err := s.Append(large(number))
			if err == nil {
				continue
			}
			if !errors.Is(err, unix.ENOSPC) {
				t.Fatalf("%d bytes free: %v", free, err)
			}
			for _, name := range fileNames {
				if strings.Contains(err.Error(), "write "+filepath.Join(dir, name)) {
					failed[name]++
					break
				}
			}
			head = number - 1
			break
		}
		if got := mustLoad(t, s).Number; got != head {
			t.Fatalf("%d bytes free: the newest revision is %d, want %d", free, got, head)
		}
		if _, err := s.Revision(head); err != nil {
			t.Fatalf("%d bytes free: %v", free, err)
		}
		if infos, err := s.History(0, 1); err != nil || infos[0].Number != head {
			t.Fatalf("%d bytes free: %v, %v", free, infos, err)
		}
		if free%(3*4096) == 0 { // sometimes the process ends here
			mustClose(t, s)
			s = mustOpen(t, dir, said.options())
			if got := mustLoad(t, s).Number; got != head {
				t.Fatalf("%d bytes free: after reopening the newest revision is %d, want %d", free, got, head)
			}
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		if err := s.Append(revisionOf(head + 1)); err != nil {
			t.Fatalf("%d bytes were free, now more: %v", free, err)
		}
		wantAlike(t, dir)
	}
	for _, name := range fileNames {
		if failed[name] == 0 {
			t.Errorf("no write of %s failed: %v", name, failed)
		}
	}
	if len(said) != 0 {
		t.Errorf("repaired: %q", said)
	}
	t.Logf("failed: %v", failed)
}

// fill writes a file that leaves so many bytes free.
func fill(t *testing.T, path string, free int64) {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(path), &fs); err != nil {
		t.Fatal(err)
	}
	if size := int64(fs.Bavail)*fs.Bsize - free; size > 0 {
		mustWrite(t, path, make([]byte, size))
	} else {
		mustWrite(t, path, nil)
	}
}

// TestCheck loses and cuts each file under the open store.
func TestCheck(t *testing.T) {
	for _, name := range fileNames {
		for what, spoil := range map[string]func(string) error{
			"removed": os.Remove,
			"cut":     func(path string) error { return os.Truncate(path, 5000) },
		} {
			t.Run(name+"_"+what, func(t *testing.T) {
				var said messages
				dir := filepath.Join(t.TempDir(), "state")
				s := mustOpen(t, dir, said.options())
				mustGrow(t, s, 3)
				if err := s.Check(); err != nil || len(said) > 0 {
					t.Fatalf("a sound store: %v, repaired %q", err, said)
				}
				if err := spoil(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
				if err := s.Check(); err != nil || len(said) != 1 {
					t.Errorf("error %v, repaired %q", err, said)
				}
				if err := s.Check(); err != nil || len(said) != 1 {
					t.Errorf("once more: error %v, repaired %q", err, said)
				}
				if head, _, err := s.Load(); err != nil || head.Number != 3 {
					t.Errorf("head %d, error %v", head.Number, err)
				}
				mustClose(t, s)
				if err := s.Check(); err == nil {
					t.Error("a closed store is checked")
				}
			})
		}
	}
}
