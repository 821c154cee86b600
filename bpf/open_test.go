package bpf_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

var small = bpf.Limits{Connections4: 256, Connections6: 128, Services: 16, Servers: 64, Words: 1024}

func open(t *testing.T, dir string, limits bpf.Limits) *bpf.Plane {
	t.Helper()
	p, err := bpf.Open(dir, limits)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestOpenAdoptsWhatIsPinned(t *testing.T) {
	dir := bpftest.PinDir(t)
	p := open(t, dir, small)
	if p.Adopted {
		t.Error("new maps are called adopted")
	}
	before, err := p.Settings()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Services.Put(uint32(3), &bpf.KernelService{Persistence: 7}); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	other := small
	other.Services, other.Connections4 = 32, 4096
	again := open(t, dir, other)
	defer func() {
		if err := again.Remove(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("the pin directory is still there: %v", err)
		}
	}()
	if !again.Adopted || again.Limits.Services != small.Services || again.Limits != p.Limits && again.Limits.Connections4 >= 4096 {
		t.Errorf("adopted %v with limits %+v, made with %+v", again.Adopted, again.Limits, small)
	}
	after, err := again.Settings()
	if err != nil {
		t.Fatal(err)
	}
	if after.Seed != before.Seed || before.Seed == [12]uint64{} {
		t.Error("the hash seed changed: connections could not be found any more")
	}
	var service bpf.KernelService
	if err := again.Services.Lookup(uint32(3), &service); err != nil || service.Persistence != 7 {
		t.Errorf("service 3: %+v, %v", service, err)
	}
}

// Connections live through a new process and a new program.
func TestOpenKeepsConnections(t *testing.T) {
	dir := bpftest.PinDir(t)
	f := bpftest.NewAt(t, dir, bpftest.Options{})
	for _, a := range families {
		s := newScene(t, f, a, bpftest.TCP, nat)
		s.establish(t)
		before := f.Entries()
		for range 3 { // both slots of the slow path, and the first again
			f.Reopen()
			reply, ack := s.reply(), s.request()
			reply.Flags, ack.Flags = "A", "FA"
			run(t, f, reply.Bytes(), sent(returned(reply, s.virtual)), nil)
			another := s.requestOf(1)
			if got := f.Run(another.Bytes()); got.Action != bpftest.TX {
				t.Errorf("a new connection: %v %v", got.Action, f.Events())
			}
		}
		for _, e := range before {
			if !slices.ContainsFunc(f.Entries(), func(o bpf.Entry) bool { return o.Source == e.Source && o.State == e.State }) {
				t.Errorf("lost %+v", e)
			}
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(t *testing.T, dir string)
		want    error
		hint    string
	}{
		{"a second process", func(t *testing.T, dir string) {
			p := open(t, dir, small)
			t.Cleanup(func() { p.Close() })
		}, bpf.ErrInUse, "--pin-dir"},
		{"a stranger's pin", func(t *testing.T, dir string) {
			pinStranger(t, dir, "somebody")
		}, bpf.ErrForeign, "--pin-dir"},
		{"another layout", func(t *testing.T, dir string) {
			p := open(t, dir, small)
			if err := p.ChangeSettings(func(s *bpf.KernelSettings) { s.AbiVersion++ }); err != nil {
				t.Fatal(err)
			}
			p.Close()
		}, bpf.ErrLayout, "shuntd detach"},
		{"a map that is missing", func(t *testing.T, dir string) {
			open(t, dir, small).Close()
			if err := os.Remove(filepath.Join(dir, bpf.KernelMapWords)); err != nil {
				t.Fatal(err)
			}
		}, bpf.ErrLayout, "shuntd detach"},
		{"a map of another size", func(t *testing.T, dir string) {
			open(t, dir, small).Close()
			if err := os.Remove(filepath.Join(dir, bpf.KernelMapWords)); err != nil {
				t.Fatal(err)
			}
			pinStranger(t, dir, bpf.KernelMapWords)
		}, bpf.ErrLayout, "shuntd detach"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := bpftest.PinDir(t)
			tt.prepare(t, dir)
			before := names(t, dir)
			p, err := bpf.Open(dir, small)
			if err == nil {
				p.Close()
				t.Fatal("opened")
			}
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.hint) || !strings.Contains(err.Error(), dir) {
				t.Errorf("%v; want %v, %q and the directory", err, tt.want, tt.hint)
			}
			if diff := cmp.Diff(before, names(t, dir)); diff != "" {
				t.Errorf("pins (-before +after):\n%s", diff)
			}
		})
	}
	t.Run("no BPF file system", func(t *testing.T) {
		bpftest.Privileged(t)
		if _, err := bpf.Open(filepath.Join(t.TempDir(), "pins"), small); !errors.Is(err, bpf.ErrNoBPFFS) {
			t.Errorf("%v", err)
		}
	})
	t.Run("too many servers", func(t *testing.T) {
		limits := small
		limits.Servers = uint32(bpf.MaxServers) + 1
		if _, err := bpf.Open(bpftest.PinDir(t), limits); err == nil || !strings.Contains(err.Error(), "servers") {
			t.Errorf("%v", err)
		}
	})
}

// What a start that was interrupted left behind is no reason to refuse.
func TestOpenAfterInterruptedStart(t *testing.T) {
	dir := bpftest.PinDir(t)
	open(t, dir, small).Close()
	if err := os.Remove(filepath.Join(dir, "settings")); err != nil { // the last to be pinned
		t.Fatal(err)
	}
	p := open(t, dir, small)
	if p.Adopted {
		t.Error("adopted maps that were never complete")
	}
	if err := p.Remove(); err != nil {
		t.Error(err)
	}
}

func pinStranger(t *testing.T, dir, name string) {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 12, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := m.Pin(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// Attached in the namespace, the programs outlive the process; Remove leaves
// nothing of them.
func TestAttach(t *testing.T) {
	dir, otherDir := bpftest.PinDir(t), bpftest.PinDir(t)
	f := bpftest.NewAt(t, dir, bpftest.Options{})
	f.Do(func() {
		outside, err := net.InterfaceByName("outside")
		if err != nil {
			t.Error(err)
			return
		}
		for _, tt := range []struct{ ask, want bpf.Mode }{{bpf.Native, bpf.Native}, {bpf.Generic, bpf.Native}} {
			if mode, err := f.Plane.Attach(outside, tt.ask); err != nil || mode != tt.want {
				t.Errorf("attach %s: %s, %v; want %s", tt.ask, mode, err, tt.want)
			}
		}
		if attached, err := f.Plane.Attached(); err != nil || !slices.Equal(attached, []int{outside.Index}) {
			t.Errorf("attached to %v, %v", attached, err)
		}
		second, err := bpf.Open(otherDir, small)
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := second.Attach(outside, bpf.Native); !errors.Is(err, bpf.ErrInUse) || !strings.Contains(err.Error(), "outside") {
			t.Errorf("attach to an interface that is taken: %v", err)
		}
		if err := second.Remove(); err != nil {
			t.Error(err)
		}
		if err := f.Plane.DetachInterface(outside.Index); err != nil {
			t.Error(err)
		}
		if err := f.Plane.DetachInterface(outside.Index); err != nil {
			t.Errorf("detach again: %v", err)
		}
		if mode, err := f.Plane.Attach(outside, bpf.Generic); err != nil || mode != bpf.Generic {
			t.Errorf("attach generic: %s, %v", mode, err)
		}
		if attached, err := f.Plane.Attached(); err != nil || !slices.Equal(attached, []int{outside.Index}) {
			t.Errorf("attached to %v, %v", attached, err)
		}
	})
	if left := names(t, dir); !slices.ContainsFunc(left, func(n string) bool { return strings.HasPrefix(n, "link_") }) {
		t.Errorf("no link is pinned: %v", left)
	}
}

// The counters have names, each its own.
func TestEventsAreNamed(t *testing.T) {
	seen := map[string]bool{}
	for number, e := range bpf.AllEvents() {
		if e.Help == "" || seen[e.Name] {
			t.Errorf("event %d: %+v", number, e)
		}
		seen[e.Name] = true
		kind := "pass"
		for _, first := range []struct {
			number bpf.KernelEventKinds
			kind   string
		}{
			{bpf.KernelEventKindsEVENT_DROPS, "drop"},
			{bpf.KernelEventKindsEVENT_ANSWERS, "answer"},
			{bpf.KernelEventKindsEVENT_NOTES, "note"},
			{bpf.KernelEventKindsEVENT_FAULTS, "fault"},
		} {
			if uint32(number) >= uint32(first.number) {
				kind = first.kind
			}
		}
		if e.Kind != kind {
			t.Errorf("event %d, %s, is of kind %q; its number is of kind %q", number, e.Name, e.Kind, kind)
		}
	}
}

// Which program is in the way, and how to take it off, is said.
func TestAttachNamesWhatIsInTheWay(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 64})
	for name, want := range map[string][]string{
		"somebodys_xdp":  {`"somebodys_xdp"`, "ip link set dev outside xdp off"},
		"xdp_dispatcher": {"libxdp's dispatcher", "xdp-loader unload outside --all"},
	} {
		f.Do(func() {
			outside, err := net.InterfaceByName("outside")
			if err != nil {
				t.Error(err)
				return
			}
			prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
				Name: name, Type: ebpf.XDP, License: "GPL",
				Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}, // XDP_PASS
			})
			if err != nil {
				t.Error(err)
				return
			}
			defer prog.Close()
			l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: outside.Index, Flags: link.XDPDriverMode})
			if err != nil {
				t.Error(err)
				return
			}
			defer l.Close()
			info, err := prog.Info()
			if err != nil {
				t.Error(err)
				return
			}
			id, _ := info.ID()
			_, err = f.Plane.Attach(outside, bpf.Native)
			if !errors.Is(err, bpf.ErrInUse) {
				t.Errorf("%s: attached: %v", name, err)
				return
			}
			for _, part := range append(want, fmt.Sprintf("id %d", id)) {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s: no %q in: %v", name, part, err)
				}
			}
		})
	}
}
