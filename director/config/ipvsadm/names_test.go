package ipvsadm_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director/config/ipvsadm"
)

// fewNames are those of the guest that the tests use.
type fewNames struct{}

var _ ipvsadm.Names = fewNames{}

type namedPort struct {
	port     uint16
	protocol conntrack.Protocol
}

var ports = map[namedPort]string{
	{80, conntrack.TCP}: "http", {53, conntrack.TCP}: "domain", {53, conntrack.UDP}: "domain", {443, conntrack.TCP}: "https", {443, conntrack.UDP}: "https",
}

func (fewNames) Address(host string) (netip.Addr, bool) {
	return netip.AddrFrom4([4]byte{127, 0, 0, 1}), host == "localhost"
}

func (fewNames) Host(addr netip.Addr) (string, bool) {
	return "localhost", addr == netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

func (fewNames) Port(service string, protocol conntrack.Protocol) (uint16, bool) {
	if service == "www" {
		service = "http"
	}
	for p, name := range ports {
		if name == service && p.protocol == protocol {
			return p.port, true
		}
	}
	return 0, false
}

func (fewNames) Service(port uint16, protocol conntrack.Protocol) (string, bool) {
	name, found := ports[namedPort{port, protocol}]
	return name, found
}

func TestSystemNames(t *testing.T) {
	t.Run("ports", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "services")
		const text = "# name port/protocol alias\nhttp\t80/tcp\twww # the web\nother 80/tcp\nHTTP 81/tcp\nbad\nbad x/tcp\nbad 70000/tcp\nm3ua 2905/sctp\n\ndomain 53/udp\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		names := ipvsadm.System{ServicesFile: file}
		for _, c := range []struct {
			name     string
			protocol conntrack.Protocol
			want     uint16 // 0: none
		}{
			{"http", conntrack.TCP, 80},
			{"www", conntrack.TCP, 80},
			{"HTTP", conntrack.TCP, 81},
			{"Http", conntrack.TCP, 0},
			{"http", conntrack.UDP, 0},
			{"m3ua", conntrack.SCTP, 2905},
			{"domain", conntrack.UDP, 53},
			{"bad", conntrack.TCP, 0},
			{"the", conntrack.TCP, 0},
			{"", conntrack.TCP, 0},
		} {
			if got, found := names.Port(c.name, c.protocol); got != c.want || found != (c.want != 0) {
				t.Errorf("Port(%q, %s) = %d, %t, want %d", c.name, c.protocol, got, found, c.want)
			}
		}
		for _, c := range []struct {
			port     uint16
			protocol conntrack.Protocol
			want     string
		}{{80, conntrack.TCP, "http"}, {80, conntrack.UDP, ""}, {2905, conntrack.SCTP, "m3ua"}, {53, 0, ""}} {
			if got, found := names.Service(c.port, c.protocol); got != c.want || found != (c.want != "") {
				t.Errorf("Service(%d, %s) = %q, %t, want %q", c.port, c.protocol, got, found, c.want)
			}
		}
	})
	t.Run("no_file_no_ports", func(t *testing.T) {
		names := ipvsadm.System{ServicesFile: filepath.Join(t.TempDir(), "none")}
		if port, found := names.Port("http", conntrack.TCP); found {
			t.Errorf("Port = %d, want none", port)
		}
	})
	t.Run("numbers_are_no_hosts", func(t *testing.T) {
		for _, host := range []string{"", "1.2.3.4.5", "256.0.0.1", "08"} {
			if addr, found := (ipvsadm.System{}).Address(host); found {
				t.Errorf("Address(%q) = %s, want none", host, addr)
			}
		}
	})
}
