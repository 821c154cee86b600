package main

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/shunt-lb/shunt/director/api"
)

// TestTopRates: rates are differences of two readings by the time between them,
// and not known where there is no such difference.
func TestTopRates(t *testing.T) {
	counters := func(connections, packets, bytes uint64) api.Counters {
		return api.Counters{Connections: connections, In: api.Traffic{Packets: packets, Bytes: bytes}, Out: api.Traffic{Packets: packets / 2, Bytes: bytes / 2}}
	}
	at := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	before, old, now := counters(10, 100, 1000), at, at.Add(2*time.Second)
	for _, test := range []struct {
		name   string
		old    time.Time
		before *api.Counters // nil: not there
		now    api.Counters
		want   topRates
	}{
		{"two_seconds", old, &before, counters(14, 300, 2000), topRates{2, 100, 4000, 50, 2000}},
		{"nothing_happened", old, &before, before, topRates{}},
		{"first_reading", time.Time{}, &before, counters(14, 300, 2000), noRates},
		{"at_the_same_time", now, &before, counters(14, 300, 2000), noRates},
		{"clock_went_back", now.Add(time.Second), &before, counters(14, 300, 2000), noRates},
		{"not_there_before", old, nil, counters(14, 300, 2000), noRates},
		{"connections_went_back", old, &before, counters(9, 300, 2000), noRates},
		{"packets_went_back", old, &before, counters(14, 0, 2000), noRates},
		{"bytes_went_back", old, &before, counters(14, 300, 999), noRates},
	} {
		t.Run(test.name, func(t *testing.T) {
			reading := func(at time.Time, c *api.Counters) topReading {
				r := topReading{at: at}
				if c != nil {
					r.stats.Services = []api.ServiceStats{{
						Listen: "tcp://192.0.2.1:80", Counters: *c,
						Servers: []api.ServerStats{{Address: "10.0.0.1:80", Counters: *c}},
					}}
				}
				return r
			}
			s := topChanges(reading(test.old, test.before), reading(now, &test.now))
			for _, key := range []topKey{{"tcp://192.0.2.1:80", ""}, {"tcp://192.0.2.1:80", "10.0.0.1:80"}} {
				if diff := cmp.Diff(test.want, s.of(key), cmp.AllowUnexported(topRates{}), cmpopts.EquateNaNs()); diff != "" {
					t.Errorf("%v (-want +got)\n%s", key, diff)
				}
			}
		})
	}
}

// TestTopDrops: drops add up over their reasons, as far as rates are known.
func TestTopDrops(t *testing.T) {
	at := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	reading := func(seconds int, counts ...uint64) topReading {
		r := topReading{at: at.Add(time.Duration(seconds) * time.Second)}
		for i, name := range []string{"a", "b", "c"} {
			r.stats.PacketEvents = append(r.stats.PacketEvents, api.PacketEvent{
				Name: name, Kind: []string{"drop", "drop", "pass"}[i], Count: counts[i],
			})
		}
		return r
	}
	for _, test := range []struct {
		name        string
		before, now topReading
		all         float64
		reason      string
		most        float64
	}{
		{"largest_reason", reading(0, 1, 1, 1), reading(2, 3, 9, 1000), 5, "b", 4},
		{"none", reading(0, 1, 1, 1), reading(2, 1, 1, 1000), 0, "", 0},
		{"one_went_back", reading(0, 1, 5, 1), reading(2, 3, 1, 1), 1, "a", 1},
		{"first_reading", topReading{}, reading(2, 3, 9, 1), unknown, "", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			all, reason, most := topChanges(test.before, test.now).drops()
			if diff := cmp.Diff([]any{test.all, test.reason, test.most}, []any{all, reason, most}, cmpopts.EquateNaNs()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestTopOrder: rows sort by numbers or naturally, what is not known comes last,
// and equal ones stay as they were.
func TestTopOrder(t *testing.T) {
	columns := []topColumn{{head: "NAME"}, {head: "N", number: true}}
	row := func(name string, n float64) topRow {
		return topRow{key: name, cells: []topCell{textCell(name), numberCell(n)}}
	}
	rows := []topRow{row("web10", 3), row("web2", unknown), row("10.0.0.9:80", 20), row("10.0.0.10:80", 3), row("web", 0)}
	for _, test := range []struct {
		name    string
		by      int
		reverse bool
		want    string
	}{
		{"natural", 0, false, "10.0.0.9:80 10.0.0.10:80 web web2 web10"},
		{"natural_reversed", 0, true, "web10 web2 web 10.0.0.10:80 10.0.0.9:80"},
		{"greatest_first", 1, false, "10.0.0.9:80 web10 10.0.0.10:80 web web2"},
		{"smallest_first", 1, true, "web web10 10.0.0.10:80 10.0.0.9:80 web2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			sorted := append([]topRow{}, rows...)
			sortRows(sorted, columns, test.by, test.reverse)
			var got []string
			for _, r := range sorted {
				got = append(got, r.key)
			}
			if diff := cmp.Diff(test.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestTopFilter: what a filter keeps of each view.
func TestTopFilter(t *testing.T) {
	for _, test := range []struct{ open, filter, want string }{
		{"", "web", "tcp://192.0.2.10:80"},
		{"", "WEB", "tcp://192.0.2.10:80"},
		{"", "udp://", "udp://[2001:db8:aaaa:bbbb:cccc:dddd:eeee:10]:53 udp://192.0.2.10:53"},
		{"", "10.0.0.53", "udp://192.0.2.10:53"}, // by its server
		{"", "no such", ""},
		{"n Down Down Down Down Enter", "down", "10.0.0.13:8080"},
		{"n Down Down Down Down Enter", "0.0.1", "10.0.0.11:8080 10.0.0.12:8080 10.0.0.13:8080"},
		{"n Down Down Down Down C", "198.51.100.3", "tcp 198.51.100.3:40003 192.0.2.10:80 tcp 198.51.100.3:40018 192.0.2.10:80"},
		{"n Down Down Down Down C", "198.51.100.14/31", "tcp 198.51.100.14:40014 192.0.2.10:80 tcp 198.51.100.14:40029 192.0.2.10:80"},
		{"n Down Down Down Down C", "40007", "tcp 198.51.100.7:40007 192.0.2.10:80"},
		{"D", "full of", "no-room"},
		{"h", "prefix", "/"},
	} {
		t.Run(test.open+"/"+test.filter, func(t *testing.T) {
			s := newTopScreen(t, 80, 24)
			s.press(test.open)
			s.loop.model.view().filter = test.filter
			rows, _ := s.loop.model.table()
			var got []string
			for _, r := range rows {
				got = append(got, r.key)
			}
			if diff := cmp.Diff(test.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestTopStale: an error leaves what was read, and the next reading takes it
// away; rates are then of the whole time between.
func TestTopStale(t *testing.T) {
	s := newTopScreen(t, 80, 24)
	fresh := s.text()
	s.daemon.err = errors.New("ask shuntd on /run/shunt/shuntd.sock: connection reset\x1b[2Jby peer")
	s.tick()
	s.now = s.now.Add(3 * time.Second)
	if got, want := s.line("STALE"), "STALE for 3s: ask shuntd on /run/shunt/shuntd.sock: connection reset [2Jby peer"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	same := func(text string) []string {
		lines := strings.Split(text, "\n")
		return append(lines[:3:3], lines[4:]...)
	}
	if diff := cmp.Diff(same(fresh), same(s.text())); diff != "" {
		t.Errorf("what was shown (-before +stale)\n%s", diff)
	}
	s.daemon.err = nil
	s.tick()
	if got, want := s.line("drops"), "drops 1.2k/s (no-room 1.2k/s)  drift 3 repaired  1 foreign"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	s.now = s.now.Add(time.Minute)
	if got, want := s.line("STALE"), "STALE for 1m0s: waiting for shuntd's answer"; got != want {
		t.Errorf("no answer: got %q, want %q", got, want)
	}
}

// TestTopAlerts: what deserves a look is said, the worst first.
func TestTopAlerts(t *testing.T) {
	for _, test := range []struct {
		name string
		edit func(*topReading)
		want string
	}{
		{"faults", func(r *topReading) { r.status.Faults = 2 }, "faults 2: a bug, see D  drops"},
		{"not_ready", func(r *topReading) { r.status.Ready, r.status.NotReady = false, "draining" }, "not ready: draining  drops"},
		{"detached", func(r *topReading) { r.status.Interfaces = nil }, "no interface  drops"},
		{"attached_to_none", func(r *topReading) { r.status.Interfaces, r.status.Dataplane = nil, "ipvs" }, "drops"},
		{"interface_gone", func(r *topReading) { r.status.Interfaces[0].Mode = "gone" }, "eth0 is gone  drops"},
		{"drift", func(r *topReading) { r.status.Drift.Pending = make([]api.PendingRepair, 2) }, "drift: 2 not repaired  drops"},
		{"guards", func(r *topReading) { r.status.Guarding = []string{"tcp://192.0.2.1:80", "tcp://192.0.2.2:80"} }, "2 guards on  drops"},
		{"counters_began_anew", func(r *topReading) { r.stats.PacketEvents = nil }, "drops -/s"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newTopScreen(t, 200, 24)
			s.daemon.edit = test.edit
			s.tick()
			line := strings.Split(s.text(), "\n")[3]
			if !strings.HasPrefix(line, test.want) {
				t.Errorf("got %q, want %q", line, test.want)
			}
		})
	}
}

// TestShortNumber: four characters at most, and none of it wrong.
func TestShortNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.01: "<0.1", 0.05: "0.1", 0.25: "0.2", 5: "5", 9.94: "9.9", 9.96: "10", 12.4: "12", 999.4: "999", 999.6: "1.0k",
		1000: "1.0k", 1234: "1.2k", 9949: "9.9k", 9960: "10k", 999499: "999k", 999600: "1.0M", 2.5e9: "2.5G", 1e12: "1.0T",
		1.8446744073709552e19: "18E",
	} {
		if got := shortNumber(v); got != want {
			t.Errorf("%v: got %q, want %q", v, got, want)
		}
	}
	if got := shortNumber(math.NaN()); got != "-" {
		t.Errorf("not known: got %q", got)
	}
}

// TestShorten: both ends of what is too long are kept.
func TestShorten(t *testing.T) {
	for _, test := range []struct {
		text string
		room int
		want string
	}{
		{"10.0.0.1:80", 11, "10.0.0.1:80"},
		{"udp://[2001:db8:1:2:3:4:5:6]:53", 17, "udp://[2…:5:6]:53"},
		{"abcdef", 3, "a…f"},
		{"abcdef", 1, "…"},
		{"abcdef", 0, ""},
		{"größer", 4, "g…er"},
	} {
		if got := shorten(test.text, test.room); got != test.want {
			t.Errorf("%q in %d: got %q, want %q", test.text, test.room, got, test.want)
		}
	}
}
