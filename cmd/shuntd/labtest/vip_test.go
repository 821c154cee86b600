package labtest

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director/directortest"
)

func TestVirtualAddress(t *testing.T) {
	t.Parallel()
	lab := directortest.Start(t, directortest.Topology{Servers: 1})
	d := startDaemon(t, lab)
	onLo := func(t *testing.T, addr string, want bool) {
		t.Helper()
		if got := hasAddress(t, lab.Director, "lo", netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s on lo: %t, want %t", addr, got, want)
		}
	}
	t.Run("is_there_while_a_service_has_it", func(t *testing.T) {
		for _, addr := range []string{"192.0.2.10", "2001:db8::10"} {
			a, b := "tcp://"+addr+":80", "udp://"+addr+":53"
			if strings.Contains(addr, ":") {
				a, b = "tcp://["+addr+"]:80", "udp://["+addr+"]:53"
			}
			d.do(t, "service add "+a+"\nservice add "+b)
			onLo(t, addr, true)
			d.do(t, "service remove "+a)
			onLo(t, addr, true)
			d.do(t, "service remove "+b)
			onLo(t, addr, false)
		}
	})
	t.Run("of_another_interface_is_refused", func(t *testing.T) {
		before := d.configuration(t)
		r := d.try(t, "service", "add", "tcp://10.1.0.1:80")
		if r.code != 1 || !strings.Contains(r.stderr, "10.1.0.1 is on eth0 already") || !strings.Contains(r.stderr, "vip: external") {
			t.Errorf("exit code %d: %s", r.code, r.stderr)
		}
		onLo(t, "10.1.0.1", false)
		if after := d.configuration(t); after != before {
			t.Errorf("configuration before:\n%safter:\n%s", before, after)
		}
		d.do(t, "service add tcp://10.1.0.1:80 --vip external\nservice remove tcp://10.1.0.1:80")
		if !hasAddress(t, lab.Director, "eth0", netip.MustParseAddr("10.1.0.1")) {
			t.Error("eth0 lost its address")
		}
	})
	t.Run("external_is_left_alone", func(t *testing.T) {
		d.do(t, "service add tcp://192.0.2.30:80 --vip external")
		onLo(t, "192.0.2.30", false)
		if err := lab.Director.AddAddress("lo", netip.MustParsePrefix("192.0.2.30/32")); err != nil {
			t.Fatal(err)
		}
		d.do(t, "service remove tcp://192.0.2.30:80")
		onLo(t, "192.0.2.30", true)
	})
	t.Run("changes_hands", func(t *testing.T) {
		d.do(t, "service add tcp://192.0.2.40:80 --vip external\nservice edit tcp://192.0.2.40:80 --vip managed")
		onLo(t, "192.0.2.40", true)
		d.do(t, "service edit tcp://192.0.2.40:80 --vip external")
		onLo(t, "192.0.2.40", false)
	})
}
