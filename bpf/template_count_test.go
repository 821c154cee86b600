package bpf_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// editTemplates changes all templates' count of connections and the sweep's.
func (s *scene) editTemplates(t *testing.T, change func(controlled, recounted uint32) (uint32, uint32)) {
	t.Helper()
	const shift = bpf.KernelTemplateLayoutTEMPLATE_RECOUNTED
	s.EditTails(func(id uint64, hop uint32) uint32 {
		if uint8(id>>bpf.KernelIdLayoutID_PROTOCOL) != uint8(bpf.KernelTemplateLayoutPROTOCOL_TEMPLATE) {
			return hop
		}
		n, met := change(hop&uint32(bpf.KernelTemplateLayoutTEMPLATE_COUNT_MASK), hop>>shift)
		return n | met<<shift
	})
}

// A count that the sweep finds wrong twice is put right; one that moved in between
// is not touched.
func TestTemplateRecount(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		for _, wrong := range []uint32{0, 2, 4, 60000} {
			t.Run(fmt.Sprint(a.name, "/", wrong), func(t *testing.T) {
				s := newPersistentScene(t, f, a, bpftest.TCP, nat, nat)
				for host := range 3 {
					s.connectionOf(t, s.requestFrom(0, host))
				}
				network := s.network(s.requestFrom(0, 0))
				f.Sweep() // the templates' counts have moved: it begins to count
				f.Sweep()
				s.diffTemplates(t)
				s.editTemplates(t, func(_, met uint32) (uint32, uint32) { return wrong, met })
				f.Events()
				f.Sweep()
				if got := s.templates()[network].Controlled; got != wrong {
					t.Fatalf("changed to %d at first sight", got)
				}
				s.connectionOf(t, s.requestFrom(0, 7)) // moves it: what the sweep met says nothing
				f.Sweep()
				f.Sweep()
				if got := s.templates()[network].Controlled; got != wrong+1 {
					t.Fatalf("%d, want %d: it had moved", got, wrong+1)
				}
				f.Sweep()
				if got := s.templates()[network].Controlled; got != 4 {
					t.Errorf("%d connections, want 4", got)
				}
				if events := f.Events(); events["template-healed"] != 1 || len(events) != 1 {
					t.Errorf("events %v", events)
				}
				f.Sweep()
				f.Sweep()
				s.diffTemplates(t)
			})
		}
	}
}

// Counting takes two sweeps among many, and what the second finds wrong twice is
// put right; the others end templates all the same.
func TestTemplateRecountNowAndThen(t *testing.T) {
	const (
		begin   = bpf.KernelSweepTemplatesTEMPLATES_BEGUN
		compare = bpf.KernelSweepTemplatesTEMPLATES_COUNTED
		leave   = bpf.KernelSweepTemplatesTEMPLATES_LEFT
	)
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newPersistentScene(t, f, a, bpftest.TCP, nat, nat)
			for host := range 3 {
				s.connectionOf(t, s.requestFrom(0, host))
			}
			network := s.network(s.requestFrom(0, 0))
			for _, wrong := range []uint32{0, 2, 4, 60000} {
				s.editTemplates(t, func(uint32, uint32) (uint32, uint32) { return wrong, 7 })
				s.Events()
				want := wrong
				for round := range 2 {
					for i, sweep := range []bpf.KernelSweepTemplates{leave, leave, begin, compare, leave} {
						f.SweepTemplates(sweep)
						if round == 1 && sweep == compare {
							want = 3
						}
						if got := s.templates()[network].Controlled; got != want {
							t.Fatalf("%d wrong, round %d, sweep %d: %d, want %d", wrong, round, i, got, want)
						}
					}
				}
				if events := f.Events(); events["template-healed"] != 1 || len(events) != 1 {
					t.Errorf("%d wrong: events %v", wrong, events)
				}
			}
			for host := range 3 {
				s.remove(t, s.requestFrom(0, host))
			}
			s.AgeBy(time.Hour)
			f.SweepTemplates(leave)
			if left := s.templates(); len(left) != 0 {
				t.Errorf("templates left without a connection, an hour later: %v", left)
			}
		})
	}
}

// A count that is full stays full, until a recount says what it is.
func TestTemplateCountSaturates(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	s := newPersistentScene(t, f, families[0], bpftest.TCP, dr)
	full := uint32(bpf.KernelTemplateLayoutTEMPLATE_COUNT_MASK)
	s.connectionOf(t, s.requestFrom(0, 1))
	s.editTemplates(t, func(_, met uint32) (uint32, uint32) { return full - 1, met })
	network := s.network(s.requestFrom(0, 0))
	for host := 2; host < 5; host++ {
		s.connectionOf(t, s.requestFrom(0, host))
		if got := s.templates()[network].Controlled; got != full {
			t.Errorf("host %d: %d", host, got)
		}
	}
	s.remove(t, s.requestFrom(0, 1))
	if got := s.templates()[network].Controlled; got != full {
		t.Errorf("%d after the end of one of unknown many", got)
	}
	for range 3 {
		f.Sweep()
	}
	s.diffTemplates(t)
}
