package xdp

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

// TestSweepIsPaced drives a sweep by a clock of its own: it works on what it has
// earned alone, takes as long as that takes, and no two begin within two seconds.
func TestSweepIsPaced(t *testing.T) {
	r := newRig(t, Options{})
	ctx, begin := t.Context(), time.Now()
	p := pace{at: begin, next: begin}
	at := func(since time.Duration) (wait time.Duration) {
		t.Helper()
		wait, err := r.goOn(ctx, &p, begin.Add(since))
		if err != nil {
			t.Fatal(err)
		}
		return wait
	}
	place := func() (int, uint32) { return p.run.family, p.run.group }

	p.credit = -time.Minute // it has used more than its share, for this test without end
	for now := time.Duration(0); now < 5*time.Second; now += time.Second {
		if wait := at(now); wait != stepInterval {
			t.Fatalf("it goes on after %v, want %v", wait, stepInterval)
		}
		if family, group := place(); family != 0 || group != 0 {
			t.Fatalf("it works on what it has not earned: table %d, group %d", family, group)
		}
	}
	now := 5 * time.Second
	p.credit = 0
	for ; p.run != nil; now += stepInterval {
		at(now)
	}
	if period := r.sweeps.period; period < 5*time.Second || period > now {
		t.Errorf("the sweep took %v by its own account, want 5 s to %v", period, now)
	}
	if share := r.sweeps.share; share <= 0 {
		t.Errorf("it used %v of a CPU", share)
	}

	// A small table's is done at once, or in a few steps on a slow machine; the next one
	// begins two seconds after it began.
	p.next, p.credit = begin.Add(now), time.Hour
	p.at = begin.Add(now)
	now += time.Second
	began := now
	for ; ; now += stepInterval {
		if wait := at(now); p.run == nil {
			if since := now + wait - began; since != sweepInterval {
				t.Errorf("the next sweep begins %v after a short one began, want %v", since, sweepInterval)
			}
			break
		}
	}
	if r.sweeps.period != sweepInterval {
		t.Errorf("the period of a small table's sweep is %v, want %v", r.sweeps.period, sweepInterval)
	}
	started := r.sweeps.started
	if wait := at(began + sweepInterval - time.Millisecond); wait != time.Millisecond || r.sweeps.started != started {
		t.Errorf("a millisecond early it waits %v, %d sweeps begun, want 1ms and none", wait, r.sweeps.started-started)
	}
	stats, err := r.Stats(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range stats.Table {
		if table.SweepPeriod != sweepInterval || table.SweepShare != r.sweeps.share {
			t.Errorf("%s: period %v, share %v, want %v, %v", table.Family, table.SweepPeriod, table.SweepShare, sweepInterval, r.sweeps.share)
		}
	}
}

func TestPaceEarns(t *testing.T) {
	now := time.Now()
	for _, test := range []struct {
		name         string
		credit, time time.Duration
		want         time.Duration
	}{
		{"its_share", 0, 10 * time.Millisecond, 200 * time.Microsecond},
		{"pays_back_first", -time.Millisecond, 10 * time.Millisecond, -800 * time.Microsecond},
		{"no_more_than_a_burst_after_a_long_stop", 0, time.Hour, mostCredit},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := pace{at: now, credit: test.credit}
			if p.earn(now.Add(test.time)); p.credit != test.want {
				t.Errorf("%v, want %v", p.credit, test.want)
			}
		})
	}
}

// TestBounds: what a sweep finds of a count that moves meanwhile is no difference.
func TestBounds(t *testing.T) {
	at := func(n int64) bpf.KernelServerLoad {
		return bpf.KernelServerLoad{Active: n, Inactive: 2 * n, Templates: 3 * n}
	}
	b := bounds{now: []bpf.KernelServerLoad{at(4)}, low: []bpf.KernelServerLoad{at(4)}, high: []bpf.KernelServerLoad{at(4)}}
	b.include([]bpf.KernelServerLoad{at(6), at(3)})
	b.include([]bpf.KernelServerLoad{at(5), at(2)})
	for _, test := range []struct {
		server int
		found  bpf.KernelRecount
		want   [3]int64
	}{
		{0, bpf.KernelRecount{Active: 4, Inactive: 8, Templates: 12}, [3]int64{}},
		{0, bpf.KernelRecount{Active: 6, Inactive: 12, Templates: 18}, [3]int64{}},
		{0, bpf.KernelRecount{Active: 3, Inactive: 13, Templates: 15}, [3]int64{-1, 1, 0}},
		{1, bpf.KernelRecount{}, [3]int64{}}, // added since: it had none
		{1, bpf.KernelRecount{Active: 4, Inactive: 6, Templates: 9}, [3]int64{1, 0, 0}},
	} {
		if diff := cmp.Diff(test.want, b.outside(test.server, &test.found)); diff != "" {
			t.Errorf("server %d, found %+v (-want +got):\n%s", test.server, test.found, diff)
		}
	}
}

func TestTemplatesAreCountedInPairs(t *testing.T) {
	const (
		begun   = bpf.KernelSweepTemplatesTEMPLATES_BEGUN
		counted = bpf.KernelSweepTemplatesTEMPLATES_COUNTED
		left    = bpf.KernelSweepTemplatesTEMPLATES_LEFT
	)
	for _, test := range []struct {
		name   string
		number uint64
		state  sweepState
		want   bpf.KernelSweepTemplates
	}{
		{"begun", templateSweeps, sweepState{}, begun},
		{"counted", templateSweeps + 1, sweepState{complete: templateSweeps}, counted},
		{"not_when_the_first_failed", templateSweeps + 1, sweepState{complete: templateSweeps - 1}, left},
		{"the_others", templateSweeps + 2, sweepState{complete: templateSweeps + 1}, left},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.state.templatesIn(test.number); got != uint32(test.want) {
				t.Errorf("%d, want %d", got, test.want)
			}
		})
	}
}

// TestClockSteps sets the guest's clock a day on and two back while connections live
// and sweeps run: nothing ends early, nothing late, and all that runs goes on.
func TestClockSteps(t *testing.T) {
	if _, err := os.Stat("/test-binary"); err != nil || os.Getenv("SHUNT_GUEST") == "" {
		t.Skip("sets the machine's clock: only in a guest of our own (scripts/guest/run.sh)")
	}
	r := newRig(t, Options{})
	service := testService(director.RoundRobin, director.SchedulerFlags{})
	r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: local(1, 1)})
	client := netip.MustParseAddr("198.51.100.9")
	r.syn(netip.AddrPortFrom(client, 4000), service.Key.Address)
	running := make(chan error, 1)
	go func() { running <- r.Run(t.Context()) }()
	swept := func() (sweeps uint64, keys, expired uint64) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.sweeps.complete, r.sweeps.keys[0], r.sweeps.expired[0]
	}
	step := func(by time.Duration) {
		t.Helper()
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
			t.Fatal(err)
		}
		now = unix.NsecToTimespec(now.Nano() + by.Nanoseconds())
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &now); err != nil {
			t.Fatal(err)
		}
	}
	for _, by := range []time.Duration{24 * time.Hour, -48 * time.Hour} {
		before, _, _ := swept()
		step(by)
		r.eventually("a sweep after the clock was set", func() bool { now, _, _ := swept(); return now > before })
		if _, keys, expired := swept(); keys != 1 || expired != 0 {
			t.Errorf("the clock set by %v: %d keys, %d expired, want 1 and 0", by, keys, expired)
		}
		for c, err := range r.Connections(t.Context(), director.ConnectionFilter{}) {
			if err != nil {
				t.Fatal(err)
			}
			if c.Idle > time.Hour || c.Age > time.Hour {
				t.Errorf("the clock set by %v: a connection is %v old, and idle for %v", by, c.Age, c.Idle)
			}
		}
	}
	// And what is over ends, whatever the clock.
	step(48 * time.Hour)
	if err := r.plane.ChangeSettings(func(s *bpf.KernelSettings) { clear(s.Timeout[:]) }); err != nil {
		t.Fatal(err)
	}
	r.eventually("the connection is swept", func() bool { _, keys, expired := swept(); return keys == 0 && expired == 1 })
	select {
	case err := <-running:
		t.Errorf("the data plane ended: %v", err)
	default:
	}
	step(-24 * time.Hour)
}
