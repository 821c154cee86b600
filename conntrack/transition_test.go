package conntrack_test

import (
	"bufio"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
)

// readTables reads the transition tables of testdata, which were taken from the
// reference and not from the code.
func readTables(t *testing.T) [3][4][11]conntrack.State {
	t.Helper()
	f, err := os.Open("testdata/tcp_states.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	states := map[string]conntrack.State{
		"NO": 0, "ES": 1, "SS": 2, "SR": 3, "FW": 4, "TW": 5, "CL": 6, "CW": 7, "LA": 8, "LI": 9, "SA": 10,
	}
	directions := map[string]conntrack.Direction{
		"INPUT": conntrack.Input, "OUTPUT": conntrack.Output, "IN-ONLY": conntrack.InputOnly,
	}
	events := map[string]conntrack.Event{
		"syn": conntrack.Syn, "fin": conntrack.Fin, "ack": conntrack.Ack, "rst": conntrack.Rst,
	}
	var (
		tables    [3][4][11]conntrack.State
		direction conntrack.Direction
		heading   []string
		rows      int
	)
	for sc := bufio.NewScanner(f); sc.Scan(); {
		fields := strings.Fields(sc.Text())
		if len(fields) == 0 || fields[0] == "#" {
			continue
		}
		if fields[0] == "Table" {
			heading = fields[2:]
			continue
		}
		if d, ok := directions[fields[0]]; ok {
			direction, fields = d, fields[1:]
		}
		event, ok := events[fields[0]]
		if !ok || len(fields) != 12 || len(heading) != 11 {
			t.Fatalf("bad row %q", sc.Text())
		}
		for i, next := range fields[1:] {
			tables[direction][event][states[heading[i]]] = states[next]
		}
		rows++
	}
	if rows != 12 {
		t.Fatalf("%d rows, want 12", rows)
	}
	return tables
}

func TestTransitionsAreTheKernels(t *testing.T) {
	want := readTables(t)
	if diff := cmp.Diff(want, conntrack.TCPTransitions()); diff != "" {
		t.Errorf("tables (-want +got):\n%s", diff)
	}
	for d := range want {
		for e := range want[d] {
			for s := range want[d][e] {
				got := conntrack.Next(conntrack.Direction(d), conntrack.Event(e), conntrack.State(s))
				if got != want[d][e][s] {
					t.Errorf("Next(%v, %v, %v): %v, want %v", conntrack.Direction(d), conntrack.Event(e),
						conntrack.State(s), got, want[d][e][s])
				}
			}
		}
	}
}

func TestNextOutsideTheTables(t *testing.T) {
	tests := []struct {
		name      string
		direction conntrack.Direction
		event     conntrack.Event
		state     conntrack.State
		want      conntrack.State
	}{
		{"no_flag_closes", conntrack.Input, conntrack.NoFlag, conntrack.Established, conntrack.Close},
		{"udp_stays", conntrack.Input, conntrack.Ack, conntrack.UDPNormal, conntrack.UDPNormal},
		{"udp_stays_without_event", conntrack.Output, conntrack.NoFlag, conntrack.UDPNormal, conntrack.UDPNormal},
		{"unknown_direction", 3, conntrack.Ack, conntrack.Established, conntrack.Close},
		{"unknown_event", conntrack.Input, 5, conntrack.Established, conntrack.Close},
		{"unknown_state", conntrack.Input, conntrack.Ack, 12, conntrack.Close},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := conntrack.Next(tt.direction, tt.event, tt.state); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

// A whole life as the director of a NAT service sees it, and as that of a DR
// service does.
func TestNextLife(t *testing.T) {
	type packet struct {
		direction conntrack.Direction
		flags     uint8
		want      conntrack.State
	}
	const fin, syn, rst, ack = 0x01, 0x02, 0x04, 0x10
	tests := map[string][]packet{
		"nat_client_closes": {
			{conntrack.InputOnly, syn, conntrack.SynRecv},
			{conntrack.Output, syn | ack, conntrack.SynRecv},
			{conntrack.Input, ack, conntrack.Established},
			{conntrack.Input, ack | 0x08, conntrack.Established},
			{conntrack.Input, fin | ack, conntrack.CloseWait},
			{conntrack.Output, fin | ack, conntrack.TimeWait},
			{conntrack.Input, ack, conntrack.TimeWait},
			{conntrack.Input, syn, conntrack.SynRecv},
		},
		"dr_client_closes": {
			{conntrack.InputOnly, syn, conntrack.SynRecv},
			{conntrack.InputOnly, ack, conntrack.Established},
			{conntrack.InputOnly, fin | ack, conntrack.FinWait},
			{conntrack.InputOnly, ack, conntrack.FinWait},
		},
		"reset": {
			{conntrack.InputOnly, syn, conntrack.SynRecv},
			{conntrack.InputOnly, rst | ack, conntrack.SynRecv},
			{conntrack.InputOnly, ack, conntrack.Established},
			{conntrack.InputOnly, rst | syn | fin | ack, conntrack.Close},
		},
		"null_segment": {
			{conntrack.InputOnly, syn | fin, conntrack.SynRecv},
			{conntrack.InputOnly, 0x08, conntrack.Close},
		},
	}
	for name, packets := range tests {
		t.Run(name, func(t *testing.T) {
			state := conntrack.None
			for i, p := range packets {
				state = conntrack.Next(p.direction, conntrack.EventOf(p.flags), state)
				if state != p.want {
					t.Fatalf("packet %d: %v, want %v", i, state, p.want)
				}
			}
		})
	}
}

func TestEventOf(t *testing.T) {
	for flags := range 256 {
		want := conntrack.NoFlag
		// From the weakest to the strongest, each overruling the one before.
		for _, f := range []struct {
			bit   int
			event conntrack.Event
		}{{0x10, conntrack.Ack}, {0x01, conntrack.Fin}, {0x02, conntrack.Syn}, {0x04, conntrack.Rst}} {
			if flags&f.bit != 0 {
				want = f.event
			}
		}
		if got := conntrack.EventOf(uint8(flags)); got != want {
			t.Errorf("EventOf(%#x): %v, want %v", flags, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	var got []string
	for d := range conntrack.Direction(4) {
		got = append(got, d.String())
	}
	for e := range conntrack.Event(6) {
		got = append(got, e.String())
	}
	want := []string{
		"input", "output", "input-only", "direction-3",
		"syn", "fin", "ack", "rst", "none", "event-5",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}
