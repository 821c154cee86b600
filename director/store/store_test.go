package store

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

func TestNewStoreIsEmpty(t *testing.T) {
	var said messages
	dir := t.TempDir() + "/a/b"
	s := mustOpen(t, dir, said.options())
	head, intended, err := s.Load()
	if err != nil || head.Number != 0 || len(head.State.Services) != 0 || len(intended) != 0 {
		t.Errorf("Load: %+v, %v, %v", head, intended, err)
	}
	if infos, err := s.History(0, 10); err != nil || len(infos) != 0 {
		t.Errorf("History: %v, %v", infos, err)
	}
	if len(said) != 0 {
		t.Errorf("making a store is no repair: %q", said)
	}
	mustClose(t, s)
	wantAlike(t, dir)
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	for range 70 { // beyond a whole state
		s := mustOpen(t, dir, Options{})
		mustGrow(t, s, 2)
		mustClose(t, s)
	}
	wantHistory(t, mustOpen(t, dir, Options{}), 1, 140)
	wantAlike(t, dir)
}

// drawState makes up a state of services from a few keys, so that revisions have
// services in common.
func drawState(t *rapid.T) director.State {
	prefix := rapid.Custom(func(t *rapid.T) netip.Prefix {
		addr := netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "addr")))
		return netip.PrefixFrom(addr, rapid.IntRange(0, 32).Draw(t, "bits")).Masked()
	})
	server := rapid.Custom(func(t *rapid.T) realserver.Server {
		addr := netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "addr")))
		return realserver.Server{
			Address: netip.AddrPortFrom(addr, rapid.Uint16().Draw(t, "port")),
			Method:  rapid.SampledFrom(realserver.Methods()).Draw(t, "method"),
			Tunnel: realserver.TunnelOptions{
				Type: realserver.TunnelType(rapid.IntRange(0, 2).Draw(t, "tunnel")), Port: rapid.Uint16().Draw(t, "tunnel port"),
				Checksum: realserver.TunnelChecksum(rapid.IntRange(0, 2).Draw(t, "checksum")),
			},
			Weight: rapid.Uint32().Draw(t, "weight"),
			Upper:  rapid.Uint32().Draw(t, "upper"), Lower: rapid.Uint32().Draw(t, "lower"), Draining: rapid.Bool().Draw(t, "draining"),
		}
	})
	duration := rapid.Map(rapid.Int64(), func(n int64) time.Duration { return time.Duration(n) })
	service := rapid.Custom(func(t *rapid.T) director.Service {
		addresses := []string{"192.0.2.1:80", "192.0.2.1:443", "192.0.2.200:1", "[2001:db8::1]:80", "[2001:db8::2]:53", "0.0.0.0:0", "[::]:0"}
		return director.Service{
			Key: director.ServiceKey{
				Protocol: rapid.SampledFrom([]conntrack.Protocol{0, conntrack.TCP, conntrack.UDP, conntrack.SCTP}).Draw(t, "protocol"),
				Mark:     rapid.SampledFrom([]uint32{0, 7, 1<<32 - 1}).Draw(t, "mark"),
				Address:  netip.MustParseAddrPort(rapid.SampledFrom(addresses).Draw(t, "address")),
				Bits:     rapid.SampledFrom([]uint8{0, 24}).Draw(t, "bits"),
				LastPort: rapid.SampledFrom([]uint16{0, 65535}).Draw(t, "last port"),
			},
			Persistence: director.Persistence{
				Timeout: duration.Draw(t, "persistence"), Prefix: rapid.Uint8().Draw(t, "client prefix"),
				Engine: rapid.SampledFrom([]director.Engine{"", director.EngineSIP}).Draw(t, "engine"),
			},
			OnePacket: rapid.Bool().Draw(t, "one-packet"),
			Timeouts:  conntrack.Timeouts{TCP: duration.Draw(t, "own tcp"), TCPFin: duration.Draw(t, "own fin"), UDP: duration.Draw(t, "own udp")},
			Rules: director.Rules{
				SloppyTCP: rapid.Bool().Draw(t, "sloppy"), ExpireNoDestConn: rapid.Bool().Draw(t, "nodest"),
				ExpireQuiescentTemplate: rapid.Bool().Draw(t, "quiescent"), ConnReuse: rapid.Custom(drawReuse).Draw(t, "reuse"),
			},
			Limits: director.Limits{
				Rate: rapid.Uint32().Draw(t, "rate"), Connections: rapid.Uint32().Draw(t, "connections"),
				Source: director.SourceLimits{
					Prefix: rapid.Uint8().Draw(t, "source prefix"), Rate: rapid.Uint32().Draw(t, "source rate"),
					Connections: rapid.Uint32().Draw(t, "source connections"),
				},
			},
			Guard: director.SourceGuard{
				Mode: rapid.SampledFrom([]director.GuardMode{director.GuardOff, director.GuardAuto, director.GuardOn}).Draw(t, "guard"),
				On:   rapid.Uint32().Draw(t, "guard on"), Off: rapid.Uint32().Draw(t, "guard off"),
			},
			MSS:       rapid.Uint16().Draw(t, "mss"),
			Health:    rapid.OneOf(rapid.Just(director.Health{}), rapid.Custom(drawHealth)).Draw(t, "health"),
			Name:      rapid.SampledFrom([]string{"", "web", "dns"}).Draw(t, "name"),
			Scheduler: rapid.SampledFrom(director.Schedulers()).Draw(t, "scheduler"),
			Flags:     director.SchedulerFlags{Port: rapid.Bool().Draw(t, "port flag"), Fallback: rapid.Bool().Draw(t, "fallback"), Third: rapid.Bool().Draw(t, "third")},
			VIP:       rapid.SampledFrom([]director.VIPOwner{director.VIPManaged, director.VIPExternal}).Draw(t, "vip"),
			Access: director.Access{
				Allow: rapid.SliceOfN(prefix, 0, 3).Draw(t, "allow"), Deny: rapid.SliceOfN(prefix, 0, 3).Draw(t, "deny"),
			},
			Servers: rapid.SliceOfN(server, 0, 5).Draw(t, "servers"),
		}
	})
	key := func(s director.Service) director.ServiceKey { return s.Key }
	state := director.State{Services: rapid.SliceOfNDistinct(service, 0, 8, key).Draw(t, "services")}
	slices.SortFunc(state.Services, func(a, b director.Service) int { return a.Key.Compare(b.Key) })
	if rapid.Bool().Draw(t, "other timeouts") {
		state.Timeouts = conntrack.Timeouts{TCP: duration.Draw(t, "tcp"), TCPFin: duration.Draw(t, "fin"), UDP: duration.Draw(t, "udp")}
	}
	for _, role := range []director.SyncRole{director.SyncMaster, director.SyncBackup} {
		if rapid.Bool().Draw(t, string(role)) {
			state.Sync = append(state.Sync, director.SyncDaemon{
				Role: role, Interface: rapid.SampledFrom([]string{"eth0", "eth1"}).Draw(t, "interface"), ID: rapid.Uint8().Draw(t, "id"),
				MaxLength: rapid.Uint16().Draw(t, "length"), Port: rapid.Uint16().Draw(t, "sync port"), TTL: rapid.Uint8().Draw(t, "ttl"),
				Group: rapid.SampledFrom([]netip.Addr{director.DefaultSyncGroup, netip.MustParseAddr("ff02::81")}).Draw(t, "group"),
			})
		}
	}
	for i := range state.Services {
		if !rapid.Bool().Draw(t, "drained") {
			continue
		}
		drain := director.Drain{
			Service: state.Services[i].Key, Server: server.Draw(t, "server").Address, Kill: rapid.Bool().Draw(t, "kill"),
			Since: time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "since"), 0).UTC(),
		}
		if rapid.Bool().Draw(t, "has a deadline") {
			drain.Deadline = time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "deadline"), 0).UTC()
		}
		state.Drains = append(state.Drains, drain)
	}
	for i := range state.Services {
		if rapid.Bool().Draw(t, "overridden") {
			state.Overrides = append(state.Overrides, director.Override{
				Service: state.Services[i].Key, Server: server.Draw(t, "server").Address, Up: rapid.Bool().Draw(t, "up"),
				Since: time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "since"), 0).UTC(), Who: "someone", Why: rapid.SampledFrom([]string{"", "a reason"}).Draw(t, "why"),
			})
		}
	}
	return state
}

func drawReuse(t *rapid.T) director.ReuseMode {
	return director.ReuseMode(rapid.IntRange(0, 2).Draw(t, "mode"))
}

func TestWhateverIsAppendedIsThereAfterReopening(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		s := mustOpen(t, dir, Options{})
		var want []director.Revision
		for n := range rapid.IntRange(1, 8).Draw(rt, "revisions") {
			r := director.Revision{
				RevisionInfo: director.RevisionInfo{
					Number: uint64(n + 1), Time: time.Unix(rapid.Int64Range(0, 1<<33).Draw(rt, "time"), 7).UTC(),
					Who: rapid.String().Draw(rt, "who"), Why: rapid.String().Draw(rt, "why"), Action: rapid.String().Draw(rt, "action"),
				},
				State: drawState(rt),
			}
			want = append(want, director.Revision{RevisionInfo: r.RevisionInfo, State: r.State.Clone()})
			if err := s.Append(r); err != nil {
				rt.Fatal(err)
			}
			for i := range r.State.Services { // the caller's memory is the caller's
				r.State.Services[i].Servers = append(r.State.Services[i].Servers[:0], realserver.Server{})
				r.State.Services[i].Name = "spoiled"
			}
		}
		for range 2 {
			if d := cmp.Diff(want[len(want)-1], mustLoad(t, s), equal); d != "" {
				rt.Fatalf("head (-want +got)\n%s", d)
			}
			for _, w := range want {
				got, err := s.Revision(w.Number)
				if err != nil {
					rt.Fatal(err)
				}
				if d := cmp.Diff(w, got, equal); d != "" {
					rt.Fatalf("revision %d (-want +got)\n%s", w.Number, d)
				}
			}
			mustClose(t, s)
			s = mustOpen(t, dir, Options{})
		}
		mustClose(t, s)
		wantAlike(t, dir)
	})
}

func TestLoadGivesACopy(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{})
	mustGrow(t, s, 1)
	head := mustLoad(t, s)
	head.State.Services[0].Servers[0].Weight = 77
	head.State.Services[0].Name = "spoiled"
	wantHistory(t, s, 1, 1)
	mustGrow(t, s, 1)
	if d := cmp.Diff(revisionOf(2), mustLoad(t, s), equal); d != "" {
		t.Errorf("head (-want +got)\n%s", d)
	}
}

func TestHistory(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{})
	mustGrow(t, s, 70)
	numbers := func(before uint64, limit int) string {
		infos, err := s.History(before, limit)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, info := range infos {
			if d := cmp.Diff(revisionOf(info.Number).RevisionInfo, info); d != "" {
				t.Errorf("revision %d (-want +got)\n%s", info.Number, d)
			}
			all = append(all, fmt.Sprint(info.Number))
		}
		return strings.Join(all, " ")
	}
	for _, c := range []struct {
		before uint64
		limit  int
		want   string
	}{
		{0, 3, "70 69 68"},
		{68, 3, "67 66 65"},
		{3, 10, "2 1"},
		{1, 10, ""},
		{1000, 2, "70 69"},
		{71, 1, "70"},
		{0, 0, ""},
		{^uint64(0), 1, "70"},
	} {
		if got := numbers(c.before, c.limit); got != c.want {
			t.Errorf("History(%d, %d) = %q, want %q", c.before, c.limit, got, c.want)
		}
	}
}

func TestRevisionNotThere(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{})
	mustGrow(t, s, 2)
	for _, number := range []uint64{0, 3, ^uint64(0)} {
		if _, err := s.Revision(number); !errors.Is(err, director.ErrNotFound) {
			t.Errorf("Revision(%d): %v, want ErrNotFound", number, err)
		}
	}
}

func TestAppendRefuses(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{})
	mustGrow(t, s, 2)
	for _, number := range []uint64{0, 2, 4} {
		wantError(t, s.Append(revisionOf(number)), fmt.Sprintf("revision %d", number), "the next one is 3")
	}
	r := revisionOf(3)
	slices.Reverse(r.State.Services)
	wantError(t, s.Append(r), "revision 3", "not sorted")
	r = revisionOf(3)
	r.State.Services[1] = r.State.Services[0]
	wantError(t, s.Append(r), "revision 3", "not sorted")
	r = revisionOf(3)
	r.Time = time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC) // has no RFC 3339 form
	wantError(t, s.Append(r), "revision 3", "encode")
	r = revisionOf(3) // a prefix whose text cannot be read back
	r.State.Services[0].Access.Allow = []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr("192.0.2.1"), 99)}
	wantError(t, s.Append(r), "revision 3", "check the record")
	mustGrow(t, s, 1)
	wantHistory(t, s, 1, 3)
}

func TestIntended(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{})
	wantIntended := func(want ...director.ServiceKey) {
		t.Helper()
		_, got, err := s.Load()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, equal); d != "" {
			t.Errorf("intended (-want +got)\n%s", d)
		}
	}
	a, b, c := tcp("192.0.2.1:80"), tcp("192.0.2.2:80"), tcp("[2001:db8::1]:80")
	for _, keys := range [][]director.ServiceKey{{c, a}, {b, a}, nil} {
		if err := s.Intend(keys); err != nil {
			t.Fatal(err)
		}
	}
	wantIntended(a, b, c)
	mustClose(t, s)
	s = mustOpen(t, dir, Options{})
	wantIntended(a, b, c)
	mustGrow(t, s, 1)
	wantIntended()
	mustClose(t, s)
	s = mustOpen(t, dir, Options{})
	wantIntended()
	wantError(t, s.Intend([]director.ServiceKey{{Protocol: 99, Address: a.Address}}), "proto-99", "no valid key")
}

func TestPruning(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{Keep: 20})
	for range 30 {
		mustGrow(t, s, 13)
		head := mustLoad(t, s).Number
		infos, err := s.History(0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		first := infos[len(infos)-1].Number
		if kept := len(infos); kept != int(head-first+1) || kept < min(20, int(head)) || kept > 20+wholeEvery-1 {
			t.Fatalf("revisions %d to %d: %d are kept", first, head, kept)
		}
		wantHistory(t, s, first, head)
		if first > 1 {
			_, err := s.Revision(first - 1)
			if !errors.Is(err, director.ErrNotFound) {
				t.Errorf("a pruned revision: %v", err)
			}
			wantError(t, err, "no longer kept", fmt.Sprintf("the oldest is %d", first))
		}
	}
	mustClose(t, s)
	wantAlike(t, dir)
	wantHistory(t, mustOpen(t, dir, Options{Keep: 20}), 390-20, 390)
}

func TestClosed(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{})
	mustGrow(t, s, 1)
	mustClose(t, s)
	mustClose(t, s)
	wantError(t, s.Append(revisionOf(2)), "closed")
	wantError(t, s.Intend([]director.ServiceKey{tcp("192.0.2.1:80")}), "closed")
	_, err := s.Revision(1)
	wantError(t, err, "closed")
	_, err = s.History(0, 1)
	wantError(t, err, "closed")
}

// manyServices makes a state of the size the project promises to serve.
func manyServices() director.State {
	state := director.State{Timeouts: conntrack.DefaultTimeouts()}
	for i := range 1000 {
		service := director.Service{
			Key:  director.ServiceKey{Protocol: conntrack.TCP, Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}), 443)},
			Name: fmt.Sprintf("service-%d", i), Scheduler: director.WeightedRoundRobin, VIP: director.VIPManaged,
		}
		for k := range 10 {
			service.Servers = append(service.Servers, realserver.Server{
				Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(k + 1)}), 8443), Weight: 10,
			})
		}
		state.Services = append(state.Services, service)
	}
	return state.Normalize()
}

func TestOneEditAmongManyIsSmall(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{})
	state := manyServices()
	for n := uint64(1); n <= 2; n++ {
		state.Services[500].Servers[3].Weight = uint32(n)
		if err := s.Append(director.Revision{RevisionInfo: director.RevisionInfo{Number: n}, State: state}); err != nil {
			t.Fatal(err)
		}
	}
	change, _ := diff(state, s.head.State)
	if len(change.Services) != 0 {
		t.Errorf("the same state differs: %+v", change)
	}
	if s.whole != 1 {
		t.Errorf("revision %d is whole, want only 1", s.whole)
	}
	next := state.Clone()
	next.Services[500].Servers[3].Weight++
	change, _ = diff(state, next)
	data, err := seal(director.RevisionInfo{Number: 3, Who: "root", Action: "edit server"}, change, difference, sum{})
	if err != nil || len(data) > 1024 {
		t.Errorf("an edit of one server takes %d bytes, want at most 1024 (%v)", len(data), err)
	}
}

func BenchmarkAppend(b *testing.B) {
	s := mustOpen(b, b.TempDir(), Options{})
	state := manyServices()
	n := uint64(1)
	if err := s.Append(director.Revision{RevisionInfo: director.RevisionInfo{Number: n}, State: state}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		n++
		state.Services[n%1000].Servers[n%10].Weight++
		if err := s.Append(director.Revision{RevisionInfo: director.RevisionInfo{Number: n}, State: state}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	s := mustOpen(b, dir, Options{})
	state := manyServices()
	for n := uint64(1); n <= 1000; n++ {
		state.Services[n%1000].Servers[n%10].Weight++
		if err := s.Append(director.Revision{RevisionInfo: director.RevisionInfo{Number: n}, State: state}); err != nil {
			b.Fatal(err)
		}
	}
	mustClose(b, s)
	for b.Loop() {
		mustClose(b, mustOpen(b, dir, Options{}))
	}
}
