package bench

import (
	"slices"
	"testing"

	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// Hits are measured while a flood takes place after place in a full table, and nothing
// but what was meant to be is.
func TestFloodsAreMeasured(t *testing.T) {
	bpftest.Privileged(t)
	if _, err := twoCPUs(); err != nil {
		t.Skip(err)
	}
	rows, err := Floods(Options{Sizes: []uint32{64}, Rounds: 1, ColdPackets: 1 << 12})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range rows {
		names = append(names, r.Name)
		if r.FloodRate <= 0 {
			t.Errorf("%s was measured beside no flood", r.Name)
		}
	}
	if want := []string{"dr-hit/tcp4/64", "nat-hit/tcp4/64"}; !slices.Equal(names, want) {
		t.Errorf("rows %q, want %q", names, want)
	}
}

// A figure is refused when the packets were others than those meant.
func TestPacketsBesideAreTold(t *testing.T) {
	hits, flood, other := cpuCounts{packets: 100}, cpuCounts{connections: 50, packets: 50, evicted: 45}, cpuCounts{notOurs: 50}
	for _, test := range []struct {
		name    string
		after   [2]cpuCounts
		isFlood bool
		want    uint64 // 0: an error
	}{
		{"a flood", [2]cpuCounts{hits, flood}, true, 50},
		{"packets that are not ours", [2]cpuCounts{hits, other}, false, 50},
		{"fewer hits", [2]cpuCounts{{packets: 99}, flood}, true, 0},
		{"hits that began connections", [2]cpuCounts{{packets: 100, connections: 1}, flood}, true, 0},
		{"a flood in a table that has room", [2]cpuCounts{hits, {connections: 50, packets: 50, evicted: 44}}, true, 0},
		{"no flood", [2]cpuCounts{hits, {}}, true, 0},
		{"nothing beside", [2]cpuCounts{hits, {}}, false, 0},
		{"ours among what is not", [2]cpuCounts{hits, {notOurs: 50, packets: 1}}, false, 0},
	} {
		got, err := takenBeside([2]cpuCounts{}, test.after, 100, test.isFlood)
		if got != test.want || (err == nil) != (test.want > 0) {
			t.Errorf("%s: %d, %v; want %d", test.name, got, err, test.want)
		}
	}
}

// The tables' memory is that of the README, and of the goals.
func TestMemoryIsMeasured(t *testing.T) {
	bpftest.Privileged(t)
	m, err := MeasureMemory(1 << 14)
	if err != nil {
		t.Fatal(err)
	}
	if m.NAT4 < 160 || m.NAT4 > 176 || m.DR4 > 96 || m.NAT6 < 320 || m.NAT6 > 352 || m.DR6 > 176 {
		t.Errorf("bytes a connection: %+v", m)
	}
}
