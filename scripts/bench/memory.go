package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/shunt-lb/shunt/bpf/bpftest/bench"
)

// memory is how many bytes a connection takes, of Shunt's tables and beside them of
// the kernel's slabs, without their hash tables.
type memory struct {
	bench.Memory
	Peers peersMemory `json:"peers"`
}

// peersMemory is slab_size of the kernel's caches.
type peersMemory struct {
	Kernel    string  `json:"kernel"` // its release, of Debian's user-mode-linux
	IPVS      float64 `json:"ip_vs_conn"`
	Conntrack float64 `json:"nf_conntrack"`
}

// memoryConnections is for how many the tables are made that are looked at.
const memoryConnections = 1 << 16

// readSlabs prints what peersMemory has, a line each.
const readSlabs = "uname -r; cat /sys/kernel/slab/ip_vs_conn/slab_size /sys/kernel/slab/nf_conntrack/slab_size"

func measureMemory(ctx context.Context) (*memory, error) {
	shunt, err := bench.MeasureMemory(memoryConnections)
	if err != nil {
		return nil, err
	}
	guest := exec.CommandContext(ctx, "scripts/guest/uml.sh", "/bin/sh", "-c", readSlabs)
	guest.Stderr = os.Stderr
	text, err := guest.Output()
	if err != nil {
		return nil, fmt.Errorf("read the sizes of IPVS's connections in the guest (run me at the top of the repository): %w\n%s", err, text)
	}
	peers, err := parseSlabs(string(text))
	return &memory{Memory: shunt, Peers: peers}, err
}

func parseSlabs(text string) (p peersMemory, err error) {
	if _, err = fmt.Sscanf(text, "%s\n%g\n%g\n", &p.Kernel, &p.IPVS, &p.Conntrack); err != nil {
		return p, fmt.Errorf("read the sizes of IPVS's connections in what the guest printed, %q: %w", text, err)
	}
	return p, nil
}

func (m *memory) print(w io.Writer) {
	fmt.Fprintf(w, "\n%-30s %9s %9s   %s\n", "memory, bytes a connection", "IPv4", "IPv6", "goal, IPv4")
	fmt.Fprintf(w, "%-30s %9.1f %9.1f   %d: %s\n", "nat, two keys", m.NAT4, m.NAT6, goalBytesNAT, judge(m.NAT4 <= goalBytesNAT))
	fmt.Fprintf(w, "%-30s %9.1f %9.1f   %d: %s\n", "dr and local, one key", m.DR4, m.DR6, goalBytesDR, judge(m.DR4 <= goalBytesDR))
	fmt.Fprintf(w, "%-30s %9.0f %9.0f   /sys/kernel/slab/ip_vs_conn/slab_size, kernel %s in scripts/guest/uml.sh\n",
		"IPVS", m.Peers.IPVS, m.Peers.IPVS, m.Peers.Kernel)
	fmt.Fprintf(w, "%-30s %9.0f %9.0f   /sys/kernel/slab/nf_conntrack/slab_size, likewise\n", "nf_conntrack", m.Peers.Conntrack, m.Peers.Conntrack)
}
