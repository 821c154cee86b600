package xdp

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/cilium/ebpf/link"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

// mode is what Stats says of the interface.
func (r *rig) mode() director.InterfaceMode {
	r.t.Helper()
	stats, err := r.Stats(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return stats.Interfaces[0].Mode
}

// attached asks the kernel for the interface's program.
func (r *rig) attached() bool {
	r.t.Helper()
	l, err := r.ns.Netlink().LinkByName("eth0")
	return err == nil && l.Attrs().Xdp != nil && l.Attrs().Xdp.Attached
}

// TestReattach takes the fast path off the interface in all ways there are: the
// next sweep finds it, and attaches it again.
func TestReattach(t *testing.T) {
	r := newRig(t, Options{})
	pin := func() string {
		return filepath.Join(r.opts.PinDir, "link_"+strconv.Itoa(r.interfaces[0].index))
	}
	for _, damage := range []struct {
		name string
		do   func() error
	}{
		{"link detached", func() error {
			l, err := link.LoadPinnedLink(pin(), nil)
			if err != nil {
				return err
			}
			defer l.Close()
			return l.(interface{ Detach() error }).Detach()
		}},
		{"link unpinned", func() error {
			l, err := link.LoadPinnedLink(pin(), nil)
			if err != nil {
				return err
			}
			defer l.Close()
			return l.Unpin()
		}},
	} {
		t.Run(damage.name, func(t *testing.T) {
			r.t = t
			if err := damage.do(); err != nil {
				t.Fatal(err)
			}
			if r.attached() || r.mode() != "gone" {
				t.Fatalf("attached: %v, mode %s", r.attached(), r.mode())
			}
			r.sweepNow()
			if got := r.mode(); !r.attached() || got != "native" {
				t.Errorf("after a sweep: attached %v, mode %s", r.attached(), got)
			}
		})
	}
}

// TestReattachWaitsForAStranger: another program keeps ours off until it goes
// away.
func TestReattachWaitsForAStranger(t *testing.T) {
	r := newRig(t, Options{})
	l, err := link.LoadPinnedLink(filepath.Join(r.opts.PinDir, "link_"+strconv.Itoa(r.interfaces[0].index)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.(interface{ Detach() error }).Detach(); err != nil {
		t.Fatal(err)
	}
	l.Close()
	stranger, err := r.ns.AttachPass("eth0")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r.sweepNow()
		if got := r.mode(); got != "gone" {
			t.Errorf("while another program is there: mode %s", got)
		}
	}
	if err := stranger.Close(); err != nil {
		t.Fatal(err)
	}
	r.sweepNow()
	if got := r.mode(); got != "native" || !r.attached() {
		t.Errorf("when it is gone: mode %s, attached %v", got, r.attached())
	}
}

// TestInterfaceComesBack removes the interface and makes another of its name: the
// fast path and the servers' next hops move over to it.
func TestInterfaceComesBack(t *testing.T) {
	r := newRig(t, Options{})
	service := testService(director.RoundRobin, director.SchedulerFlags{})
	server := natServer()
	r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: server})
	reachable := func() bool {
		stats, err := r.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return stats.Services[0].Servers[0].Reachable
	}
	if !reachable() {
		t.Fatal("the server is not reachable")
	}
	eth0, err := r.ns.Netlink().LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.ns.Netlink().LinkDel(eth0); err != nil {
		t.Fatal(err)
	}
	r.sweepNow()
	if got := r.mode(); got != "gone" {
		t.Errorf("without the interface: mode %s", got)
	}
	r.connect()
	r.sweepNow()
	if got := r.mode(); got != "native" || !r.attached() {
		t.Fatalf("with the interface: mode %s, attached %v", got, r.attached())
	}
	r.eventually("the server has a next hop again", reachable)
	if links, err := r.plane.Attached(); err != nil || len(links) != 1 {
		t.Errorf("pinned links of %v, %v: want one", links, err)
	}
	// And once more by a new daemon.
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	if got := r.mode(); got != "native" || !reachable() {
		t.Errorf("after a restart: mode %s, reachable %v", got, reachable())
	}
}

// Pins that somebody removes, one or all with their directory, are there again after a
// review; the interface is attached, and a restart finds all connections.
func TestRemovedPinsAreRepaired(t *testing.T) {
	r := newTalkingRig(t, Options{MaxConnections: 1024, MaxConnectionsIPv6: 512})
	before := r.mustPairings()
	pins := func() (all []string) {
		entries, err := os.ReadDir(r.opts.PinDir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			all = append(all, e.Name())
		}
		return all
	}
	want := pins()
	for _, path := range []string{filepath.Join(r.opts.PinDir, bpf.KernelMapConnections4), r.opts.PinDir} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		// A link whose pin is gone is on its interface until the kernel frees it (kernel:
		// kernel/bpf/inode.c, bpf_free_inode, after RCU): then one more review is needed.
		r.eventually("what "+path+" had is pinned again", func() bool {
			if err := r.review(); err != nil {
				t.Fatal(err)
			}
			return slices.Equal(pins(), want)
		})
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	if now := r.mustPairings(); r.IsNew() || !slices.Equal(now, before) {
		t.Errorf("after a restart: new %v, %v; before: %v", r.IsNew(), now, before)
	}
}
