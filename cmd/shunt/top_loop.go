package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/gdamore/tcell/v2"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director/api"
)

// topLoop ties keys, readings and the screen together.
type topLoop struct {
	screen  tcell.Screen
	source  topSource
	model   *topModel
	palette palette

	asking  sync.WaitGroup
	answers chan topAnswer // holds one: no more than one reading is on its way
	busy    bool           // one is
	again   bool           // what it asks for is not what is on the screen any more
}

// topAnswer is what came of a reading.
type topAnswer struct {
	reading topReading
	err     error
	panic   any // with its stack; nil if there was none
}

// run shows the model until the user has seen enough or the context ends. The
// terminal is put back however it ends, a panic included.
func (l *topLoop) run(ctx context.Context) error {
	if err := l.screen.Init(); err != nil {
		return fmt.Errorf("open the terminal: %w", err)
	}
	l.screen.RegisterRuneFallback('…', "~")
	l.answers = make(chan topAnswer, 1)
	events := make(chan tcell.Event)
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		l.screen.Fini()
		for range events { // closed when the screen is
		}
		l.asking.Wait()
	}()
	go l.screen.ChannelEvents(events, nil)
	return l.loop(ctx, events)
}

func (l *topLoop) loop(ctx context.Context, events <-chan tcell.Event) error {
	canvas := topCanvas{screen: l.screen, palette: l.palette}
	every := l.model.interval
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		if every != l.model.interval {
			every = l.model.interval
			ticker.Reset(every)
		}
		canvas.draw(l.model, time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			l.ask(ctx)
		case answer := <-l.answers:
			l.take(ctx, answer)
		case event, ok := <-events:
			if !ok {
				return nil
			}
			if done, err := l.event(ctx, event); done || err != nil {
				return err
			}
		}
	}
}

// event handles a key or a change of the screen.
func (l *topLoop) event(ctx context.Context, event tcell.Event) (done bool, err error) {
	switch e := event.(type) {
	case *tcell.EventResize:
		l.screen.Sync()
	case *tcell.EventError:
		return true, fmt.Errorf("read the terminal: %w", e)
	case *tcell.EventKey:
		switch l.model.key(e) {
		case topQuit:
			return true, nil
		case topRedraw:
			l.screen.Sync()
		case topSuspend:
			return false, l.suspend()
		case topAsk:
			l.again = l.busy
			l.ask(ctx)
		}
	}
	return false, nil
}

// ask begins a reading unless one is on its way.
func (l *topLoop) ask(ctx context.Context) {
	if l.busy {
		return
	}
	l.busy = true
	query := l.model.view().query()
	l.asking.Go(func() { l.answers <- l.read(ctx, query) })
}

// read reads. What panics must do so in the loop, where the terminal is put back
// before.
func (l *topLoop) read(ctx context.Context, query *api.ConnectionQuery) (answer topAnswer) {
	defer func() {
		if p := recover(); p != nil {
			answer.panic = fmt.Sprintf("%v\n\n%s", p, debug.Stack())
		}
	}()
	answer.reading, answer.err = l.source.read(ctx, query)
	return answer
}

// take shows what was read.
func (l *topLoop) take(ctx context.Context, answer topAnswer) {
	l.busy = false
	if answer.panic != nil {
		panic(answer.panic)
	}
	if answer.err != nil {
		l.model.fail(answer.err)
	} else {
		l.model.accept(answer.reading)
	}
	if l.again {
		l.again = false
		l.ask(ctx)
	}
}

// suspend gives the terminal back to the shell until it brings us to the front
// again. Without a shell that could, the kernel does not stop us (POSIX.1-2024
// §2.4.3: orphaned process groups).
func (l *topLoop) suspend() error {
	if err := l.screen.Suspend(); err != nil {
		return fmt.Errorf("give the terminal back: %w", err)
	}
	if err := stopHere(); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	if err := l.screen.Resume(); err != nil {
		return fmt.Errorf("take the terminal again: %w", err)
	}
	l.screen.Sync()
	return nil
}

// stopHere stops the process before it returns. A signal to the process instead
// of to this thread could be taken by another one, after that.
func stopHere() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGTSTP)
}
