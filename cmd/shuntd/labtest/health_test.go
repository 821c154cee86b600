package labtest

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/directortest"
)

// healthReport is what a test reads of shunt health -o json.
type healthReport struct {
	Services []struct {
		Service string `json:"service"`
		Quorum  bool   `json:"quorum"`
		Sorry   bool   `json:"sorry"`
		Servers []struct {
			Server string `json:"server"`
			Up     bool   `json:"up"`
			Why    string `json:"why"`
			Weight uint32 `json:"weight"`
		} `json:"servers"`
	} `json:"services"`
}

// checked is a lab of two servers that run Debian's programs, and a director that
// checks them. The faults are the second server's.
type checked struct {
	*testing.T
	lab     *directortest.Lab
	d       *daemon
	visitor *visitor
	faults  []noticed
}

const healthConfiguration = `
services:
  - name: web
    listen: tcp://192.0.2.10:80
    scheduler: rr
    method: nat
    servers: [{address: %[1]s:80}, {address: %[2]s:80}]
    check: {http: {path: /state, host: www.example, match: "^in service"}, interval: 500ms, timeout: 400ms, retry: 100ms, fall: 2, rise: 2}
  - name: dns
    listen: udp://192.0.2.10:53
    scheduler: rr
    method: nat
    servers: [{address: %[1]s:53}, {address: %[2]s:53}]
    check: {dns: {name: up.example, type: A, answer: 198.51.100.53}, interval: 1s, timeout: 900ms, retry: 200ms, fall: 2, rise: 2}
  - name: mail
    listen: tcp://192.0.2.10:25
    scheduler: rr
    method: nat
    servers: [{address: %[1]s:25}, {address: %[2]s:25}]
    check: {smtp: {hello: director.example}, interval: 1s, timeout: 900ms, retry: 200ms, fall: 2, rise: 2}
`

// state returns what is said of the second server of a service.
func (c *checked) state(service string) (up bool, why string) {
	c.Helper()
	for _, s := range read[healthReport](c.T, c.d, "health", service, "-o", "json").Services {
		if len(s.Servers) == 2 {
			return s.Servers[1].Up, s.Servers[1].Why
		}
	}
	c.Fatalf("shunt health does not know two servers of %s", service)
	return false, ""
}

// allUp waits until the second server is up for every service.
func (c *checked) allUp() {
	c.Helper()
	for _, service := range []string{"web", "dns", "mail"} {
		await(c.T, service+" is up", func() bool { up, _ := c.state(service); return up })
	}
}

// notices makes a fault, waits until the server is out for the reason, mends it, waits
// until the server is in again, and prints how long each took and who failed meanwhile.
func (c *checked) notices(service, fault, why string, fail, mend func()) {
	c.Helper()
	want := regexp.MustCompile(why)
	c.allUp() // a host that was gone took all its services along
	began := time.Now()
	fail()
	await(c.T, service+": "+fault+": down", func() bool {
		up, said := c.state(service)
		if !up && !want.MatchString(said) {
			c.Fatalf("%s: %s: down by %q, want %q", service, fault, said, why)
		}
		return !up
	})
	down, mended := time.Since(began), time.Now()
	mend()
	await(c.T, service+": "+fault+": up", func() bool { up, _ := c.state(service); return up })
	c.faults = append(c.faults, noticed{
		what: fmt.Sprintf("%-4s %-16s out after %4d ms, in again after %4d ms", service, fault, down.Milliseconds(), time.Since(mended).Milliseconds()),
		web:  service == "web", from: began, to: mended,
	})
}

// noticed is a fault and when it was there.
type noticed struct {
	what     string
	web      bool // it concerned the visitors
	from, to time.Time
}

// Servers of Debian's that fail in each way are taken out, for the reason, and come
// back: what the clients of the web meet meanwhile is printed.
func TestHealthOfRealServers(t *testing.T) {
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 2, Clients: 2})
	c := &checked{T: t, lab: lab}
	var webs, dns, mail [2]*peer
	var roots [2]string
	for i, server := range lab.Servers {
		webs[i], roots[i] = nginx(t, server.Namespace)
		dns[i], mail[i] = dnsmasq(t, server.Namespace, server.Addr4), aiosmtpd(t, server.Namespace, server.Addr4)
		c.say(roots[i], "in service")
	}
	configuration := filepath.Join(t.TempDir(), "shunt.yaml")
	text := fmt.Sprintf(healthConfiguration, lab.Servers[0].Addr4, lab.Servers[1].Addr4)
	if err := os.WriteFile(configuration, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c.d = startDaemon(t, lab, "--config", configuration)
	c.allUp()
	c.visitor = visit(t, lab)

	stop, goOn := func(p *peer) func() { return func() { p.signal(syscall.SIGSTOP) } }, func(p *peer) func() { return func() { p.signal(syscall.SIGCONT) } }
	c.notices("web", "port closed", "refused|reset", webs[1].kill, webs[1].start)
	c.notices("web", "hangs", "in time", stop(webs[1]), goOn(webs[1]))
	c.notices("web", "host gone", "in time|route", func() { webs[1].lose(everything) }, func() { webs[1].lose("") })
	c.notices("dns", "port closed", "refused", dns[1].kill, dns[1].start)
	c.notices("mail", "hangs", "in time", stop(mail[1]), goOn(mail[1]))
	c.notices("web", "wrong body", "not in the body", func() { c.say(roots[1], "maintenance") }, func() { c.say(roots[1], "in service") })
	c.notices("web", "404", "404", func() { must(t, os.Remove(filepath.Join(roots[1], "state"))) }, func() { c.say(roots[1], "in service") })
	c.notices("dns", "half of it lost", "in time", func() { dns[1].lose(half) }, func() { dns[1].lose("") })

	// An operator's word is above the checks', and outlives the daemon.
	c.d.shunt(t, "server", "set", "web", lab.Servers[1].Addr4.String(), "--state", "down", "--why", "disks")
	await(t, "down by order", func() bool { up, _ := c.state("web"); return !up })
	c.d.stop(t)
	c.d.start(t)
	if up, why := c.state("web"); up || !regexp.MustCompile("disks").MatchString(why) {
		t.Errorf("after a restart it is up %v, why %q: want the operator's word", up, why)
	}
	c.d.shunt(t, "server", "set", "web", lab.Servers[1].Addr4.String(), "--state", "auto")
	await(t, "up again", func() bool { up, _ := c.state("web"); return up })
	c.visitor.stop()
	if c.visitor.answered == 0 {
		t.Error("no request was answered")
	}
	for _, f := range c.faults {
		failed := 0
		for _, at := range c.visitor.failed {
			if f.web && !at.Before(f.from) && at.Before(f.to) {
				failed++
			}
		}
		t.Logf("figure: %s, %d requests failed of those begun meanwhile", f.what, failed)
	}
}

// say has a web server say something of itself.
func (c *checked) say(root, text string) {
	c.Helper()
	must(c.T, os.WriteFile(filepath.Join(root, "state"), []byte(text+"\n"), 0o644))
}

// visitor makes requests of the web at a steady pace, each over a connection of its
// own, and counts those that fail: clients that do not try again.
type visitor struct {
	stop func()

	mu       sync.Mutex // guards what follows; after stop nobody writes it
	answered int
	failed   []time.Time // when they began
}

func visit(t *testing.T, lab *directortest.Lab) *visitor {
	t.Helper()
	v := &visitor{}
	client := lab.Client.HTTPClient(directortest.ClientOptions{})
	client.Timeout = 2 * time.Second
	done := make(chan struct{})
	var workers sync.WaitGroup
	workers.Go(func() {
		tick := time.NewTicker(pace)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				workers.Go(func() { v.one(client) })
			}
		}
	})
	v.stop = sync.OnceFunc(func() { close(done); workers.Wait() })
	t.Cleanup(v.stop)
	return v
}

func (v *visitor) one(client *http.Client) {
	began := time.Now()
	answer, err := client.Get("http://" + netip.AddrPortFrom(vip4, 80).String() + "/state")
	v.mu.Lock()
	defer v.mu.Unlock()
	if err == nil {
		_ = answer.Body.Close() // what it says does not matter
		v.answered++
		return
	}
	v.failed = append(v.failed, began)
}
