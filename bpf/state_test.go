package bpf_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// stateNames are the kernel's states in its order, as the table names them.
var stateNames = []string{"NO", "ES", "SS", "SR", "FW", "TW", "CL", "CW", "LA", "LI", "SA"}

// readStates returns the kernel's tables: by table, event and old state.
func readStates(t *testing.T) map[string]map[string][]string {
	t.Helper()
	const path = "testdata/tcp_states.txt"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// A guest has only the package's own copy.
	if other, err := os.ReadFile("../conntrack/" + path); err == nil && string(other) != string(text) {
		t.Errorf("%s differs from conntrack's", path)
	}
	tables := map[string]map[string][]string{}
	var table string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if strings.HasPrefix(line, "#") || len(fields) == 0 {
			continue
		}
		if fields[0] == "Table" {
			if diff := cmp.Diff(stateNames, fields[2:]); diff != "" {
				t.Fatalf("%s: heading (-want +got):\n%s", path, diff)
			}
			continue
		}
		if len(fields) == len(stateNames)+2 {
			table, fields = fields[0], fields[1:]
			tables[table] = map[string][]string{}
		}
		if len(fields) != len(stateNames)+1 || tables[table] == nil {
			t.Fatalf("%s: %q", path, line)
		}
		tables[table][fields[0]] = fields[1:]
	}
	return tables
}

// flagsOf are flags of each event, those of more urgent events among them: RST
// before SYN before FIN before ACK.
var flagsOf = map[string][]string{
	"syn": {"S", "SA", "SF", "SFA"}, "fin": {"F", "FA", "FAP"}, "ack": {"A", "PA"}, "rst": {"R", "RA", "RS", "RSFA"},
}

// Every cell of the kernel's tables, by a packet.
func TestTCPTransitions(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 16}) // small: it is rewritten for each cell
	tables := readStates(t)
	cells := 0
	for _, a := range families {
		for table, method := range map[string]bpf.KernelMethod{"INPUT": nat, "OUTPUT": nat, "IN-ONLY": dr} {
			t.Run(a.name+"/"+table, func(t *testing.T) {
				s := newScene(t, f, a, bpftest.TCP, method)
				// Or a SYN would not meet the states of connections that are over.
				s.service.Flags |= bpf.KernelServiceFlagsSERVICE_REUSE_NEVER
				f.Apply(s.service)
				p := s.request()
				if got := f.Run(p.Bytes()); got.Action != bpftest.TX {
					t.Fatal(got.Action, f.Events())
				}
				if table == "OUTPUT" {
					p = s.reply()
				}
				for event, row := range tables[table] {
					for old, want := range row {
						for _, flags := range flagsOf[event] {
							cells++
							p.Flags = flags
							s.transition(t, p, uint8(old), want)
						}
					}
				}
				p.Flags = ""
				for old := range stateNames {
					s.transition(t, p, uint8(old), "CL")
				}
			})
		}
	}
	if want := 2 * 3 * len(stateNames) * (4 + 3 + 2 + 4); cells != want {
		t.Errorf("%d cells, want %d", cells, want)
	}
}

// transition puts the scene's only connection into a state, runs the packet and
// looks at its state then, in both entries, and at the counts.
func (s *scene) transition(t *testing.T, p bpftest.Packet, old uint8, want string) {
	t.Helper()
	s.SetState(bpf.KernelConnState(old))
	if got := s.Run(p.Bytes()); got.Action != bpftest.TX {
		t.Fatalf("%s in %s: %v, %v", p.Flags, stateNames[old], got.Action, s.Events())
	}
	for _, e := range s.Entries() {
		if got := stateNames[e.State]; got != want {
			t.Errorf("%q in %s: %s, want %s (reply entry: %v)", p.Flags, stateNames[old], got, want, e.Reply)
		}
	}
	diffLoads(t, s.Fixture, s.service.Servers[0])
}

// A connection's whole life, its counts and its proof.
func TestLifeOfConnection(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	type step struct {
		from, flags, state string
		active             int64
		proven             bool
		ahead              bool // the forward entry alone is as far as that
	}
	for _, tt := range []struct {
		name   string
		method bpf.KernelMethod
		steps  []step
	}{
		{"nat", nat, []step{
			{"client", "S", "SR", 1, false, false},
			{"server", "SA", "SR", 1, false, false},
			{"client", "A", "ES", 1, true, true},
			{"server", "PA", "ES", 1, true, false},
			{"client", "FA", "CW", 0, true, false},
			{"server", "A", "CW", 0, true, false},
			{"server", "FA", "TW", 0, true, false},
			{"client", "A", "TW", 0, true, false},
			// The connection is over: the next one is new.
			{"client", "S", "SR", 1, false, false},
		}},
		{"nat, closed by the server", nat, []step{
			{"client", "S", "SR", 1, false, false},
			{"server", "SA", "SR", 1, false, false},
			{"client", "A", "ES", 1, true, true},
			{"server", "FA", "FW", 0, true, false},
			{"client", "FA", "TW", 0, true, false},
		}},
		{"nat, ended with the handshake's last segment", nat, []step{
			{"client", "S", "SR", 1, false, false},
			{"server", "SA", "SR", 1, false, false},
			{"client", "FA", "TW", 0, true, false},
		}},
		{"nat, refused", nat, []step{
			{"client", "S", "SR", 1, false, false},
			{"server", "RA", "CL", 0, false, false},
		}},
		{"dr", dr, []step{
			{"client", "S", "SR", 1, false, false},
			{"client", "A", "ES", 1, false, false},
			{"client", "PA", "ES", 1, false, false},
			{"client", "FA", "FW", 0, false, false},
			{"client", "A", "FW", 0, false, false},
			{"client", "R", "CL", 0, false, false},
		}},
	} {
		for _, a := range families {
			t.Run(a.name+"/"+tt.name, func(t *testing.T) {
				s := newScene(t, f, a, bpftest.TCP, tt.method)
				for i, step := range tt.steps {
					p := s.request()
					if step.from == "server" {
						p = s.reply()
					} else if strings.Contains(step.flags, "A") {
						p.Ack = s.reply().Seq + 1
					}
					p.Flags = step.flags
					if got := f.Run(p.Bytes()); got.Action != bpftest.TX {
						t.Fatalf("step %d: %v %v", i, got.Action, f.Events())
					}
					state := uint8(slices.Index(stateNames, step.state))
					want := s.both(state, step.proven)
					if step.ahead {
						want[1] = s.both(synReceived, false)[1]
					}
					if tt.method != nat {
						want = want[:1]
					}
					diffEntries(t, f, want...)
					load := bpf.KernelServerLoad{Active: step.active, Inactive: 1 - step.active}
					if got := f.Load(s.service.Servers[0]); got != load {
						t.Fatalf("step %d: %+v, want %+v", i, got, load)
					}
				}
			})
		}
	}
}

// UDP is proven by a reply, which a packet a second later makes firm, or by three
// packets each a second or more after the one before.
func TestUDPProof(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	second := f.Plane.Clock.Ticks(1e9)
	for _, a := range families {
		t.Run(a.name+"/nat", func(t *testing.T) {
			s := newScene(t, f, a, bpftest.UDP, nat)
			for range 3 {
				f.Run(s.request().Bytes())
			}
			diffEntries(t, f, s.both(stateUDP, false)...)
			f.Run(s.reply().Bytes())
			f.Run(s.reply().Bytes())
			want := s.both(stateUDP, true)
			want[0].ByReply, want[1].ByReply = true, true
			diffEntries(t, f, want...)
			f.Age(second)
			f.Run(s.reply().Bytes())
			diffEntries(t, f, want...) // an answer is no sign of the client
			f.Age(second)
			f.Run(s.request().Bytes())
			diffEntries(t, f, s.both(stateUDP, true)...)
			if got := f.Load(s.service.Servers[0]); got != (bpf.KernelServerLoad{Inactive: 1}) {
				t.Errorf("UDP counts as %+v", got)
			}
		})
		t.Run(a.name+"/nat, answered late", func(t *testing.T) {
			s := newScene(t, f, a, bpftest.UDP, nat)
			f.Run(s.request().Bytes())
			f.Age(second)
			f.Run(s.request().Bytes())
			f.Run(s.reply().Bytes())
			diffEntries(t, f, s.both(stateUDP, true)...)
		})
		for _, method := range []bpf.KernelMethod{nat, dr, local} {
			t.Run(fmt.Sprint(a.name, "/spaced/", method), func(t *testing.T) {
				s := newScene(t, f, a, bpftest.UDP, method)
				f.Run(s.request().Bytes())
				for i := range 3 {
					// Within what a second is in ticks it is no proof. A tick may pass
					// between packets, so only one is asked for.
					f.Run(s.request().Bytes())
					want := s.both(stateUDP, false)
					if method != nat {
						want = want[:1]
					}
					diffEntries(t, f, want...)
					f.Age(second)
					f.Run(s.request().Bytes())
					want[0].Proven = i == 2
					if method == nat {
						want[1].Proven = i == 2
					}
					diffEntries(t, f, want...)
				}
			})
		}
	}
}

// A client's first segment on a connection that is over is scheduled anew, as by
// the kernel's default conn_reuse_mode: a server of weight 0 gets it no more.
func TestReuseSchedulesAnew(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.TCP, nat)
			s.establish(t)
			first := s.Entries()[0].Server
			reset := s.request()
			reset.Flags = "R"
			f.Run(reset.Bytes())
			s.service.Servers[0].Weight = 0
			s.Apply(s.service)
			syn := s.request()
			syn.Flags = "S"
			f.Events()
			f.Run(syn.Bytes())
			if got := f.Events(); got["no-server"] != 1 {
				t.Errorf("events %v, want the segment refused: the only server, %d, has weight 0", got, first)
			}
			if left := s.Entries(); len(left) != 0 {
				t.Errorf("%d keys of the old connection are left", len(left))
			}
		})
	}
}
