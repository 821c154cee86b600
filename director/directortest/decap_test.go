package directortest

import (
	"testing"

	"github.com/shunt-lb/shunt/bpf/decap"
)

// TestDecapsulate: in both shapes the servers' links get the program.
func TestDecapsulate(t *testing.T) {
	for _, shape := range []Shape{TwoArmed, OneArmed} {
		lab := Start(t, Topology{Shape: shape, Servers: 1})
		programs, err := lab.Decapsulate(decap.Config{})
		if err != nil {
			t.Fatal(err)
		}
		info, err := programs[0].Entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		eth0, err := lab.Servers[0].link("eth0")
		if err != nil {
			t.Fatal(err)
		}
		if xdp := eth0.Attrs().Xdp; xdp == nil || xdp.ProgId != uint32(id) {
			t.Errorf("%s: the server's link has %+v, want program %d", shape, xdp, id)
		}
	}
}
