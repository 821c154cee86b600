package xdp

import (
	"context"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

// rig is a data plane in a network namespace of its own, with one interface.
type rig struct {
	*Dataplane
	t        testing.TB
	ns, peer *directortest.Namespace
	opts     Options
}

// reachable is an address of the peer's: a server that has a next hop.
var reachable = netip.MustParseAddr("10.0.0.200")

func newRig(t testing.TB, opts Options) *rig {
	t.Helper()
	directortest.Privileged(t)
	ns, err := directortest.NewNamespace("director")
	if err != nil {
		t.Fatal(err)
	}
	peer, err := directortest.NewNamespace("peer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, n := range []*directortest.Namespace{ns, peer} {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	opts.Interfaces = []string{"eth0"}
	opts.PinDir = filepath.Join(directortest.Bpffs(t), "pins")
	if opts.MaxConnections == 0 {
		opts.MaxConnections = 4096
	}
	if opts.MaxServers == 0 {
		opts.MaxServers, opts.MaxServices, opts.SchedulerWords = 256, 32, 1<<16
	}
	r := &rig{t: t, ns: ns, peer: peer, opts: opts}
	r.connect()
	r.open()
	t.Cleanup(func() {
		if err := r.Detach(context.Background()); err != nil && !r.isClosed() {
			t.Error(err)
		}
	})
	return r
}

// connect makes the interface, with a network that the peer is in.
func (r *rig) connect() {
	r.t.Helper()
	if err := r.ns.AddVeth("eth0", r.peer, "eth0", 1500); err != nil {
		r.t.Fatal(err)
	}
	for _, err := range []error{
		r.ns.AddAddress("eth0", netip.MustParsePrefix("10.0.0.254/24")),
		r.peer.AddAddress("eth0", netip.PrefixFrom(reachable, 24)),
	} {
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

// eventually waits for what happens by itself.
func (r *rig) eventually(what string, happened func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(time.Minute); !happened(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("not in time: %s", what)
		}
	}
}

// natServer is a server at reachable.
func natServer() realserver.Server {
	return realserver.Server{Address: netip.AddrPortFrom(reachable, 8080), Method: realserver.NAT, Weight: 2}
}

// open opens the data plane, again after a Close.
func (r *rig) open() {
	r.t.Helper()
	err := r.ns.Do(func() (err error) {
		r.Dataplane, err = Open(context.Background(), r.opts)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) must(ops ...director.Operation) {
	r.t.Helper()
	if err := r.Apply(r.t.Context(), ops); err != nil {
		r.t.Fatal(err)
	}
}

// syn sends a client's first segment through the loaded program and returns the
// server it was paired with.
func (r *rig) syn(client, vip netip.AddrPort) (server netip.AddrPort, ok bool) {
	r.t.Helper()
	r.send(bpftest.Packet{From: client, To: vip, Flags: "S"})
	for c, err := range r.Connections(r.t.Context(), director.ConnectionFilter{Client: netip.PrefixFrom(client.Addr(), client.Addr().BitLen())}) {
		if err != nil {
			r.t.Fatal(err)
		}
		if c.Client == client && c.Virtual == vip {
			return c.Server, true
		}
	}
	return server, false
}

func (r *rig) send(p bpftest.Packet) bpftest.Action {
	r.t.Helper()
	out := make([]byte, 2048)
	action, err := r.plane.ShuntRoot.Run(&ebpf.RunOptions{Data: p.Bytes(), DataOut: out})
	if err != nil {
		r.t.Error(err)
	}
	return bpftest.Action(action)
}
