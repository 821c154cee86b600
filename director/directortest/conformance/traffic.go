package conformance

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

// patience is how long an answer may take: a guest's CPU is slow, and a lost segment
// is sent again.
const patience = 30 * time.Second

// client returns an HTTP client at the lab's n-th client address of the family.
func (b *bench) client(vip netip.Addr, n int, keepAlive directortest.Switch) *http.Client {
	source := b.lab.ClientAddrs4[n]
	if vip.Is6() {
		source = b.lab.ClientAddrs6[n]
	}
	client := b.lab.Client.HTTPClient(directortest.ClientOptions{Source: source, KeepAlive: keepAlive})
	client.Timeout = patience
	b.Cleanup(client.CloseIdleConnections)
	return client
}

// get asks for as many bytes and returns the name of the server that answered.
func (b *bench) get(client *http.Client, vip netip.Addr, bytes int64) string {
	b.Helper()
	url := fmt.Sprintf("http://%s/bytes/%d", netip.AddrPortFrom(vip, port), bytes)
	answer, err := client.Get(url)
	if err != nil {
		b.Fatal(err)
	}
	defer answer.Body.Close()
	if n, err := directortest.Pattern().Compare(answer.Body); err != nil || n != bytes {
		b.Errorf("%s: %d bytes, %v: want %d", url, n, err, bytes)
	}
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		b.Error(err)
	}
	return answer.Header.Get(directortest.HeaderServer)
}

// requests is how many are sent in most tests: a multiple of the servers.
const requests = 6

// shares are how often each server answered.
type shares map[string]int

// even is what round robin makes of n requests.
func (b *bench) even(n int) shares {
	want := shares{}
	for _, s := range b.lab.Servers {
		want[s.Name] = n / len(b.lab.Servers)
	}
	return want
}

// reachable waits until all servers of the service are: the turns that tests count
// begin then. A data plane may have to ask for a neighbour again that was given back.
func (b *bench) reachable(key director.ServiceKey) {
	b.Helper()
	b.eventually("all servers are reachable", func() bool {
		return !slices.ContainsFunc(b.stats(key).Servers, func(s director.ServerStats) bool { return !s.Reachable })
	})
}

// forwarding is a way to the servers.
type forwarding struct {
	name    string
	service director.Service
	// replies is whether they pass the director.
	replies bool
}

// forwardings are all ways that the data plane has, over both families, for services
// of the protocol.
func (b *bench) forwardings(url func(netip.Addr) string) []forwarding {
	var all []forwarding
	for _, vip := range []netip.Addr{b.vip4, b.vip6} {
		family := "v4"
		if vip.Is6() {
			family = "v6"
		}
		all = append(all,
			forwarding{"nat_" + family, b.service(url(vip), realserver.NAT), true},
			forwarding{"dr_" + family, b.service(url(vip), realserver.DR), false},
		)
		if b.Features().Tunnels {
			all = append(all, forwarding{"ipip_" + family, b.service(url(vip), realserver.Tunnel), false})
		}
	}
	if b.Features().Tunnels {
		for _, options := range []realserver.TunnelOptions{
			{Type: realserver.TunnelGUE, Port: guePort},
			{Type: realserver.TunnelGUE, Port: guePort, Checksum: realserver.TunnelChecksumOn},
			{Type: realserver.TunnelGUE, Port: guePort, Checksum: realserver.TunnelRemoteChecksum},
			{Type: realserver.TunnelGRE},
			{Type: realserver.TunnelGRE, Checksum: realserver.TunnelChecksumOn},
		} {
			s := b.service(url(b.vip4), realserver.Tunnel)
			for i := range s.Servers {
				s.Servers[i].Tunnel = options
			}
			all = append(all, forwarding{options.String(), s, false})
		}
	}
	return all
}

// TCP goes to all servers in turn by every method, whole and in both directions.
func testHTTP(b *bench) {
	for _, f := range b.forwardings(tcp) {
		vip := f.service.Key.Address.Addr()
		b.unwrap(f.service.Servers[0].Tunnel)
		b.apply(adding(f.service)...)
		b.reachable(f.service.Key)
		client := b.client(vip, 0, directortest.Off)
		got := shares{}
		for i := range requests {
			got[b.get(client, vip, int64(1+i*20_000))]++
		}
		b.same(f.name+": answers", b.even(requests), got)
		if f.replies { // of the others, testUDP shows the counts
			b.eventually(f.name+": all is counted", func() bool {
				c := b.stats(f.service.Key).Counters
				return c.Connections == requests && c.InPackets > 3*requests && c.OutPackets > 3*requests && c.OutBytes > c.OutPackets
			})
		}
		b.apply(director.RemoveService{Key: f.service.Key})
	}
	if n, err := b.lab.Client.ChecksumErrors(); err != nil || n != 0 {
		b.Errorf("%d checksum errors at the client, %v", n, err)
	}
}

// queryBytes and answerBytes are the sizes of Namespace.QueryUDP's packets from the IP
// header on, but for the server's name.
func queryBytes(vip netip.Addr) uint64 {
	const header, udp, ipv4, ipv6 = 12 + 16, 8, 20, 40
	if vip.Is6() {
		return header + udp + ipv6
	}
	return header + udp + ipv4
}

// query sends one and returns the name of the server that answered.
func (b *bench) query(vip netip.Addr, id int) string {
	b.Helper()
	from := b.lab.ClientAddrs4[0]
	if vip.Is6() {
		from = b.lab.ClientAddrs6[0]
	}
	b.queries++ // each is a connection: the kernel may choose a port twice, below its range nobody does
	name, err := b.lab.Client.QueryUDP(b.Context(), netip.AddrPortFrom(from, 10000+b.queries), netip.AddrPortFrom(vip, port), uint16(id), patience)
	if err != nil {
		b.Fatal(err)
	}
	return name
}

// UDP goes to all servers in turn by every method, and every packet and byte of it is
// counted.
func testUDP(b *bench) {
	for _, f := range b.forwardings(udp) {
		vip := f.service.Key.Address.Addr()
		b.unwrap(f.service.Servers[0].Tunnel)
		b.apply(adding(f.service)...)
		b.reachable(f.service.Key)
		// A service that comes back may have its counters still.
		want, sum := b.stats(f.service.Key).Counters, director.Counters{}
		want.Add(director.Counters{Connections: requests, InPackets: requests, InBytes: requests * queryBytes(vip)})
		got := shares{}
		for i := range requests {
			name := b.query(vip, i)
			got[name]++
			if f.replies {
				want.OutPackets++
				want.OutBytes += queryBytes(vip) + uint64(len(name))
			}
		}
		b.same(f.name+": answers", b.even(requests), got)
		b.settles(f.name+": counters", want, func() any { return b.stats(f.service.Key).Counters })
		stats := b.stats(f.service.Key)
		for _, s := range stats.Servers {
			sum.Add(s.Counters)
			if !s.Reachable {
				b.Errorf("%s: %s is not reachable: %s", f.name, s.Server.Address, s.Reason)
			}
		}
		b.same(f.name+": sum of the servers' counters", want, sum)
		b.apply(director.RemoveService{Key: f.service.Key})
	}
}

// A server that drains keeps its connections and gets no new ones; one that does not
// any more gets its share again.
func testDrain(b *bench) {
	s := b.service(tcp(b.vip4), realserver.NAT)
	b.apply(adding(s)...)
	held := b.client(b.vip4, 0, directortest.On)
	name := b.get(held, b.vip4, 1)
	at := 0
	if b.lab.Servers[1].Name == name {
		at = 1
	}
	draining := s.Servers[at]
	draining.Draining = true
	b.apply(director.EditServer{Key: s.Key, Server: draining})
	fresh := b.client(b.vip4, 1, directortest.Off)
	for range requests {
		if got := b.get(fresh, b.vip4, 1); got == name {
			b.Errorf("%s got a new connection while it drains", got)
		}
		if got := b.get(held, b.vip4, 1); got != name {
			b.Errorf("the connection went to %s, want %s", got, name)
		}
	}
	b.apply(director.EditServer{Key: s.Key, Server: s.Servers[at]})
	got := shares{}
	for range requests {
		got[b.get(fresh, b.vip4, 1)]++
	}
	b.same("answers after the drain", b.even(requests), got)
}

// Traffic flows on while no daemon is there: connections, and new ones in turn.
func testFlowsOn(b *bench) {
	s := b.service(tcp(b.vip4), realserver.NAT)
	b.apply(adding(s)...)
	held, fresh := b.client(b.vip4, 0, directortest.On), b.client(b.vip4, 1, directortest.Off)
	name := b.get(held, b.vip4, 100_000)
	for range 2 {
		b.close()
		got := shares{}
		for range requests {
			got[b.get(fresh, b.vip4, 20_000)]++
			if again := b.get(held, b.vip4, 20_000); again != name {
				b.Errorf("the connection went to %s, want %s", again, name)
			}
		}
		b.same("answers without a daemon", b.even(requests), got)
		b.open()
	}
	if again := b.get(held, b.vip4, 1); again != name {
		b.Errorf("the connection went to %s, want %s", again, name)
	}
	b.settles("connections counted", uint64(1+2*requests), func() any { return b.stats(s.Key).Counters.Connections })
}

// hold opens a TCP connection to the service from the client's n-th address and keeps
// it until the end of the test.
func (b *bench) hold(vip netip.Addr, n int) netip.AddrPort {
	b.Helper()
	source := b.lab.ClientAddrs4[n]
	if vip.Is6() {
		source = b.lab.ClientAddrs6[n]
	}
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	conn, err := b.lab.Client.Dial(ctx, "tcp", netip.AddrPortFrom(source, 0), netip.AddrPortFrom(vip, port))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	return netip.MustParseAddrPort(conn.LocalAddr().String())
}
