package doctor_test

import (
	"net/netip"
	"testing"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/doctor"
	"github.com/shunt-lb/shunt/realserver"
)

// A kernel without tcx cannot ask servers by dr and tunnel at the virtual address, which
// is said of the services that it matters to.
func TestTruePath(t *testing.T) {
	tcp := realserver.Check{Kind: realserver.CheckTCP}
	via := func(way realserver.CheckVia) realserver.Check {
		return realserver.Check{Kind: realserver.CheckTCP, Via: way}
	}
	for _, c := range []struct {
		name, release string
		method        realserver.Method
		checks        []realserver.Check
		severity      doctor.Severity // OK: nothing is found
		words         string
	}{
		{"old", "6.1.0-18-amd64", realserver.DR, []realserver.Check{tcp}, doctor.Warning, "kernel 6.1.0-18-amd64 cannot hand the director what servers by dr and tunnel answer from the virtual address (since 6.6): they are asked at their own addresses"},
		{"a tunnel", "6.5.1", realserver.Tunnel, []realserver.Check{{Kind: realserver.CheckICMP}, tcp}, doctor.Warning, "their own addresses"},
		{"asked for", "6.5.1", realserver.DR, []realserver.Check{tcp, via(realserver.ViaVirtual)}, doctor.Error, "and a check has via: virtual"},
		{"not wanted", "6.1.0", realserver.DR, []realserver.Check{via(realserver.ViaServer)}, doctor.OK, ""},
		{"no connection", "6.1.0", realserver.DR, []realserver.Check{{Kind: realserver.CheckICMP}}, doctor.OK, ""},
		{"rewritten", "6.1.0", realserver.NAT, []realserver.Check{tcp, via(realserver.ViaVirtual)}, doctor.OK, ""},
		{"not checked", "6.1.0", realserver.DR, nil, doctor.OK, ""},
		{"new", "6.6.0", realserver.DR, []realserver.Check{via(realserver.ViaVirtual)}, doctor.OK, ""},
		{"no kernel", "none", realserver.DR, []realserver.Check{tcp}, doctor.Unknown, `read kernel version "none"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := newTree(t, map[string]string{"proc/sys/kernel/osrelease": c.release})
			found := of(root.here(t, doctor.Host{Services: []director.Service{{
				Key:     director.ServiceKey{Protocol: conntrack.TCP, Address: netip.MustParseAddrPort("192.0.2.1:80")},
				Servers: []realserver.Server{{Address: netip.MustParseAddrPort("10.0.0.1:80"), Method: c.method, Weight: 1}},
				Health:  director.Health{Checks: c.checks},
			}}}), "true-path", "")
			if c.severity == doctor.OK && len(found) == 0 {
				return
			}
			if f := single(t, found, "true-path", c.severity, c.words); f.Subject != "tcp://192.0.2.1:80" {
				t.Errorf("it is about %q", f.Subject)
			}
		})
	}
}
