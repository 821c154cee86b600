package labtest

import (
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// directed is a lab that ldirectord directs: three servers and one to fall back on.
type directed struct {
	*testing.T
	lab *directortest.Lab
	d   *daemon
	l   *ldirectord
	c   *crowd

	quiescent bool // a server that is down keeps its place with weight 0
	weights   [3]uint32
	servers   [4]string // the addresses of their services; the last is the fallback
	webs      []*directortest.Web
	checks    []*readiness
}

const (
	webURL    = "tcp://192.0.2.10:80"
	checkPort = 8080
)

// newDirected starts all but ldirectord.
func newDirected(t *testing.T, quiescent bool) *directed {
	t.Helper()
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 4, Clients: 6})
	s := &directed{T: t, lab: lab, quiescent: quiescent, weights: [3]uint32{1, 1, 1}}
	var err error
	if s.webs, err = lab.ServeHTTP(80); err != nil {
		t.Fatal(err)
	}
	for i, server := range lab.Servers {
		s.servers[i] = netip.AddrPortFrom(server.Addr4, 80).String()
		s.checks = append(s.checks, ready(t, server.Namespace, checkPort))
	}
	s.d = startDaemon(t, lab)
	s.l = newLdirectord(t, s.d, map[bool]place{true: beside, false: sbin}[quiescent])
	s.c = newCrowd(t, lab, netip.AddrPortFrom(vip4, 80))
	return s
}

// configuration is ldirectord's: a service that it checks, and what else it has to
// find again in our list after a restart, with servers it takes to be up.
func (s *directed) configuration() string {
	quiescent := map[bool]string{true: "yes", false: "no"}[s.quiescent]
	text := fmt.Sprintf("checkinterval=1\nchecktimeout=4\nnegotiatetimeout=4\nquiescent=%s\nvirtual=192.0.2.10:80\n", quiescent)
	for i, weight := range s.weights {
		text += fmt.Sprintf("\treal=%s masq %d\n", s.servers[i], weight)
	}
	return text + fmt.Sprintf(`	fallback=%s masq
	service=http
	scheduler=wrr
	protocol=tcp
	checktype=negotiate
	checkport=%d
	request="ready"
	receive="in service"
virtual=192.0.2.10:443
	real=10.2.0.11:443 gate 3 l:2 u:9
	real=10.2.0.12:443 gate 2
	service=https
	scheduler=sh
	schedflags=sh-port,sh-fallback
	persistent=600
	netmask=255.255.255.0
	protocol=tcp
	checktype=on
virtual=192.0.2.10:53
	real=10.2.0.13:53 masq
	service=dns
	scheduler=rr
	ops=yes
	checktype=on
virtual6=[2001:db8::10]:80
	real6=[fd00:2::11]:80 masq 2
	service=http
	scheduler=wlc
	protocol=tcp
	checktype=on
`, s.servers[3], checkPort)
}

// saved is what that makes, in the order of the alphabet.
const saved = `-A -t 192.0.2.10:443 -s sh -p 600 -M 255.255.255.0 -b sh-fallback,sh-port
-A -t 192.0.2.10:80 -s wrr
-A -t [2001:db8::10]:80 -s wlc
-A -u 192.0.2.10:53 -s rr -o
-a -t 192.0.2.10:443 -r 10.2.0.11:443 -g -w 3
-a -t 192.0.2.10:443 -r 10.2.0.12:443 -g -w 2
-a -t 192.0.2.10:80 -r 10.2.0.11:80 -m -w 1
-a -t 192.0.2.10:80 -r 10.2.0.12:80 -m -w 1
-a -t 192.0.2.10:80 -r 10.2.0.13:80 -m -w 1
-a -t [2001:db8::10]:80 -r [fd00:2::11]:80 -m -w 2
-a -u 192.0.2.10:53 -r 10.2.0.13:53 -m -w 1
`

// ipvsadm runs ldirectord's.
func (s *directed) ipvsadm(args ...string) string {
	s.Helper()
	cmd := s.d.ns.Command(s.Context(), filepath.Join(s.l.folder, "ipvsadm"), args...)
	cmd.Env = []string{"SHUNT_SOCKET=" + s.d.socket}
	r := execute(s.T, cmd)
	if r.code != 0 || r.stderr != "" {
		s.Fatalf("ipvsadm %s: exit code %d: %s", strings.Join(args, " "), r.code, r.stderr)
	}
	return r.stdout
}

// offers waits until the service has all servers but those that are down, in
// ldirectord's way, and the fallback if there is no other.
func (s *directed) offers(down ...int) {
	s.Helper()
	want := map[string]uint32{}
	for i, weight := range s.weights {
		switch {
		case !slices.Contains(down, i):
			want[s.servers[i]] = weight
		case s.quiescent:
			want[s.servers[i]] = 0
		}
	}
	if len(down) == len(s.weights) {
		want[s.servers[3]] = 1
	}
	await(s.T, fmt.Sprintf("the service has %v", want), func() bool { return maps.Equal(s.d.offered(s.T, webURL), want) })
}

// check lets the i-th server answer checks with the status.
func (s *directed) check(i int, status int32) { s.checks[i].status.Store(status) }

// names of all servers but the fallback and those that are down.
func (s *directed) names(down ...int) []string {
	var all []string
	for i := range s.weights {
		if !slices.Contains(down, i) {
			all = append(all, s.lab.Servers[i].Name)
		}
	}
	return all
}

// TestLdirectord runs a service on the XDP data plane by ldirectord, which takes
// Shunt for ipvsadm. What is held of clients: a request fails only if the server it
// is paired with is gone. A server that is announced to go, by its check, and comes
// back costs no request, be it that ldirectord sets its weight to 0 or removes it:
// removed, its open requests wait for it. A host that dies costs the requests paired
// with it, and none of those that begin once ldirectord has taken it out.
func TestLdirectord(t *testing.T) {
	for name, quiescent := range map[string]bool{"quiescent": true, "removing": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it mostly waits for ldirectord
			s := newDirected(t, quiescent)
			s.begins()
			s.goesAndReturns(0)
			s.daemonIsAway(2)
			s.dies(1)
			s.ldirectordIsKilled()
			s.ldirectordReloads()
			s.fallsBack()
			s.ends()
		})
	}
}

// begins starts ldirectord, then clients.
func (s *directed) begins() {
	s.Helper()
	s.l.start(s.T, s.configuration())
	// Each virtual service's servers are up once its checks have said so.
	await(s.T, "ldirectord has set up its services", func() bool {
		lines := strings.SplitAfter(s.ipvsadm("-S", "-n"), "\n")
		slices.Sort(lines)
		return strings.Join(lines, "") == saved
	})
	s.c.start()
	s.c.only(s.names()...)
}

// goesAndReturns: a server's check fails while it serves on, then succeeds.
func (s *directed) goesAndReturns(i int) {
	s.Helper()
	p := pair{lab: s.lab, d: s.d, vip: s.c.to}
	held := p.on(s.T, i)
	if s.quiescent {
		s.check(i, http.StatusServiceUnavailable)
		s.offers(i)
		s.c.only(s.names(i)...)
		ok(s.T, held.ask())
		s.check(i, http.StatusOK)
		s.offers()
	} else {
		s.check(i, hangUp)
		s.offers(i)
		s.c.only(s.names(i)...)
		// As with the kernel's IPVS (net.ipv4.vs.expire_nodest_conn=0).
		p.whileDropped(s.T, held, "server-removed", func() {
			s.check(i, http.StatusOK)
			s.offers()
		})
	}
	s.c.only(s.names()...)
	s.c.all()
	ok(s.T, held.ask())
}

// daemonIsAway: ldirectord takes a server out while shuntd is being restarted. It
// does not ask again: the ipvsadm that it calls waits for the daemon.
func (s *directed) daemonIsAway(i int) {
	s.Helper()
	failed := "Return status: 503"
	before := strings.Count(s.l.log.String(), failed)
	s.d.kill()
	s.check(i, http.StatusServiceUnavailable)
	await(s.T, "a check fails", func() bool { return strings.Count(s.l.log.String(), failed) > before })
	s.d.start(s.T)
	s.offers(i)
	s.c.only(s.names(i)...)
	s.check(i, http.StatusOK)
	s.offers()
	s.c.only(s.names()...)
	s.c.all()
}

// dies: a host is gone without a word, and is back without its connections.
func (s *directed) dies(i int) {
	s.Helper()
	server := s.lab.Servers[i]
	setLink(s.T, server.Namespace, "eth0", down)
	if err := s.webs[i].Close(); err != nil {
		s.Fatal(err)
	}
	s.offers(i)
	mark := s.c.mark()
	s.c.only(s.names(i)...)
	s.Logf("a host died, and %d requests with it", s.c.lost(mark, func() []string { return s.d.paired(s.T, s.servers[i]) }))

	setLink(s.T, server.Namespace, "eth0", up)
	// The kernel has forgotten what was on the link that went down.
	if err := server.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.2.0.1")); err != nil {
		s.Fatal(err)
	}
	web, err := server.StartWeb(netip.AddrPortFrom(netip.IPv6Unspecified(), 80))
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { ok(s.T, web.Close()) })
	s.offers()
	s.c.only(s.names()...)
	s.c.all()
}

// ldirectordIsKilled: the next one finds everything in our list and changes nothing.
func (s *directed) ldirectordIsKilled() {
	s.Helper()
	s.l.noneFailed(s.T)
	before := s.list()
	total, _ := s.d.counters(s.T, webURL)
	s.l.kill()
	s.c.only(s.names()...)
	s.l.start(s.T, s.configuration())
	for i := range s.weights {
		s.says(fmt.Sprintf("http://%s/ready is up", netip.AddrPortFrom(s.lab.Servers[i].Addr4, checkPort)))
	}
	want := []string{
		"Changed virtual server: 192.0.2.10:80", "Changed virtual server: 192.0.2.10:443",
		"Changed virtual server: 192.0.2.10:53", "Changed virtual server: [2001:db8::10]:80",
	}
	if got := s.l.changes(); !slices.Equal(got, want) {
		s.Errorf("ldirectord says %q, want %q", got, want)
	}
	if after := s.list(); after != before {
		s.Errorf("the table was\n%sand is\n%s", before, after)
	}
	if now, _ := s.d.counters(s.T, webURL); now.Connections < total.Connections+sample {
		s.Errorf("%d connections were counted, and now %d", total.Connections, now.Connections)
	}
	s.c.only(s.names()...)
	s.c.all()
}

// knownCommands are the command lines of a file, in the order of the alphabet.
func knownCommands(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "ldirectord", name+".txt"))
	ok(t, err)
	return string(text)
}

// list is the table without the numbers of connections.
func (s *directed) list() string { return s.ipvsadm("-S", "-n") + s.d.configuration(s.T) }

// says waits for a text in ldirectord's log.
func (s *directed) says(text string) {
	s.Helper()
	await(s.T, "ldirectord says "+text, func() bool { return strings.Contains(s.l.log.String(), text) })
}

// ldirectordReloads: another weight, and nothing else.
func (s *directed) ldirectordReloads() {
	s.Helper()
	s.weights[2] = 2
	s.l.reload(s.T, s.configuration())
	s.offers()
	s.c.only(s.names()...)
	s.c.all()
}

// fallsBack: all servers go; then one is back, and the others. Between the last
// server's removal and the fallback's arrival ldirectord leaves the service without
// any: no client asks then.
func (s *directed) fallsBack() {
	s.Helper()
	s.c.halt()
	for i := range s.weights {
		s.check(i, http.StatusServiceUnavailable)
	}
	s.offers(0, 1, 2)
	s.c.start()
	s.c.only(s.lab.Servers[3].Name)

	s.check(0, http.StatusOK)
	s.offers(1, 2)
	mark := s.c.mark()
	s.c.only(s.names(1, 2)...)
	s.Logf("the fallback was removed, and with it %d requests", s.c.lost(mark, func() []string { return s.d.paired(s.T, s.servers[3]) }))
	s.check(1, http.StatusOK)
	s.check(2, http.StatusOK)
	s.offers()
	s.c.only(s.names()...)
}

// ends: with cleanstop, which is the default, ldirectord takes its services along.
func (s *directed) ends() {
	s.Helper()
	s.c.halt()
	s.l.stop(s.T)
	s.l.noneFailed(s.T)
	if left := read[[]api.Service](s.T, s.d, "service", "list"); len(left) > 0 {
		s.Errorf("ldirectord left %+v", left)
	}
	if out := s.ipvsadm("-S", "-n"); out != "" {
		s.Errorf("ldirectord left\n%s", out)
	}
	s.d.noFaults(s.T, "server-removed", "service-removed", "unreachable")
	commands := s.l.commands()
	slices.Sort(commands)
	got := strings.Join(slices.Compact(commands), "\n") + "\n"
	if diff := cmp.Diff(knownCommands(s.T, filepath.Base(s.Name())), got); diff != "" {
		s.Errorf("ldirectord's command lines, which TestGuestLdirectordsCommands compares with ipvsadm's (-known +run):\n%s", diff)
	}
}
