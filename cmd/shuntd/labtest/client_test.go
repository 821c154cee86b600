package labtest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/directortest"
)

// call is a TCP connection to a web server that stays open.
type call struct {
	conn   net.Conn
	reader *bufio.Reader
	server string // that answered last
}

// open connects; a zero from is the kernel's choice.
func open(t *testing.T, ns *directortest.Namespace, from, to netip.AddrPort) (*call, error) {
	t.Helper()
	conn, err := ns.Dial(t.Context(), "tcp", from, to)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &call{conn: conn, reader: bufio.NewReader(conn)}, nil
}

// mustOpen connects and asks once, so that the server is known.
func mustOpen(t *testing.T, ns *directortest.Namespace, to netip.AddrPort) *call {
	t.Helper()
	c, err := open(t, ns, netip.AddrPort{}, to)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.ask(); err != nil {
		t.Fatal(err)
	}
	return c
}

// ask sends a request on the connection and reads the answer. Its server must
// be the one of the request before.
func (c *call) ask() error {
	if err := c.conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := io.WriteString(c.conn, "GET /bytes/3000 HTTP/1.1\r\nHost: lab\r\n\r\n"); err != nil {
		return err
	}
	answer, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return fmt.Errorf("connection from %s: %w", c.local(), err)
	}
	defer answer.Body.Close()
	count, err := directortest.Pattern().Compare(answer.Body)
	if err != nil || count != 3000 {
		return fmt.Errorf("connection from %s: %d bytes of 3000: %w", c.local(), count, err)
	}
	before := c.server
	c.server = answer.Header.Get(directortest.HeaderServer)
	if before != "" && c.server != before {
		return fmt.Errorf("connection from %s moved from %s to %s", c.local(), before, c.server)
	}
	return nil
}

func (c *call) local() string { return c.conn.LocalAddr().String() }

// moving is a connection that may take its time, but not stand still for longer
// than the limit.
type moving struct{ net.Conn }

// Read renews the deadline of a Write that waits beside it, too.
func (c moving) Read(b []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

// Write renews the deadline of a Read that waits beside it, too.
func (c moving) Write(b []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// job is an HTTP request and what its answer must be.
type job struct {
	service string
	// from is the connection's source; zero: the kernel's choice. One that has
	// been used lately belongs to the director's old connection.
	from    netip.AddrPort
	address netip.AddrPort
	size    int64
	upload  bool
}

// run sends the request over a connection of its own and returns the name of
// the server that answered it in full.
func (j job) run(ns *directortest.Namespace) (string, error) {
	header, err := j.do(ns)
	return header.Get(directortest.HeaderServer), err
}

// do is run that returns all of the answer's header.
func (j job) do(ns *directortest.Namespace) (http.Header, error) {
	return j.doWithin(context.Background(), ns)
}

// doWithin is do that gives up when the context ends.
func (j job) doWithin(ctx context.Context, ns *directortest.Namespace) (http.Header, error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			conn, err := ns.Dial(ctx, "tcp", j.from, j.address)
			if err != nil {
				return nil, err
			}
			return moving{conn}, nil
		},
	}}
	url := fmt.Sprintf("http://%s/bytes/%d", j.address, j.size)
	method, body, want := http.MethodGet, io.Reader(nil), j.size
	if j.upload {
		url, method = fmt.Sprintf("http://%s/upload", j.address), http.MethodPost
		body = io.LimitReader(directortest.Pattern(), j.size)
	}
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	if j.upload {
		request.ContentLength = j.size
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, answer.Status)
	}
	if j.upload {
		var count int64
		if _, err := fmt.Fscan(answer.Body, &count); err != nil || count != want {
			return nil, fmt.Errorf("%s: %d bytes of %d came: %w", url, count, want, err)
		}
	} else if count, err := directortest.Pattern().Compare(answer.Body); err != nil || count != want {
		return nil, fmt.Errorf("%s: %d bytes: %w", url, count, err)
	}
	return answer.Header, nil
}

// tally counts answers by service and server.
type tally map[string]map[string]int

// maxFailures is after how many failures send gives up.
const maxFailures = 5

// send runs the jobs, parallel at a time, and counts who answered. Every
// failure fails the test.
func send(t *testing.T, ns *directortest.Namespace, jobs []job, parallel int) tally {
	t.Helper()
	queue := make(chan job, len(jobs)) // all of them
	for _, j := range jobs {
		queue <- j
	}
	close(queue)

	var mu sync.Mutex // guards answers and failures
	answers, failures := tally{}, 0
	var workers sync.WaitGroup
	for range parallel {
		workers.Go(func() {
			for j := range queue {
				server, err := j.run(ns)
				mu.Lock()
				if err != nil {
					t.Errorf("service %s: %v", j.service, err)
					if failures++; failures == maxFailures {
						for range queue { // what is broken needs no more proof
						}
					}
				} else {
					if answers[j.service] == nil {
						answers[j.service] = map[string]int{}
					}
					answers[j.service][server]++
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	return answers
}
