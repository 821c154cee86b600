package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/api"
)

// selected returns the key of the selected row; empty if there is none.
func (s *topScreen) selected() string {
	rows, i := s.loop.model.table()
	if i < 0 {
		return ""
	}
	return rows[i].key
}

// many makes the daemon have n services, of which the last is the busiest.
func (s *topScreen) many(n int) {
	s.daemon.edit = func(r *topReading) {
		r.services, r.stats.Services = nil, nil
		for i := range n {
			listen := fmt.Sprintf("tcp://192.0.2.1:%d", i+1)
			r.services = append(r.services, api.Service{Listen: listen})
			packets := uint64(i) * s.daemon.seconds
			r.stats.Services = append(r.stats.Services, api.ServiceStats{
				Listen: listen, Counters: api.Counters{In: api.Traffic{Packets: packets}},
			})
		}
	}
	s.tick()
	s.tick()
}

// TestTopSelection: a row that was selected stays so while it moves; until one
// is, the first row is selected.
func TestTopSelection(t *testing.T) {
	s := newTopScreen(t, 80, 24)
	s.many(100)
	check := func(what, want string, first int) {
		t.Helper()
		s.text()
		if got := s.selected(); got != "tcp://192.0.2.1:"+want {
			t.Errorf("%s: %s is selected, want port %s", what, got, want)
		}
		if got := s.loop.model.view().offset; got != first {
			t.Errorf("%s: scrolled to %d, want %d", what, got, first)
		}
	}
	check("the busiest", "100", 0)
	s.press("r")
	check("first after a move", "1", 0)
	s.press("Down Down r")
	check("moved to the other end", "3", 82)
	s.press("PgUp")
	check("page up", "19", 81)
	s.press("End")
	check("end", "1", 84)
	s.press("Down")
	check("beyond the end", "1", 84)
	s.press("PgDn Up")
	check("up", "2", 84)
	s.press("Home")
	check("home", "100", 0)
	s.press("r")
	check("home sticks to the first", "1", 0)
	s.press("Down PgDn PgDn")
	check("page down", "34", 18)
	s.screen.SetSize(40, 10)
	check("smaller", "34", 29)
	s.screen.SetSize(80, 24)
	s.press("End")
	s.many(10)
	check("its row went", "10", 0)
	s.many(0)
	s.text()
	if got := s.selected(); got != "" {
		t.Errorf("no services: %s is selected", got)
	}
	s.press("Down Up PgDn End Enter C") // must do nothing
	if got := s.line("services"); got != "services  by InPPS reversed" {
		t.Errorf("no services: %q", got)
	}
}

// TestTopWay: keys lead into views and back to where one came from.
func TestTopWay(t *testing.T) {
	s := newTopScreen(t, 80, 24)
	for _, step := range []struct{ keys, path, selected string }{
		{"", "services", "tcp://192.0.2.10:80"},
		{"Esc Left", "services", "tcp://192.0.2.10:80"},
		{"n End", "services", "tcp://192.0.2.10:80"},
		{"Enter", "web > servers", "10.0.0.9:8080"},
		{"Down Down Right", "web > 10.0.0.12:8080 > connections", "tcp 198.51.100.0:40000 192.0.2.10:80"},
		{"Enter Right C", "web > 10.0.0.12:8080 > connections", "tcp 198.51.100.0:40000 192.0.2.10:80"},
		{"D", "packet events", "not-ours"},
		{"D Enter C", "packet events", "not-ours"},
		{"?", "help", "Up Down PgUp PgDn End"},
		{"h", "packet events", "not-ours"},
		{"Left", "web > 10.0.0.12:8080 > connections", "tcp 198.51.100.0:40000 192.0.2.10:80"},
		{"Esc", "web > servers", "10.0.0.12:8080"},
		{"C", "web > connections", "tcp 198.51.100.0:40000 192.0.2.10:80"},
		{"Left Left", "services", "tcp://192.0.2.10:80"},
		{"Home", "services", "udp://192.0.2.10:53"},
	} {
		s.press(step.keys)
		if got := strings.Split(s.line(step.path), "  ")[0]; got != step.path {
			t.Fatalf("%s: no %q on the screen:\n%s", step.keys, step.path, s.text())
		}
		if got := s.selected(); got != step.selected {
			t.Fatalf("%s: %q is selected, want %q", step.keys, got, step.selected)
		}
	}
	want := []api.ConnectionQuery{
		{Service: "tcp://192.0.2.10:80", Server: "10.0.0.12:8080", Limit: topConnections}, // on opening
		{Service: "tcp://192.0.2.10:80", Server: "10.0.0.12:8080", Limit: topConnections}, // on coming back
		{Service: "tcp://192.0.2.10:80", Limit: topConnections},
	}
	if diff := cmp.Diff(want, s.daemon.asked); diff != "" {
		t.Errorf("asked for connections (-want +got)\n%s", diff)
	}
}

// TestTopSortKeys: < and > go through all columns, letters choose one, and r
// turns round.
func TestTopSortKeys(t *testing.T) {
	s := newTopScreen(t, 80, 24)
	var seen []string
	for range topColumns[viewServices] {
		s.press(">")
		seen = append(seen, s.line("services"))
	}
	for _, c := range topColumns[viewServices] {
		if want := "services  by " + c.head; !slices.Contains(seen, want) {
			t.Errorf("> did not come to %q", want)
		}
		s.press(string(c.letter))
		if got := s.line("services"); got != "services  by "+c.head {
			t.Errorf("%c: %q", c.letter, got)
		}
	}
	s.press("n r")
	if got := s.line("services"); got != "services  by SERVICE reversed" {
		t.Errorf("r: %q", got)
	}
	s.press("<") // from the first to the last, and not reversed
	if got := s.line("services"); got != "services  by Outb/s" {
		t.Errorf("<: %q", got)
	}
	s.press("z") // no column's
	if got := s.line("services"); got != "services  by Outb/s" {
		t.Errorf("z: %q", got)
	}
}

// TestTopLetters: no letter stands for two things, in any view.
func TestTopLetters(t *testing.T) {
	for kind, columns := range topColumns {
		used := "qhrCD?/<>+-=_ "
		for _, c := range columns {
			if c.letter == 0 && kind != viewHelp || c.letter != 0 && strings.ContainsRune(used, c.letter) {
				t.Errorf("column %s of view %d: letter %q is missing or taken", c.head, kind, c.letter)
			}
			used += string(c.letter)
		}
	}
}

// TestTopTyping: the filter is typed, corrected, kept and taken away; letters
// mean nothing else meanwhile.
func TestTopTyping(t *testing.T) {
	s := newTopScreen(t, 80, 24)
	for _, step := range []struct{ keys, path string }{
		{"/ q D", "services  0 match /qD  by InPPS"},
		{"Backspace Backspace Backspace", "services  by InPPS"},
		{"w e x ^U d n s", "services  2 match /dns  by InPPS"},
		{"Down", "services  2 match /dns  by InPPS"},
		{"Enter n", "services  2 match /dns  by SERVICE"},
		{"/ 6 Enter", "services  1 match /dns6  by SERVICE"},
		{"Esc", "services  by SERVICE"},
		{"/ w Esc", "services  by SERVICE"},
	} {
		if s.press(step.keys) {
			t.Fatalf("%s: ended", step.keys)
		}
		if got := s.line("services"); got != step.path {
			t.Fatalf("%s: got %q, want %q", step.keys, got, step.path)
		}
	}
	if got := s.selected(); got != "tcp://192.0.2.10:80" {
		t.Errorf("without the filter %s is selected, not what was with /w", got)
	}
	s.press("Home / d n s Enter Enter C / 2 0 0 1 : : / 1 6 Enter")
	want := api.ConnectionQuery{Service: "udp://192.0.2.10:53", Client: "2001::/16", Limit: topConnections}
	if diff := cmp.Diff(want, s.daemon.asked[len(s.daemon.asked)-1]); diff != "" {
		t.Errorf("asked for connections (-want +got)\n%s", diff)
	}
}

// TestTopLongFilter: the end of what is typed is on the screen.
func TestTopLongFilter(t *testing.T) {
	s := newTopScreen(t, 40, 10)
	s.press("/ " + strings.Repeat("x ", 60) + "y z")
	if got := s.line("filter:"); !strings.HasSuffix(got, "xyz_") || len([]rune(got)) != 40 {
		t.Errorf("got %q", got)
	}
}

// TestTopPause: what is shown stays until the end of the pause; the newest is
// shown at once then.
func TestTopPause(t *testing.T) {
	s := newTopScreen(t, 80, 24)
	s.press("Space")
	before := s.text()
	s.tick()
	s.tick()
	if diff := cmp.Diff(before, s.text()); diff != "" {
		t.Errorf("paused (-before +after)\n%s", diff)
	}
	s.press("n End C") // not read before: shown in spite of the pause
	if got := s.selected(); got != "tcp 198.51.100.0:40000 192.0.2.10:80" {
		t.Errorf("connections opened while paused: %q is selected", got)
	}
	s.press("Esc Space")
	if got := s.line("shunt top"); !strings.Contains(got, "14:03:25") {
		t.Errorf("the pause is over: %q", got)
	}
}

// TestTopIntervals: + and - change how often the daemon is read.
func TestTopIntervals(t *testing.T) {
	s := newTopScreen(t, 80, 24)
	for _, step := range []struct {
		keys string
		want time.Duration
	}{
		{"+", 2 * time.Second},
		{"+ + + + + +", time.Minute},
		{strings.Repeat("- ", 20), minWatch},
		{"=", 200 * time.Millisecond},
	} {
		s.press(step.keys)
		if got := s.loop.model.interval; got != step.want {
			t.Errorf("%s: %s, want %s", step.keys, got, step.want)
		}
	}
	s.loop.model.interval = 3 * time.Second
	if s.press("-"); s.loop.model.interval != 2*time.Second {
		t.Errorf("from 3s: %s, want 2s", s.loop.model.interval)
	}
}

// TestTopGone: a service that is removed while one looks at it says so.
func TestTopGone(t *testing.T) {
	s := newTopScreen(t, 80, 24)
	s.press("n End Enter")
	s.many(3)
	if got := s.line(" tcp"); got != "tcp://192.0.2.10:80 is gone" {
		t.Errorf("got %q in\n%s", got, s.text())
	}
}
