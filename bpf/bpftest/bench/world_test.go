package bench

import (
	"testing"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// The tables that are measured are as full as those in use.
func TestTablesAreAsLargeAsThePlanes(t *testing.T) {
	const connections = 10000
	p, err := bpf.Open(bpftest.PinDir(t), bpf.Limits{
		Connections4: connections, Connections6: connections, Services: 1, Servers: 1, Words: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Remove(); err != nil {
			t.Error(err)
		}
	}()
	if got, want := groups(connections), p.Connections4.MaxEntries(); got != want {
		t.Errorf("a table of %d connections is measured with %d groups, and has %d", connections, got, want)
	}
}

// Every scheduler of the program has its rows, and all of their packets make
// connections.
func TestEverySchedulerIsMeasured(t *testing.T) {
	bpftest.Privileged(t)
	rows, err := Schedulers(Options{Rounds: 1, Packets: 20})
	if err != nil {
		t.Fatal(err)
	}
	measured := map[string]bool{}
	for _, r := range rows {
		measured[r.Name] = r.NS != nil
	}
	if want := (len(bpf.Schedulers) - 1) * len(listSizes); len(measured) != want {
		t.Errorf("%d rows, want %d", len(measured), want)
	}
	for name, was := range measured {
		if !was {
			t.Errorf("%s was not measured", name)
		}
	}
}

// New connections under a template are made under that one, and measured.
func TestTemplatesAreMeasured(t *testing.T) {
	bpftest.Privileged(t)
	rows, err := Templates(Options{Rounds: 1, Packets: 20})
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 2 {
		t.Errorf("%d rows, want 2", len(rows))
	}
	for _, r := range rows {
		if r.NS == nil {
			t.Errorf("%s was not measured", r.Name)
			continue
		}
		t.Logf("%s: %.0f ns", r.Name, *r.NS)
	}
}
