package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gdamore/tcell/v2"

	"github.com/shunt-lb/shunt/director/api"
)

// topSourceFunc is a function as a source.
type topSourceFunc func(context.Context, *api.ConnectionQuery) (topReading, error)

func (f topSourceFunc) read(ctx context.Context, list *api.ConnectionQuery) (topReading, error) {
	return f(ctx, list)
}

// runTop runs the loop on a simulated screen as the command does, and returns
// what came of it and whether the screen was closed.
func runTop(ctx context.Context, screen tcell.SimulationScreen, source topSource) (panicked any, closed bool, err error) {
	loop := &topLoop{screen: screen, source: source, model: newTopModel("lb1", minWatch)}
	defer func() {
		panicked = recover()
		_, width, _ := screen.GetContents()
		closed = width == 0
	}()
	return nil, false, loop.run(ctx)
}

// TestTopEnds: the terminal is put back however it ends.
func TestTopEnds(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(tcell.SimulationScreen, context.CancelFunc) topSourceFunc
		want    string // of the error or panic
	}{
		{"key", func(screen tcell.SimulationScreen, _ context.CancelFunc) topSourceFunc {
			return func(context.Context, *api.ConnectionQuery) (topReading, error) {
				screen.InjectKey(tcell.KeyCtrlC, 0, tcell.ModCtrl)
				return topReading{}, nil
			}
		}, ""},
		{"signal_while_asking", func(_ tcell.SimulationScreen, end context.CancelFunc) topSourceFunc {
			return func(ctx context.Context, _ *api.ConnectionQuery) (topReading, error) {
				end()
				<-ctx.Done()
				return topReading{}, ctx.Err()
			}
		}, ""},
		{"lost_terminal", func(screen tcell.SimulationScreen, _ context.CancelFunc) topSourceFunc {
			return func(context.Context, *api.ConnectionQuery) (topReading, error) {
				return topReading{}, screen.PostEvent(tcell.NewEventError(errors.New("input/output error")))
			}
		}, "read the terminal: input/output error"},
		{"panic", func(tcell.SimulationScreen, context.CancelFunc) topSourceFunc {
			return func(context.Context, *api.ConnectionQuery) (topReading, error) { panic("out of cheese") }
		}, "out of cheese"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, end := context.WithCancel(t.Context())
			defer end()
			screen := tcell.NewSimulationScreen("UTF-8")
			panicked, closed, err := runTop(ctx, screen, test.prepare(screen, end))
			got := ""
			switch {
			case panicked != nil:
				got = fmt.Sprint(panicked)
			case err != nil:
				got = err.Error()
			}
			if first, _, _ := strings.Cut(got, "\n"); first != test.want || !closed {
				t.Errorf("ended with %q, screen closed: %t; want %q", got, closed, test.want)
			}
		})
	}
}

// TestTopAsksAgain: what is opened while a reading is on its way is asked for
// when that has come.
func TestTopAsksAgain(t *testing.T) {
	s := newTopScreen(t, 80, 24)
	s.loop.ask(t.Context())
	s.screen.InjectKey(tcell.KeyRune, 'C', tcell.ModNone)
	if _, err := s.loop.event(t.Context(), s.screen.PollEvent()); err != nil {
		t.Fatal(err)
	}
	if got := s.line(" asking"); got != "asking for connections" {
		t.Errorf("before: %q", got)
	}
	s.answer()
	if got := s.selected(); got != "tcp 198.51.100.0:40000 192.0.2.10:80" {
		t.Errorf("after: %q is selected", got)
	}
	if n := len(s.daemon.asked); n != 1 {
		t.Errorf("asked for connections %d times", n)
	}
}

// TestTopLists: a list that could not be read says so in its place, and one that
// is not whole says that.
func TestTopLists(t *testing.T) {
	s := newTopScreen(t, 80, 24)
	s.daemon.edit = func(r *topReading) {
		if r.list != nil {
			r.list.connections, r.list.err = nil, errors.New("this role may not")
		}
	}
	s.press("C")
	if got := s.line(" this"); got != "this role may not" {
		t.Errorf("error: %q", got)
	}
	s.daemon.edit = func(r *topReading) {
		if r.list != nil {
			r.list.connections = make([]api.Connection, topConnections)
		}
	}
	s.tick()
	if got := s.line("web"); got != "web > connections  the first 500 found  by CLIENT" {
		t.Errorf("too many: %q", got)
	}
	s.daemon.edit = func(r *topReading) {
		if r.list != nil {
			r.list.connections = nil
		}
	}
	s.tick()
	if got := s.line(" no"); got != "no connections" {
		t.Errorf("none: %q", got)
	}
}

// TestTopTooSmall: a screen without room says so, and works again with more.
func TestTopTooSmall(t *testing.T) {
	s := newTopScreen(t, 80, 24)
	whole := s.text()
	for _, test := range []struct {
		width, height int
		want          string
	}{{19, 24, "too small\n"}, {80, 5, "too small\n"}, {3, 1, "to…\n"}, {1, 1, "…\n"}, {0, 0, ""}} {
		s.screen.SetSize(test.width, test.height)
		if got := s.text(); !strings.HasPrefix(got, test.want) {
			t.Errorf("%d x %d: %q", test.width, test.height, got)
		}
		s.press("Down PgDn Home")
	}
	s.screen.SetSize(80, 24)
	if s.text() != whole {
		t.Errorf("it does not come back:\n%s", s.text())
	}
}

// TestTopLooks: without colours nothing is coloured, and what is bad can be told
// from what is not; with them it is red.
func TestTopLooks(t *testing.T) {
	for _, colored := range []palette{false, true} {
		s := newTopScreen(t, 80, 24)
		s.loop.palette = colored
		s.press("n End Enter") // a server is down, in the fourth row
		s.now = s.now.Add(time.Second)
		s.text()
		_, style, _ := s.screen.Get(0, 9)
		fg, bg, attributes := style.Decompose()
		if attributes&tcell.AttrBold == 0 || bg != tcell.ColorDefault || (fg != tcell.ColorDefault) != bool(colored) {
			t.Errorf("colours %t: the server that is down is %v on %v, %v", colored, fg, bg, attributes)
		}
		if got, _, _ := s.screen.Get(8, 9); got != "3" {
			t.Errorf("that is another row: %q", got)
		}
	}
}
