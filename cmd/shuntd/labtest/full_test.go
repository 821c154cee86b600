package labtest

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// A full table refuses new connections by name and gives up none that is proven;
// services with a hash scheduler whose servers need no entry serve on without; a
// larger table ends it.
func TestTableFullOfProven(t *testing.T) {
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 2})
	if _, err := lab.ServeHTTP(80); err != nil {
		t.Fatal(err)
	}
	if _, err := lab.ServeUDP(53); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, lab, "--max-connections", "1Ki")
	web, dns := netip.AddrPortFrom(vip4, 80), netip.AddrPortFrom(vip4, 53)
	d.do(t, "service add udp://192.0.2.10:53 --name dns --scheduler rr\nservice add tcp://192.0.2.10:80 --name web --scheduler mh")
	for _, s := range lab.Servers {
		d.do(t, fmt.Sprintf("server add dns %s:53 --method nat\nserver add web %[1]s:80 --method dr", s.Addr4))
	}
	since := d.lastEvent(t)
	ask := func(port uint16, timeout time.Duration) error {
		_, err := lab.Client.QueryUDP(t.Context(), netip.AddrPortFrom(lab.ClientAddrs4[0], port), dns, port, timeout)
		return err
	}
	answered := []uint16{}
	for port := uint16(10_000); d.events(t)["table-full"] < 20; port += 100 {
		if port > 20_000 {
			t.Fatal("10000 connections fit a table for 1024")
		}
		for i := range uint16(100) {
			if ask(port+i, 50*time.Millisecond) == nil {
				answered = append(answered, port+i)
			}
		}
	}
	d.tells(t, since, "table-full", "")
	p := pair{lab: lab, d: d, vip: web}
	p.requests(t, 200)
	if events := d.events(t); events["stateless"] == 0 {
		t.Error("no packet was served without state")
	}
	await(t, "the table is shown as full", func() bool {
		table := read[api.Status](t, d, "status").Tables[0]
		return table.Pressure > 1 && table.Refused > 0
	})
	d.shunt(t, "conn", "resize", "8Ki")
	for port := range uint16(200) {
		if err := ask(30_000+port, limit); err != nil {
			t.Errorf("a new connection in a larger table: %v", err)
		}
	}
	for _, port := range answered {
		if err := ask(port, limit); err != nil {
			t.Errorf("a connection of before: %v", err)
		}
	}
	if total, _ := d.counters(t, "dns"); total.Connections != uint64(len(answered))+200 {
		t.Errorf("%d connections were made for %d clients that were answered", total.Connections, len(answered)+200)
	}
	d.noFaults(t, "table-full")
}
