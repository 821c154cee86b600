package scheduler_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/scheduler"
)

// TestGolden replays everything the kernel was seen to choose, or what the folder
// that SHUNT_GOLDEN names says it chose.
func TestGolden(t *testing.T) {
	for _, c := range directortest.AllGolden(t) {
		t.Run(c.Name, func(t *testing.T) {
			_, chosen := replay(t, c)
			if diff := cmp.Diff(c.Chosen, chosen); diff != "" {
				t.Errorf("chosen (-kernel +model):\n%s", diff)
			}
		})
	}
}

// The counts that the kernel ended with, in the order of addition, and the order
// of its list are the model's too.
func TestGoldenCounts(t *testing.T) {
	t.Setenv("SHUNT_GOLDEN", "")
	for _, c := range directortest.AllGolden(t) {
		t.Run(c.Name, func(t *testing.T) {
			s, _ := replay(t, c)
			var counts [][2]int
			for _, server := range s.Servers() {
				counts = append([][2]int{{int(server.Load.Active), int(server.Load.Inactive)}}, counts...)
			}
			if diff := cmp.Diff(c.FinalActiveInactive, counts); diff != "" {
				t.Errorf("active and inactive (-kernel +model):\n%s", diff)
			}
			var order []int
			for i := range c.Weights {
				order = append([]int{i}, order...)
			}
			if diff := cmp.Diff(c.KernelListOrder, order); diff != "" {
				t.Errorf("list (-kernel +model):\n%s", diff)
			}
		})
	}
}

// replay returns the service after the case's connections, and the servers that
// the model chose for them.
func replay(t *testing.T, c directortest.GoldenCase) (*scheduler.Simulation, []int) {
	t.Helper()
	s, err := scheduler.NewSimulation(c.Service(t), scheduler.Options{})
	if err != nil {
		t.Fatal(err)
	}
	index := make(map[netip.AddrPort]int)
	add := func(i int, weight uint32) {
		index[c.Server(i)] = i
		s.AddServer(c.RealServer(i, weight))
	}
	for i, weight := range c.Weights {
		add(i, weight)
	}
	var chosen []int
	for k := range c.Chosen {
		for _, step := range c.Steps {
			if step.At != k {
				continue
			}
			switch step.Op {
			case "add":
				add(step.Server, step.Weight)
			case "del":
				s.RemoveServer(c.Server(step.Server))
			case "weight":
				s.EditServer(c.RealServer(step.Server, step.Weight))
			case "close":
				for _, open := range s.Connections(c.Server(step.Server)) {
					s.Close(open.Client, open.Virtual)
				}
			default:
				t.Fatalf("unknown step %q", step.Op)
			}
		}
		client, virtual := c.Client(k), c.Virtual(k)
		if client.Port() == 0 {
			client = netip.AddrPortFrom(client.Addr(), uint16(32768+k))
		}
		choice := s.Open(client, virtual)
		if !choice.Server.IsValid() {
			chosen = append(chosen, -1)
			continue
		}
		chosen = append(chosen, index[choice.Server])
		s.Establish(client, virtual)
		if c.Mode == "closed" {
			s.Close(client, virtual)
		} else if c.Mode != "open" {
			t.Fatalf("unknown mode %q", c.Mode)
		}
	}
	return s, chosen
}
