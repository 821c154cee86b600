package labtest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director/api"
)

// follower is shunt events --follow.
type follower struct {
	out, err *logText
	ended    chan struct{}
	end      func() result
}

func (d *daemon) follow(t *testing.T, args ...string) *follower {
	t.Helper()
	args = append([]string{"--socket", d.socket, "events", "--follow"}, args...)
	cmd := d.ns.Command(context.Background(), filepath.Join(binaries, "shunt"), args...)
	f := &follower{out: newLogText(), err: newLogText(), ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = f.out, f.err
	ok(t, cmd.Start())
	go func() {
		_ = cmd.Wait() // how it ended is in its ProcessState
		close(f.ended)
	}()
	f.end = func() result {
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended
		<-f.ended
		return result{code: cmd.ProcessState.ExitCode()}
	}
	t.Cleanup(func() {
		f.end()
		if t.Failed() {
			t.Logf("the follower printed:\n%s%s", f.out, f.err)
		}
	})
	return f
}

func waitText(t *testing.T, l *logText, text string) {
	t.Helper()
	await(t, fmt.Sprintf("%q is printed", text), func() bool { return strings.Contains(l.String(), text) })
}

// TestFollowedEventsSurviveRestarts kills and restarts the daemon under a
// follower: it shows everything that came after, in order and once.
func TestFollowedEventsSurviveRestarts(t *testing.T) {
	t.Parallel()
	p := startPair(t, nat)
	f := p.d.follow(t, "-o", "json", "--since", "0")
	var want []string
	edit := func(weight int) {
		t.Helper()
		p.d.do(t, fmt.Sprintf("server edit web %s --weight %d", p.servers[0], weight))
		want = append(want, fmt.Sprintf("revision %d ", p.d.head(t)))
	}
	edit(2)
	waitText(t, f.out, want[0])
	for i, end := range []func(){p.d.kill, func() { p.d.stop(t) }} {
		end()
		await(t, "the follower says that the daemon is away", func() bool { return strings.Count(f.err.String(), "the daemon is away") == i+1 })
		p.d.start(t)
		edit(10 + i) // while the follower may be away still
		waitText(t, f.out, want[len(want)-1])
	}
	p.requests(t, 2)
	if code := f.end().code; code != 0 {
		t.Errorf("ended by ^C it exits with %d: %s", code, f.err)
	}
	last, starts := uint64(0), 0
	for line := range strings.Lines(f.out.String()) {
		var e api.Event
		ok(t, json.Unmarshal([]byte(line), &e))
		if e.ID <= last {
			t.Errorf("event %d after %d", e.ID, last)
		}
		last = e.ID
		switch e.Name {
		case "started":
			starts++
		case "change":
			if len(want) > 0 && strings.HasPrefix(e.Message, want[0]) {
				want = want[1:]
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("changes that were not shown in their order: %q\n%s", want, f.out)
	}
	if starts != 3 { // the first one, too: --since 0
		t.Errorf("%d starts were shown, want 3\n%s", starts, f.out)
	}
}

// A reader of the state who was away during a restart goes on with what came
// after the revision it has seen.
func TestStateStreamResumes(t *testing.T) {
	t.Parallel()
	p := startPair(t, nat)
	client := p.d.client(t)
	seen := uint64(0)
	for message, err := range client.FollowState(t.Context(), 0) {
		ok(t, err)
		if message.Configuration == nil || len(message.Configuration.Configuration.Services) != 1 {
			t.Fatalf("it begins with %+v", message)
		}
		seen = message.Configuration.Number
		break
	}
	if head := p.d.head(t); seen != head {
		t.Fatalf("it begins with revision %d, want the newest, %d", seen, head)
	}
	p.d.do(t, "server edit web "+p.servers[0]+" --weight 7")
	p.d.kill()
	p.d.start(t)
	p.d.do(t, "server edit web "+p.servers[0]+" --weight 8\nservice remove web --yes")
	next := seen
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var texts []string
	for message, err := range client.FollowState(ctx, seen) {
		ok(t, err)
		if message.Change == nil {
			t.Fatalf("it goes on with %+v", message)
		}
		if next++; message.Change.Revision.Number != next {
			t.Fatalf("revision %d came, want %d", message.Change.Revision.Number, next)
		}
		for _, step := range message.Change.Steps {
			texts = append(texts, step.Text)
		}
		if next == seen+3 {
			break
		}
	}
	want := []string{"weight 1 → 7", "weight 7 → 8", "remove service tcp://192.0.2.10:80"}
	if len(texts) != 3 {
		t.Fatalf("steps %q", texts)
	}
	for i := range want {
		if !strings.Contains(texts[i], want[i]) {
			t.Errorf("step %q, want %q", texts[i], want[i])
		}
	}
}
