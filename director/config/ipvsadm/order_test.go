package ipvsadm_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config/ipvsadm"
)

func TestSortServices(t *testing.T) {
	order := strings.Fields(`fwmark://4294967295 tcp://192.0.2.1:80 tcp://192.0.2.1:443 tcp://10.0.0.1:80 udp://192.0.2.1:53 sctp://192.0.2.1:80
		tcp://[2001:db8::1]:80 tcp://[2001:db8::2]:1 fwmark://1 fwmark6://1 fwmark://2`)
	var got []director.ServiceKey
	for i := range order {
		got = append(got, key(t, order[(i*7+3)%len(order)]))
	}
	ipvsadm.SortServices(got, func(key director.ServiceKey) director.ServiceKey { return key })
	var urls []string
	for _, k := range got {
		urls = append(urls, k.String())
	}
	if diff := cmp.Diff(order, urls); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestSortServers has an order that was seen in a guest, of servers that are less
// than each other in a circle: 192.0.2.9, 10.0.0.1, 127.0.0.1.
func TestSortServers(t *testing.T) {
	kernels := []string{"10.8.8.8:0", "127.0.0.1:80", "192.0.2.9:80", "10.0.0.1:99"} // last added first
	var got []netip.AddrPort
	for _, s := range kernels {
		got = append(got, netip.MustParseAddrPort(s))
	}
	ipvsadm.SortServers(got, func(address netip.AddrPort) netip.AddrPort { return address })
	want := []string{"192.0.2.9:80", "10.0.0.1:99", "10.8.8.8:0", "127.0.0.1:80"}
	var texts []string
	for _, a := range got {
		texts = append(texts, a.String())
	}
	if diff := cmp.Diff(want, texts); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
