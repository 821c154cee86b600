package snmp

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"
)

// counters are answers with the processors' counters; negative ones are missing.
func counters(values ...int64) []gosnmp.SnmpPDU {
	all := make([]gosnmp.SnmpPDU, len(tickObjects))
	for i := range all {
		all[i].Type = gosnmp.NoSuchObject
		if i < len(values) && values[i] >= 0 {
			all[i] = gosnmp.SnmpPDU{Type: gosnmp.Counter32, Value: uint(values[i])}
		}
	}
	return all
}

// TestWork: the order is user, system, idle, nice, wait, interrupt, softirq, steal.
func TestWork(t *testing.T) {
	type answer struct {
		after  time.Duration
		values []gosnmp.SnmpPDU
		want   string // the share, or none, or the error
	}
	const second = time.Second
	for _, tt := range []struct {
		name    string
		answers []answer
	}{
		{"as the agent's", []answer{{0, counters(100, 100, 100, 100, 100, 100, 100, 100), "none"}, {10 * second, counters(110, 120, 130, 140, 150, 110, 110, 110), "0.5556"}}},
		{"idle", []answer{{0, counters(1, 1, 1), "none"}, {10 * second, counters(1, 1, 1001), "0.0000"}}},
		{"busy", []answer{{0, counters(1, 1, 1), "none"}, {10 * second, counters(501, 501, 1), "1.0000"}}},
		{"come round", []answer{{0, counters(math.MaxUint32-9, 0, 100), "none"}, {10 * second, counters(40, 0, 150), "0.5000"}}},
		{"between two looks of snmpd", []answer{
			{0, counters(1, 1, 1), "none"},
			{second, counters(1, 1, 1), "none"},
			{5 * second, counters(101, 1, 301), "0.2500"},
			{6 * second, counters(101, 1, 301), "0.2500"},
			{10 * second, counters(101, 1, 401), "0.0000"},
		}},
		{"snmpd has just begun", []answer{{0, counters(0, 0, 0), "none"}, {10 * second, counters(100000, 0, 300000), "none"}, {20 * second, counters(100100, 0, 300100), "0.5000"}}},
		{"stand still", []answer{{0, counters(1, 1, 1), "none"}, {70 * second, counters(1, 1, 1), "the ssCpuRaw counters stand still for 1m10s"}, {80 * second, counters(2, 1, 2), "0.5000"}}},
		{"went back", []answer{
			{0, counters(5000, 5000, 5000), "none"},
			{10 * second, counters(10, 10, 10), "the ssCpuRaw counters went back: the host began anew"},
			{20 * second, counters(20, 10, 20), "0.5000"},
		}},
		{"went back from far", []answer{{0, counters(3_000_000_000, 1, 1), "none"}, {10 * second, counters(10, 1, 10), "the ssCpuRaw counters went back: the host began anew"}}},
		{"missing", []answer{{0, counters(1, 1, -1), "the host has no ssCpuRaw counters (1.3.6.1.4.1.2021.11.53.0), or no view of them"}}},
		{"of another type", []answer{{0, append([]gosnmp.SnmpPDU{{Type: gosnmp.OctetString, Value: []byte("7")}}, counters(1, 1)[:7]...), "the counter 1.3.6.1.4.1.2021.11.50.0 is of type OctetString"}}},
		{"too large", []answer{{0, append([]gosnmp.SnmpPDU{{Type: gosnmp.Counter64, Value: uint64(1 << 40)}}, counters(1, 1)[:7]...), "the counter 1.3.6.1.4.1.2021.11.50.0 is of type Counter64"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, began := &meter{}, time.Unix(1_000_000_000, 0)
			for _, a := range tt.answers {
				got := "none"
				if err := m.work(a.values, began.Add(a.after)); err != nil {
					got = err.Error()
				} else if m.shared {
					got = fmt.Sprintf("%.4f", m.share)
				}
				if got != a.want {
					t.Errorf("after %s: %s, want %s", a.after, got, a.want)
				}
			}
		})
	}
}

func TestMemoryShare(t *testing.T) {
	const none = -1
	memory := func(total, totalX, free, buffers, cached, available int) []gosnmp.SnmpPDU {
		var all []gosnmp.SnmpPDU
		for _, kB := range []int{total, totalX, free, buffers, cached, available} {
			v := gosnmp.SnmpPDU{Type: gosnmp.Integer, Value: kB}
			if kB == none {
				v = gosnmp.SnmpPDU{Type: gosnmp.NoSuchInstance}
			}
			all = append(all, v)
		}
		return all
	}
	for _, tt := range []struct {
		name   string
		values []gosnmp.SnmpPDU
		want   string
	}{
		{"as the kernel says", memory(1000, 1000, 100, 100, 100, 600), "0.40"},
		{"of old", memory(1000, none, 100, 200, 300, none), "0.40"},
		{"of 2 TiB and more", memory(-5, 4000, 100, 200, 300, 3000), "0.25"},
		{"not known", memory(none, none, none, none, none, none), "0.00"},
		{"free is not known", memory(1000, none, none, 1, 1, none), "0.00"},
		{"more than there is", memory(1000, none, 900, 900, 900, none), "0.00"},
		{"none at all", memory(0, none, 0, 0, 0, none), "the host says that 0 kB of 0 kB of memory are available"},
		{"less than nothing", memory(100, none, -1, none, none, -7), "the host says that -7 kB of 100 kB of memory are available"},
		{"of another type", append(memory(1, 1, 1, 1, 1, 1)[:5], gosnmp.SnmpPDU{Type: gosnmp.IPAddress, Value: "10.0.0.1"}), "the object 1.3.6.1.4.1.2021.4.27.0 is of type IPAddress"},
	} {
		share, err := memoryShare(tt.values)
		got := fmt.Sprintf("%.2f", share)
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
