package ipvs

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Connection is a line of /proc/net/ip_vs_conn.
type Connection struct {
	Protocol string // TCP, UDP, IP for templates of a marked service
	Client   netip.AddrPort
	Virtual  netip.AddrPort
	Server   netip.AddrPort
	State    string        // the kernel's name, NONE of a template
	Expires  time.Duration // in whole seconds, rounded down
}

// Connections returns the namespace's connections and templates, in no order.
func (k *Kernel) Connections() []Connection {
	k.t.Helper()
	var all []Connection
	lines := strings.Split(strings.TrimSuffix(k.read("ip_vs_conn"), "\n"), "\n")
	for _, line := range lines[1:] { // below the titles
		c, err := parseConnection(line)
		if err != nil {
			k.t.Fatalf("/proc/net/ip_vs_conn: %q: %v", line, err)
		}
		all = append(all, c)
	}
	return all
}

// parseConnection reads "TCP C6336407 9C40 C0000201 0050 0A00020B 1F90 ESTABLISHED 899",
// where IPv6 addresses are as people write them, in full.
func parseConnection(line string) (Connection, error) {
	f := strings.Fields(line)
	if len(f) < 9 {
		return Connection{}, fmt.Errorf("%d fields, want 9", len(f))
	}
	c := Connection{Protocol: f[0], State: f[7]}
	for i, address := range []*netip.AddrPort{&c.Client, &c.Virtual, &c.Server} {
		var err error
		if *address, err = parseAddress(f[1+2*i], f[2+2*i]); err != nil {
			return Connection{}, err
		}
	}
	seconds, err := strconv.ParseUint(f[8], 10, 32)
	if err != nil {
		return Connection{}, err
	}
	c.Expires = time.Duration(seconds) * time.Second
	return c, nil
}

func parseAddress(address, port string) (netip.AddrPort, error) {
	number, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if strings.Contains(address, ":") {
		a, err := netip.ParseAddr(strings.Trim(address, "[]"))
		return netip.AddrPortFrom(a, uint16(number)), err
	}
	b, err := hex.DecodeString(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("address of %d octets", len(b))
	}
	return netip.AddrPortFrom(a, uint16(number)), nil
}
