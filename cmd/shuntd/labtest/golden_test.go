package labtest

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// The daemon's rr and wrr choose as the kernel's IPVS did, server by server,
// with servers added one by one and changed on the way.
func TestSchedulersChooseAsTheKernel(t *testing.T) {
	t.Parallel()
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 4})
	if _, err := lab.ServeHTTP(8080); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, lab)
	port := uint16(1000) // of the service
	for _, name := range []string{"rr-0000-closed", "rr-1234-closed", "rr-add-at-20", "rr-weight-at-17", "wrr-1234-closed", "wrr-2468-closed", "wrr-511-closed", "wrr-add-at-20", "wrr-del-at-20", "wrr-weight-at-17"} {
		c := goldenCase(t, name)
		port++ // a server that comes back to a service brings its counts along
		t.Run(name, func(t *testing.T) { replay(t, lab, d, c, port) })
	}
}

func goldenCase(t *testing.T, name string) directortest.GoldenCase {
	t.Helper()
	scheduler, _, _ := strings.Cut(name, "-")
	for _, c := range directortest.Golden(t, director.Scheduler(scheduler)) {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("there is no case %s", name)
	return directortest.GoldenCase{}
}

func replay(t *testing.T, lab *directortest.Lab, d *daemon, c directortest.GoldenCase, port uint16) {
	vip := netip.AddrPortFrom(vip4, port)
	address := func(i int) string { return netip.AddrPortFrom(lab.Servers[i].Addr4, 8080).String() }
	d.do(t, fmt.Sprintf("service add tcp://%s --name %s --scheduler %s", vip, c.Name, c.Scheduler))
	for i, weight := range c.Weights {
		d.do(t, fmt.Sprintf("server add %s %s --method nat --weight %d", c.Name, address(i), weight))
	}
	indexes := map[string]int{}
	for i, s := range lab.Servers {
		indexes[s.Name] = i
	}
	var chosen []int
	for k := range c.Chosen {
		for _, step := range c.Steps {
			if step.At != k {
				continue
			}
			switch step.Op {
			case "add":
				d.do(t, fmt.Sprintf("server add %s %s --method nat --weight %d", c.Name, address(step.Server), step.Weight))
			case "del":
				d.do(t, fmt.Sprintf("server remove %s %s --yes", c.Name, address(step.Server)))
			case "weight":
				d.do(t, fmt.Sprintf("server edit %s %s --weight %d", c.Name, address(step.Server), step.Weight))
			}
		}
		// A port of its own: all cases reach the same servers by NAT.
		call, err := open(t, lab.Client, netip.AddrPortFrom(lab.ClientAddrs4[0], 40*port+uint16(k)-30_000), vip)
		if errors.Is(err, syscall.ECONNREFUSED) {
			chosen = append(chosen, -1)
			continue
		}
		if err == nil {
			err = call.ask()
		}
		if err != nil {
			t.Fatal(err)
		}
		if c.Mode == "closed" {
			_ = call.conn.Close()
		}
		chosen = append(chosen, indexes[call.server])
	}
	if !slices.Equal(chosen, c.Chosen) {
		t.Errorf("chosen %v, the kernel chose %v", chosen, c.Chosen)
	}
	await(t, "the counts of the kernel", func() bool {
		for i, want := range c.FinalActiveInactive {
			shown := read[api.Service](t, d, "service", "show", c.Name).Servers
			j := slices.IndexFunc(shown, func(s api.Server) bool { return s.Address == address(i) })
			if j >= 0 && (shown[j].Active != uint64(want[0]) || shown[j].Inactive != uint64(want[1])) {
				return false
			}
		}
		return true
	})
}
