package doctor_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/shunt-lb/shunt/bpf/probe"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/doctor"
)

// program loads a program that returns a constant: XDP_PASS, or TC_ACT_OK of a
// classifier.
func program(t *testing.T, name string, kind ebpf.ProgramType, verdict int32) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: name, Type: kind, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

const (
	xdpPass = 2
	tcOK    = 0
)

// index returns the number of one of the director's interfaces.
func (b *bed) index(name string) int { return b.link(name).Attrs().Index }

func (b *bed) link(name string) netlink.Link {
	b.Helper()
	l, err := b.Director.Netlink().LinkByName(name)
	if err != nil {
		b.Fatal(err)
	}
	return l
}

func (b *bed) attach(name string, p *ebpf.Program, flags link.XDPAttachFlags) link.Link {
	b.Helper()
	var attached link.Link
	err := b.Director.Do(func() (err error) {
		attached, err = link.AttachXDP(link.XDPOptions{Program: p, Interface: b.index(name), Flags: flags})
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = attached.Close() })
	return attached
}

func TestInterface(t *testing.T) {
	t.Run("none", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		b.host.Interfaces = nil
		b.wants("interface", "", doctor.Error, "no interface is named")
		b.host.Dataplane = director.PlaneIPVS // which is not attached
		b.wantsNone("interface", "")
		b.host.Dataplane = director.PlaneXDP
	})
	t.Run("missing", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		b.host.Interfaces = []string{"eth7"}
		b.wants("interface", "eth7", doctor.Error, "there is no interface eth7")
	})
	t.Run("down", func(t *testing.T) {
		b := newBed(t, directortest.TwoArmed)
		shell(t, b.Director, "ip link set dev eth1 down")
		f := b.wants("interface", "eth1", doctor.Error, "eth1 is down")
		shell(t, b.Director, f.Fix)
		b.becomes("interface", "eth1", false) // the carrier is noticed a moment later
	})
	t.Run("no_carrier", func(t *testing.T) {
		b := newBed(t, directortest.TwoArmed)
		shell(t, b.Servers[0].Namespace, "ip link set dev eth0 down")
		b.becomes("interface", "eth1", true)
		b.wants("interface", "eth1", doctor.Warning, "eth1 has no carrier")
		shell(t, b.Servers[0].Namespace, "ip link set dev eth0 up")
		b.becomes("interface", "eth1", false)
	})
	t.Run("in_a_bridge", func(t *testing.T) {
		b := newBed(t, directortest.TwoArmed)
		if err := b.Director.AddBridge("br0", "eth1"); err != nil {
			t.Fatal(err)
		}
		b.host.Interfaces = append(b.host.Interfaces, "br0")
		b.wants("interface", "eth1", doctor.Error, "eth1 and its master br0 (bridge) are both named")
		b.host.Interfaces = b.host.Interfaces[:2]
		b.cures("interface", "eth1", doctor.Warning, "eth1 is part of br0 (bridge)")
	})
	t.Run("named_like_a_command", func(t *testing.T) {
		b := newBed(t, directortest.TwoArmed)
		shell(t, b.Director, "ip link set dev eth1 down && ip link set dev eth1 name '$(false)'")
		b.host.Interfaces = []string{"eth0", "$(false)"}
		f := b.wants("interface", "$(false)", doctor.Error, "is down")
		shell(t, b.Director, f.Fix)
		b.becomes("interface", "$(false)", false)
	})
}

func TestXDPMode(t *testing.T) {
	t.Run("no_native", func(t *testing.T) {
		since(t, 6, 3, "the netdev family tells what a driver can do with XDP")
		b := newBed(t, directortest.OneArmed)
		if err := b.Director.AddBridge("br0"); err != nil { // a bridge has no native XDP
			t.Fatal(err)
		}
		b.host.Interfaces = []string{"br0"}
		f := b.wants("xdp-mode", "br0", doctor.Error, "the driver of br0 has no native XDP bridge")
		if !strings.HasPrefix(f.Fix, "shuntd --generic") {
			t.Errorf("fix %q", f.Fix)
		}
		b.host.Generic = true
		b.wantsNone("xdp-mode", "")
	})
	t.Run("needlessly_generic", func(t *testing.T) {
		since(t, 6, 3, "the netdev family tells what a driver can do with XDP")
		b := newBed(t, directortest.OneArmed)
		b.host.Generic = true
		b.wants("xdp-mode", "eth0", doctor.Warning, "could do native")
		b.host.Generic = false
		b.wantsNone("xdp-mode", "")
	})
	t.Run("attached_generic", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		ours := b.attach("eth0", program(t, "shunt_root", ebpf.XDP, xdpPass), link.XDPGenericMode)
		if err := ours.Pin(filepath.Join(b.host.PinDir, "link-2")); err != nil {
			t.Fatal(err)
		}
		if err := ours.Close(); err != nil { // what runs on is what is pinned
			t.Fatal(err)
		}
		f := b.wants("xdp-mode", "eth0", doctor.Warning, "attached to eth0 in generic mode")
		// No daemon runs here, and the machine's is not touched.
		shell(t, b.Director, "systemctl() { :; }; "+f.Fix)
		b.becomes("xdp-mode", "eth0", false)
		b.becomes("xdp-other", "eth0", false) // the kernel detaches a moment later
	})
}

func TestOtherXDP(t *testing.T) {
	t.Run("ours", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		ours := b.attach("eth0", program(t, "shunt_root", ebpf.XDP, xdpPass), link.XDPDriverMode)
		b.wants("xdp-other", "eth0", doctor.Error, "shunt_root (program ") // another daemon's
		if err := ours.Pin(filepath.Join(b.host.PinDir, "link-2")); err != nil {
			t.Fatal(err)
		}
		b.wantsNone("xdp-other", "")
	})
	t.Run("by_link", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		b.attach("eth0", program(t, "firewall", ebpf.XDP, xdpPass), link.XDPDriverMode)
		b.cures("xdp-other", "eth0", doctor.Error, "another XDP program is attached to eth0: firewall (program ")
	})
	for mode, flags := range map[string]int{"driver": int(link.XDPDriverMode), "generic": int(link.XDPGenericMode)} {
		t.Run("by_netlink_"+mode, func(t *testing.T) {
			b := newBed(t, directortest.OneArmed)
			p := program(t, "xdp_dispatcher", ebpf.XDP, xdpPass)
			err := b.Director.Do(func() error { return netlink.LinkSetXdpFdWithFlags(b.link("eth0"), p.FD(), flags) })
			if err != nil {
				t.Fatal(err)
			}
			b.cures("xdp-other", "eth0", doctor.Error, "libxdp's dispatcher")
		})
	}
}

func TestTrafficControl(t *testing.T) {
	t.Run("filter", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		p := program(t, "shaper", ebpf.SchedCLS, tcOK)
		shell(t, b.Director, "tc qdisc add dev eth0 clsact")
		err := b.Director.Netlink().FilterAdd(&netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: b.index("eth0"), Parent: netlink.HANDLE_MIN_INGRESS, Protocol: 0x0003, Priority: 1}, // ETH_P_ALL
			Fd:          p.FD(), Name: "shaper", DirectAction: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		b.cures("tc", "eth0", doctor.Info, "ingress filters on eth0: shaper (program ")
	})
	t.Run("tcx", func(t *testing.T) {
		since(t, 6, 6, "tcx")
		b := newBed(t, directortest.OneArmed)
		p := program(t, "shaper", ebpf.SchedCLS, tcOK)
		err := b.Director.Do(func() error {
			attached, err := link.AttachTCX(link.TCXOptions{Interface: b.index("eth0"), Program: p, Attach: ebpf.AttachTCXEgress})
			if err == nil {
				t.Cleanup(func() { _ = attached.Close() })
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		b.cures("tc", "eth0", doctor.Info, "attached to eth0 by tcx: shaper")
	})
	t.Run("ours", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		p, err := probe.Load()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		err = b.Director.Do(func() error {
			attached, err := p.Attach(b.Director.Netlink(), b.index("eth0"))
			if err == nil {
				t.Cleanup(func() { attached.Close() })
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if found := of(b.inspect(), "tc", "eth0"); len(found) > 0 {
			t.Errorf("of what brings servers' answers to checks: %+v", found)
		}
	})
}

func TestLRO(t *testing.T) {
	t.Run("lro", func(t *testing.T) { // no driver of this machine can: a card stands in
		b := newBed(t, directortest.OneArmed)
		b.host.NIC = &card{features: map[string]bool{"rx-lro": true}}
		if f := b.wants("lro", "eth0", doctor.Error, "large receive offload is on"); f.Fix != "ethtool -K eth0 lro off" {
			t.Errorf("fix %q", f.Fix)
		}
		b.host.NIC = &card{features: map[string]bool{"rx-lro": false, "rx-gro": true}}
		b.wantsNone("lro", "")
	})
	t.Run("gro_in_generic_mode", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		shell(t, b.Director, "ethtool -K eth0 gro on")
		b.wantsNone("lro", "")
		b.host.Generic = true
		b.cures("lro", "eth0", doctor.Warning, "generic receive offload is on for eth0 in generic mode")
	})
}

func TestVLANStripping(t *testing.T) {
	t.Run("card", func(t *testing.T) { // veth strips nothing: a card on a tap stands in
		b := newBed(t, directortest.OneArmed)
		shell(t, b.Director, "ip tuntap add tap0 mode tap && ip link set tap0 up")
		b.host.Interfaces = []string{"tap0"}
		b.wantsNone("vlan-stripping", "")
		b.host.NIC = &card{features: map[string]bool{"rx-vlan-hw-parse": true}}
		if f := b.wants("vlan-stripping", "tap0", doctor.Warning, "takes VLAN tags off what tap0 receives"); f.Fix != "ethtool -K tap0 rxvlan off" {
			t.Errorf("fix %q", f.Fix)
		}
	})
	t.Run("veth", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		b.addLocalVeth()
		b.cures("vlan-stripping", "veth1", doctor.Info, "sent beside the packet by veth1, the peer of veth0")
	})
}

// addLocalVeth makes a pair with both ends in the director and names veth0.
func (b *bed) addLocalVeth() {
	b.Helper()
	if err := b.Director.AddVeth("veth0", b.Director, "veth1", 0); err != nil {
		b.Fatal(err)
	}
	b.host.Interfaces = []string{"veth0"}
}

func TestVeth(t *testing.T) {
	t.Run("peer_without_xdp", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		b.addLocalVeth()
		b.cures("veth", "veth0", doctor.Error, "veth0 is a veth, and its peer veth1 has neither an XDP program nor GRO")
	})
	t.Run("peer_elsewhere", func(t *testing.T) {
		since(t, 6, 3, "the netdev family tells what a driver can do with XDP")
		b := newBed(t, directortest.OneArmed)
		if err := b.Director.AddVeth("veth0", b.Client, "end0", 0); err != nil {
			t.Fatal(err)
		}
		b.host.Interfaces = []string{"veth0"}
		f := b.wants("veth", "veth0", doctor.Error, "its peer has neither an XDP program nor GRO")
		if !strings.Contains(f.Fix, "in the peer's network namespace") {
			t.Errorf("fix %q does not say where", f.Fix)
		}
		shell(t, b.Client, strings.Replace(f.Fix, "eth0", "end0", 1))
		b.wantsNone("veth", "veth0")
	})
	t.Run("checksums", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		b.addLocalVeth()
		b.cures("veth", "veth1", doctor.Warning, "veth1, the peer of veth0, leaves checksums to a card")
	})
}

func (b *bed) attachPassing(name string) link.Link {
	b.Helper()
	return b.attach(name, program(b.T, "shunt_root", ebpf.XDP, xdpPass), link.XDPDriverMode)
}
