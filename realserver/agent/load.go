package agent

import (
	"runtime"
	"sync"

	"github.com/prometheus/procfs"
)

// Load is what the host says of itself; shares from 0 to 1, nil where it is not known.
type Load struct {
	Value       float64  `json:"value"` // the greatest of CPU and memory
	CPU         *float64 `json:"cpu,omitempty"`
	RunQueue    *float64 `json:"run-queue,omitempty"` // by CPU, of the last minute
	Pressure    *float64 `json:"pressure,omitempty"`  // of the CPU, of the last ten seconds
	Memory      *float64 `json:"memory,omitempty"`
	Connections *uint64  `json:"connections,omitempty"` // IPv4 TCP sockets in use
}

// meter reads /proc. Safe for concurrent use.
type meter struct {
	mu           sync.Mutex
	busy, passed float64 // of all CPUs since the boot, in seconds, when they were read last
}

func newMeter() *meter { return &meter{} }

// measure returns what can be read; nil if nothing can.
func (m *meter) measure() *Load {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return nil
	}
	var l Load
	l.CPU = m.cpu(fs)
	if avg, err := fs.LoadAvg(); err == nil {
		l.RunQueue = new(avg.Load1 / float64(runtime.NumCPU()))
	}
	if psi, err := fs.PSIStatsForResource("cpu"); err == nil && psi.Some != nil {
		l.Pressure = new(share(psi.Some.Avg10 / 100))
	}
	if memory, err := fs.Meminfo(); err == nil && memory.MemTotal != nil && memory.MemAvailable != nil && *memory.MemTotal > 0 {
		l.Memory = new(share(1 - float64(*memory.MemAvailable)/float64(*memory.MemTotal)))
	}
	if sockets, err := fs.NetSockstat(); err == nil {
		for _, p := range sockets.Protocols {
			if p.Protocol == "TCP" {
				l.Connections = new(uint64(max(p.InUse, 0)))
			}
		}
	}
	for _, part := range []*float64{l.CPU, l.Memory} {
		if part != nil {
			l.Value = max(l.Value, *part)
		}
	}
	if l.CPU == nil && l.Memory == nil {
		return nil
	}
	return &l
}

// cpu is the share that the CPUs worked since it was asked last; since the boot at first.
func (m *meter) cpu(fs procfs.FS) *float64 {
	stat, err := fs.Stat()
	if err != nil {
		return nil
	}
	t := stat.CPUTotal
	busy := t.User + t.Nice + t.System + t.IRQ + t.SoftIRQ + t.Steal
	passed := busy + t.Idle + t.Iowait
	m.mu.Lock()
	defer m.mu.Unlock()
	worked, time := busy-m.busy, passed-m.passed
	m.busy, m.passed = busy, passed
	if time <= 0 {
		return nil
	}
	return new(share(worked / time))
}

func share(x float64) float64 { return min(max(x, 0), 1) }
