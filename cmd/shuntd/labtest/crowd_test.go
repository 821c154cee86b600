package labtest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/directortest"
)

// crowd is clients whose requests begin at a steady pace, whatever becomes of those
// before, each over a connection of its own and from a port that was not used before.
// A request waits for its answer until it is given up: how long clients are patient
// is no part of what they show.
type crowd struct {
	t    *testing.T
	ns   *directortest.Namespace
	from []netip.Addr
	to   netip.AddrPort

	mu      sync.Mutex // guards what follows
	begun   int        // requests
	open    map[int]request
	answers []answer

	stop    chan struct{}
	workers sync.WaitGroup
}

// request is one that is not answered yet.
type request struct {
	source netip.AddrPort
	giveUp context.CancelFunc
}

// answer says which server answered a request.
type answer struct {
	number int // of the request
	server string
}

const (
	pace      = 10 * time.Millisecond // from one request to the next
	firstPort = 10_000                // below those that the kernel chooses
	// patience ends a wait for segments that were dropped for a while: TCP doubles
	// the time from one attempt to the next (RFC 6298 §5.5).
	patience = 60 * time.Second
)

// newCrowd prepares clients of the service; the test's end gives up what is open.
func newCrowd(t *testing.T, lab *directortest.Lab, to netip.AddrPort) *crowd {
	c := &crowd{t: t, ns: lab.Client, from: lab.ClientAddrs4, to: to, open: map[int]request{}}
	t.Cleanup(func() {
		if c.stop != nil {
			close(c.stop)
		}
		for ended := c.ended(); ; {
			for _, r := range c.waiting(c.mark()) {
				r.giveUp()
			}
			select {
			case <-ended:
				return
			case <-time.After(pace): // one may have begun meanwhile
			}
		}
	})
	return c
}

// start lets requests begin, until halt. A request that fails without having been
// given up fails the test.
func (c *crowd) start() {
	stop := make(chan struct{})
	c.stop = stop
	c.workers.Go(func() {
		tick := time.NewTicker(pace)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				c.workers.Go(c.one)
			}
		}
	})
}

// halt ends what start began: requests that are open get their answers before.
func (c *crowd) halt() {
	c.t.Helper()
	close(c.stop)
	c.stop = nil
	select {
	case <-c.ended():
	case <-time.After(patience):
		c.t.Fatalf("requests are not answered: %v", c.waiting(c.mark()))
	}
}

// ended returns a channel that is closed when no request is open or begins any more.
func (c *crowd) ended() <-chan struct{} {
	ended := make(chan struct{})
	go func() { c.workers.Wait(); close(ended) }()
	return ended
}

// one asks once.
func (c *crowd) one() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c.mu.Lock()
	number := c.begun
	c.begun++
	source := netip.AddrPortFrom(c.from[number%len(c.from)], uint16(firstPort+number/len(c.from)))
	c.open[number] = request{source, cancel}
	c.mu.Unlock()

	server, err := c.ask(ctx, source)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, number)
	switch {
	case err == nil:
		c.answers = append(c.answers, answer{number, server})
	case ctx.Err() == nil:
		c.t.Errorf("request %d from %s: %v", number, source, err)
	}
}

// ask returns the name of the server that answers in full.
func (c *crowd) ask(ctx context.Context, from netip.AddrPort) (string, error) {
	conn, err := c.ns.Dial(ctx, "tcp", from, c.to)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := io.WriteString(conn, "GET /bytes/5000 HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n"); err != nil {
		return "", err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if count, err := directortest.Pattern().Compare(response.Body); err != nil || count != 5000 {
		return "", fmt.Errorf("%s, %d bytes of 5000: %w", response.Status, count, err)
	}
	return response.Header.Get(directortest.HeaderServer), nil
}

// mark is the number of the next request.
func (c *crowd) mark() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.begun
}

// waiting are the requests that began before the mark and have no answer.
func (c *crowd) waiting(mark int) map[int]request {
	c.mu.Lock()
	defer c.mu.Unlock()
	open := maps.Clone(c.open)
	maps.DeleteFunc(open, func(number int, _ request) bool { return number >= mark })
	return open
}

// since returns how many requests from the mark on each server answered.
func (c *crowd) since(mark int) map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	servers := map[string]int{}
	for _, a := range c.answers {
		if a.number >= mark {
			servers[a.server]++
		}
	}
	return servers
}

// sample is how many requests show who answers: each of three servers by turns
// several times.
const sample = 40

// only waits until a sample of requests that begin now is answered, all that began
// meanwhile included, and wants the answers of all these servers and of no other.
func (c *crowd) only(servers ...string) {
	c.t.Helper()
	first := c.mark()
	await(c.t, "a sample of requests begins", func() bool { return c.mark() >= first+sample })
	last := c.mark()
	await(c.t, "it is answered", func() bool {
		open := c.waiting(last)
		maps.DeleteFunc(open, func(number int, _ request) bool { return number < first })
		return len(open) == 0
	})
	if got := slices.Sorted(maps.Keys(c.since(first))); !slices.Equal(got, servers) {
		c.t.Errorf("answers from %q, want %q", got, servers)
	}
}

// all waits until no request that has begun by now is open.
func (c *crowd) all() {
	c.t.Helper()
	mark := c.mark()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	for len(c.waiting(mark)) > 0 {
		select {
		case <-ctx.Done():
			c.t.Fatalf("requests are not answered: %v", c.waiting(mark))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// lost waits until the requests that began before the mark and are open are all of
// a set of clients, gives them up and returns how many they were.
func (c *crowd) lost(mark int, of func() []string) int {
	c.t.Helper()
	var open map[int]request
	await(c.t, "requests are answered but for those paired with the server that is gone", func() bool {
		paired := of()
		open = c.waiting(mark)
		for _, r := range open {
			if !slices.Contains(paired, r.source.String()) {
				return false
			}
		}
		return true
	})
	for _, r := range open {
		r.giveUp()
	}
	return len(open)
}
