package xdp

import (
	"context"
	"errors"
	"iter"
	"os"
	"sync"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// watchQueue is how many changes wait for one watcher at most: beyond, it loses
// them, and the others do not.
const watchQueue = 4096

// watching is who watches connections. The program tells its news while there is
// anybody; one goroutine reads them for all.
type watching struct {
	// turn is held while a watcher begins or ends, before Dataplane.mu.
	turn sync.Mutex

	// All below is guarded by Dataplane.mu.
	watchers map[*watcher]bool
	news     *bpf.NewsReader // nil while nobody watches
	done     chan struct{}   // closed when the reader's goroutine has ended
	lost     uint64          // news.Lost as it was when it was last looked at
	view     *view
	isStale  bool // services or servers have changed since view was made
}

// errNewsEnded is for who comes just after the news could not be read any more.
var errNewsEnded = errors.New("watch connections: the program's news cannot be read: try again")

// watcher is one call of Watch.
type watcher struct {
	filter  director.ConnectionFilter
	changes chan director.ConnectionChange // watchQueue; closed with err set if it ends by itself
	lost    uint64                         // since the last change that it got
	err     error
}

// changeKinds are the names of the program's news.
var changeKinds = map[bpf.KernelNewsKind]director.ChangeKind{
	bpf.KernelNewsKindNEWS_OPENED:      director.ConnectionOpened,
	bpf.KernelNewsKindNEWS_ESTABLISHED: director.ConnectionEstablished,
	bpf.KernelNewsKindNEWS_CLOSED:      director.ConnectionClosed,
}

// Watch iterates over what becomes of connections from the moment it is ranged over,
// until the context ends; it ends with an error if the data plane is closed. What a
// connection has carried is told at its end, if connections are counted.
func (d *Dataplane) Watch(ctx context.Context, filter director.ConnectionFilter) iter.Seq2[director.ConnectionChange, error] {
	return func(yield func(director.ConnectionChange, error) bool) {
		w, err := d.beginWatch(ctx, filter)
		if err != nil {
			yield(director.ConnectionChange{}, err)
			return
		}
		defer d.endWatch(w)
		for {
			select {
			case <-ctx.Done():
				return
			case change, ok := <-w.changes:
				if !ok {
					yield(director.ConnectionChange{}, w.err)
					return
				}
				if !yield(change, nil) {
					return
				}
			}
		}
	}
}

func (d *Dataplane) beginWatch(ctx context.Context, filter director.ConnectionFilter) (*watcher, error) {
	d.watching.turn.Lock()
	defer d.watching.turn.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(ctx); err != nil {
		return nil, err
	}
	w := &watcher{filter: filter, changes: make(chan director.ConnectionChange, watchQueue)}
	if d.watching.news != nil && len(d.watching.watchers) == 0 {
		return nil, errNewsEnded // those who watched have not all gone yet
	}
	if d.watching.news != nil {
		d.noteLost() // what was lost until now was not this one's
		d.watching.watchers[w] = true
		return w, nil
	}
	return w, d.startWatching(w)
}

// startWatching has the program tell its news to the first watcher.
func (d *Dataplane) startWatching(first *watcher) error {
	news, err := d.plane.OpenNews()
	if err != nil {
		return err
	}
	lost, err := news.Lost()
	if err == nil {
		d.watching.view, err = d.view(context.Background())
	}
	if err == nil {
		d.watching.isStale = false
		d.watching.watchers = map[*watcher]bool{first: true}
		err = d.plane.ChangeSettings(d.setOptions)
	}
	if err != nil {
		d.watching.watchers = nil
		return errors.Join(err, news.Close())
	}
	d.watching.news, d.watching.lost, d.watching.done = news, lost, make(chan struct{})
	go d.readNews(news, d.watching.done)
	return nil
}

func (d *Dataplane) endWatch(w *watcher) {
	d.watching.turn.Lock()
	defer d.watching.turn.Unlock()
	d.mu.Lock()
	delete(d.watching.watchers, w)
	d.stopWatchingUnlessNeeded()
}

// endWatching ends all watchers with the error.
func (d *Dataplane) endWatching(err error) {
	d.watching.turn.Lock()
	defer d.watching.turn.Unlock()
	d.mu.Lock()
	d.failWatchers(err)
	d.stopWatchingUnlessNeeded()
}

func (d *Dataplane) failWatchers(err error) {
	for w := range d.watching.watchers {
		w.err = err
		close(w.changes)
	}
	d.watching.watchers = nil
}

// stopWatchingUnlessNeeded has the program tell nothing any more if nobody watches,
// and waits for the reader. It is called with mu held, and gives it back.
func (d *Dataplane) stopWatchingUnlessNeeded() {
	news, done := d.watching.news, d.watching.done
	if len(d.watching.watchers) > 0 || news == nil {
		d.mu.Unlock()
		return
	}
	d.watching.news, d.watching.view = nil, nil
	if err := d.plane.ChangeSettings(d.setOptions); err != nil {
		d.opts.Log.Error("cannot have the program stop telling of connections; it goes on for nobody", "err", err)
	}
	d.mu.Unlock()
	if err := news.Close(); err != nil {
		d.opts.Log.Error("cannot close the news of connections", "err", err)
	}
	<-done
}

// readNews gives the program's news to the watchers until the reader is closed.
func (d *Dataplane) readNews(news *bpf.NewsReader, done chan struct{}) {
	defer close(done)
	for {
		n, err := news.Read()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if !d.pass(news, &n, err) {
			return
		}
	}
}

// pass passes on what was read, or why nothing was; false if the reader's watchers have
// gone, or go: its last news may come after that.
func (d *Dataplane) pass(news *bpf.NewsReader, n *bpf.News, err error) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.watching.news != news:
		return false
	case err != nil:
		d.failWatchers(err)
		return false
	default:
		d.tell(n)
		return true
	}
}

// tell gives one piece of news to those whose filters select it.
func (d *Dataplane) tell(n *bpf.News) {
	service, connection, known := d.resolve(n)
	for w := range d.watching.watchers {
		switch {
		case !known:
			w.lost++
		case w.filter.Matches(service, connection):
			w.offer(director.ConnectionChange{What: changeKinds[n.Kind], Service: service, Connection: connection})
		}
	}
	if !n.Pending {
		d.noteLost()
	}
}

// offer puts the change into the queue, or loses it.
func (w *watcher) offer(c director.ConnectionChange) {
	c.Lost = w.lost
	select {
	case w.changes <- c:
		w.lost = 0
	default:
		w.lost++
	}
}

// noteLost tells the watchers how many news the program could not tell since the last
// time: nobody knows whose filters would have selected them.
func (d *Dataplane) noteLost() {
	lost, err := d.watching.news.Lost()
	if err != nil {
		d.opts.Log.Error("cannot tell how many news of connections were lost", "err", err)
		return
	}
	for w := range d.watching.watchers {
		w.lost += lost - d.watching.lost
	}
	d.watching.lost = lost
}

// resolve returns the connection that the news are of, and its service.
func (d *Dataplane) resolve(n *bpf.News) (director.ServiceKey, conntrack.Connection, bool) {
	if d.watching.isStale {
		d.renewView()
	}
	v := d.watching.view
	v.now = n.Slot.Seen
	e := n.Slot.Entry()
	service, c, ok := v.connection(&e)
	if ok && n.Kind == bpf.KernelNewsKindNEWS_CLOSED && d.opts.CountConnections {
		c.Traffic = &conntrack.Traffic{
			InPackets: n.In.Packets, InBytes: n.In.Bytes, OutPackets: n.Out.Packets, OutBytes: n.Out.Bytes,
		}
	}
	return service, c, ok
}

// renewView takes the services and servers as they are now. Servers whose indices are
// free meanwhile stay in it: the news of their last connections may come after that.
func (d *Dataplane) renewView() {
	next, err := d.view(context.Background())
	if err != nil {
		d.opts.Log.Error("cannot look at the servers for those who watch connections", "err", err)
		return
	}
	old := d.watching.view.servers
	next.servers = grown(next.servers, uint32(len(old)))
	for i := range old {
		if next.server(uint32(i)) == nil {
			next.servers[i] = old[i]
		}
	}
	d.watching.view, d.watching.isStale = next, false
}
