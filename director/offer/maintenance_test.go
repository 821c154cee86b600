package offer_test

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/director/offer"
)

func TestMaintenance(t *testing.T) {
	folder := t.TempDir()
	touch := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(name string) {
		t.Helper()
		if err := os.Remove(filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	bubble(t, func(t *testing.T) {
		r := start(t, web(director.Health{Maintenance: folder, Panic: 90}, 4, 5))
		defer func() { r.stop() }()
		r.want(t, "an empty folder", "10.0.0.1=4 10.0.0.2=5")
		for _, name := range []string{"10.0.0.1", "10.0.0.1:80", "::ffff:10.0.0.1"} {
			touch(name)
			time.Sleep(2 * time.Second)
			r.want(t, name, "10.0.0.1=0 10.0.0.2=5")
			if v := r.verdict(t, first); v.Why != "in maintenance: "+name {
				t.Errorf("verdict %+v", v)
			}
			r = r.restart(t)
			if ops := r.fake.Operations(); len(ops) != 0 {
				t.Errorf("a restart did %v", ops)
			}
			remove(name)
			time.Sleep(2 * time.Second)
			r.want(t, "without "+name, "10.0.0.1=4 10.0.0.2=5")
		}
		for _, name := range []string{"10.0.0.1:81", ".10.0.0.1", "[10.0.0.1]x", "10.0.0.10"} {
			touch(name)
		}
		time.Sleep(2 * time.Second)
		r.want(t, "files about others", "10.0.0.1=4 10.0.0.2=5")
		if away := r.Away(); len(away) != 1 || away[folder] != 3 { // what is hidden is not looked at
			t.Errorf("files %v", away)
		}
		// A folder that anyone may write to has no say.
		touch("10.0.0.2")
		time.Sleep(2 * time.Second)
		if err := os.Chmod(folder, 0o777); err != nil {
			t.Fatal(err)
		}
		remove("10.0.0.2")
		touch("10.0.0.1")
		time.Sleep(2 * time.Second)
		r.want(t, "what a folder said before others could write it", "10.0.0.1=4 10.0.0.2=0")
		if told := r.told(); !slices.Contains(told, "health-trouble ") {
			t.Errorf("events %q", told)
		}
	})
}

// What cannot be a maintenance folder, or is one that cannot be read to its end, says
// nothing, and holds nothing up.
func TestMaintenanceFolderIsNone(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	huge, err := os.MkdirTemp("/dev/shm", "shunt-") // a disk takes seconds for so many
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(huge)
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 4097 {
		if err := os.WriteFile(filepath.Join(huge, fmt.Sprintf("10.0.%d.%d", i/250, i%250)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for path, why := range map[string]string{fifo: "it is no folder", huge: "more than 4096 files"} {
		bubble(t, func(t *testing.T) {
			r := start(t, web(director.Health{Maintenance: path}, 4, 5))
			defer func() { r.stop() }()
			time.Sleep(2 * time.Second)
			r.want(t, path, "10.0.0.1=4 10.0.0.2=5")
			events, _ := r.events.After(0)
			if !slices.ContainsFunc(events, func(e event.Event) bool { return e.Name == event.HealthTrouble && strings.Contains(e.Message, why) }) {
				t.Errorf("events %+v, want one that says %q", events, why)
			}
		})
	}
}

// A resolver that does not answer holds up nobody's maintenance.
func TestMaintenanceByName(t *testing.T) {
	folder := t.TempDir()
	touch := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bubble(t, func(t *testing.T) {
		var answers atomic.Bool
		r := newRig(directortest.NewFake(director.State{}), &directortest.Store{}, func(o *offer.Options) {
			o.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
				if answers.Load() && host == "second.example" {
					return []netip.Addr{second.Addr()}, nil
				}
				<-ctx.Done()
				return nil, ctx.Err()
			}
		}).begin(t, web(director.Health{Maintenance: folder}, 4, 5))
		defer func() { r.stop() }()
		for i := range 40 {
			touch(fmt.Sprintf("host%d.example", i))
		}
		touch("second.example:80")
		touch("10.0.0.1")
		time.Sleep(1100 * time.Millisecond)
		r.want(t, "while names are asked for", "10.0.0.1=0 10.0.0.2=5")
		time.Sleep(10 * time.Second)
		answers.Store(true)
		if err := os.Remove(filepath.Join(folder, "10.0.0.1")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1100 * time.Millisecond)
		r.want(t, "between two rounds", "10.0.0.1=4 10.0.0.2=5")
		time.Sleep(2 * time.Minute)
		r.want(t, "once it answers", "10.0.0.1=4 10.0.0.2=0")
		answers.Store(false)
		time.Sleep(2 * time.Minute)
		r.want(t, "what it said before", "10.0.0.1=4 10.0.0.2=0")
	})
}

// A folder may come and go; one that cannot be read, or is not to be trusted, changes
// nothing, and is told.
func TestMaintenanceFolder(t *testing.T) {
	directortest.Privileged(t)
	folder := filepath.Join(t.TempDir(), "maintenance")
	file := filepath.Join(folder, "10.0.0.1")
	made := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	bubble(t, func(t *testing.T) {
		r := start(t, web(director.Health{Maintenance: folder}, 4, 5))
		defer func() { r.stop() }()
		look := func(what, weights string, troubles int) {
			t.Helper()
			time.Sleep(2 * time.Second)
			r.want(t, what, weights)
			if told := slices.DeleteFunc(r.told(), func(s string) bool { return s != "health-trouble " }); len(told) != troubles {
				t.Errorf("%s: %d troubles told, want %d", what, len(told), troubles)
			}
		}
		look("no folder", "10.0.0.1=4 10.0.0.2=5", 0)
		made(os.Mkdir(folder, 0o700))
		made(os.WriteFile(file, nil, 0o600))
		look("a folder that came", "10.0.0.1=0 10.0.0.2=5", 0)
		made(os.RemoveAll(folder))
		look("a folder that went", "10.0.0.1=4 10.0.0.2=5", 0)
		made(syscall.Mkfifo(folder, 0o600))
		look("a named pipe", "10.0.0.1=4 10.0.0.2=5", 1)
		r = r.restart(t)
		look("a named pipe at the start", "10.0.0.1=4 10.0.0.2=5", 1)
		made(os.Remove(folder))
		made(os.Mkdir(folder, 0o700))
		made(os.WriteFile(file, nil, 0o600))
		look("a folder again", "10.0.0.1=0 10.0.0.2=5", 1)
		made(os.Chown(folder, 0, 65534))
		made(os.Chmod(folder, 0o770))
		made(os.Remove(file))
		look("a folder that others' group may write", "10.0.0.1=0 10.0.0.2=5", 2)
		made(os.Chown(folder, 65534, 0))
		look("a folder of somebody's", "10.0.0.1=0 10.0.0.2=5", 3)
		made(os.Chown(folder, 0, 0))
		look("a folder of root's group", "10.0.0.1=4 10.0.0.2=5", 3)
	})
}

// Who is in maintenance when it is added gets nothing by the next plan either, which may
// come before the Keeper has looked.
func TestMaintenanceOfNewServers(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "10.0.0.2"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, maintenance := range []string{folder, ""} { // that the service has before
		keeper := offer.New(offer.Options{})
		before := web(director.Health{Maintenance: maintenance}, 4)
		keeper.Offers(&before, nil)
		keeper.Desired(director.State{Services: []director.Service{before}})
		service := web(director.Health{Maintenance: folder}, 4, 5)
		keeper.Offers(&service, nil)
		keeper.Desired(director.State{Services: []director.Service{service}})
		if got, want := keeper.Offers(&service, nil).Servers, map[netip.AddrPort]director.Offer{second: {}}; !maps.Equal(got, want) {
			t.Errorf("with the folder %q before: offered %v, want %v", maintenance, got, want)
		}
	}
}
