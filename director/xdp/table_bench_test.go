package xdp

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/conntrack/record"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// recordsOf is a stream of n established connections of the service, of as many
// clients, on its servers by turns.
func recordsOf(t testing.TB, service *director.Service, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := record.NewWriter(&b, record.Header{Created: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		s := &service.Servers[i%len(service.Servers)]
		err := w.Write(&record.Record{Service: record.Service(service.Key), Connection: conntrack.Connection{
			Protocol: conntrack.TCP, Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)}), uint16(1024+i>>24)),
			Virtual: service.Key.Address, Server: s.Address, Method: s.Method.String(), State: conntrack.Established, Proven: true,
			Expires: 14 * time.Minute, Age: time.Duration(i) * time.Second / 4, Idle: time.Minute,
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// cpuTime is what this process has used of the CPUs: it does not grow with what
// others do on them.
func cpuTime(b *testing.B) time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkTable measures what is done to the whole of a table of NAT connections, in
// milliseconds a run:
// SHUNT_TABLE=1 go test -timeout 300s -run '^$' -bench Table -benchtime 5x ./director/xdp
func BenchmarkTable(b *testing.B) {
	if os.Getenv("SHUNT_TABLE") == "" {
		b.Skip("takes a minute and some gigabytes: set SHUNT_TABLE=1")
	}
	for _, n := range []int{64 << 10, 1 << 20, 4 << 20} {
		b.Run(fmt.Sprintf("%dKi", n>>10), func(b *testing.B) { benchmarkTable(b, n) })
	}
}

func benchmarkTable(b *testing.B, n int) {
	r := newRig(b, Options{MaxConnections: uint64(n), MaxConnectionsIPv6: 4096})
	service := director.Service{
		Key:       director.ServiceKey{Protocol: conntrack.TCP, Address: netip.MustParseAddrPort("192.0.2.1:80")},
		Scheduler: director.RoundRobin, VIP: director.VIPManaged,
	}
	ops := []director.Operation{director.AddService{Service: service}}
	for i := range byte(10) {
		s := realserver.Server{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 100 + i}), 8080), Method: realserver.NAT, Weight: 1}
		service.Servers = append(service.Servers, s)
		ops = append(ops, director.AddServer{Key: service.Key, Server: s})
	}
	r.must(ops...)
	ctx := context.Background()
	began := time.Now()
	report, err := r.LoadRecords(ctx, bytes.NewReader(recordsOf(b, &service, n)))
	if err != nil || report.Loaded < uint64(n)*99/100 {
		b.Fatalf("loaded %+v: %v", report, err)
	}
	b.Logf("%d connections loaded in %s", report.Loaded, time.Since(began))
	measure := func(name string, act func() (uint64, error)) {
		b.Run(name, func(b *testing.B) {
			var all []time.Duration
			used := cpuTime(b)
			for b.Loop() {
				began := time.Now()
				got, err := act()
				all = append(all, time.Since(began))
				if err != nil || got != report.Loaded {
					b.Fatalf("%d of %d connections: %v", got, report.Loaded, err)
				}
			}
			slices.Sort(all)
			b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "ms-median")
			b.ReportMetric(float64((cpuTime(b)-used).Microseconds())/1000/float64(len(all)), "ms-cpu")
			b.ReportMetric(0, "ns/op")
		})
	}
	measure("List", func() (n uint64, err error) {
		for _, err := range r.Connections(ctx, director.ConnectionFilter{}) {
			if err != nil {
				return n, err
			}
			n++
		}
		return n, nil
	})
	measure("Dump", func() (uint64, error) { return r.Dump(ctx, director.ConnectionFilter{}, io.Discard) })
	measure("Check", func() (uint64, error) {
		faults, err := r.Check(ctx)
		if len(faults) > 0 {
			b.Errorf("%d faults: %+v", len(faults), faults[0])
		}
		return report.Loaded, err
	})
	for _, by := range []director.CountBy{
		director.CountAll, director.CountByState, director.CountByServer, director.CountByClient, director.CountByAge,
	} {
		measure("Count"+string(by), func() (uint64, error) {
			count, err := r.Count(ctx, director.ConnectionFilter{}, by)
			return count.Count, err
		})
	}
}
