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

// notifier runs commands and writes to named pipes, in order for each service. A
// command that takes its time holds up those of its service alone.
type notifier struct {
	opts  Options
	fifos fifos

	mu     sync.Mutex
	queues map[director.ServiceKey][]notice // of those whose commands run
	work   sync.WaitGroup
}

func newNotifier(opts Options) *notifier {
	return &notifier{opts: opts, queues: make(map[director.ServiceKey][]notice), fifos: fifos{open: make(map[string]fifo)}}
}

// send tells of the changes: pipes at once, commands as those before have ended.
func (n *notifier) send(ctx context.Context, notices []notice) {
	for _, one := range notices {
		if one.fifo != "" {
			if err := n.fifos.write(one.fifo, one.line); err != nil {
				n.failed(one, err)
			}
		}
		if len(one.command) == 0 {
			continue
		}
		n.mu.Lock()
		queue, running := n.queues[one.service]
		full := len(queue) >= maxNotices
		if !full {
			n.queues[one.service] = append(queue, one)
		}
		if !running {
			n.work.Add(1)
			go n.run(ctx, one.service)
		}
		n.mu.Unlock()
		if full {
			n.failed(one, fmt.Errorf("%d commands of the service wait already", maxNotices))
		}
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
		if err := n.command(ctx, one); err != nil && ctx.Err() == nil {
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
