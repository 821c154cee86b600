package xdp

import (
	"bytes"
	order "cmp"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/conntrack/record"
	"github.com/shunt-lb/shunt/director"
)

// drawFilter is a filter of what may be there.
func drawFilter(random *rand.Rand, all []conntrack.Connection, keys []director.ServiceKey) director.ConnectionFilter {
	var f director.ConnectionFilter
	pick := func(n int) bool { return random.IntN(n) == 0 }
	of := all[random.IntN(len(all))]
	if pick(3) {
		f.Service = keys[random.IntN(len(keys))]
	}
	if pick(4) {
		f.Server = of.Server
	}
	if pick(2) {
		f.Client = netip.PrefixFrom(of.Client.Addr(), random.IntN(of.Client.Addr().BitLen()+1))
	}
	if pick(3) {
		f.Kind = []director.ConnectionKind{director.KindConnection, director.KindTemplate}[random.IntN(2)]
	}
	if pick(4) {
		f.State = []string{"NONE", "SYN_RECV", "ESTABLISHED", "TIME_WAIT", "UDP", "CLOSE_WAIT"}[random.IntN(6)]
	}
	span := func() director.Span {
		return director.Span{AtLeast: time.Duration(random.IntN(3)) * 300 * time.Millisecond, Below: time.Duration(random.IntN(3)) * time.Minute}
	}
	if pick(4) {
		f.Age = span()
	}
	if pick(4) {
		f.Idle = span()
	}
	return f
}

// What a filter selects by entries' words is what it selects of the connections that
// they are.
func TestMatcherIsTheFilter(t *testing.T) {
	r := newMixedRig(t, Options{})
	r.fill()
	all := r.connections(director.ConnectionFilter{})
	view, err := r.lockedView(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	view.now += view.clock.Ticks(time.Second) // of all ages
	keys := []director.ServiceKey{r.sticky.Key, r.v6.Key, r.wide.Key}
	random := rand.New(rand.NewPCG(1, 2))
	selected := 0
	for range 1000 {
		filter := drawFilter(random, all, keys)
		m := view.matcher(filter)
		for _, family := range families {
			walk := r.plane.Walk(family.v6)
			for {
				more, err := walk.Next()
				if err != nil {
					t.Fatal(err)
				}
				if !more {
					break
				}
				walk.Slots(0, func(s *bpf.Slot) bool {
					e := s.Entry()
					key, c, ok := view.connection(&e)
					want := ok && filter.Matches(key, c)
					if got := s.Recipe&m.skip == 0 && m.hasFamily(s.V6) && m.matches(s); got != want {
						t.Errorf("%+v selects %+v: %t, want %t", filter, c, got, want)
					} else if want {
						selected++
					}
					return !t.Failed()
				})
			}
		}
		if t.Failed() {
			break
		}
	}
	if selected < 1000 {
		t.Errorf("%d connections were selected: the filters are not what they should be", selected)
	}
}

// Connections are counted one by one, if that is wanted, and together.
func TestCount(t *testing.T) {
	r := newMixedRig(t, Options{CountConnections: true})
	testConnectionsShowTraffic(t, r)
	testCount(t, r)
}

// Count counts what Connections shows, in groups by the same names, with what they
// have carried.
func testCount(t *testing.T, r *mixedRig) {
	r.fill()
	ageName := func(age time.Duration) string {
		groups := director.AgeGroups()
		for i, bound := range director.AgeBounds() {
			if age < bound {
				return groups[i]
			}
		}
		return groups[len(groups)-1]
	}
	names := map[director.CountBy]func(conntrack.Connection) string{
		director.CountByClient: func(c conntrack.Connection) string { return c.Client.Addr().String() },
		director.CountByServer: func(c conntrack.Connection) string { return c.Server.String() },
		director.CountByState:  func(c conntrack.Connection) string { return c.State.String() },
		director.CountByAge:    func(c conntrack.Connection) string { return ageName(c.Age) },
		director.CountByIdle:   func(c conntrack.Connection) string { return ageName(c.Idle) },
	}
	for _, filter := range []director.ConnectionFilter{{}, {Service: r.sticky.Key}, {Kind: director.KindConnection, State: "ESTABLISHED"}, {State: "LISTEN"}} {
		all := r.connections(filter)
		if got, err := r.Count(t.Context(), filter, director.CountAll); err != nil || got.Count != uint64(len(all)) || got.Groups != nil {
			t.Errorf("%+v: %+v, %v, want %d", filter, got, err, len(all))
		}
		for by, name := range names {
			want := map[string]director.ConnectionGroup{}
			for _, c := range all {
				g := want[name(c)]
				g.Name = name(c)
				g.Count++
				if c.Traffic != nil {
					g.Traffic = sum(&director.Counters{
						InPackets: c.Traffic.InPackets, InBytes: c.Traffic.InBytes, OutPackets: c.Traffic.OutPackets, OutBytes: c.Traffic.OutBytes,
					}, g.Traffic)
				}
				want[g.Name] = g
			}
			got, err := r.Count(t.Context(), filter, by)
			if err != nil || got.Count != uint64(len(all)) {
				t.Fatalf("by %s: %+v, %v", by, got, err)
			}
			found := map[string]director.ConnectionGroup{}
			for _, g := range got.Groups {
				if g.Count > 0 || by != director.CountByAge && by != director.CountByIdle {
					found[g.Name] = g
				}
			}
			if diff := cmp.Diff(want, found); diff != "" {
				t.Errorf("%+v by %s (-want +got):\n%s", filter, by, diff)
			}
			if by == director.CountByAge || by == director.CountByIdle {
				var order []string
				for _, g := range got.Groups {
					order = append(order, g.Name)
				}
				if diff := cmp.Diff([]string{"<10s", "<1m", "<10m", "<1h", "<6h", "<24h", ">=24h"}, order); diff != "" {
					t.Errorf("ages (-want +got):\n%s", diff)
				}
			} else if !slices.IsSortedFunc(got.Groups, func(a, b director.ConnectionGroup) int { return int(b.Count) - int(a.Count) }) {
				t.Errorf("by %s: not the largest first: %+v", by, got.Groups)
			}
		}
	}
	if _, err := r.Count(t.Context(), director.ConnectionFilter{}, "colour"); !errors.Is(err, director.ErrInvalid) {
		t.Errorf("by colour: %v", err)
	}
}

// What a connection has carried is shown with it, each way where replies are seen.
func testConnectionsShowTraffic(t *testing.T, r *mixedRig) {
	client, virtual, server := netip.MustParseAddrPort("198.51.1.77:999"), netip.MustParseAddrPort("192.0.2.70:8005"), netip.AddrPortFrom(reachable, 8005)
	for range 3 {
		r.send(bpftest.Packet{From: client, To: virtual, Protocol: bpftest.UDP, Payload: make([]byte, 100)})
	}
	for range 2 {
		r.send(bpftest.Packet{From: server, To: client, Protocol: bpftest.UDP, Payload: make([]byte, 50)})
	}
	want := &conntrack.Traffic{InPackets: 3, InBytes: 3 * 128, OutPackets: 2, OutBytes: 2 * 78}
	got := r.connections(director.ConnectionFilter{})
	if len(got) != 1 || !cmp.Equal(got[0].Traffic, want) {
		t.Errorf("%+v, want one that has carried %+v", got, want)
	}
	b, n := r.dumpRecords(director.ConnectionFilter{})
	if records := readRecords(t, b); n != 1 || len(records) != 1 || !cmp.Equal(records[0].Connection.Traffic, want) {
		t.Errorf("dumped %+v", records)
	}
}

func (r *rig) dumpRecords(filter director.ConnectionFilter) ([]byte, uint64) {
	r.t.Helper()
	var b bytes.Buffer
	n, err := r.Dump(r.t.Context(), filter, &b)
	if err != nil {
		r.t.Fatal(err)
	}
	return b.Bytes(), n
}

func readRecords(t *testing.T, b []byte) (all []record.Record) {
	t.Helper()
	reader, err := record.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for next, err := range reader.All() {
		if err != nil {
			t.Fatal(err)
		}
		kept := *next
		if kept.Connection.Traffic != nil {
			kept.Connection.Traffic = new(*kept.Connection.Traffic)
		}
		all = append(all, kept)
	}
	return all
}

// asLoaded compares connections before and after they went through records: what time
// has done to them, and rounding to ticks, apart.
func asLoaded(tick time.Duration) cmp.Options {
	return cmp.Options{
		compareAddresses,
		cmp.Comparer(func(a, b time.Duration) bool { return a-b < 20*time.Second+8*tick && b-a < 20*time.Second+8*tick }),
		cmpopts.SortSlices(func(a, b conntrack.Connection) int {
			return order.Or(a.Client.Compare(b.Client), a.Virtual.Compare(b.Virtual))
		}),
	}
}

// Records of connections, from this data plane to itself.
func TestRecords(t *testing.T) {
	r := newMixedRig(t, Options{Version: "1.2.3"})
	for _, test := range []struct {
		name string
		run  func(*testing.T, *mixedRig)
	}{{"all", testRecordsCarryAllOver}, {"ages", testRecordsCarryAges}, {"skips", testLoadRecordsSkips}} {
		t.Run(test.name, func(t *testing.T) {
			r.t = t
			if _, err := r.Kill(t.Context(), director.ConnectionFilter{}); err != nil {
				t.Fatal(err)
			}
			test.run(t, r)
		})
		r.t = t
	}
}

// What is dumped and loaded again is as it was, templates and what is under them
// included, and is not loaded twice; the check finds no fault.
func testRecordsCarryAllOver(t *testing.T, r *mixedRig) {
	r.fill()
	before := r.connections(director.ConnectionFilter{})
	b, n := r.dumpRecords(director.ConnectionFilter{})
	if n != 185 || len(before) != 185 {
		t.Fatalf("%d of %d connections dumped, want 185", n, len(before))
	}
	if reader, err := record.NewReader(bytes.NewReader(b)); err != nil || reader.Header().Version != "1.2.3" || reader.Header().Director == "" {
		t.Errorf("header %+v, %v", reader.Header(), err)
	}
	if _, err := r.Kill(t.Context(), director.ConnectionFilter{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []director.LoadReport{
		{Loaded: 185, Skipped: map[string]uint64{}}, {Known: 185, Skipped: map[string]uint64{}},
	} {
		got, err := r.LoadRecords(t.Context(), bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("report (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(before, r.connections(director.ConnectionFilter{}), asLoaded(r.plane.Clock.Tick())); diff != "" {
			t.Errorf("connections (-before +after):\n%s", diff)
		}
		if found := r.faults(); len(found) > 0 {
			t.Errorf("faults: %v", found)
		}
	}
}

// An age comes along, up to the oldest that an entry can have.
func testRecordsCarryAges(t *testing.T, r *mixedRig) {
	var b bytes.Buffer
	w, err := record.NewWriter(&b, record.Header{Created: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	ages := []time.Duration{0, time.Minute, 12 * time.Hour, 24 * time.Hour, 1000 * time.Hour}
	for i, age := range ages {
		err := w.Write(&record.Record{Service: record.Service(r.v6.Key), Connection: conntrack.Connection{
			Protocol: conntrack.TCP, Client: netip.AddrPortFrom(netip.MustParseAddr("2001:db8:1::9"), uint16(4000+i)), Virtual: r.v6.Key.Address,
			Server: netip.MustParseAddrPort("[fd00::1]:443"), Method: "local", State: conntrack.Established, Proven: true,
			Expires: 10 * time.Minute, Idle: 5 * time.Minute, Age: age,
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := r.LoadRecords(t.Context(), &b); err != nil || got.Loaded != uint64(len(ages)) {
		t.Fatalf("%+v, %v", got, err)
	}
	oldest := time.Duration(bpf.KernelBornLayoutBORN_OLDEST<<bpf.KernelBornLayoutBORN_SHIFT) * r.plane.Clock.Tick()
	for i, c := range r.connections(director.ConnectionFilter{}) {
		want := max(min(ages[i], oldest), c.Idle) // none is younger than its last packet
		if c.Age < want-8*r.plane.Clock.Tick() || c.Age > want+20*time.Second || c.Idle < 4*time.Minute {
			t.Errorf("%s old and %s idle, want %s", c.Age, c.Idle, want)
		}
	}
}

// What cannot be loaded is told, and the rest is: services and servers that are not
// here, what has expired, streams that are damaged or end too early. A dump that
// nobody takes ends with the error.
func testLoadRecordsSkips(t *testing.T, r *mixedRig) {
	r.fill()
	if _, err := r.Dump(t.Context(), director.ConnectionFilter{}, brokenWriter{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("dumped to nowhere: %v", err)
	}
	b, n := r.dumpRecords(director.ConnectionFilter{})
	if _, err := r.Kill(t.Context(), director.ConnectionFilter{}); err != nil {
		t.Fatal(err)
	}
	half, err := r.LoadRecords(t.Context(), bytes.NewReader(b[:len(b)-1]))
	if !errors.Is(err, record.ErrTruncated) || half.Loaded != n {
		t.Errorf("without its last byte: %+v, %v", half, err)
	}
	damaged := bytes.Clone(b)
	damaged[len(b)/2] ^= 1
	if got, err := r.LoadRecords(t.Context(), bytes.NewReader(damaged)); !errors.Is(err, record.ErrDamaged) || got.Loaded+got.Known != 0 {
		t.Errorf("damaged: %+v, %v", got, err)
	}
	if _, err := r.Kill(t.Context(), director.ConnectionFilter{}); err != nil {
		t.Fatal(err)
	}
	r.must(
		director.RemoveService{Key: r.v6.Key},
		director.RemoveServer{Key: r.wide.Key, Address: netip.AddrPortFrom(reachable, 0)},
	)
	got, err := r.LoadRecords(t.Context(), bytes.NewReader(b))
	want := director.LoadReport{Loaded: 65, Skipped: map[string]uint64{skipService: 60, skipServer: 60}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("report (-want +got), %v:\n%s", err, diff)
	}
	var expired bytes.Buffer
	w, err := record.NewWriter(&expired, record.Header{})
	if err != nil {
		t.Fatal(err)
	}
	for _, next := range readRecords(t, b) {
		next.Connection.Expires = -1
		if err := w.Write(&next); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, err = r.LoadRecords(t.Context(), &expired)
	want = director.LoadReport{Skipped: map[string]uint64{skipService: 60, skipExpired: 125}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("report of what has expired (-want +got), %v:\n%s", err, diff)
	}
}

// brokenWriter takes nothing.
type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
