package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/config"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver/script"
)

// fakePlane is a data plane that only remembers.
type fakePlane struct {
	*directortest.Fake
	runErr   error // Run returns it at once; nil: Run blocks as it should
	detached atomic.Bool
	isNew    bool
}

func (p *fakePlane) Run(ctx context.Context) error {
	if p.runErr != nil {
		return p.runErr
	}
	<-ctx.Done()
	return nil
}

func (p *fakePlane) Detach(context.Context, director.State) error {
	p.detached.Store(true)
	return nil
}

func (p *fakePlane) IsNew() bool { return p.isNew }

func (p *fakePlane) Tables() string { return "the fake's tables" }

// running is a serve under test.
type running struct {
	client *api.Client
	plane  *fakePlane
	cancel context.CancelFunc
	done   chan error // one value, sent once
	log    *lockedText
}

// around is what a test's daemon has of the host.
func around(open func(context.Context, config.Settings, *slog.Logger) (dataplane, error), log *slog.Logger) surroundings {
	return surroundings{
		open: open, log: log, level: new(slog.LevelVar), hangups: listenHangup(),
		help:     func(config.Settings, director.State) (*script.Helper, error) { return nil, nil },
		restrict: func() (string, error) { return "all of a test's", nil },
		load:     func() (config.Config, error) { return config.Config{}, errors.New("no file") },
	}
}

// lockedText is a log that can be read while it is written.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// startDaemon runs serve and returns once its data plane is open.
func startDaemon(t *testing.T, cfg config.Config, plane *fakePlane) *running {
	t.Helper()
	return startWith(t, cfg, plane, around(nil, nil))
}

// startWith is startDaemon with other surroundings; open and log are its own.
func startWith(t *testing.T, cfg config.Config, plane *fakePlane, s surroundings) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d := &running{
		client: api.NewSocketClient(cfg.Director.Socket), plane: plane, cancel: cancel,
		done: make(chan error, 1), log: &lockedText{},
	}
	s.log = slog.New(slog.NewTextHandler(d.log, nil))
	opened := make(chan struct{})
	s.open = func(context.Context, config.Settings, *slog.Logger) (dataplane, error) {
		close(opened)
		return plane, nil
	}
	go func() { d.done <- serve(ctx, cfg, s) }()
	select {
	case <-opened:
	case err := <-d.done:
		t.Fatalf("serve: %v", err)
	}
	t.Cleanup(func() { cancel(); d.client.Close() })
	return d
}

func testConfig(t *testing.T) config.Config {
	t.Helper()
	cfg, err := config.Parse("test", []byte(`
director: {interfaces: [eth0]}
services:
  - listen: tcp://192.0.2.10:80
    method: nat
    servers: [{address: 10.0.0.11}]
`))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Director.Socket = filepath.Join(t.TempDir(), "run", "s")
	cfg.Director.StateDir = filepath.Join(t.TempDir(), "state")
	return cfg
}

func newPlane() *fakePlane { return &fakePlane{Fake: directortest.NewFake(director.State{})} }

func TestServe(t *testing.T) {
	t.Run("a_signal_stops_it_and_traffic_flows_on", func(t *testing.T) {
		cfg := testConfig(t)
		d := startDaemon(t, cfg, newPlane())
		status, err := d.client.Status(t.Context())
		if err != nil || status.Services != 1 || status.Servers != 1 || status.Dataplane != "xdp" {
			t.Errorf("status %+v, error %v", status, err)
		}
		d.cancel()
		if err := <-d.done; err != nil {
			t.Error(err)
		}
		if d.plane.detached.Load() || !d.plane.Closed() {
			t.Errorf("detached %v, closed %v: want false, true", d.plane.detached.Load(), d.plane.Closed())
		}
		for _, want := range []string{"the fake's tables", "stopping: traffic flows on"} {
			if !strings.Contains(d.log.String(), want) {
				t.Errorf("the log has no %s:\n%s", want, d.log)
			}
		}
		if _, err := os.Lstat(cfg.Director.Socket); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	t.Run("who_follows_the_events_learns_of_the_end", func(t *testing.T) {
		d := startDaemon(t, testConfig(t), newPlane())
		var last string
		for message, err := range d.client.FollowEvents(t.Context(), api.EventQuery{After: new(uint64)}) {
			if err != nil || message.Event == nil {
				break
			}
			if last = message.Event.Name; last == "started" {
				d.cancel()
			}
		}
		if last != "stopping" {
			t.Errorf("the last event is %q", last)
		}
		if err := <-d.done; err != nil {
			t.Error(err)
		}
	})
	t.Run("detach_removes_all_and_ends_it", func(t *testing.T) {
		d := startDaemon(t, testConfig(t), newPlane())
		if err := d.client.Detach(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-d.done; err != nil {
			t.Error(err)
		}
		if !d.plane.detached.Load() || !d.plane.Closed() || !strings.Contains(d.log.String(), "detached") {
			t.Errorf("detached %v, closed %v, log:\n%s", d.plane.detached.Load(), d.plane.Closed(), d.log)
		}
	})
	t.Run("a_second_daemon_does_not_touch_the_data_plane", func(t *testing.T) {
		cfg := testConfig(t)
		startDaemon(t, cfg, newPlane())
		err := serve(t.Context(), cfg, around(func(context.Context, config.Settings, *slog.Logger) (dataplane, error) {
			t.Error("opened")
			return nil, errors.New("opened")
		}, slog.New(slog.DiscardHandler)))
		if !errors.Is(err, api.ErrInUse) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a_data_plane_that_does_not_open_leaves_nothing", func(t *testing.T) {
		cfg := testConfig(t)
		err := serve(t.Context(), cfg, around(func(context.Context, config.Settings, *slog.Logger) (dataplane, error) {
			return nil, syscall.EPERM
		}, slog.New(slog.DiscardHandler)))
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("error %v", err)
		}
		if _, err := os.Lstat(cfg.Director.Socket); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	t.Run("a_part_that_fails_ends_the_daemon", func(t *testing.T) {
		plane := newPlane()
		plane.runErr = errors.New("sweeper broke")
		d := startDaemon(t, testConfig(t), plane)
		if err := <-d.done; !errors.Is(err, plane.runErr) || !plane.Closed() {
			t.Errorf("error %v, closed %v", err, plane.Closed())
		}
	})
	t.Run("what_the_data_plane_refuses_at_the_start_ends_it", func(t *testing.T) {
		for _, isNew := range []bool{false, true} {
			plane := newPlane()
			plane.isNew = isNew
			plane.FailAt(1)
			d := startDaemon(t, testConfig(t), plane)
			if err := <-d.done; !errors.Is(err, directortest.ErrInjected) || !plane.Closed() {
				t.Errorf("error %v, closed %v", err, plane.Closed())
			}
			if plane.detached.Load() != isNew {
				t.Errorf("detached %v, want %v: only a first start leaves nothing", plane.detached.Load(), isNew)
			}
		}
	})
	t.Run("what_the_kernel_holds_and_no_revision_names_is_left_alone", func(t *testing.T) {
		plane := newPlane()
		key := director.ServiceKey{Protocol: conntrack.UDP, Address: netip.MustParseAddrPort("192.0.2.11:53")}
		plane.Fake = directortest.NewFake(director.State{Services: []director.Service{{Key: key, Scheduler: director.RoundRobin, VIP: director.VIPExternal}}})
		d := startDaemon(t, testConfig(t), plane)
		drift, err := d.client.Drift(t.Context())
		if err != nil || len(drift.Foreign) != 1 || drift.Foreign[0].Listen != key.String() {
			t.Errorf("drift %+v, error %v", drift, err)
		}
		d.cancel()
		if err := <-d.done; err != nil {
			t.Error(err)
		}
		if found, err := plane.Found(t.Context()); err != nil || found.Service(key) < 0 {
			t.Errorf("the kernel holds %+v, error %v", found, err)
		}
	})
	t.Run("the_file_counts_at_the_first_start_only", func(t *testing.T) {
		cfg, plane := testConfig(t), newPlane()
		d := startDaemon(t, cfg, plane)
		if _, err := d.client.RemoveService(t.Context(), "tcp://192.0.2.10:80", api.Terms{Why: "gone"}); err != nil {
			t.Fatal(err)
		}
		d.cancel()
		if err := <-d.done; err != nil {
			t.Fatal(err)
		}
		d = startDaemon(t, cfg, newPlane())
		status, err := d.client.Status(t.Context())
		if err != nil || status.Services != 0 || status.Revision != 2 {
			t.Errorf("status %+v, error %v: want revision 2 without services", status, err)
		}
	})
	t.Run("generic_mode_is_said_loudly", func(t *testing.T) {
		cfg := testConfig(t)
		cfg.Director.Mode = "generic"
		d := startDaemon(t, cfg, newPlane())
		d.cancel()
		<-d.done
		if !strings.Contains(d.log.String(), "level=WARN msg=\"GENERIC MODE") {
			t.Errorf("log:\n%s", d.log)
		}
	})
}
