package lease

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/realserver"
)

// Whoever reports a server without end keeps its agent from renewing the lease no more
// than anybody else, and is refused itself.
func TestReportsKeepNobodyFromRenewing(t *testing.T) {
	r := newRig(t)
	r.register(registration(1, 1))
	refused := 0
	for range 10 * memberBurst {
		if _, _, err := r.Unreachable("web", "a1", "x"); err != nil {
			r.wantRefusal(err, TooFast, "too many messages")
			refused++
		}
	}
	if refused == 0 {
		t.Error("reports are taken without end")
	}
	r.register(registration(1, 2))
}

// What is another's address only by the new method is refused as well.
func TestMethodMakesAddressTaken(t *testing.T) {
	r := newRig(t)
	first, second := registration(1, 1), registration(2, 1)
	second.Server.Address = netip.AddrPortFrom(first.Server.Address.Addr(), 81)
	r.register(first)
	r.register(second)
	second.Sequence, second.Server.Method = 2, realserver.DR
	_, err := r.Register(second)
	r.wantRefusal(err, Taken, "agent a1's")
}

// A full disk is told of once, and once that it is over.
func TestUnwritableFileIsToldOnce(t *testing.T) {
	r := newRig(t)
	var log strings.Builder
	folder := filepath.Join(t.TempDir(), "none")
	r.opts.File, r.opts.Log = filepath.Join(folder, "leases.json"), slog.New(slog.NewTextHandler(&log, nil))
	r.register(registration(1, 1))
	for range 3 {
		r.saveAll()
	}
	if n := strings.Count(log.String(), "cannot be written"); n != 1 {
		t.Errorf("told %d times:\n%s", n, &log)
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	r.saveAll()
	if n := strings.Count(log.String(), "written again"); n != 1 {
		t.Errorf("told %d times that it is over:\n%s", n, &log)
	}
}
