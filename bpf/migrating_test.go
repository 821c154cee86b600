package bpf_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// migrate makes the scene's service one whose connections the host's stack has, or
// ends that.
func (s *scene) migrate(begins bool) {
	s.service.Flags &^= bpf.KernelServiceFlagsSERVICE_MIGRATING | bpf.KernelServiceFlagsSERVICE_HELD
	if begins {
		s.service.Flags |= bpf.KernelServiceFlagsSERVICE_MIGRATING
	}
	s.Apply(s.service)
}

// hold drops what would be left to the stack.
func (s *scene) hold() {
	s.service.Flags |= bpf.KernelServiceFlagsSERVICE_MIGRATING | bpf.KernelServiceFlagsSERVICE_HELD
	s.Apply(s.service)
}

func TestMigrating(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 64})
	t.Run("unknown packets", func(t *testing.T) { testMigrating(t, f) })
	t.Run("strict", func(t *testing.T) { testMigratingIsStrict(t, f) })
	t.Run("persistence", func(t *testing.T) { testMigratingPersistence(t, f) })
	t.Run("held", func(t *testing.T) { testMigrationHeld(t, f) })
	t.Run("no server", func(t *testing.T) { testMigratingWithoutServer(t, f) })
	t.Run("one service's", func(t *testing.T) { testMigratingIsOneServices(t, f) })
}

// A migrating service's packets that no connection is known of are left to the
// stack as they came, whatever they are, but for a first segment; packets of known
// connections go their way.
func testMigrating(t *testing.T, f *bpftest.Fixture) {
	eachScene(t, f, func(t *testing.T, s *scene) {
		s.migrate(true)
		request, back := s.later()
		run(t, f, request.Bytes(), passed(request.Bytes()), one("migrating"))
		run(t, f, back.Bytes(), passed(back.Bytes()), one("no-service"))
		if s.protocol == bpftest.TCP {
			for _, flags := range []string{"", "F", "FA", "R", "RA", "SR", "SRA", "PA"} {
				p := request
				p.Flags = flags
				run(t, f, p.Bytes(), passed(p.Bytes()), one("migrating"))
			}
		}
		diffEntries(t, f)
		s.diffTraffic(t, bpf.KernelTraffic{})

		s.load(t, []bpf.KernelLoadEntry{s.loaded(s.request(), s.service.Servers[0], settledState(s.protocol), time.Minute)}, loadDone)
		run(t, f, request.Bytes(), sent(forwarded(request, s.server)), one("hop-changed"))
		run(t, f, back.Bytes(), sent(returned(back, s.virtual)), nil)

		// Dead here it may live on there.
		f.AgeBy(time.Hour)
		run(t, f, request.Bytes(), passed(request.Bytes()), one("expired-hit", "migrating"))
		diffEntries(t, f)
		diffLoads(t, f, s.service.Servers...)

		first := s.request()
		if s.protocol == bpftest.TCP {
			run(t, f, first.Bytes(), sent(forwarded(first, s.server)), nil)
			diffEntries(t, f, s.both(synReceived, false)...)
			first.From, request.From = s.other, s.other
		}
		s.migrate(false)
		if s.protocol == bpftest.TCP {
			run(t, f, request.Bytes(), dropped, one("midstream"))
		}
		run(t, f, first.Bytes(), sent(forwarded(first, s.server)), nil)
		diffLoads(t, f, s.service.Servers...)
	})
}

// What lets connections begin in the middle does not while the stack may have them.
func testMigratingIsStrict(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		s := newScene(t, f, a, bpftest.TCP, dr)
		s.service.Flags |= bpf.KernelServiceFlagsSERVICE_SLOPPY_TCP
		s.migrate(true)
		request, _ := s.later()
		run(t, f, request.Bytes(), passed(request.Bytes()), one("migrating"))
		s.migrate(false)
		run(t, f, request.Bytes(), sent(routed(request)), nil)

		// One-packet scheduling has no connections, but cannot tell who had.
		s = newScene(t, f, a, bpftest.UDP, dr)
		s.service.Flags |= bpf.KernelServiceFlagsSERVICE_ONE_PACKET
		s.migrate(true)
		run(t, f, s.request().Bytes(), passed(s.request().Bytes()), one("migrating"))
	}
}

// A client whose template is not known may have one in the stack: its first segments
// are the stack's too. With the template they are scheduled here.
func testMigratingPersistence(t *testing.T, f *bpftest.Fixture) {
	eachPersistent(t, f, func(t *testing.T, s *scene) {
		second := s.service.Servers[1]
		s.migrate(true)
		p := s.requestFrom(1, 1)
		run(t, f, p.Bytes(), passed(p.Bytes()), one("migrating"))
		if args := explain(t, f, p); args.Event != uint32(bpf.KernelEventEVENT_PASS_MIGRATING) || args.Server != 0 {
			t.Errorf("explained as %q, server %d", bpf.Events[args.Event].Name, args.Server)
		}
		diffEntries(t, f)
		s.load(t, []bpf.KernelLoadEntry{s.loadedTemplate(p, second, time.Minute)}, loadDone)
		if s.protocol == bpftest.UDP {
			run(t, f, p.Bytes(), passed(p.Bytes()), one("migrating"))
		} else if got := s.connectionOf(t, p); got != second {
			t.Errorf("on server %d, want the template's %d", got.Index, second.Index)
		}
		other := s.requestFrom(2, 1)
		run(t, f, other.Bytes(), passed(other.Bytes()), one("migrating"))
		s.migrate(false)
		first := s.service.Servers[0]
		if got := s.connectionOf(t, other); got != first {
			t.Errorf("on server %d then, want rr's first, %d: its place has not moved", got.Index, first.Index)
		}
		if got := s.connectionOf(t, s.requestFrom(1, 2)); got != second {
			t.Errorf("on server %d then, want the template's %d", got.Index, second.Index)
		}
		s.diffTemplates(t)
		diffLoads(t, f, s.service.Servers...)
	})
}

// What would be left to the stack is dropped while the migration is held, without an
// answer; what is known, or begins here, goes its way.
func testMigrationHeld(t *testing.T, f *bpftest.Fixture) {
	f.ChangeSettings(func(s *bpf.KernelSettings) { s.Midstream = uint32(bpf.KernelMidstreamMIDSTREAM_RESET) })
	defer f.ChangeSettings(func(s *bpf.KernelSettings) { s.Midstream = uint32(bpf.KernelMidstreamMIDSTREAM_DROP) })
	eachScene(t, f, func(t *testing.T, s *scene) {
		s.hold()
		request, back := s.later()
		run(t, f, request.Bytes(), dropped, one("migration-held"))
		run(t, f, back.Bytes(), passed(back.Bytes()), one("no-service"))
		diffEntries(t, f)
		s.load(t, []bpf.KernelLoadEntry{s.loaded(request, s.service.Servers[0], settledState(s.protocol), time.Minute)}, loadDone)
		run(t, f, request.Bytes(), sent(forwarded(request, s.server)), one("hop-changed"))
		first := s.request()
		first.From, request.From = s.other, s.other
		if s.protocol == bpftest.TCP {
			run(t, f, first.Bytes(), sent(forwarded(first, s.server)), nil)
		} else {
			run(t, f, first.Bytes(), dropped, one("migration-held"))
		}
		diffLoads(t, f, s.service.Servers...)
	})
	eachPersistent(t, f, func(t *testing.T, s *scene) {
		s.hold()
		p := s.requestFrom(1, 1)
		run(t, f, p.Bytes(), dropped, one("migration-held"))
		if args := explain(t, f, p); args.Event != uint32(bpf.KernelEventEVENT_DROP_MIGRATION_HELD) {
			t.Errorf("explained as %q", bpf.Events[args.Event].Name)
		}
		diffEntries(t, f)
	})
}

// A first segment that no server can take may be the stack's still.
func testMigratingWithoutServer(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		s := newScene(t, f, a, bpftest.TCP, dr)
		s.service.Servers[0].Weight = 0
		s.migrate(true)
		p := s.request()
		run(t, f, p.Bytes(), passed(p.Bytes()), one("migrating"))
		s.hold()
		run(t, f, p.Bytes(), dropped, one("migration-held"))
		s.migrate(false)
		f.Events()
		if got := f.Run(p.Bytes()); got.Action != bpftest.TX {
			t.Errorf("%v, want an answer", got.Action)
		}
		if diff := cmp.Diff(one("no-server"), f.Events()); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		diffEntries(t, f)
	}
}

// Another service's packets are as ever.
func testMigratingIsOneServices(t *testing.T, f *bpftest.Fixture) {
	eachScene(t, f, func(t *testing.T, s *scene) {
		f.Apply(&bpftest.Service{Listen: s.secondVirtual, Protocol: s.protocol, Servers: []*bpftest.Server{
			{Address: s.secondServer, Weight: 1, Hop: s.service.Servers[0].Hop},
		}})
		s.migrate(true)
		f.Events()
		p, _ := s.later()
		p.To = s.secondVirtual
		got, want := f.Run(p.Bytes()), one()
		if s.protocol == bpftest.TCP {
			want = one("midstream")
		}
		if diff := cmp.Diff(want, f.Events()); diff != "" {
			t.Errorf("%v, events (-want +got):\n%s", got.Action, diff)
		}
	})
}
