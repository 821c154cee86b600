package bpf_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	diff "github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// dropsOf reads the drops in an order of their own.
func dropsOf(t *testing.T, f *bpftest.Fixture) []bpf.Drop {
	t.Helper()
	drops, err := f.Plane.Drops()
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(drops, func(a, b bpf.Drop) int {
		return cmp.Or(cmp.Compare(a.Event, b.Event), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Interface, b.Interface))
	})
	return drops
}

// lostPackets are packets that end here for a reason, and what that is.
func lostPackets(t *testing.T, f *bpftest.Fixture) (packets [][]byte, want []bpf.Drop) {
	t.Helper()
	f.T(t).Clear()
	add := func(p bpftest.Packet, event bpf.KernelEvent, s *bpftest.Service) {
		packets = append(packets, p.Bytes())
		want = append(want, bpf.Drop{Event: event, Service: s.Index})
	}
	for _, a := range families {
		hop := f.AddHop(serverLink(f.Outside))
		offers := f.Apply(&bpftest.Service{Listen: a.virtual, Protocol: bpftest.TCP, Servers: []*bpftest.Server{{Address: a.server, Method: nat, Weight: 1, Hop: hop}}})
		empty := f.Apply(&bpftest.Service{Listen: a.secondVirtual, Protocol: bpftest.UDP})
		p := bpftest.Packet{Source: bpftest.ClientMAC, Destination: bpftest.DirectorOutside, From: a.client, To: a.virtual, Protocol: bpftest.TCP, Flags: "A"}
		add(p, bpf.KernelEventEVENT_DROP_MIDSTREAM, offers)
		p.Flags, p.From = "S", netip.AddrPortFrom(a.client.Addr(), 20)
		add(p, bpf.KernelEventEVENT_DROP_FTP_DATA, offers)
		p.From = netip.AddrPortFrom(a.virtual.Addr(), 40000)
		add(p, bpf.KernelEventEVENT_DROP_MARTIAN, offers)
		p.Protocol, p.To, p.Flags, p.Payload, p.From = bpftest.UDP, a.secondVirtual, "", []byte("question"), a.client
		add(p, bpf.KernelEventEVENT_ANSWER_NO_SERVER, empty)
	}
	return packets, want
}

// What ends here is counted by reason, service and interface, in runs and in any
// other order, on all CPUs at once; and the events' counts say the same.
func TestDropsAreCountedByServiceAndInterface(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	packets, kinds := lostPackets(t, f)
	f.Events()
	sums := map[bpf.Drop][2]uint64{}
	var mu sync.Mutex
	send := func(seed uint64, ways ...uint32) {
		const rounds, longest = 300, 5
		random := rand.New(rand.NewPCG(1, seed))
		for range rounds {
			i, n := random.IntN(len(packets)), 1+random.IntN(longest)
			kind := kinds[i]
			kind.Interface = ways[random.IntN(len(ways))]
			for range n {
				if _, err := bpftest.Run(f.Plane.ShuntRoot, kind.Interface, packets[i]); err != nil {
					t.Error(err)
				}
			}
			mu.Lock()
			sums[kind] = [2]uint64{sums[kind][0] + uint64(n), sums[kind][1] + uint64(n*len(packets[i]))}
			mu.Unlock()
		}
	}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for _, cpu := range allowedCPUs(set) {
		all.Go(func() {
			runtime.LockOSThread() // stays: its affinity is not that of others
			var one unix.CPUSet
			one.Set(cpu)
			if err := unix.SchedSetaffinity(0, &one); err != nil {
				t.Error(err)
			}
			send(uint64(cpu), loopback)
		})
	}
	f.Do(func() { send(1<<32, f.Outside, f.Inside) })
	all.Wait()
	events := map[string]uint64{}
	got := map[bpf.Drop][2]uint64{}
	for _, d := range dropsOf(t, f) {
		n := [2]uint64{d.Packets, d.Bytes}
		d.Packets, d.Bytes = 0, 0
		got[d] = n
	}
	for kind, n := range sums {
		events[bpf.Events[kind.Event].Name] += n[0]
		if kind.Event == bpf.KernelEventEVENT_ANSWER_NO_SERVER {
			// Counted as it leaves: the answer is as long as what it quotes makes it.
			n[1] = got[kind][1]
			sums[kind] = n
		}
	}
	if d := diff.Diff(sums, got); d != "" {
		t.Errorf("packets and bytes (-want +got):\n%s", d)
	}
	if d := diff.Diff(events, f.Events()); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
}

// A service that gets the index of another is not shown the other's drops, and what
// the events counted stays.
func TestClearDrops(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	packets, kinds := lostPackets(t, f)
	f.Events()
	for range 3 {
		f.Run(packets[0])
	}
	f.Run(packets[3])
	keep := dropsOf(t, f)[1]
	if err := f.Plane.ClearDrops(func(service uint32) bool { return service == kinds[0].Service }); err != nil {
		t.Fatal(err)
	}
	if d := diff.Diff([]bpf.Drop{keep}, dropsOf(t, f)); d != "" {
		t.Errorf("after it was cleared (-want +got):\n%s", d)
	}
	f.Run(packets[0])
	again := kinds[0]
	again.Interface, again.Packets, again.Bytes = f.Outside, 1, uint64(len(packets[0]))
	if d := diff.Diff([]bpf.Drop{again, keep}, dropsOf(t, f)); d != "" {
		t.Errorf("one more (-want +got):\n%s", d)
	}
	if d := diff.Diff(map[string]uint64{"midstream": 4, "no-server": 1}, f.Events()); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
}

// Where there is no room for one more kind, drops are counted by their reason alone.
func TestDropsWithoutRoom(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	stayOnOneCPU(t, f) // rows are of a CPU
	packets, _ := lostPackets(t, f)
	f.Run(packets[0])
	f.Events()
	m := f.Plane.KernelMaps.Drops
	rows, err := bpf.ReadArray[bpf.KernelDropRow](m)
	if err != nil {
		t.Fatal(err)
	}
	for i := range rows {
		if rows[i].Key == 0 {
			rows[i].Key = uint64(bpf.KernelEventEVENT_DROP_BUSY) | 1<<40 // of an interface that there is not
		}
	}
	if err := bpf.WriteRange(m, 0, rows); err != nil {
		t.Fatal(err)
	}
	before := dropsOf(t, f)
	for range 3 {
		f.Run(packets[1])
	}
	if d := diff.Diff(map[string]uint64{"ftp-data": 3, "drops-unlisted": 3}, f.Events()); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
	if d := diff.Diff(before, dropsOf(t, f)); d != "" {
		t.Errorf("rows (-before +after):\n%s", d)
	}
	f.Run(packets[0])
	if got := dropsOf(t, f); got[0].Packets != before[0].Packets+1 {
		t.Errorf("%+v after one more of a kind that has its row, before %+v", got[0], before[0])
	}
}

// An event's number is its own for ever: it is in the CLI's list, in captures and in what is
// pinned. Lines may be added here, where a new event takes the next number of its kind.
func TestEventNumbersStay(t *testing.T) {
	const file = "testdata/events.golden"
	var got strings.Builder
	for number, info := range bpf.AllEvents() {
		fmt.Fprintf(&got, "%d %s %s\n", number, info.Kind, info.Name)
	}
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := diff.Diff(string(want), got.String()); d != "" {
		t.Errorf("numbers (-want +got):\n%s", d)
	}
}
