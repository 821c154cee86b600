package offer

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/health"
)

const (
	stateUp   = "UP"
	stateDown = "DOWN"
)

const (
	// commandTimeout is how long a command may take.
	commandTimeout = 30 * time.Second
	// maxNotices is how many notices of a service wait for its commands.
	maxNotices = 256
)

// notice is one change to tell of.
type notice struct {
	service director.ServiceKey
	server  netip.AddrPort // zero: the quorum of the service
	command []string       // nil: none
	fifo    string         // "": none
	line    string         // for it
	why     string
}

// notice makes a notice.
func (t *telling) notice(server netip.AddrPort, state string, command []string, why string) notice {
	return notice{
		service: t.service.Key, server: server, command: command, fifo: t.service.Health.Notify.FIFO,
		line: fifoLine(t.service.Key, server, state), why: why,
	}
}

// Notified counts what changes were told of since the start.
type Notified struct {
	Commands, CommandsFailed uint64 // that ran: well, or not
	CommandsSkipped          uint64 // that did not, as too many of the service waited
	Lines, LinesLost         uint64 // written to pipes, or not
}

// count adds to one of two counts.
func (n *notifier) count(done, failed *uint64, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		done = failed
	}
	*done++
}

// notifier runs commands and writes to named pipes, in order for each service. A
// command that takes its time holds up those of its service alone.
type notifier struct {
	opts  Options
	fifos fifos

	mu     sync.Mutex
	queues map[director.ServiceKey][]notice // of those whose commands run
	counts Notified
	lost   map[string]bool // ways that notices are lost by, since the last that was not
	work   sync.WaitGroup
}

func newNotifier(opts Options) *notifier {
	return &notifier{opts: opts, queues: make(map[director.ServiceKey][]notice), lost: make(map[string]bool), fifos: fifos{open: make(map[string]fifo)}}
}

// send tells of the changes: pipes at once, commands as those before have ended.
func (n *notifier) send(ctx context.Context, notices []notice) {
	for _, one := range notices {
		if one.fifo != "" {
			err := n.fifos.write(one.fifo, one.line)
			n.count(&n.counts.Lines, &n.counts.LinesLost, err)
			n.lose(one, "pipe "+one.fifo, err)
		}
		if len(one.command) == 0 {
			continue
		}
		n.mu.Lock()
		queue, running := n.queues[one.service]
		full := len(queue) >= maxNotices
		if full {
			n.counts.CommandsSkipped++
		} else {
			n.queues[one.service] = append(queue, one)
		}
		if !running {
			n.work.Add(1)
			go n.run(ctx, one.service)
		}
		n.mu.Unlock()
		var err error
		if full {
			err = fmt.Errorf("%d commands of the service wait already", maxNotices)
		}
		n.lose(one, "commands of "+one.service.String(), err)
	}
}

// run runs a service's commands until there are no more.
func (n *notifier) run(ctx context.Context, key director.ServiceKey) {
	defer n.work.Done()
	for {
		n.mu.Lock()
		queue := n.queues[key]
		if len(queue) == 0 || ctx.Err() != nil {
			delete(n.queues, key)
			n.mu.Unlock()
			return
		}
		one := queue[0]
		n.queues[key] = queue[1:]
		n.mu.Unlock()
		err := n.command(ctx, one)
		if ctx.Err() != nil {
			continue // it was ended
		}
		n.count(&n.counts.Commands, &n.counts.CommandsFailed, err)
		if err != nil {
			n.failed(one, err)
		}
	}
}

// command runs a command as scripts of checks are: as the script user, in a process
// group of its own, with bounded time and output, if no one else may write it.
func (n *notifier) command(ctx context.Context, one notice) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	check := realserver.Check{Kind: realserver.CheckScript, Script: &realserver.ScriptCheck{Command: one.command}}
	target := health.Target{Server: one.server, Virtual: virtualOf(one.service)}
	if !one.server.IsValid() {
		target.Server = one.service.Address // of the service as a whole
	}
	prober, err := health.NewProber(check.WithDefaults(), target, nil, n.opts.Env)
	if err != nil {
		return err
	}
	defer prober.Close()
	return prober.Probe(ctx).Err
}

// lose tells that notices are lost in some way, with the first of them: the counts say
// how many are. A nil error is of one that was not.
func (n *notifier) lose(one notice, way string, err error) {
	n.mu.Lock()
	told := n.lost[way]
	if err == nil {
		delete(n.lost, way)
	} else {
		n.lost[way] = true
	}
	n.mu.Unlock()
	if err != nil && !told {
		n.failed(one, fmt.Errorf("%w; those that follow are counted alone until one is told", err))
	}
}

func (n *notifier) failed(one notice, err error) {
	e := event.Event{Name: event.NotifyFailed, Service: one.service.String(), Message: fmt.Sprintf("tell %q: %v", one.line, err)}
	if one.server.IsValid() {
		e.Server = one.server.String()
	}
	n.opts.Events.Publish(e)
}

// close waits for the commands, which end with the context they were given, and closes
// the pipes.
func (n *notifier) close() {
	n.work.Wait()
	n.fifos.close()
}
