package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gdamore/tcell/v2"
	"github.com/google/go-cmp/cmp"
)

// topScreen is the loop on a simulated screen, a step at a time.
type topScreen struct {
	t      *testing.T
	loop   *topLoop
	screen tcell.SimulationScreen
	daemon *fakeTop
	now    time.Time
}

// newTopScreen has read the daemon twice.
func newTopScreen(t *testing.T, width, height int) *topScreen {
	t.Helper()
	screen := tcell.NewSimulationScreen("UTF-8")
	if err := screen.Init(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(screen.Fini)
	screen.SetSize(width, height)
	s := &topScreen{t: t, screen: screen, daemon: &fakeTop{}}
	s.loop = &topLoop{
		screen: screen, source: s.daemon, model: newTopModel("lb1.example.org", time.Second),
		answers: make(chan topAnswer, 1),
	}
	s.tick()
	s.tick()
	return s
}

// tick reads the daemon a second later.
func (s *topScreen) tick() {
	s.loop.ask(s.t.Context())
	s.answer()
	s.now = s.loop.model.last.at
}

// answer waits for the reading that is on its way, if there is one.
func (s *topScreen) answer() {
	for s.loop.busy {
		s.loop.take(s.t.Context(), <-s.loop.answers)
	}
}

// keyNames are the keys that are no letters.
var keyNames = map[string]tcell.Key{
	"Enter": tcell.KeyEnter, "Esc": tcell.KeyEscape, "Up": tcell.KeyUp, "Down": tcell.KeyDown,
	"Left": tcell.KeyLeft, "Right": tcell.KeyRight, "PgUp": tcell.KeyPgUp, "PgDn": tcell.KeyPgDn,
	"Home": tcell.KeyHome, "End": tcell.KeyEnd, "Backspace": tcell.KeyBackspace2, "^C": tcell.KeyCtrlC,
	"^U": tcell.KeyCtrlU, "^L": tcell.KeyCtrlL,
}

// press types keys, which are blanks apart: names or letters. It reports
// whether the loop would end.
func (s *topScreen) press(keys string) (done bool) {
	s.t.Helper()
	for _, key := range strings.Fields(keys) {
		if named, ok := keyNames[key]; ok {
			s.screen.InjectKey(named, 0, tcell.ModNone)
		} else {
			s.screen.InjectKey(tcell.KeyRune, []rune(strings.Replace(key, "Space", " ", 1))[0], tcell.ModNone)
		}
		done, err := s.loop.event(s.t.Context(), s.screen.PollEvent())
		if err != nil {
			s.t.Fatal(err)
		}
		if done {
			return true
		}
		s.answer()
		s.text()
	}
	return false
}

// text draws and returns what is on the screen.
func (s *topScreen) text() string {
	canvas := topCanvas{screen: s.screen, palette: s.loop.palette}
	canvas.draw(s.loop.model, s.now)
	cells, width, height := s.screen.GetContents()
	var text strings.Builder
	for y := range height {
		line := ""
		for _, cell := range cells[y*width : (y+1)*width] {
			line += string(cell.Runes)
		}
		text.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return text.String()
}

// line returns the line of the screen that begins with the text; empty if there
// is none.
func (s *topScreen) line(begin string) string {
	for line := range strings.Lines(s.text()) {
		if strings.HasPrefix(line, begin) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// TestTopScreens compares whole screens with those in testdata/top, which
// -update writes.
func TestTopScreens(t *testing.T) {
	for _, test := range []struct{ name, keys string }{
		{"services", "Down"},
		{"servers", "/ w e b Enter Enter Down"},
		{"connections", "/ w e b Enter C"},
		{"connections-ipv6", "/ d n s 6 Enter Enter Enter"},
		{"drops", "D"},
		{"help", "h"},
		{"stale", ""},
		{"filter", "/ x"},
		{"paused", "n r Space"},
	} {
		for _, size := range [][2]int{{80, 24}, {40, 10}, {200, 60}} {
			name := fmt.Sprintf("%s-%dx%d", test.name, size[0], size[1])
			t.Run(name, func(t *testing.T) {
				s := newTopScreen(t, size[0], size[1])
				s.press(test.keys)
				if test.name == "stale" {
					s.daemon.err = errors.New("shuntd is not running: nothing answers on /run/shunt/shuntd.sock")
					s.tick()
					s.now = s.now.Add(12 * time.Second)
				}
				golden(t, filepath.Join("testdata", "top", name+".txt"), s.text())
			})
		}
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got)\n%s", file, diff)
	}
}
