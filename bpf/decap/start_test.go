package decap_test

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf/decap"
	"github.com/shunt-lb/shunt/director/directortest"
)

// host is a namespace with eth0 and eth1, which have native XDP, and br0, which has
// not, and a folder for pins.
type host struct {
	*directortest.Namespace

	t    *testing.T
	pins string
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, pins: filepath.Join(directortest.Bpffs(t), "agent")}
	h.Namespace = h.namespace("host")
	peer := h.namespace("peer")
	h.ok(h.AddVeth("eth0", peer, "eth0", 0))
	h.ok(h.AddVeth("eth1", peer, "eth1", 0))
	h.ok(h.AddBridge("br0"))
	return h
}

func (h *host) namespace(name string) *directortest.Namespace {
	h.t.Helper()
	n, err := directortest.NewNamespace(name)
	h.ok(err)
	h.t.Cleanup(func() { h.ok(n.Close()) })
	return n
}

func (h *host) ok(err error) {
	if err != nil {
		h.t.Helper()
		h.t.Fatal(err)
	}
}

// interfaces returns the named ones, of no mode.
func (h *host) interfaces(names ...string) (all []decap.Interface) {
	h.t.Helper()
	for _, name := range names {
		h.ok(h.Do(func() error {
			iface, err := net.InterfaceByName(name)
			if err == nil {
				all = append(all, decap.Interface{Index: iface.Index, Name: name})
			}
			return err
		}))
	}
	return all
}

func (h *host) start(c decap.Config, wanted ...decap.Interface) (running []decap.Interface, err error) {
	err = h.Do(func() error {
		running, err = decap.Start(h.pins, c, wanted)
		return err
	})
	return running, err
}

func (h *host) read() (s decap.State) {
	h.t.Helper()
	h.ok(h.Do(func() (err error) {
		s, err = decap.Read(h.pins)
		return err
	}))
	return s
}

// linkIDs are the kernel's numbers of the pinned links.
func (h *host) linkIDs() map[string]link.ID {
	h.t.Helper()
	ids := map[string]link.ID{}
	paths, err := filepath.Glob(filepath.Join(h.pins, "link_*"))
	h.ok(err)
	for _, path := range paths {
		l, err := link.LoadPinnedLink(path, nil)
		h.ok(err)
		info, err := l.Info()
		h.ok(errors.Join(err, l.Close()))
		ids[path] = info.ID
	}
	return ids
}

// full is a configuration with something of everything, in the order that Read gives.
func full() decap.Config {
	return decap.Config{
		Types: []decap.Type{decap.IPIP, decap.GRE}, Ports: []uint16{5555, 6080},
		To:      []netip.Prefix{netip.MustParsePrefix("10.0.0.2/32"), netip.MustParsePrefix("fd00::2/128")},
		From:    []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00::/63")},
		Virtual: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("2001:db8::/128")},
	}
}

// TestStart: what was asked for is in force and can be read back, whatever order it
// was given in; only root may touch the pins.
func TestStart(t *testing.T) {
	h := newHost(t)
	wanted := h.interfaces("eth0", "br0")
	shuffled := full()
	for _, list := range [][]netip.Prefix{shuffled.To, shuffled.From, shuffled.Virtual} {
		slices.Reverse(list)
	}
	running, err := h.start(shuffled, wanted...)
	h.ok(err)
	wanted[0].Mode, wanted[1].Mode = decap.Native, decap.Generic // a bridge has no native XDP
	if diff := cmp.Diff(wanted, running); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	var want []decap.Running
	for _, i := range wanted {
		want = append(want, decap.Running{Interface: i, Config: full()})
	}
	state := h.read()
	prefixes := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	if diff := cmp.Diff(want, state.Interfaces, prefixes); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if len(state.Counts) != len(decap.Events)-1 {
		t.Errorf("%d counters, want %d", len(state.Counts), len(decap.Events)-1)
	}
	for path, mode := range map[string]fs.FileMode{h.pins: 0o700, filepath.Join(h.pins, "counters"): 0o600} {
		info, err := os.Stat(path)
		h.ok(err)
		if info.Mode().Perm() != mode {
			t.Errorf("%s has mode %o, want %o", path, info.Mode().Perm(), mode)
		}
	}

	stopped, err := decap.Stop(h.pins)
	if err != nil || stopped != 2 {
		t.Errorf("stop: %d interfaces, %v", stopped, err)
	}
	if _, err := os.Stat(h.pins); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the pin directory is still there: %v", err)
	}
	if diff := cmp.Diff(decap.State{}, h.read()); diff != "" {
		t.Errorf("after the stop (-want +got)\n%s", diff)
	}
	if stopped, err := decap.Stop(h.pins); err != nil || stopped != 0 {
		t.Errorf("stop again: %d interfaces, %v", stopped, err)
	}
}

// TestStart_again changes configuration and interfaces; links and counters stay.
func TestStart_again(t *testing.T) {
	h := newHost(t)
	eth0, eth1 := h.interfaces("eth0")[0], h.interfaces("eth1")[0]
	generic := eth0
	generic.Mode = decap.Generic
	_, err := h.start(full(), generic, eth1)
	h.ok(err)
	before := h.linkIDs()
	counters, err := ebpf.LoadPinnedMap(filepath.Join(h.pins, "counters"), nil)
	h.ok(err)
	defer counters.Close()
	perCPU := make([]struct{ Packets, Bytes uint64 }, ebpf.MustPossibleCPU())
	perCPU[0].Packets = 7
	const last = uint32(len(decap.Events) - 1)
	h.ok(counters.Put(last, perCPU))

	other := full()
	other.From, other.Virtual = nil, other.Virtual[1:]
	running, err := h.start(other, eth0)
	h.ok(err)
	if diff := cmp.Diff([]decap.Interface{generic}, running); diff != "" {
		t.Errorf("an attached one keeps its mode (-want +got)\n%s", diff)
	}
	state := h.read()
	if len(state.Interfaces) != 1 || len(state.Interfaces[0].Config.From) != 0 || len(state.Interfaces[0].Config.Virtual) != 1 {
		t.Errorf("running: %+v", state.Interfaces)
	}
	if state.Counts[last-1].Packets != 7 {
		t.Errorf("the counters began anew: %+v", state.Counts[last-1])
	}
	for path, id := range h.linkIDs() {
		if before[path] != id {
			t.Errorf("%s is another link: there was a gap", path)
		}
	}
	if len(h.linkIDs()) != 1 {
		t.Errorf("links %v, want one", h.linkIDs())
	}
}

// TestStart_refuses what it cannot do, and leaves all as it was.
func TestStart_refuses(t *testing.T) {
	h := newHost(t)
	all := h.interfaces("eth0", "eth1")
	passing, err := h.AttachPass("eth1")
	h.ok(err)
	defer passing.Close()

	if _, err := h.start(full(), all...); !errors.Is(err, decap.ErrInUse) {
		t.Errorf("another's program: error %v, want %v", err, decap.ErrInUse)
	}
	if _, err := os.Stat(h.pins); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a start that failed left pins: %v", err)
	}
	_, err = h.start(full(), all[0])
	h.ok(err)
	before, links := h.read(), h.linkIDs()
	other := full()
	other.Ports = []uint16{1}
	nativeBridge := h.interfaces("br0")[0]
	nativeBridge.Mode = decap.Native
	foreign := filepath.Join(h.pins, "something")
	for name, test := range map[string]struct {
		config decap.Config
		wanted []decap.Interface
		want   error
	}{
		"another's program beside ours": {other, all, decap.ErrInUse},
		"native where there is none":    {other, []decap.Interface{nativeBridge}, decap.ErrNoNative},
		"no interface":                  {other, nil, nil},
		"no virtual address":            {decap.Config{To: other.To}, all[:1], nil},
		"no address":                    {decap.Config{Virtual: other.Virtual}, all[:1], nil},
		"port 0":                        {decap.Config{To: other.To, Virtual: other.Virtual, Ports: []uint16{0}}, all[:1], nil},
		"nine ports":                    {decap.Config{To: other.To, Virtual: other.Virtual, Ports: make([]uint16, 9)}, all[:1], nil},
		"an unknown type":               {decap.Config{To: other.To, Virtual: other.Virtual, Types: []decap.Type{3}}, all[:1], nil},
		"a prefix that is none":         {decap.Config{To: other.To, Virtual: []netip.Prefix{{}}}, all[:1], nil},
	} {
		_, err := h.start(test.config, test.wanted...)
		if err == nil || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: error %v, want %v", name, err, test.want)
		}
		if diff := cmp.Diff(before.Interfaces, h.read().Interfaces, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Errorf("%s changed what is running (-want +got)\n%s", name, diff)
		}
		if diff := cmp.Diff(links, h.linkIDs()); diff != "" {
			t.Errorf("%s changed the links (-want +got)\n%s", name, diff)
		}
	}

	counters, err := ebpf.LoadPinnedMap(filepath.Join(h.pins, "counters"), nil)
	h.ok(err)
	again, err := counters.Clone()
	h.ok(errors.Join(err, counters.Close()))
	h.ok(again.Pin(foreign))
	defer again.Close()
	if _, err := h.start(other, all[0]); !errors.Is(err, decap.ErrForeign) {
		t.Errorf("start with another's pin: %v", err)
	}
	if _, err := decap.Stop(h.pins); !errors.Is(err, decap.ErrForeign) {
		t.Errorf("stop with another's pin: %v", err)
	}
	if diff := cmp.Diff(links, h.linkIDs()); diff != "" {
		t.Errorf("a stop that failed changed the links (-want +got)\n%s", diff)
	}
	h.ok(os.Remove(foreign))

	lock, err := os.Open(h.pins)
	h.ok(err)
	defer lock.Close()
	h.ok(unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	if _, err := h.start(other, all[0]); !errors.Is(err, decap.ErrInUse) {
		t.Errorf("start beside another: %v", err)
	}
	if _, err := decap.Stop(h.pins); !errors.Is(err, decap.ErrInUse) {
		t.Errorf("stop beside another: %v", err)
	}

	if _, err := decap.Start(filepath.Join(t.TempDir(), "agent"), full(), all); !errors.Is(err, decap.ErrNoBPFFS) {
		t.Errorf("no bpffs: %v", err)
	}
}

// TestStart_elsewhere: interfaces of the same numbers in another namespace, or later
// in this one, are not the ones that the pins are for.
func TestStart_elsewhere(t *testing.T) {
	h := newHost(t)
	eth0 := h.interfaces("eth0")
	_, err := h.start(full(), eth0...)
	h.ok(err)

	other := &host{t: t, pins: h.pins}
	other.Namespace = other.namespace("other")
	h.ok(other.AddVeth("eth0", other.namespace("peer"), "eth0", 0))
	if other.interfaces("eth0")[0] != eth0[0] {
		t.Fatalf("the namespaces number their interfaces differently: %+v, %+v", other.interfaces("eth0"), eth0)
	}
	if _, err := other.start(full(), eth0...); !errors.Is(err, decap.ErrForeign) {
		t.Errorf("start in another namespace: %v", err)
	}
	if running := other.read().Interfaces; len(running) != 1 || !running[0].IsGone {
		t.Errorf("seen from another namespace: %+v", running)
	}
	if running := h.read().Interfaces; len(running) != 1 || running[0].IsGone {
		t.Errorf("seen from its own: %+v", running)
	}

	veth, err := h.Netlink().LinkByName("eth0")
	h.ok(err)
	h.ok(h.Netlink().LinkDel(veth))
	if running := h.read().Interfaces; len(running) != 1 || !running[0].IsGone {
		t.Errorf("of an interface that is gone: %+v", running)
	}
	_, err = h.start(full(), h.interfaces("eth1")...)
	h.ok(err)
	if running := h.read().Interfaces; len(running) != 1 || running[0].Name != "eth1" {
		t.Errorf("after the start on another: %+v", running)
	}
}
