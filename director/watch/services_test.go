package watch_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/watch"
)

func TestLimits(t *testing.T) {
	const began = "limit-hit [tcp://192.0.2.1:80] [source-rate] new connections of tcp://192.0.2.1:80 are refused for its limit source-rate, "
	const ended = "limit-hit-ended [tcp://192.0.2.1:80] [source-rate] no new connection of tcp://192.0.2.1:80 was refused for its limit source-rate for 3s, "
	for name, tt := range map[string]struct {
		counts []int // second by second; -1: the service is not there
		want   []string
	}{
		"what_was_refused_before_is_no_news": {[]int{7, 7, 7, 7}, nil},
		"one_is_hit_and_is_no_more": {
			[]int{7, 9, 12, 12, 12, 13, 13, 13, 13, 13, 14},
			[]string{"1s " + began + "2 so far", "8s " + ended + "6 before", "10s " + began + "1 so far"},
		},
		"from_the_first_one_on":              {[]int{0, 0, 5, 5}, []string{"2s " + began + "5 so far"}},
		"of_a_service_that_was_added":        {[]int{-1, 0, 3}, []string{"2s " + began + "3 so far"}},
		"of_one_that_is_hit_as_it_is_added":  {[]int{-1, 3, 3}, []string{"1s " + began + "3 so far"}},
		"a_removed_service_is_forgotten":     {[]int{0, 3, -1, -1, -1, -1, -1, 0, 2}, []string{"1s " + began + "3 so far", "8s " + began + "2 so far"}},
		"a_count_that_starts_anew_goes_on":   {[]int{100, 101, 5, 6, 6}, []string{"1s " + began + "1 so far"}},
		"a_count_that_starts_anew_is_no_hit": {[]int{100, 0, 0}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := watched(t, len(tt.counts)-1, watch.Options{Quiet: 3 * time.Second}, func(second int) (director.Stats, error) {
				n := tt.counts[second]
				if n < 0 {
					return director.Stats{}, nil
				}
				s := web(t)
				s.Refused = map[string]uint64{"source-rate": uint64(n), "service-rate": 0, director.RefusedTableFull: uint64(n)}
				return director.Stats{Services: []director.ServiceStats{s}}, nil
			})
			compare(t, tt.want, got)
		})
	}
}

func TestManyLimitsAtOnceAreSummedUp(t *testing.T) {
	got := watched(t, 3, watch.Options{ServerEvents: 2, Quiet: time.Second}, func(second int) (director.Stats, error) {
		var stats director.Stats
		for i := range 10 {
			s := web(t)
			s.Key.Address = netip.AddrPortFrom(s.Key.Address.Addr(), uint16(1000+i))
			s.Refused = map[string]uint64{"service-rate": uint64(min(second, 1))}
			stats.Services = append(stats.Services, s)
		}
		return stats, nil
	})
	if len(got) != 6 {
		t.Fatalf("%d events, want 2 and a sum each time:\n%s", len(got), strings.Join(got, "\n"))
	}
	compare(t, []string{"1s limit-hit 8 more limits of services are hit", "2s limit-hit-ended 8 more limits of services are hit no more"}, []string{got[2], got[5]})
}

func TestGuards(t *testing.T) {
	const on = "guard-on [tcp://192.0.2.1:80] the guard of tcp://192.0.2.1:80 is on: clients have to show first that they are real"
	const off = "guard-off [tcp://192.0.2.1:80] the guard of tcp://192.0.2.1:80 is off after "
	for name, tt := range map[string]struct {
		states string // second by second: on, off, or - for a service that is not there
		want   []string
	}{
		"one_that_is_off_is_no_news":       {"0000", nil},
		"one_that_is_on_at_the_start":      {"1100", []string{"2s " + off + "2s: it answered 2000 first segments, and 20 clients were real"}},
		"it_goes_on_and_off":               {"0111001", []string{"1s " + on, "4s " + off + "3s: it answered 3000 first segments, and 30 clients were real", "6s " + on}},
		"a_new_service_begins_with_it_off": {"-11", []string{"1s " + on}},
		"a_removed_service_is_no_news":     {"011-11", []string{"1s " + on, "4s " + on}},
	} {
		t.Run(name, func(t *testing.T) {
			got := watched(t, len(tt.states)-1, watch.Options{}, func(second int) (director.Stats, error) {
				if tt.states[second] == '-' {
					return director.Stats{}, nil
				}
				s := web(t)
				s.Guard = director.GuardStats{On: tt.states[second] == '1', Challenged: uint64(second) * 1000, Validated: uint64(second) * 10}
				return director.Stats{Services: []director.ServiceStats{s}}, nil
			})
			compare(t, tt.want, got)
		})
	}
}

func TestFullTables(t *testing.T) {
	refused := []uint64{5, 5, 8, 9, 9, 9, 9, 10}
	got := watched(t, len(refused)-1, watch.Options{Quiet: 3 * time.Second}, func(second int) (director.Stats, error) {
		return director.Stats{Table: []director.TableStats{
			{Family: "ipv4", Limit: 100, Slots: 500, Refused: 3},
			{Family: "ipv6", Limit: 100, Slots: 500, Refused: refused[second]},
		}}, nil
	})
	compare(t, []string{
		"2s table-full [ipv6] the ipv6 connection table has no room for new connections: 3 refused or served without state so far",
		"6s table-has-room [ipv6] new connections find room in the ipv6 connection table: none did not for 3s, 4 before",
		"7s table-full [ipv6] the ipv6 connection table has no room for new connections: 1 refused or served without state so far",
	}, got)
}

func TestForecast(t *testing.T) {
	got := watched(t, 0, watch.Options{}, func(int) (director.Stats, error) {
		return director.Stats{Table: []director.TableStats{{
			Family: "ipv4", Limit: 100, Slots: 500, Keys: 170, Pressure: 0.85, FullIn: 35*time.Minute + time.Millisecond,
		}}}, nil
	})
	compare(t, []string{
		"0s table-pressure [ipv4] the ipv4 connection table is 85 % full: 170 keys of 500 slots, sized for 100 connections; full in 35m0s at the present rate",
	}, got)
}
