package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/config"
	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/realserver"
)

// parse is what a reload reads.
func parse(t *testing.T, text string, from config.Settings) config.Config {
	t.Helper()
	cfg, err := config.Parse("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Director.Socket, cfg.Director.StateDir = from.Socket, from.StateDir
	return cfg
}

// file stands for the configuration file: the daemon reads it while a test changes it.
type file struct {
	mu     sync.Mutex
	config config.Config
	err    error
}

func (f *file) set(cfg config.Config, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.config, f.err = cfg, err
}

func (f *file) load() (config.Config, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.config, f.err
}

// reloadable starts a daemon whose file can be changed.
func reloadable(t *testing.T) (d *running, from *file, level *slog.LevelVar) {
	t.Helper()
	cfg, plane := testConfig(t), newPlane()
	from, level = &file{config: cfg}, new(slog.LevelVar)
	s := around(nil, nil)
	s.level, s.load = level, from.load
	return startWith(t, cfg, plane, s), from, level
}

func TestReload(t *testing.T) {
	d, file, level := reloadable(t)
	from := testConfig(t).Director
	file.set(parse(t, `
director: {interfaces: [eth0, eth1], log: {level: debug}, removal-limit: 0%}
services:
  - {listen: tcp://192.0.2.10:80, method: nat, servers: [{address: 10.0.0.11, weight: 7}, {address: 10.0.0.12}]}
`, from), nil)
	outcome, err := d.client.Reload(t.Context(), api.Terms{Why: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if !outcome.Changed || outcome.Revision.Number != 2 || len(outcome.Steps) != 2 || outcome.Revision.Why != "test" {
		t.Errorf("outcome %+v", outcome)
	}
	if level.Level() != slog.LevelDebug {
		t.Errorf("log level %v", level.Level())
	}
	if !strings.Contains(d.log.String(), "director.interfaces") {
		t.Errorf("the log does not say that other interfaces want a restart:\n%s", d.log)
	}
	// The new limit holds: nothing may be removed without force.
	file.set(parse(t, "director: {interfaces: [eth0]}\nservices: []\n", from), nil)
	problem := (*api.Problem)(nil)
	if _, err := d.client.Reload(t.Context(), api.Terms{}); !errors.As(err, &problem) || problem.Status != 409 {
		t.Errorf("a reload that removes everything: %v", err)
	}
	// A file that says nothing of services leaves them alone.
	file.set(parse(t, "director: {interfaces: [eth0], log: {level: warn}, connections: {timeouts: {udp: 1m}}}\n", from), nil)
	outcome, err = d.client.Reload(t.Context(), api.Terms{})
	if err != nil || !outcome.Changed || len(outcome.Steps) != 1 || level.Level() != slog.LevelWarn {
		t.Errorf("a file without services: %+v, error %v, level %v", outcome, err, level.Level())
	}
	// What is of no use is told.
	useless := parse(t, "director: {interfaces: [eth0], log: {level: warn}}\n", from)
	useless.Warnings = []string{"shunt.yaml:1:2: director.mode: the ipvs data plane does not use it"}
	file.set(useless, nil)
	if _, err := d.client.Reload(t.Context(), api.Terms{}); err != nil || !strings.Contains(d.log.String(), useless.Warnings[0]) {
		t.Errorf("error %v, or the log does not warn:\n%s", err, d.log)
	}
	// What cannot be read changes nothing and is told.
	file.set(config.Config{}, errors.New("shunt.yaml:3:1: unknown key"))
	if _, err := d.client.Reload(t.Context(), api.Terms{}); !errors.As(err, &problem) || problem.Status != 422 || !strings.Contains(problem.Detail, "shunt.yaml:3:1") {
		t.Errorf("a file that cannot be read: %v", err)
	}
	if !strings.Contains(d.log.String(), "event="+string(event.ReloadFailed)) {
		t.Errorf("the log has no event of it:\n%s", d.log)
	}
	if status, err := d.client.Status(t.Context()); err != nil || status.Revision != 3 || status.Services != 1 {
		t.Errorf("status %+v, error %v", status, err)
	}
}

func TestHangup(t *testing.T) {
	d, file, _ := reloadable(t)
	from := testConfig(t).Director
	file.set(parse(t, "director: {interfaces: [eth0]}\nservices:\n- {listen: tcp://192.0.2.10:80, method: dr, servers: [{address: 10.0.0.11}]}\n", from), nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := d.client.Status(ctx); err != nil { // it listens to signals before it answers
		t.Fatal(err)
	}
	next := d.client.FollowState(ctx, 1)
	done := make(chan uint64, 1) // one value, sent once
	go func() {
		for message, err := range next {
			if err != nil {
				break
			}
			if message.Change != nil {
				done <- message.Change.Revision.Number
				return
			}
		}
		done <- 0
	}()
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if got := <-done; got != 2 {
		t.Errorf("after SIGHUP revision %d, want 2", got)
	}
	found, err := d.plane.Found(t.Context())
	if err != nil || len(found.Services) != 1 || found.Services[0].Servers[0].Method != realserver.DR {
		t.Errorf("the kernel holds %+v, error %v", found, err)
	}
}
