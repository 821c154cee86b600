package labtest

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// A full table refuses new connections by name and gives up none that is proven;
// services with a hash scheduler whose servers need no entry serve on without; a
// larger table ends it.
func TestTableFullOfProven(t *testing.T) {
	t.Parallel()
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 2})
	for _, port := range []uint16{80, 81} {
		if _, err := lab.ServeHTTP(port); err != nil {
			t.Fatal(err)
		}
	}
	d := startDaemon(t, lab, "--max-connections", "1Ki")
	web, shop := netip.AddrPortFrom(vip4, 80), netip.AddrPortFrom(vip4, 81)
	d.do(t, "service add tcp://192.0.2.10:81 --name shop --scheduler rr\nservice add tcp://192.0.2.10:80 --name web --scheduler mh")
	for _, s := range lab.Servers {
		d.do(t, fmt.Sprintf("server add shop %s:81 --method nat\nserver add web %[1]s:80 --method dr", s.Addr4))
	}
	since := d.lastEvent(t)
	var mu sync.Mutex // guards held
	var held []net.Conn
	for begun := 0; d.events(t)["table-full"] < 20; begun += 100 {
		if begun > 10_000 {
			t.Fatal("10000 connections fit a table for 1024")
		}
		var batch sync.WaitGroup
		for range 100 {
			batch.Go(func() {
				// The refused ones wait in vain.
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				if c, err := lab.Client.Dial(ctx, "tcp", netip.AddrPort{}, shop); err == nil {
					mu.Lock()
					defer mu.Unlock()
					held = append(held, c)
				}
			})
		}
		batch.Wait()
	}
	var calls []*call
	for _, c := range held {
		t.Cleanup(func() { _ = c.Close() })
		calls = append(calls, &call{conn: c, reader: bufio.NewReader(c)})
	}
	if len(calls) < 1024 {
		t.Errorf("the table took %d connections, it is sized for 1024", len(calls))
	}
	d.tells(t, since, "table-full", "")
	pair{lab: lab, d: d, vip: web}.requests(t, 200)
	if events := d.events(t); events["stateless"] == 0 {
		t.Error("no packet was served without state")
	}
	await(t, "the table is shown as full", func() bool {
		table := read[api.Status](t, d, "status").Tables[0]
		return table.Pressure > 1 && table.Refused > 0
	})
	askAll(t, calls)
	d.shunt(t, "conn", "resize", "8Ki")
	pair{lab: lab, d: d, vip: shop}.requests(t, 100)
	askAll(t, calls)
	d.noFaults(t, "table-full")
}
