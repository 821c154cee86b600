package bpftest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"net/netip"
	"os"
	"reflect"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
)

// A plane that a test has had is, for the next one, like one that has just been loaded,
// whatever the test wrote: into every map that can be written, in its first and last
// element or in keys of its own.
func TestNewRestores(t *testing.T) {
	options := Options{Connections: 64, CountConnections: true}
	var plane *bpf.Plane
	var before map[string]uint64
	var folder string
	var pinned []string
	t.Run("first", func(t *testing.T) {
		f := New(t, options)
		plane, before, folder = f.Plane, digests(t, f), f.pinDir
		fresh := NewAt(t, PinDir(t), options)
		pinned = pins(t, fresh)
		for name, digest := range digests(t, fresh) {
			// Two planes have seeds and programs of their own.
			if digest != before[name] && name != ".data.settings" && name != bpf.KernelMapSlots {
				t.Errorf("map %s of a plane that is lent is not as one that is loaded has it", name)
			}
		}
		f.AddHop(Link{Interface: f.Outside})
		f.AddServerAddress(netip.MustParseAddr("192.0.2.1"))
		dirty(t, f)
		for name, digest := range digests(t, f) {
			if digest == before[name] {
				t.Errorf("nothing was written to map %s", name)
			}
		}
	})
	if _, err := os.Stat(folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pins are still there: %v", err)
	}
	t.Run("second", func(t *testing.T) {
		f := New(t, options)
		if f.Plane != plane {
			t.Fatal("another plane")
		}
		if diff := cmp.Diff(before, digests(t, f)); diff != "" {
			t.Errorf("maps' digests (-before +after):\n%s", diff)
		}
		if f.next != (indices{service: 1, server: 1, word: 1, hop: 1}) || f.filter != (bpf.KernelFilter{}) {
			t.Error("the fixture remembers the first test")
		}
		if diff := cmp.Diff(pinned, pins(t, f)); diff != "" {
			t.Errorf("pins (-of a plane that was loaded +of one that is lent):\n%s", diff)
		}
	})
}

// A plane that was opened again is not the one that was lent.
func TestNewAfterReopen(t *testing.T) {
	var plane, reopened *bpf.Plane
	t.Run("first", func(t *testing.T) {
		f := New(t, Options{Connections: 64})
		plane = f.Plane
		f.Reopen() // what is lent is pinned
		reopened = f.Plane
	})
	for _, l := range idle.planes {
		if l.plane == plane || l.plane == reopened {
			t.Error("a plane that was opened again waits to be lent")
		}
	}
}

// pins are the names of what is pinned.
func pins(t *testing.T, f *Fixture) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(f.pinDir)
	f.must(err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// News that a test has not read are gone for the next one.
func TestNewRestoresTheNews(t *testing.T) {
	var plane *bpf.Plane
	for _, name := range []string{"first", "second"} {
		t.Run(name, func(t *testing.T) {
			f := New(t, Options{Connections: 64})
			if plane != nil && f.Plane != plane {
				t.Fatal("another plane")
			}
			plane = f.Plane
			if n := newsWaiting(t, f); n != 0 {
				t.Errorf("%d octets of news at the beginning", n)
			}
			f.ChangeSettings(func(s *bpf.KernelSettings) { s.Watching = 1 })
			p := Packet{
				Source: ClientMAC, Destination: DirectorOutside, Flags: "S",
				From: netip.MustParseAddrPort("198.51.100.7:40000"), To: netip.MustParseAddrPort("192.0.2.1:80"),
			}
			hop := f.AddHop(Link{Interface: f.Outside, Source: DirectorOutside, Destination: ServerMAC})
			f.Apply(&Service{Listen: p.To, Servers: []*Server{
				{Address: netip.MustParseAddrPort("10.0.0.11:80"), Weight: 1, Hop: hop},
			}})
			if got := f.Run(p.Bytes()); got.Action != TX {
				t.Fatalf("%v %v", got.Action, f.Events())
			}
			if newsWaiting(t, f) == 0 {
				t.Error("no news of a new connection")
			}
		})
	}
}

func newsWaiting(t *testing.T, f *Fixture) int {
	t.Helper()
	r, err := ringbuf.NewReader(f.Plane.KernelMaps.News)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return r.AvailableBytes()
}

// eachMap shows all maps that can be written, but the ring, with their names.
func eachMap(t *testing.T, f *Fixture, do func(name string, m *ebpf.Map) error) {
	t.Helper()
	ids, err := mapsOf(f.Plane)
	f.must(err)
	names := map[ebpf.MapID]string{} // in full: the kernel's are cut short
	all := reflect.ValueOf(f.Plane.KernelMaps)
	for i := range all.NumField() {
		info, err := all.Field(i).Interface().(*ebpf.Map).Info()
		f.must(err)
		id, _ := info.ID()
		names[id] = all.Type().Field(i).Tag.Get("ebpf")
	}
	for id := range ids {
		m, err := ebpf.NewMapFromID(id)
		f.must(err)
		defer m.Close()
		info, err := m.Info()
		f.must(err)
		if names[id] == "" {
			names[id] = info.Name
		}
		if info.Frozen() || m.Type() == ebpf.RingBuf {
			continue
		}
		if err := do(names[id], m); err != nil {
			t.Fatalf("map %s: %v", names[id], err)
		}
	}
}

var digestSeed = maphash.MakeSeed()

// digests reads all maps by system calls and returns a digest of what each holds.
func digests(t *testing.T, f *Fixture) map[string]uint64 {
	t.Helper()
	all := map[string]uint64{}
	eachMap(t, f, func(name string, m *ebpf.Map) error {
		if m.Type() == ebpf.Array || m.Type() == ebpf.PerCPUArray {
			rows, err := readRows(m)
			if err != nil {
				return err
			}
			var h maphash.Hash
			h.SetSeed(digestSeed)
			for i := range rows.Len() {
				h.Write(rows.Index(i).Bytes())
			}
			all[name] = h.Sum64()
			return nil
		}
		pairs, err := readPairs(m)
		all[name] = maphash.String(digestSeed, fmt.Sprint(pairs)) // sorted by the keys
		return err
	})
	return all
}

// dirty writes into all maps what no program would.
func dirty(t *testing.T, f *Fixture) {
	t.Helper()
	eachMap(t, f, func(name string, m *ebpf.Map) error {
		key, value := bytes.Repeat([]byte{0x5a}, int(m.KeySize())), bytes.Repeat([]byte{0xa5}, int(m.ValueSize()))
		switch m.Type() {
		case ebpf.Array, ebpf.PerCPUArray:
			last := m.MaxEntries() - 1
			if last == 0 {
				return m.Put(uint32(0), eachCPU(m, value))
			}
			return errors.Join(m.Put(uint32(0), eachCPU(m, value)), m.Put(last, eachCPU(m, value)))
		case ebpf.LPMTrie:
			binary.NativeEndian.PutUint32(key, 9) // how long the prefix is
			return m.Put(key, value)
		case ebpf.DevMapHash:
			var err error
			f.Do(func() { err = m.Put(uint32(77), f.Inside) })
			return err
		case ebpf.ProgramArray:
			return errors.Join(m.Delete(uint32(bpf.KernelSlotSLOT_MAIN)), m.Put(m.MaxEntries()-1, f.Plane.ShuntRoot),
				m.Put(uint32(bpf.KernelSlotSLOT_SETS), f.Plane.ShuntRoot))
		default:
			return m.Put(key, value)
		}
	})
}

// eachCPU is the value for each CPU, where the map keeps one for each.
func eachCPU(m *ebpf.Map, value []byte) any {
	if m.Type() != ebpf.PerCPUArray {
		return value
	}
	all := make([][]byte, ebpf.MustPossibleCPU())
	for i := range all {
		all[i] = value
	}
	return all
}
