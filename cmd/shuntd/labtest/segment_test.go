package labtest

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// TestSegmentSize has transfers cross a link that swallows what is too long for it and
// says nothing: only a service that lowers the announced segment size gets through.
func TestSegmentSize(t *testing.T) {
	t.Parallel()
	const small = 1300
	r := startRouted(t, routing{among: target.isPlain})
	r.serve(t)
	// Uploads first: what a server still repeats of a download would meet a router that
	// knows of its small link, and says so.
	for _, upload := range []bool{true, false} {
		at, other := r.lab.Client, r.lab.Router // who receives no more, of downloads
		if upload {
			at, other = other, at
		}
		setLink(t, at, "eth0", func(h *netlink.Handle, l netlink.Link) error { return h.LinkSetMTU(l, small) })
		setLink(t, other, "eth0", func(h *netlink.Handle, l netlink.Link) error { return h.LinkSetMTU(l, 1500) })
		if err := r.announce1500(); err != nil {
			t.Fatal(err)
		}
		for _, o := range r.targets {
			t.Run(fmt.Sprintf("%s_upload_%t", o.name, upload), func(t *testing.T) {
				if upload && !(o.method == nat || o.method == fullnat) {
					t.Logf("the server's announcement does not pass the director")
					return
				}
				r.d.shunt(t, "service", "edit", "tcp-"+o.name, "--mss", "none")
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				stuck := job{address: o.vip, size: 50_000, upload: upload}
				if _, err := stuck.doWithin(ctx, r.lab.Client); err == nil {
					t.Error("the link is not too small without help")
				}
				cancel()
				r.d.shunt(t, "service", "edit", "tcp-"+o.name, "--mss", "1220")
				events := r.between(t, func() { r.fetch(t, o, 0, bulk, upload) })
				if events["mss-clamped"] == 0 {
					t.Errorf("no segment size was lowered: %v", nonzero(events))
				}
			})
		}
	}
	noChecksumErrors(t, r.lab)
	r.d.noFaults(t)
}

// announce1500 has the client announce segments as for links of 1500 octets, whatever its
// own link takes.
func (r *routed) announce1500() error {
	for gateway, size := range map[string]int{"10.1.0.1": 1460, "fd00:1::1": 1440} {
		addr := netip.MustParseAddr(gateway)
		route := &netlink.Route{Gw: addr.AsSlice(), AdvMSS: size}
		if err := r.lab.Client.Netlink().RouteReplace(route); err != nil {
			return fmt.Errorf("announce segments of %d octets by %s: %w", size, gateway, err)
		}
	}
	return nil
}
