package labtest

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/shunt-lb/shunt/director/directortest"
)

// uplink is a second way into the director, of clients that it has no route to.
type uplink struct {
	client, router *directortest.Namespace
	addresses      [2]netip.Addr // of the client, by family
}

// build connects the client by the router to eth1 of the director.
func (u *uplink) build(lab *directortest.Lab) error {
	near4, near6 := netip.MustParsePrefix("10.9.0.0/24"), netip.MustParsePrefix("fd00:9::/64")
	far4, far6 := netip.MustParsePrefix("10.8.0.0/24"), netip.MustParsePrefix("fd00:8::/64")
	number := func(p netip.Prefix, n int) netip.Prefix { return netip.PrefixFrom(host(p.Addr(), n), p.Bits()) }
	u.addresses = [2]netip.Addr{host(far4.Addr(), 2), host(far6.Addr(), 2)}
	errs := []error{
		lab.Director.AddVeth("eth1", u.router, "eth1", 0),
		u.router.AddVeth("eth0", u.client, "eth0", 0),
		u.router.Sysctl("net/ipv4/ip_forward", "1"),
		u.router.Sysctl("net/ipv6/conf/all/forwarding", "1"),
		u.router.Sysctl("net/ipv4/icmp_ratelimit", "0"),
		u.client.SetOffload("eth0", directortest.TxChecksum, directortest.Off),
		u.router.SetOffload("eth0", directortest.TxChecksum, directortest.Off),
	}
	for _, networks := range [][2]netip.Prefix{{near4, far4}, {near6, far6}} {
		near, far := networks[0], networks[1]
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if near.Addr().Is6() {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		errs = append(errs,
			lab.Director.AddAddress("eth1", number(near, 1)),
			u.router.AddAddress("eth1", number(near, 2)),
			u.router.AddAddress("eth0", number(far, 1)),
			u.client.AddAddress("eth0", number(far, 2)),
			u.router.AddRoute(all, host(near.Addr(), 1)),
			u.client.AddRoute(all, host(far.Addr(), 1)))
	}
	lab.DirectorLinks = append(lab.DirectorLinks, "eth1")
	return errors.Join(errs...)
}

// TestUplinks has clients come by two links at a time: what goes back to them, answers,
// and errors of the director's own too, leaves by the link that they came by. The
// director's routes lead all of it to the other one.
func TestUplinks(t *testing.T) {
	t.Parallel()
	directortest.Privileged(t)
	u := uplink{client: namespace(t, "second"), router: namespace(t, "second-router")}
	r := startRouted(t, routing{
		prepare: u.build,
		among:   func(o target) bool { return o.isPlain() && (o.method == nat || o.method == fullnat) },
	})
	pass, err := u.router.AttachPass("eth1")
	if err != nil {
		t.Fatal(err)
	}
	defer pass.Close()
	r.serve(t)
	for _, o := range r.targets {
		t.Run(o.name, func(t *testing.T) {
			from := u.addresses[0]
			if o.vip.Addr().Is6() {
				from = u.addresses[1]
			}
			for _, upload := range []bool{false, true} {
				j := job{service: o.name, from: netip.AddrPortFrom(from, 0), address: o.vip, size: 300_000, upload: upload}
				if got, err := j.run(u.client); err != nil || got != o.server.Name {
					t.Errorf("by the second uplink: answered by %q, %v\n%s", got, err, r.d.shunt(t, "drops"))
				}
				r.fetch(t, o, 0, 300_000, upload)
			}
			if total, _ := r.d.counters(t, "tcp-"+o.name); total.Connections != 4 || total.Out.Bytes < 600_000 {
				t.Errorf("the director counted %+v for four connections", total)
			}
			// The first router on the way to the server is the client's, the director the second.
			want := map[bool][2]byte{true: {11, 0}, false: {3, 0}}[o.vip.Addr().Is4()]
			for name, client := range map[string]*directortest.Namespace{"first": r.lab.Client, "second": u.client} {
				if got := errorOf(t, client, o.vip, 2); got != want {
					t.Errorf("by the %s uplink: ICMP type and code %v, want %v", name, got, want)
				}
			}
			// A link beyond the second router that is too small for answers.
			if err := u.router.SetPathMTU(from, "eth0", 1300); err != nil {
				t.Fatal(err)
			}
			j := job{service: o.name, from: netip.AddrPortFrom(from, 0), address: o.vip, size: bulk}
			events := r.between(t, func() {
				if _, err := j.run(u.client); err != nil {
					t.Errorf("by the second uplink, whose MTU is small: %v", err)
				}
			})
			if events["icmp-to-server"] == 0 {
				t.Errorf("no error went to the server: %v", nonzero(events))
			}
			if err := u.router.SetPathMTU(from, "eth0", 0); err != nil {
				t.Error(err)
			}
		})
	}
	sent, err := u.router.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if sent["Ip6OutForwDatagrams"] == 0 || sent["IpForwDatagrams"] == 0 {
		t.Error("nothing came by the second uplink")
	}
	if now := r.d.events(t); now["by-route"] != 0 {
		t.Errorf("%d replies were sent by the route", now["by-route"])
	}
	noChecksumErrors(t, r.lab)
	r.d.noFaults(t)
	if bad, err := u.client.ChecksumErrors(); err != nil || bad != 0 {
		t.Errorf("%s received %d packets with a wrong checksum, %v", u.client.Name, bad, err)
	}
}
