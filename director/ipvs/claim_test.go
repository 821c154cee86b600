package ipvs

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director/directortest"
	guest "github.com/shunt-lb/shunt/director/directortest/ipvs"
)

// emptyNamespace returns a namespace that goes with the test.
func emptyNamespace(t *testing.T, name string) *directortest.Namespace {
	t.Helper()
	ns, err := directortest.NewNamespace(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	return ns
}

// claimIn claims the namespace.
func claimIn(ns *directortest.Namespace) (c *claimed, err error) {
	err = ns.Do(func() (err error) {
		c, err = claim()
		return err
	})
	return c, err
}

func TestClaim(t *testing.T) {
	directortest.Privileged(t)
	one, other := emptyNamespace(t, "one"), emptyNamespace(t, "other")
	first, err := claimIn(one)
	if err != nil || first == nil {
		t.Fatalf("%v, %v", first, err)
	}
	for range 3 { // nobody takes those who ask off
		_, err := claimIn(one)
		if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
			t.Errorf("claimed twice: %v, want %v by this process", err, ErrInUse)
		}
	}
	elsewhere, err := claimIn(other)
	if err != nil || elsewhere == nil {
		t.Errorf("in another namespace: %v, %v", elsewhere, err)
	}
	if err := errors.Join(first.release(), elsewhere.release()); err != nil {
		t.Fatal(err)
	}
	again, err := claimIn(one)
	if err != nil || again == nil {
		t.Fatalf("after it was given up: %v, %v", again, err)
	}
	if err := again.release(); err != nil {
		t.Error(err)
	}
}

// A user who may not manage IPVS keeps nobody from it by taking the name.
func TestClaimOfNobody(t *testing.T) {
	directortest.Privileged(t)
	ns := emptyNamespace(t, "squatted")
	const nobody = 65534
	var squatter *claimed
	if err := ns.Do(func() (err error) { // on a thread that ends with it, and whose user is its own
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			return errno
		}
		squatter, err = claim()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	held, err := claimIn(ns)
	if err != nil || held != nil {
		t.Errorf("%v, %v: want none, and no error", held, err)
	}
	if err := squatter.release(); err != nil {
		t.Error(err)
	}
}

func TestGuestSecondDaemon(t *testing.T) {
	guest.Guest(t)
	ns := emptyNamespace(t, "director")
	openWith := func(o Options) (d *Dataplane, err error) {
		err = ns.Do(func() (err error) {
			d, err = Open(t.Context(), o)
			return err
		})
		return d, err
	}
	first, err := openWith(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openWith(Options{}); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: %v, want %v", err, ErrInUse)
	}
	beside, err := openWith(Options{Beside: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(beside.Close(), first.Close()); err != nil {
		t.Error(err)
	}
	again, err := openWith(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}
