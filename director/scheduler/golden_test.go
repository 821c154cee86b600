package scheduler_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/scheduler"
)

// TestGolden replays everything the kernel was seen to choose.
func TestGolden(t *testing.T) {
	for _, name := range director.Schedulers() {
		for _, c := range directortest.Golden(t, name) {
			t.Run(c.Name, func(t *testing.T) {
				if diff := cmp.Diff(c.Chosen, replay(t, c)); diff != "" {
					t.Errorf("chosen (-kernel +model):\n%s", diff)
				}
			})
		}
	}
}

// replay returns the servers the model chooses for the case's connections.
func replay(t *testing.T, c directortest.GoldenCase) []int {
	t.Helper()
	model, err := scheduler.New(c.Scheduler, scheduler.Options{Flags: c.Flags()})
	if err != nil {
		t.Fatal(err)
	}
	vip := netip.MustParseAddrPort("192.0.2.1:80")
	if c.Family == "ipv6" {
		vip = netip.MustParseAddrPort("[2001:db8::1]:80")
	}
	index := make(map[netip.AddrPort]int)
	for i, weight := range c.Weights {
		model.Add(c.Server(i), weight)
		index[c.Server(i)] = i
	}
	// Persistence is not the scheduler's: a template remembers its choice for
	// the rest of the client's network.
	templates := make(map[netip.Prefix]netip.AddrPort)
	network := func(client netip.Addr) (netip.Prefix, bool) {
		if c.PersistTimeout == 0 {
			return netip.Prefix{}, false
		}
		length := 0
		for _, b := range c.PersistNetmask.AsSlice() {
			for ; b != 0; b <<= 1 {
				length++
			}
		}
		prefix, err := client.Prefix(length)
		if err != nil {
			t.Fatal(err)
		}
		return prefix, true
	}
	var chosen []int
	for k := range c.Chosen {
		for _, step := range c.Steps {
			if step.At != k {
				continue
			}
			server := c.Server(step.Server)
			switch step.Op {
			case "add":
				index[server] = step.Server
				model.Add(server, step.Weight)
			case "del":
				model.Remove(server)
			case "weight":
				model.Edit(server, step.Weight)
			default:
				t.Fatalf("unknown step %q", step.Op)
			}
		}
		prefix, persistent := network(c.Client(k).Addr())
		server, ok := templates[prefix], persistent
		if !server.IsValid() {
			server, ok = model.Pick(c.Client(k), vip, nil)
		}
		if !ok {
			chosen = append(chosen, -1)
			continue
		}
		if persistent {
			templates[prefix] = server
		}
		chosen = append(chosen, index[server])
	}
	return chosen
}
