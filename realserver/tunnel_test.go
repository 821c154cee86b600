package realserver_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/realserver"
)

func TestTunnelOptionsString(t *testing.T) {
	for want, tunnel := range map[string]realserver.TunnelOptions{
		"ipip":                           {},
		"gue port 5555":                  {Type: realserver.TunnelGUE, Port: 5555},
		"gue port 5555, remote checksum": {Type: realserver.TunnelGUE, Port: 5555, Checksum: realserver.TunnelRemoteChecksum},
		"gre, full checksum":             {Type: realserver.TunnelGRE, Checksum: realserver.TunnelChecksumOn},
		"type-9, checksum-8 checksum":    {Type: 9, Checksum: 8},
	} {
		if got := tunnel.String(); got != want {
			t.Errorf("%+v: %q, want %q", tunnel, got, want)
		}
	}
}

func TestTunnelOverhead(t *testing.T) {
	const gue, gre = realserver.TunnelGUE, realserver.TunnelGRE
	for _, tt := range []struct {
		tunnel  realserver.TunnelOptions
		address string
		want    int
	}{
		{realserver.TunnelOptions{}, "10.0.0.1", 20},
		{realserver.TunnelOptions{}, "2001:db8::1", 40},
		{realserver.TunnelOptions{Type: gue, Port: 5555}, "10.0.0.1", 32},
		{realserver.TunnelOptions{Type: gue, Port: 5555, Checksum: realserver.TunnelRemoteChecksum}, "2001:db8::1", 52},
		{realserver.TunnelOptions{Type: gre}, "10.0.0.1", 24},
		{realserver.TunnelOptions{Type: gre, Checksum: realserver.TunnelChecksumOn}, "2001:db8::1", 48},
	} {
		if got := tt.tunnel.Overhead(netip.MustParseAddr(tt.address)); got != tt.want {
			t.Errorf("%s to %s: %d, want %d", tt.tunnel, tt.address, got, tt.want)
		}
	}
}

// The numbers are the kernel's.
func TestTunnelTypes(t *testing.T) {
	for name, want := range map[string]realserver.TunnelType{"ipip": 0, "gue": 1, "gre": 2} {
		if got := want.String(); got != name {
			t.Errorf("%d: %q, want %q", want, got, name)
		}
		for _, text := range []string{name, strings.ToUpper(name)} {
			if got, err := realserver.ParseTunnelType(text); err != nil || got != want {
				t.Errorf("%q: %v, %v, want %d", text, got, err, want)
			}
		}
	}
	if _, err := realserver.ParseTunnelType("vxlan"); err == nil || err.Error() != `unknown tunnel type "vxlan": want ipip, gue or gre` {
		t.Errorf("vxlan: %v", err)
	}
}

func TestTunnelChecksums(t *testing.T) {
	for name, want := range map[string]realserver.TunnelChecksum{"none": 0, "full": 1, "remote": 2} {
		if got := want.String(); got != name {
			t.Errorf("%d: %q, want %q", want, got, name)
		}
		for _, text := range []string{name, strings.ToUpper(name)} {
			if got, err := realserver.ParseTunnelChecksum(text); err != nil || got != want {
				t.Errorf("%q: %v, %v, want %d", text, got, err, want)
			}
		}
	}
	if _, err := realserver.ParseTunnelChecksum("crc"); err == nil || err.Error() != `unknown tunnel checksum "crc": want none, full or remote` {
		t.Errorf("crc: %v", err)
	}
}
