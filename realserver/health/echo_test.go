package health_test

import (
	"context"
	"net/netip"
	"os"
	"sync"
	"testing"

	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/health"
)

func icmpCheck() realserver.Check { return realserver.Check{Kind: realserver.CheckICMP} }

func TestICMP(t *testing.T) {
	directortest.Privileged(t)
	local := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 0)
	wantPass(t, probe(t, icmpCheck(), local, patient), "")
	wantPass(t, probe(t, icmpCheck(), netip.AddrPortFrom(netip.IPv6Loopback(), 0), patient), "")
	// Discarded by the kernel: no route leads there (RFC 1112 §4, class E).
	got := probe(t, icmpCheck(), netip.MustParseAddrPort("240.0.0.1:0"), hurried)
	wantFail(t, got)
}

// TestICMPShared asks many at once, over one socket, of which none may take another's
// answer.
func TestICMPShared(t *testing.T) {
	directortest.Privileged(t)
	env := health.NewEnv("")
	defer env.Close()
	files := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := files()
	var group sync.WaitGroup
	for i := range 200 {
		// All of 127/8 answers; who asks the broadcast address is refused at once.
		addr := netip.AddrFrom4([4]byte{127, 0, byte(i % 4), byte(1 + i%100)})
		prober, err := health.NewProber(icmpCheck(), health.Target{Server: netip.AddrPortFrom(addr, 0)}, nil, env)
		if err != nil {
			t.Fatal(err)
		}
		defer prober.Close()
		group.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patient)
			defer cancel()
			if result := prober.Probe(ctx); result.Err != nil {
				t.Errorf("%s: %v", addr, result.Err)
			}
		})
	}
	group.Wait()
	// One of the family, and those that the runtime polls with.
	if after := files(); after > before+4 {
		t.Errorf("%d files are open, %d were before", after, before)
	}
}
