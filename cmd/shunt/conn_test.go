package main

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
)

// lineWriter hands out what is written, and ends the command after some lines.
type lineWriter struct {
	bytes.Buffer
	left int
	end  func()
}

func (w *lineWriter) Write(b []byte) (int, error) {
	if w.left -= bytes.Count(b, []byte("\n")); w.left <= 0 {
		w.end()
	}
	return w.Buffer.Write(b)
}

// TestConnWatch: changes are printed as they come, what was lost is said, and ^C ends
// it well.
func TestConnWatch(t *testing.T) {
	d := seededDaemon(t)
	c := agedConnections()[0]
	for format, want := range map[string]string{
		"table": "HH:MM:SS  opened       tcp   198.51.100.7:40001 -> 192.0.2.10:80  nat 10.0.0.11:8080\n" +
			"HH:MM:SS  closed       tcp   198.51.100.7:40001 -> 192.0.2.10:80  nat 10.0.0.11:8080  ESTABLISHED after 30h0m4s  1000/2000 packets, 78.1 KiB/1.3 MiB\n",
		"jsonl": `{"what":"opened","service":"tcp://192.0.2.10:80","lost":3,"connection":CONNECTION}` + "\n" +
			`{"what":"closed","service":"tcp://192.0.2.10:80","connection":CONNECTION}` + "\n",
	} {
		t.Run(format, func(t *testing.T) {
			ctx, end := context.WithTimeout(t.Context(), 20*time.Second)
			defer end()
			for d.fake.Announce(director.ConnectionChange{}) > 0 { // whoever watched before has left
				time.Sleep(time.Millisecond)
			}
			var announcing sync.WaitGroup
			announcing.Go(func() {
				first := director.ConnectionChange{What: director.ConnectionOpened, Service: filledWeb, Connection: c, Lost: 3}
				for ctx.Err() == nil && d.fake.Announce(first) == 0 { // until it is watched
					time.Sleep(time.Millisecond)
				}
				d.fake.Announce(director.ConnectionChange{What: director.ConnectionClosed, Service: filledWeb, Connection: c})
			})
			out, stderr := &lineWriter{left: 2, end: end}, bytes.Buffer{}
			code := run(ctx, []string{"shunt", "conn", "watch", "--service", "web", "-o", format}, streams{nil, out, &stderr})
			announcing.Wait()
			if code != exitOK || stderr.String() != "shunt: 3 changes lost: this command is too slow for them\n" {
				t.Errorf("code %d, stderr %q", code, stderr.String())
			}
			var got strings.Builder
			for line := range strings.Lines(out.String()) {
				if _, rest, found := strings.Cut(line, "  "); format == "table" && found {
					line = "HH:MM:SS  " + rest
				}
				if i := strings.Index(line, `{"protocol"`); i > 0 {
					line = line[:i] + "CONNECTION}\n"
				}
				got.WriteString(line)
			}
			if diff := cmp.Diff(want, got.String()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestConnLoad_interrupted: what waits for records ends with ^C.
func TestConnLoad_interrupted(t *testing.T) {
	seededDaemon(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var stdout, stderr bytes.Buffer
	code := run(ctx, []string{"shunt", "conn", "load"}, streams{silent{interrupt}, &stdout, &stderr})
	if want := "shunt: conn load: interrupted while it read the standard input\n"; code != exitFailed || stdout.Len() > 0 || stderr.String() != want {
		t.Errorf("code %d, stdout %q, stderr %q", code, stdout.String(), stderr.String())
	}
}

// growing is a data plane whose connections carry a packet more, each way, at each
// look; the client's of the last address is gone at the second.
type growing struct {
	*directortest.Fake
	looks int
}

func (g *growing) Count(ctx context.Context, filter director.ConnectionFilter, by director.CountBy) (director.ConnectionCount, error) {
	g.looks++
	all := agedConnections()
	if g.looks > 1 {
		all = all[:2]
	}
	for _, c := range all {
		c.Traffic.InPackets += uint64(g.looks)
		c.Traffic.OutPackets -= uint64(g.looks)
	}
	g.SetConnections(all...)
	return g.Fake.Count(ctx, filter, by)
}

// TestConnTop: rates are of what came between two looks, and never negative.
func TestConnTop(t *testing.T) {
	d := &daemon{socket: t.TempDir() + "/s"}
	d.seed()
	d.wrap = &growing{Fake: d.fake}
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	defer d.stop()
	var stdout, stderr bytes.Buffer
	args := []string{"shunt", "--socket", d.socket, "conn", "top", "--sort", "packets", "--interval", "100ms"}
	if code := run(t.Context(), args, streams{nil, &stdout, &stderr}); code != exitOK || stderr.Len() > 0 {
		t.Fatalf("code %d, stderr %q", code, stderr.String())
	}
	lines := strings.Split(stdout.String(), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "CLIENT        COUNT  PART   PACKETS/S") {
		t.Fatalf("%q", stdout.String())
	}
	var client, in string
	var count, part int
	if _, err := fmt.Sscanf(strings.ReplaceAll(lines[1], "/0 ", " "), "%s %d %d %% %s", &client, &count, &part, &in); err != nil ||
		client != "198.51.100.7" || count != 2 || part != 100 || in == "0" || in == "-" {
		t.Errorf("%q, %v: want some packets in, and none out", lines[1], err)
	}
}

// TestConnTop_redraws_a_terminal: until ^C, which ends it well.
func TestConnTop_redraws_a_terminal(t *testing.T) {
	d := seededDaemon(t)
	d.fake.SetConnections(agedConnections()...)
	term := startTerminal(t, []string{"TERM=xterm"}, "shunt", "conn", "top", "--interval=100ms")
	for _, want := range []string{"-", "0/0"} { // rates are known from the second look on
		term.expect(topLeft)
		frame := readable(term.expect(clearRest))
		if !strings.HasPrefix(frame, "every 100ms: shunt conn top, ") || !strings.Contains(frame, "198.51.100.7  2      67 %  "+want) {
			t.Errorf("frame %q, want rates %s", frame, want)
		}
	}
	term.send("\x03")
	if code, _ := term.wait(); code != exitOK {
		t.Errorf("code %d", code)
	}
}

// TestRecords_not_on_a_terminal: nobody can read them there, nor type them.
func TestRecords_not_on_a_terminal(t *testing.T) {
	seededDaemon(t)
	for command, want := range map[string]string{
		"dump": "conn dump: a terminal cannot show the records: -f FILE is missing, or a pipe",
		"load": "conn load: -f FILE is missing, or a pipe",
	} {
		term := startTerminal(t, nil, "shunt", "conn", command)
		if code, text := term.wait(); code != exitUsage || !strings.Contains(readable(text), want) {
			t.Errorf("%s: code %d, %q", command, code, text)
		}
	}
}

// many is a data plane with so many connections that they are printed as they come.
type many struct {
	*directortest.Fake
	n int
}

func (m many) Connections(context.Context, director.ConnectionFilter) iter.Seq2[conntrack.Connection, error] {
	return func(yield func(conntrack.Connection, error) bool) {
		c := agedConnections()[0]
		for i := range m.n {
			c.Client = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 4000)
			if !yield(c, nil) {
				return
			}
		}
	}
}

// TestConnList_long: what follows the rows that fit the columns is in them too, and
// no row is missing in any form.
func TestConnList_long(t *testing.T) {
	const rows = sortedRows + 500
	d := &daemon{socket: t.TempDir() + "/s"}
	d.seed()
	d.wrap = directortest.NoTable(many{d.fake, rows})
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	defer d.stop()
	for format, want := range map[string]int{"table": rows + 1, "json": rows + 2, "jsonl": rows} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), []string{"shunt", "--socket", d.socket, "conn", "list", "-o", format}, streams{nil, &stdout, &stderr})
		if n := bytes.Count(stdout.Bytes(), []byte("\n")); code != exitOK || n != want {
			t.Errorf("%s: code %d, %d lines, want %d, stderr %q", format, code, n, want, stderr.String())
		}
		lines := strings.Split(stdout.String(), "\n")
		if format == "table" && strings.Index(lines[1], "192.0.2.10") != strings.Index(lines[rows], "192.0.2.10") {
			t.Errorf("columns differ:\n%s\n%s", lines[1], lines[rows])
		}
	}
}
