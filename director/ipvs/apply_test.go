package ipvs

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// samples are services that have, together, everything that IPVS can hold.
func samples() []director.Service {
	web := service("tcp://192.0.2.1:80", realserver.NAT, "10.0.0.1:8080", "10.0.0.2:8080")
	web.Scheduler, web.Flags = director.SourceHash, director.SchedulerFlags{Port: true, Fallback: true}
	web.Servers[0].Upper, web.Servers[0].Lower, web.Servers[1].Weight = 100, 50, 65535

	sip := service("udp://192.0.2.1:5060", realserver.DR, "10.0.0.1")
	sip.Scheduler = director.RoundRobin
	sip.Persistence = director.Persistence{Timeout: 90 * time.Second, Prefix: 32, Engine: director.EngineSIP}
	sip.OnePacket = true

	any4 := service("tcp://192.0.2.2:0", realserver.DR, "10.0.0.1")
	any4.Persistence = director.Persistence{Timeout: 5 * time.Minute, Prefix: 24}

	signalling := service("sctp://192.0.2.1:2905", realserver.Local, "127.0.0.1:2905")
	signalling.Scheduler, signalling.Flags = director.LeastConnection, director.SchedulerFlags{Third: true}

	mark := service("fwmark://7", realserver.Tunnel, "10.0.0.1", "10.0.0.2", "10.0.0.3")
	mark.Scheduler = director.Maglev
	mark.Servers[0].Tunnel = realserver.TunnelOptions{Type: realserver.TunnelGUE, Port: 6080, Checksum: realserver.TunnelRemoteChecksum}
	mark.Servers[1].Tunnel = realserver.TunnelOptions{Type: realserver.TunnelGRE, Checksum: realserver.TunnelChecksumOn}

	web6 := service("tcp://[2001:db8::1]:443", realserver.NAT, "[2001:db8:1::1]:443")
	web6.Persistence = director.Persistence{Timeout: time.Hour, Prefix: 64}
	mixed := service("udp://[2001:db8::1]:53", realserver.Tunnel, "10.0.0.9:53")
	mark6 := service("fwmark6://7", realserver.DR, "2001:db8:1::1")

	services := []director.Service{any4, web, mark, mark6, mixed, signalling, sip, web6}
	return director.State{Services: services}.Normalize().Services
}

// The kernel holds all that a service can be, as the real ipvsadm reads it. What is
// as it is to be is not written, by the same daemon or one that starts anew.
func TestGuestHoldsEverything(t *testing.T) {
	r := newRig(t)
	services := samples()
	r.apply(t, adding(services...)...)
	r.saved(t,
		"-A -t 192.0.2.1:80 -s sh -b sh-fallback,sh-port",
		"-a -t 192.0.2.1:80 -r 10.0.0.1:8080 -m -w 1",
		"-a -t 192.0.2.1:80 -r 10.0.0.2:8080 -m -w 65535",
		"-A -t 192.0.2.2:0 -s wlc -p 300 -M 255.255.255.0",
		"-a -t 192.0.2.2:0 -r 10.0.0.1:0 -g -w 1",
		"-A -u 192.0.2.1:5060 -s rr -p 90 --pe sip -o",
		"-a -u 192.0.2.1:5060 -r 10.0.0.1:5060 -g -w 1",
		"-A --sctp-service 192.0.2.1:2905 -s lc -b flag-3",
		"-a --sctp-service 192.0.2.1:2905 -r 127.0.0.1:2905 -g -w 1",
		"-A -t [2001:db8::1]:443 -s wlc -p 3600 -M 64",
		"-a -t [2001:db8::1]:443 -r [2001:db8:1::1]:443 -m -w 1",
		"-A -u [2001:db8::1]:53 -s wlc",
		"-a -u [2001:db8::1]:53 -r 10.0.0.9:53 -i -w 1 --tun-type ipip",
		"-A -f 7 -s mh",
		"-a -f 7 -r 10.0.0.1:0 -i -w 1 --tun-type gue --tun-port 6080 --tun-remcsum",
		"-a -f 7 -r 10.0.0.2:0 -i -w 1 --tun-type gre --tun-csum",
		"-a -f 7 -r 10.0.0.3:0 -i -w 1 --tun-type ipip",
		"-A -f 7 -6 -s wlc",
		"-a -f 7 -6 -r [2001:db8:1::1]:0 -g -w 1",
	)
	r.holds(t, services...)
	if diff := cmp.Diff([]director.Operation(nil), director.Plan(director.State{Services: services, Timeouts: r.found(t).Timeouts}, r.found(t))); diff != "" {
		t.Errorf("left to do (-want +got):\n%s", diff)
	}

	// Once more, and as a daemon that starts anew: nothing is written.
	r.spy.writes = nil
	for range 2 {
		r.apply(t, adding(services...)...)
		for _, s := range services {
			r.apply(t, director.EditService{Service: s})
			for _, server := range s.Servers {
				r.apply(t, director.EditServer{Key: s.Key, Server: server})
			}
		}
		r.holds(t, services...)
		r.spy.wrote(t)
		r = openIn(t, r.ns)
	}
	for range 2 {
		for _, s := range services {
			r.apply(t, director.RemoveServer{Key: s.Key, Address: s.Servers[0].Address}, director.RemoveService{Key: s.Key})
		}
		r.saved(t)
	}
}
