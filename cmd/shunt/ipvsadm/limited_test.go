package ipvsadm

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	language "github.com/shunt-lb/shunt/director/config/ipvsadm"
)

// slow takes its time for every look-up, and notes them.
type slow struct {
	language.Names
	takes time.Duration
	asked *[]netip.Addr
}

func (s slow) Host(a netip.Addr) (string, bool) {
	*s.asked = append(*s.asked, a)
	time.Sleep(s.takes)
	return "host-" + a.String(), true
}

func TestLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []netip.Addr
		l := newLimited(slow{takes: 2 * time.Second, asked: &asked}, 3*time.Second)
		a, b, c := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
		began := time.Now()
		for range 2 {
			if name, found := l.Host(a); !found || name != "host-10.0.0.1" {
				t.Errorf("the first: %q, %v", name, found)
			}
			for _, late := range []netip.Addr{b, c} {
				if name, found := l.Host(late); found {
					t.Errorf("%s after the limit: %q", late, name)
				}
			}
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("took %s", took)
		}
		time.Sleep(time.Minute)
		synctest.Wait() // the one left behind has ended
		if len(asked) != 2 {
			t.Errorf("asked for %v: want each once, and none after the limit", asked)
		}
	})
}
