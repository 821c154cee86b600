package watch_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/director/watch"
)

// watched runs a Watcher for the time, a reading each second from second 0 on,
// and returns what it published, a line each, with the second it was published
// in.
func watched(t *testing.T, seconds int, opts watch.Options, reading func(second int) (director.Stats, error)) []string {
	t.Helper()
	var lines []string
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		stream := event.NewStream(slog.New(slog.DiscardHandler), 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(seconds)*time.Second+time.Millisecond)
		defer cancel()
		read := func(context.Context) (director.Stats, error) {
			return reading(int(time.Since(begin) / time.Second))
		}
		if err := watch.New(read, stream, opts).Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
		events, _ := stream.After(0)
		for _, e := range events {
			fields := []string{fmt.Sprintf("%ds", e.Time.Sub(begin)/time.Second), string(e.Name)}
			for _, field := range []string{e.Service, e.Server, e.Interface, e.Reason} {
				if field != "" {
					fields = append(fields, "["+field+"]")
				}
			}
			lines = append(lines, strings.Join(append(fields, e.Message), " "))
		}
	})
	return lines
}

func compare(t *testing.T, want, got []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestReadings(t *testing.T) {
	t.Run("failures_are_told_once_per_streak", func(t *testing.T) {
		got := watched(t, 6, watch.Options{}, func(second int) (director.Stats, error) {
			if second == 3 || second == 6 {
				return director.Stats{}, nil
			}
			return director.Stats{}, errors.New("no such map")
		})
		compare(t, []string{
			"0s observe-failed read the data plane's counters: no such map",
			"4s observe-failed read the data plane's counters: no such map",
		}, got)
	})

	t.Run("the_first_that_succeeds_is_the_baseline", func(t *testing.T) {
		got := watched(t, 3, watch.Options{}, func(second int) (director.Stats, error) {
			if second == 0 {
				return director.Stats{}, errors.New("busy")
			}
			return director.Stats{
				PacketEvents: []director.PacketEvent{{Name: "martian", Kind: director.PacketDrop, Count: 5}},
				Interfaces:   []director.InterfaceStats{{Name: "eth0", Mode: "native"}},
			}, nil
		})
		compare(t, []string{"0s observe-failed read the data plane's counters: busy"}, got)
	})

	t.Run("the_interval_can_be_set", func(t *testing.T) {
		readings := 0
		watched(t, 60, watch.Options{Interval: 20 * time.Second}, func(int) (director.Stats, error) {
			readings++
			return director.Stats{}, nil
		})
		if readings != 4 {
			t.Errorf("%d readings in a minute, want 4: at 0, 20, 40 and 60 s", readings)
		}
	})

	t.Run("a_reading_cut_short_by_the_end_is_no_failure", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			stream := event.NewStream(slog.New(slog.DiscardHandler), 0)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			err := watch.New(func(ctx context.Context) (director.Stats, error) {
				<-ctx.Done()
				return director.Stats{}, ctx.Err()
			}, stream, watch.Options{}).Run(ctx)
			if events, _ := stream.After(0); err != nil || len(events) > 0 {
				t.Errorf("Run: %v, events %v, want neither", err, events)
			}
		})
	})
}

func TestInterfaces(t *testing.T) {
	modes := []map[string]director.InterfaceMode{
		{"eth0": "native", "eth1": "gone"},
		{"eth0": "native", "eth1": "gone"},
		{"eth0": "gone", "eth1": "native"},
		{"eth0": "generic", "eth1": "native"},
		{"eth0": "native"},
		{"eth0": "native", "eth2": "native"},
		{"eth0": "gone", "eth2": "native"},
		{"eth2": "native"},
	}
	got := watched(t, len(modes)-1, watch.Options{}, func(second int) (director.Stats, error) {
		var stats director.Stats
		for _, name := range []string{"eth0", "eth1", "eth2"} {
			if mode, attached := modes[second][name]; attached {
				stats.Interfaces = append(stats.Interfaces, director.InterfaceStats{Name: name, Mode: mode})
			}
		}
		return stats, nil
	})
	compare(t, []string{
		"0s interface-detached [eth1] interface eth1 is gone: its packets do not take the fast path",
		"2s interface-detached [eth0] interface eth0 is gone: its packets do not take the fast path",
		"2s interface-attached [eth1] the fast path runs on eth1 in mode native",
		"3s interface-attached [eth0] the fast path runs on eth0 in mode generic",
		"4s interface-attached [eth0] the fast path runs on eth0 in mode native, which was generic",
		"4s interface-detached [eth1] the data plane is attached to eth1 no more",
		"5s interface-attached [eth2] the fast path runs on eth2 in mode native",
		"6s interface-detached [eth0] interface eth0 is gone: its packets do not take the fast path",
	}, got)
}

func TestTables(t *testing.T) {
	run := func(table director.TableStats, keys ...uint64) []string {
		return watched(t, len(keys)-1, watch.Options{}, func(second int) (director.Stats, error) {
			now, other := table, director.TableStats{Family: "ipv6", Limit: 100, Slots: 500, Keys: 10}
			now.Keys = keys[second]
			if now.Limit > 0 {
				now.Pressure = float64(now.Keys) / float64(2*now.Limit)
			}
			return director.Stats{Table: []director.TableStats{now, other}}, nil
		})
	}

	t.Run("levels_have_hysteresis", func(t *testing.T) {
		got := run(director.TableStats{Family: "ipv4", Limit: 100, Slots: 500},
			10, 159, 160, 159, 165, 141, 160, 189, 190, 185, 195, 161, 195, 159, 195, 139, 160, 400, 10)
		compare(t, []string{
			"2s table-pressure [ipv4] the ipv4 connection table is 80 % full: 160 keys of 500 slots, sized for 100 connections",
			"8s table-pressure [ipv4] the ipv4 connection table is 95 % full: 190 keys of 500 slots, sized for 100 connections",
			"14s table-pressure [ipv4] the ipv4 connection table is 98 % full: 195 keys of 500 slots, sized for 100 connections",
			"15s table-relieved [ipv4] the ipv4 connection table is 70 % full: 139 keys of 500 slots, sized for 100 connections",
			"16s table-pressure [ipv4] the ipv4 connection table is 80 % full: 160 keys of 500 slots, sized for 100 connections",
			"17s table-pressure [ipv4] the ipv4 connection table is 200 % full: 400 keys of 500 slots, sized for 100 connections",
			"18s table-relieved [ipv4] the ipv4 connection table is 5 % full: 10 keys of 500 slots, sized for 100 connections",
		}, got)
	})

	t.Run("what_is_full_at_the_start_is_told", func(t *testing.T) {
		compare(t, []string{
			"0s table-pressure [ipv4] the ipv4 connection table is 96 % full: 96 keys of 100 slots, sized for 100 connections",
		}, run(director.TableStats{Family: "ipv4", Limit: 100, Slots: 100}, 96, 96))
	})

	t.Run("without_a_limit_nothing_fills", func(t *testing.T) {
		compare(t, nil, run(director.TableStats{Family: "ipv4"}, 0, 1<<40))
	})
}

// TestKernel: a data plane that is attached to no interfaces, names no packet
// events and has tables without a limit is one of which nothing has to be told.
func TestKernel(t *testing.T) {
	got := watched(t, 6, watch.Options{}, func(second int) (director.Stats, error) {
		key, err := director.ParseServiceKey("fwmark6://7")
		if err != nil {
			return director.Stats{}, err
		}
		service := web(t, "up")
		service.Key = key
		stats := director.Stats{Table: []director.TableStats{{Family: "ipv4", Keys: uint64(1+second) << 20}, {Family: "ipv6"}}}
		if second < 3 { // it is removed, as somebody else may do
			stats.Services = append(stats.Services, service)
		}
		return stats, nil
	})
	compare(t, nil, got)
}
