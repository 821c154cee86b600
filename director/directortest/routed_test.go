package directortest_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director/directortest"
)

// A router of a routed lab tells who sends what is too long beyond it.
func TestLabRoutersTellTheirMTU(t *testing.T) {
	lab := directortest.Start(t, directortest.Topology{
		Shape: directortest.Routed, Clients: 2, Forwarding: directortest.On,
	})
	if _, err := lab.ServeHTTP(80); err != nil {
		t.Fatal(err)
	}
	far := lab.Servers[1]
	for i, client := range []netip.Addr{lab.ClientAddrs4[1], lab.ClientAddrs6[1]} {
		server, vip := []netip.Addr{far.Addr4, far.Addr6}[i], lab.Topology.VIPs[i]
		if err := lab.Router.SetPathMTU(client, "eth0", 1300); err != nil {
			t.Fatal(err)
		}
		if err := lab.Director.AddRoute(netip.PrefixFrom(vip, vip.BitLen()), server); err == nil {
			t.Fatal("the far server is no neighbour of the director")
		}
		source := lab.Client.HTTPClient(directortest.ClientOptions{Source: client})
		answer, _ := get(t, source, fmt.Sprintf("http://%s/bytes/%d", netip.AddrPortFrom(server, 80), 200_000))
		if got := answer.Header.Get(directortest.HeaderServer); got != far.Name {
			t.Errorf("%s answered for %s", got, server)
		}
		for _, way := range []struct {
			of   *directortest.Server
			want string
		}{{far, "mtu 1300"}, {lab.Servers[0], ""}} {
			out, err := way.of.Command(t.Context(), "ip", "route", "get", client.String()).CombinedOutput()
			if err != nil || strings.Contains(string(out), "mtu") != (way.want != "") || !strings.Contains(string(out), way.want) {
				t.Errorf("%s towards %s: %s %v, want %q", way.of.Name, client, out, err, way.want)
			}
		}
		if err := lab.Router.SetPathMTU(client, "eth0", 0); err != nil {
			t.Error(err)
		}
	}
}
