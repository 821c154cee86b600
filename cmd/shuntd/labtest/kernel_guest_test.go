package labtest

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director/directortest"
	guest "github.com/shunt-lb/shunt/director/directortest/ipvs"
)

// judged are the ways that the kernel's devices judge: an emulated CPU has no time for all.
var judged = []string{
	"fullnat4", "ipip4", "ipip4-on-6", "ipip6-on-4", "ipip6", "gue4", "gue6-on-4", "gue-full4-on-6", "gue-full6",
	"gre4", "gre6", "gre-full4-far", "gre-full6-on-4-far", "gre-full6-far",
}

// TestKernelUnwraps has a kernel's own tunnel devices judge what the data plane wraps, on
// the oldest kernel: a transfer each way by each type, families mixed too, whose
// clients learn what the headers take, and by full NAT.
func TestKernelUnwraps(t *testing.T) {
	guest.Guest(t)
	if os.Getenv(guest.GuestEnv) == "uml" {
		t.Skip("user-mode-linux has no XDP: the step guest runs this")
	}
	r := startRouted(t, routing{
		unwrap: unwrapByKernel,
		// A device of gre takes packets with a checksum or without: those with are the far server's.
		among: func(o target) bool { return slices.Contains(judged, o.name) },
	})
	r.serve(t)
	for _, o := range r.targets {
		t.Run(o.name, func(t *testing.T) {
			const size = 30_000
			r.fetch(t, o, 0, size, false)
			r.fetch(t, o, 0, size, true)
			if got, want := learnedMTU(t, r.lab.Client, o.vip.Addr(), r.client(o, 0)), 1500-o.headers(); o.isTunnel() && got != want {
				t.Errorf("the client has learned an MTU of %d, want %d", got, want)
			}
			forget(t, r.lab.Client)
		})
	}
	noChecksumErrors(t, r.lab)
	r.d.noFaults(t)
}

// unwrapByKernel sets up the devices by which a server of the kernel's IPVS gets what it
// is sent by tunnel.
func unwrapByKernel(lab *directortest.Lab) error {
	for i, s := range lab.Servers {
		checksum := ""
		if i == len(lab.Servers)-1 {
			checksum = "icsum"
		}
		for command := range strings.Lines(fmt.Sprintf(`link set tunl0 up
link set sit0 up
link add any6 type ip6tnl mode any local %[2]s remote %[4]s
link set any6 up
link add gre4 type gre local %[1]s remote %[3]s %[5]s
link set gre4 up
link add gre6 type ip6gre local %[2]s remote %[4]s %[5]s
link set gre6 up
fou add port 6080 gue
fou add port 6080 gue -6`, s.Addr4, s.Addr6, own(s.Addr4), own(s.Addr6), checksum)) {
			out, err := s.Command(context.Background(), "ip", strings.Fields(command)...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("ip %s in %s: %w: %s", strings.TrimSpace(command), s.Name, err, out)
			}
		}
	}
	return nil
}
