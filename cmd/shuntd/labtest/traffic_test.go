package labtest

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

var (
	vip4 = directortest.VIP4
	vip6 = directortest.VIP6

	shapes = []directortest.Shape{directortest.TwoArmed, directortest.OneArmed}
)

// offer is a service of the traffic tests. Each has its own port on the servers:
// two services that reach one server's port by NAT would meet in its client
// ports.
type offer struct {
	name    string
	vip     netip.AddrPort
	port    uint16 // on the servers
	methods [3]string
}

var weights = [3]int{3, 2, 1}

const nat, dr, fullnat = "nat", "dr", "fullnat"

var webs = []offer{
	{"nat4", netip.AddrPortFrom(vip4, 80), 8081, [3]string{nat, nat, nat}},
	{"dr4", netip.AddrPortFrom(vip4, 8082), 8082, [3]string{dr, dr, dr}},
	{"mixed4", netip.AddrPortFrom(vip4, 8083), 8083, [3]string{nat, dr, nat}},
	{"nat6", netip.AddrPortFrom(vip6, 80), 8084, [3]string{nat, nat, nat}},
	{"dr6", netip.AddrPortFrom(vip6, 8085), 8085, [3]string{dr, dr, dr}},
	{"mixed6", netip.AddrPortFrom(vip6, 8086), 8086, [3]string{dr, nat, nat}},
}

// add configures the service as an operator does.
func (o offer) add(t *testing.T, lab *directortest.Lab, d *daemon, protocol, scheduler string) {
	t.Helper()
	d.shunt(t, "service", "add", protocol+"://"+o.vip.String(), "--name", o.name, "--scheduler", scheduler)
	for i, method := range o.methods {
		d.shunt(t, "server", "add", o.name, o.server(lab, i), "--method", method, "--weight", fmt.Sprint(weights[i]))
	}
}

// server is the address of its i-th server.
func (o offer) server(lab *directortest.Lab, i int) string {
	return netip.AddrPortFrom(lab.Servers[i].Addr(o.vip.Addr()), o.port).String()
}

// startLab starts a lab of three servers where DR works in both shapes. In the
// two-armed one its replies cross the director's kernel, which has to route them
// and to accept packets from the virtual address, an address of its own.
func startLab(t *testing.T, shape directortest.Shape) *directortest.Lab {
	t.Helper()
	topology := directortest.Topology{Shape: shape, Servers: 3}
	if shape == directortest.TwoArmed {
		topology.Forwarding = directortest.On
	}
	lab := directortest.Start(t, topology)
	if shape == directortest.TwoArmed {
		if err := lab.Director.Sysctl("net/ipv4/conf/all/accept_local", "1"); err != nil {
			t.Fatal(err)
		}
	}
	return lab
}

// sizes of bodies: around one packet, and many packets.
var sizes = []int64{1, 1400, 1460, 2000, 20_000, 100_000}

const (
	rounds = 142 // of the weights, to each service: 10 224 requests with both shapes
	large  = 100_000_000
)

func TestHTTP(t *testing.T) {
	t.Parallel()
	for _, shape := range shapes {
		t.Run(string(shape), func(t *testing.T) {
			lab := startLab(t, shape)
			d := startDaemon(t, lab)
			for _, o := range webs {
				if _, err := lab.ServeHTTP(o.port); err != nil {
					t.Fatal(err)
				}
				o.add(t, lab, d, "tcp", "wrr")
			}
			t.Run("200_parallel", func(t *testing.T) { manyRequests(t, lab, d) })
			t.Run("100_MB_down_by_curl", func(t *testing.T) { download(t, lab, d) })
			t.Run("100_MB_up", func(t *testing.T) { upload(t, lab, d) })
			t.Run("200_parallel_by_curl", func(t *testing.T) { manyByCurl(t, lab, d) })
			noChecksumErrors(t, lab)
			d.noFaults(t)
			// Counts that move while they are compared are not wrong.
			if n := read[api.Status](t, d, "status").Tables[0].Corrected; n != 0 {
				t.Errorf("%d counts were corrected:\n%s", n, d.log)
			}
		})
	}
}

func manyRequests(t *testing.T, lab *directortest.Lab, d *daemon) {
	var jobs []job
	bytes := map[string]uint64{}
	for i := range rounds * 6 {
		for k, o := range webs {
			size := sizes[(i+k)%len(sizes)]
			jobs = append(jobs, job{
				service: o.name, from: netip.AddrPortFrom(source(lab, o.vip), uint16(10_000+len(jobs))),
				address: o.vip, size: size, upload: i%10 == 0,
			})
			if i%10 != 0 {
				bytes[o.name] += uint64(size)
			}
		}
	}
	answers := send(t, lab.Client, jobs, 200)
	unmoved := int(d.events(t)["cursor-contended"])
	for _, o := range webs {
		total, servers := d.counters(t, o.name)
		if total.Connections != rounds*6 || total.In.Packets < 4*rounds*6 {
			t.Errorf("%s: the director counted %d connections and %d packets for %d requests", o.name, total.Connections, total.In.Packets, rounds*6)
		}
		if !slices.Contains(o.methods[:], dr) && total.Out.Bytes < bytes[o.name] {
			t.Errorf("%s: the director counted %d reply bytes, the bodies have %d", o.name, total.Out.Bytes, bytes[o.name])
		}
		for i, weight := range weights {
			want, got := rounds*weight, answers[o.name][lab.Servers[i].Name]
			// Picks that met on two CPUs and did not move the cursor are counted.
			if got < want-unmoved || got > want+unmoved {
				t.Errorf("%s: %s answered %d requests, want %d by its weight (%d picks did not move on)", o.name, lab.Servers[i].Name, got, want, unmoved)
			}
			if counted := servers[o.server(lab, i)].Connections; counted != uint64(got) {
				t.Errorf("%s: %s answered %d requests, the director counted %d", o.name, lab.Servers[i].Name, got, counted)
			}
		}
	}
}

// source is the client's first address for a destination.
func source(lab *directortest.Lab, to netip.AddrPort) netip.Addr {
	if to.Addr().Is6() {
		return lab.ClientAddrs6[0]
	}
	return lab.ClientAddrs4[0]
}

// single are the services of one method each.
func single() []offer {
	return slices.DeleteFunc(slices.Clone(webs), func(o offer) bool { return strings.HasPrefix(o.name, "mixed") })
}

func download(t *testing.T, lab *directortest.Lab, d *daemon) {
	for _, o := range single() {
		before, _ := d.counters(t, o.name)
		curl := lab.Client.Command(t.Context(), "curl", "--silent", "--show-error", "--fail", "--globoff", "--noproxy", "*",
			fmt.Sprintf("http://%s/bytes/%d", o.vip, large))
		body, err := curl.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := curl.Start(); err != nil {
			t.Fatal(err)
		}
		count, err := directortest.Pattern().Compare(body)
		if err != nil || count != large {
			t.Errorf("%s: %d bytes of %d: %v", o.name, count, large, err)
		}
		if err := curl.Wait(); err != nil {
			t.Errorf("%s: curl: %v", o.name, err)
		}
		after, _ := d.counters(t, o.name)
		if o.methods[0] == nat && after.Out.Bytes-before.Out.Bytes < large {
			t.Errorf("%s: the director counted %d reply bytes of %d", o.name, after.Out.Bytes-before.Out.Bytes, large)
		}
		if got := after.In.Packets - before.In.Packets; got < 1000 {
			t.Errorf("%s: the director counted %d packets of the client, which acknowledges %d bytes", o.name, got, large)
		}
	}
}

func upload(t *testing.T, lab *directortest.Lab, d *daemon) {
	for _, o := range single() {
		before, _ := d.counters(t, o.name)
		send(t, lab.Client, []job{{service: o.name, address: o.vip, size: large, upload: true}}, 1)
		after, _ := d.counters(t, o.name)
		if after.In.Bytes-before.In.Bytes < large {
			t.Errorf("%s: the director counted %d bytes of %d", o.name, after.In.Bytes-before.In.Bytes, large)
		}
	}
}

func manyByCurl(t *testing.T, lab *directortest.Lab, d *daemon) {
	const requests = 400
	for _, o := range single() {
		before, _ := d.counters(t, o.name)
		// The brackets of an IPv6 address are no range.
		address := strings.NewReplacer("[", `\[`, "]", `\]`).Replace(o.vip.String())
		r := execute(t, lab.Client.Command(t.Context(), "curl", "--silent", "--show-error", "--fail", "--noproxy", "*",
			"--parallel", "--parallel-immediate", "--parallel-max", "200", "--header", "Connection: close",
			"--output", "/dev/null", "--write-out", "%{http_code} %{size_download}\\n",
			fmt.Sprintf("http://%s/bytes/1000?[1-%d]", address, requests)))
		if got := strings.Count(r.stdout, "200 1000\n"); got != requests || r.code != 0 {
			t.Errorf("%s: curl ended with %d, %d of %d answers are whole: %s", o.name, r.code, got, requests, r.stderr)
		}
		after, _ := d.counters(t, o.name)
		if got := after.In.Packets - before.In.Packets; got < 4*requests {
			t.Errorf("%s: the director counted %d packets for %d requests", o.name, got, requests)
		}
	}
}

func noChecksumErrors(t *testing.T, lab *directortest.Lab) {
	t.Helper()
	all := []*directortest.Namespace{lab.Client, lab.Director}
	for _, s := range lab.Servers {
		all = append(all, s.Namespace)
	}
	for _, n := range all {
		if bad, err := n.ChecksumErrors(); err != nil || bad != 0 {
			t.Errorf("%s received %d packets with a wrong checksum, %v", n.Name, bad, err)
		}
	}
}

func TestUDP(t *testing.T) {
	t.Parallel()
	const queries = 300
	offers := []offer{
		{"nat4", netip.AddrPortFrom(vip4, 5300), 53, [3]string{nat, nat, nat}},
		{"dr4", netip.AddrPortFrom(vip4, 54), 54, [3]string{dr, dr, dr}},
		{"mixed4", netip.AddrPortFrom(vip4, 55), 55, [3]string{dr, nat, dr}},
		{"nat6", netip.AddrPortFrom(vip6, 5300), 53, [3]string{nat, nat, nat}},
		{"dr6", netip.AddrPortFrom(vip6, 54), 54, [3]string{dr, dr, dr}},
		{"mixed6", netip.AddrPortFrom(vip6, 55), 55, [3]string{nat, dr, nat}},
	}
	for _, shape := range shapes {
		t.Run(string(shape), func(t *testing.T) {
			lab := startLab(t, shape)
			d := startDaemon(t, lab)
			for _, port := range []uint16{53, 54, 55} {
				if _, err := lab.ServeUDP(port); err != nil {
					t.Fatal(err)
				}
			}
			for _, o := range offers {
				o.add(t, lab, d, "udp", "wrr")
				answers := query(t, lab, o.vip, queries)
				total, servers := d.counters(t, o.name)
				if total.Connections != queries || total.In.Packets != queries {
					t.Errorf("%s: the director counted %d connections and %d packets for %d queries", o.name, total.Connections, total.In.Packets, queries)
				}
				for i, weight := range weights {
					want := queries / 6 * weight
					if got := answers[lab.Servers[i].Name]; got != want || servers[o.server(lab, i)].Connections != uint64(want) {
						t.Errorf("%s: %s answered %d queries and the director counted %d, want %d", o.name, lab.Servers[i].Name,
							got, servers[o.server(lab, i)].Connections, want)
					}
				}
			}
			noChecksumErrors(t, lab)
			d.noFaults(t)
		})
	}
}

// query sends queries one after another, each from a port of its own.
func query(t *testing.T, lab *directortest.Lab, to netip.AddrPort, queries int) map[string]int {
	t.Helper()
	from := source(lab, to)
	answers := map[string]int{}
	for i := range queries {
		name, err := lab.Client.QueryUDP(t.Context(), netip.AddrPortFrom(from, uint16(20000+i)), to, uint16(i), limit)
		if err != nil {
			t.Fatalf("query %d: %v", i, err)
		}
		answers[name]++
	}
	return answers
}

// A client stays with its server, whatever its port; different clients have
// different ones.
func TestHashSchedulersAreSticky(t *testing.T) {
	t.Parallel()
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 3, Clients: 20})
	if _, err := lab.ServeHTTP(8081); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, lab)
	for i, scheduler := range []string{"sh", "mh"} {
		for _, addr := range []netip.Addr{vip4, vip6} {
			// A port of its own: a service that comes back has its connections again.
			vip := netip.AddrPortFrom(addr, uint16(80+i))
			o := offer{"hash", vip, 8081, [3]string{nat, nat, nat}}
			o.add(t, lab, d, "tcp", scheduler)
			chosen := map[string]int{}
			var mu sync.Mutex // guards chosen
			sources := lab.ClientAddrs4
			if vip.Addr().Is6() {
				sources = lab.ClientAddrs6
			}
			var clients sync.WaitGroup
			for _, source := range sources {
				clients.Go(func() {
					first := ""
					for k := range 5 {
						server, err := job{from: netip.AddrPortFrom(source, uint16(10_000+10*int(vip.Port())+k)), address: vip, size: 100}.run(lab.Client)
						if err != nil {
							t.Error(err)
							return
						}
						if first != "" && server != first {
							t.Errorf("%s %s: client %s went to %s, then to %s", scheduler, vip, source, first, server)
						}
						first = server
					}
					mu.Lock()
					chosen[first]++
					mu.Unlock()
				})
			}
			clients.Wait()
			if len(chosen) < 2 {
				t.Errorf("%s %s: all 20 clients went to %v", scheduler, vip, slices.Collect(maps.Keys(chosen)))
			}
			if total, _ := d.counters(t, "hash"); total.Connections != 100 {
				t.Errorf("%s %s: the director counted %d connections, want 100", scheduler, vip, total.Connections)
			}
			d.shunt(t, "service", "remove", "hash", "--yes")
		}
	}
}
