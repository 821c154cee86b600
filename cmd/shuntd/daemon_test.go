package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/config"
	"github.com/shunt-lb/shunt/director/directortest"
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

func (p *fakePlane) Detach(context.Context) error {
	p.detached.Store(true)
	return nil
}

func (p *fakePlane) IsNew() bool { return p.isNew }

func (p *fakePlane) MaxConnections() (v4, v6 uint64) { return 1 << 20, 1 << 18 }
func (p *fakePlane) MemoryBytes() uint64             { return 176 << 20 }

// daemon is a serve under test.
type daemon struct {
	client *api.Client
	plane  *fakePlane
	cancel context.CancelFunc
	done   chan error // one value, sent once
	log    *bytes.Buffer
}

// startDaemon runs serve and returns once its socket is there.
func startDaemon(t *testing.T, cfg config.Config, plane *fakePlane) *daemon {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d := &daemon{
		client: api.NewClient(cfg.Director.Socket), plane: plane, cancel: cancel,
		done: make(chan error, 1), log: &bytes.Buffer{},
	}
	log := slog.New(slog.NewTextHandler(d.log, nil))
	opened := make(chan struct{})
	open := func(context.Context, config.Settings, *slog.Logger) (dataplane, error) {
		close(opened)
		return plane, nil
	}
	go func() { d.done <- serve(ctx, cfg, open, log) }()
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
		for _, want := range []string{`"connection tables: 1Mi IPv4, 256Ki IPv6, 176.0 MiB"`, "stopped: traffic flows on"} {
			if !strings.Contains(d.log.String(), want) {
				t.Errorf("the log has no %s:\n%s", want, d.log)
			}
		}
		if _, err := os.Lstat(cfg.Director.Socket); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
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
		err := serve(t.Context(), cfg, func(context.Context, config.Settings, *slog.Logger) (dataplane, error) {
			t.Error("opened")
			return nil, errors.New("opened")
		}, slog.New(slog.DiscardHandler))
		if !errors.Is(err, api.ErrInUse) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a_data_plane_that_does_not_open_leaves_nothing", func(t *testing.T) {
		cfg := testConfig(t)
		err := serve(t.Context(), cfg, func(context.Context, config.Settings, *slog.Logger) (dataplane, error) {
			return nil, syscall.EPERM
		}, slog.New(slog.DiscardHandler))
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
	t.Run("a_restart_keeps_what_the_kernel_holds", func(t *testing.T) {
		plane := newPlane()
		key := director.ServiceKey{Protocol: conntrack.UDP, Address: netip.MustParseAddrPort("192.0.2.11:53")}
		plane.Fake = directortest.NewFake(director.State{Services: []director.Service{{Key: key, Scheduler: director.RoundRobin, VIP: director.VIPExternal}}})
		d := startDaemon(t, testConfig(t), plane)
		services, err := d.client.Services(t.Context())
		if err != nil || len(services) != 2 {
			t.Errorf("services %+v, error %v", services, err)
		}
		d.cancel()
		if err := <-d.done; err != nil {
			t.Error(err)
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

func TestHangup(t *testing.T) {
	var text bytes.Buffer
	hangups := make(chan os.Signal) // unbuffered: a second is taken when the first was handled
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1) // one value, sent once
	go func() { done <- watchHangup(ctx, hangups, slog.New(slog.NewTextHandler(&text, nil))) }()
	hangups <- syscall.SIGHUP
	cancel()
	if err := <-done; err != nil || !strings.Contains(text.String(), "not supported") {
		t.Errorf("error %v, log %q", err, text.String())
	}
}
