package labtest

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// snmpd tells the load of a server's host that the test says: the tasks that run, in
// hundredths, of one processor.
func snmpd(t *testing.T, server *directortest.Server, load int) *peer {
	t.Helper()
	folder := t.TempDir()
	conf := filepath.Join(folder, "snmpd.conf")
	writeFile(t, conf, fmt.Sprintf(`agentAddress udp:%s:161
rocommunity lab-community
createUser shunt SHA-256 "lab authentication" AES "lab encryption"
rouser shunt priv
override .1.3.6.1.4.1.2021.10.1.5.1 integer %d
override .1.3.6.1.4.1.2021.11.67.0 integer 1
override .1.3.6.1.4.1.2021.4.27.0 integer 1000
override .1.3.6.1.4.1.2021.4.20.0 integer 1000
`, server.Addr4, load))
	p := &peer{
		t: t, ns: server.Namespace, name: "snmpd", folder: folder, env: []string{"MIBS=", "SNMP_PERSISTENT_DIR=" + folder},
		command: []string{"/usr/sbin/snmpd", "-f", "-Loe", "-C", "-c", conf, "-p", filepath.Join(folder, "pid")},
	}
	return p.run()
}

// TestHostsAskedBySNMP: weights follow what Debian's snmpd says of the hosts, by both
// versions of the protocol; a host that says nothing any more has its own again, and
// who asks why is told. No secret is shown.
func TestHostsAskedBySNMP(t *testing.T) {
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 2})
	hosts := []*peer{snmpd(t, lab.Servers[0], 0), snmpd(t, lab.Servers[1], 100)}
	folder := t.TempDir()
	secrets := map[string]string{"community": "lab-community", "auth": "lab authentication", "priv": "lab encryption"}
	for name, text := range secrets {
		writeFile(t, filepath.Join(folder, name), text+"\n")
	}
	const service = "  - {name: %s, listen: \"tcp://192.0.2.10:%d\", scheduler: wrr, method: nat, servers: [{address: 10.2.0.11, weight: 100}, {address: 10.2.0.12, weight: 100}],\n" +
		"     health: {load: {kind: linear, silence: 3s, snmp: {measure: load-1, interval: 1s, %s}}}}\n"
	text := "services:\n" +
		fmt.Sprintf(service, "old", 80, "version: v2c, community-file: "+filepath.Join(folder, "community")) +
		fmt.Sprintf(service, "new", 81, "version: v3, user: shunt, auth: sha-256, auth-file: "+filepath.Join(folder, "auth")+", priv: aes, priv-file: "+filepath.Join(folder, "priv"))
	writeFile(t, filepath.Join(folder, "shunt.yaml"), text)
	d := startDaemon(t, lab, "--config", filepath.Join(folder, "shunt.yaml"))

	offered := func(service, address string) api.ServerHealth {
		for _, s := range read[api.HealthReport](t, d, "health", service).Services[0].Servers {
			if s.Server == address {
				return s
			}
		}
		t.Fatalf("nothing is offered of %s in %s", address, service)
		return api.ServerHealth{}
	}
	weight := func(service, address string) uint32 { return offered(service, address).Weight }
	why := func(service, address string) string {
		steps := offered(service, address).Steps
		return steps[len(steps)-1].Why
	}
	services := map[string]string{"old": ":80", "new": ":81"}
	for name, port := range services {
		await(t, name+": weights follow loads", func() bool { return weight(name, "10.2.0.11"+port) > 100 && weight(name, "10.2.0.12"+port) < 100 })
		if got := why(name, "10.2.0.12"+port); !strings.HasPrefix(got, "load 1.00: ") {
			t.Errorf("%s: why: %s", name, got)
		}
	}
	ok(t, hosts[1].kill())
	for name, port := range services {
		await(t, name+": silence returns the configured weight", func() bool { return weight(name, "10.2.0.12"+port) == 100 })
		text := why(name, "10.2.0.12"+port)
		if !strings.HasPrefix(text, "load: silent since ") || !strings.Contains(text, " (snmp: no answer") {
			t.Errorf("%s: why: %s", name, text)
		}
		if weight(name, "10.2.0.11"+port) <= 100 {
			t.Errorf("%s: the other server has weight %d", name, weight(name, "10.2.0.11"+port))
		}
	}
	d.waitLog(t, `msg="a host does not tell its load" host=10.2.0.12 err="no answer`)
	ok(t, hosts[0].signals(syscall.SIGSTOP)()) // it hangs
	await(t, "a host that hangs is silent too", func() bool { return strings.HasSuffix(why("old", "10.2.0.11:80"), "(snmp: no answer within 1s)") })
	ok(t, hosts[0].signals(syscall.SIGCONT)())
	d.waitLog(t, `msg="a host tells its load again" host=10.2.0.11`)

	shown := d.shunt(t, "export") + d.shunt(t, "service", "show", "new", "-o", "json") + d.shunt(t, "health", "-o", "json") + d.log.String()
	if !strings.Contains(shown, "auth-file: "+filepath.Join(folder, "auth")) {
		t.Error("the export does not say where the secrets are")
	}
	for name, secret := range secrets {
		if strings.Contains(shown, secret) {
			t.Errorf("the secret %s is shown", name)
		}
	}
}
