package decap_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director/directortest"
)

// kernel: include/uapi/linux/if_tunnel.h
const (
	encapGUE            = 2 // TUNNEL_ENCAP_GUE
	encapChecksum       = 1 // TUNNEL_ENCAP_FLAG_CSUM
	encapRemoteChecksum = 4 // TUNNEL_ENCAP_FLAG_REMCSUM
	greChecksum         = 0x8000
)

// TestKernelsTunnels: what Linux's own tunnel devices send is taken out, with their
// checksums and their option in IPv6; what it has of gue's remote checksums is not.
func TestKernelsTunnels(t *testing.T) {
	w := newWire(t)
	for _, f := range families {
		w.ok(w.director.AddAddress("eth0", netip.PrefixFrom(f.director, f.director.BitLen()-8)))
	}
	w.ok(w.director.SetOffload("eth0", directortest.TxChecksum, directortest.Off))
	_, err := w.start(labConfig(), w.interfaces("eth0")...)
	w.ok(err)
	local4, remote4 := net.IP(v4.director.AsSlice()), net.IP(v4.server.AsSlice())
	local6, remote6 := net.IP(v6.director.AsSlice()), net.IP(v6.server.AsSlice())
	gue := func(flags uint16) *netlink.Iptun {
		return &netlink.Iptun{Local: local4, Remote: remote4, PMtuDisc: 1, EncapType: encapGUE, EncapFlags: flags, EncapSport: 50000, EncapDport: 6080}
	}
	for _, test := range []struct {
		name, event string
		device      netlink.Link
		in          family
	}{
		{"ipip", "ipip", &netlink.Iptun{Local: local4, Remote: remote4, PMtuDisc: 1}, v4},
		{"4in6", "ipip", &netlink.Ip6tnl{Local: local6, Remote: remote6, EncapLimit: 4}, v4},
		{"6in6", "ipip", &netlink.Ip6tnl{Local: local6, Remote: remote6, EncapLimit: 4}, v6},
		{"gre", "gre", &netlink.Gretun{Local: local4, Remote: remote4, PMtuDisc: 1}, v4},
		{"gre-checksum-6in4", "gre", &netlink.Gretun{Local: local4, Remote: remote4, PMtuDisc: 1, OFlags: greChecksum}, v6},
		{"gue", "gue", gue(0), v4},
		{"gue-checksum", "gue", gue(encapChecksum), v4},
		{"gue-remote-checksum", "remote-checksum", gue(encapChecksum | encapRemoteChecksum), v4},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.device.Attrs().Name = "tunnel"
			err := w.director.Netlink().LinkAdd(test.device)
			if errors.Is(err, unix.EOPNOTSUPP) {
				t.Skip("the kernel has no such tunnel device")
			}
			w.ok(err)
			defer func() { w.ok(w.director.Netlink().LinkDel(test.device)) }()
			w.ok(w.director.Netlink().LinkSetUp(test.device))
			virtual := test.in.virtual.Addr()
			w.ok(w.director.Netlink().RouteReplace(&netlink.Route{
				Dst:       &net.IPNet{IP: virtual.AsSlice(), Mask: net.CIDRMask(virtual.BitLen(), virtual.BitLen())},
				LinkIndex: test.device.Attrs().Index, Src: test.in.director.AsSlice(),
			}))
			before := w.count(test.event)
			if test.event == "remote-checksum" {
				conn, err := w.director.Dial(t.Context(), "udp", netip.AddrPort{}, test.in.virtual)
				w.ok(err)
				_, err = conn.Write([]byte("not taken out"))
				w.ok(errors.Join(err, conn.Close()))
			} else {
				w.exchange(test.in)
			}
			if w.count(test.event) == before {
				t.Errorf("counter %s did not move", test.event)
			}
		})
	}
}

// exchange has the director's own stack speak TCP with a virtual address.
func (w *wire) exchange(f family) {
	w.t.Helper()
	listener, err := w.Listen(context.Background(), f.virtual)
	w.ok(err)
	defer listener.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := w.director.Dial(ctx, "tcp", netip.AddrPort{}, f.virtual)
	w.ok(err)
	defer conn.Close()
	server, err := listener.Accept()
	w.ok(err)
	defer server.Close()
	w.ok(errors.Join(conn.SetDeadline(time.Now().Add(patience)), server.SetDeadline(time.Now().Add(patience))))
	sent := pattern(100_000)
	done := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		done <- errors.Join(err, conn.(*net.TCPConn).CloseWrite())
	}()
	got, err := io.ReadAll(server)
	w.ok(errors.Join(err, <-done))
	if string(got) != string(sent) {
		w.t.Errorf("%d octets arrived, other than those sent", len(got))
	}
}
