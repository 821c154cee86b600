package ipvsadm_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config/ipvsadm"
)

func TestDirectorService(t *testing.T) {
	for _, c := range []struct {
		line string
		want director.Service
	}{
		{"-A -t 192.0.2.1:80", director.Service{Key: key(t, "tcp://192.0.2.1:80"), Scheduler: "wlc"}},
		{"-A -u 192.0.2.1:53 -o -s sh -b sh-fallback", director.Service{
			Key: key(t, "udp://192.0.2.1:53"), Scheduler: "sh", Flags: director.SchedulerFlags{Fallback: true}, OnePacket: true,
		}},
		{"-A -f 9 -6 -p --pe sip -b flag-2,flag-3 -M 56", director.Service{
			Key: key(t, "fwmark6://9"), Scheduler: "wlc", Flags: director.SchedulerFlags{Port: true, Third: true},
			Persistence: director.Persistence{Timeout: 6 * time.Minute, Prefix: 56, Engine: director.EngineSIP},
		}},
		{"-A --sctp-service 192.0.2.1 -p 1 -M 0.0.0.0", director.Service{
			Key: key(t, "sctp://192.0.2.1:0"), Scheduler: "wlc", Persistence: director.Persistence{Timeout: time.Second},
		}},
		// A netmask is of no account without persistence.
		{"-A -t 192.0.2.1:80 -M 255.0.255.0", director.Service{Key: key(t, "tcp://192.0.2.1:80"), Scheduler: "wlc"}},
	} {
		t.Run(c.line, func(t *testing.T) {
			command, err := ipvsadm.Parser{}.Parse(strings.Fields(c.line))
			if err != nil {
				t.Fatal(err)
			}
			c.want.VIP = director.VIPExternal
			got, err := command.Service.Director()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if err := got.Validate(); err != nil {
				t.Errorf("the director has a problem with it: %v", err)
			}
			back, err := ipvsadm.FromDirector(got)
			if !command.Service.Persistent {
				command.Service.Netmask = back.Netmask
			}
			if err != nil || back != command.Service {
				t.Errorf("back: %+v, %v, want %+v", back, err, command.Service)
			}
		})
	}
}

// An engine alone makes no service persistent: the kernel keeps it, and -S shows it.
func TestFromDirectorEngineAlone(t *testing.T) {
	service := director.Service{Key: key(t, "udp://192.0.2.1:53"), Scheduler: "rr", Persistence: director.Persistence{Engine: director.EngineSIP}}
	got, err := ipvsadm.FromDirector(service)
	if err != nil || got.Persistent || got.Engine != "sip" {
		t.Errorf("%+v, %v", got, err)
	}
	if text, _ := (ipvsadm.Writer{}).Save([]director.Service{service}); text != "-A -u 192.0.2.1:53 -s rr --pe sip\n" {
		t.Errorf("saved as %q", text)
	}
}

func TestDirectorServiceHasNoWords(t *testing.T) {
	for line, want := range map[string]string{
		"-A -t 192.0.2.1:80 -p -M 255.0.255.0": "service tcp://192.0.2.1:80: netmask 255.0.255.0 is no prefix",
		"-A -t 192.0.2.1:80 --pe sip":          "service tcp://192.0.2.1:80: persistence engine sip without persistence (-p)",
	} {
		command, err := ipvsadm.Parser{}.Parse(strings.Fields(line))
		if err != nil {
			t.Fatal(err)
		}
		_, err = command.Service.Director()
		if !errors.Is(err, director.ErrUnsupported) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", line, err, want)
		}
	}
	_, err := ipvsadm.FromDirector(director.Service{Key: key(t, "tcp://192.0.2.1:80-90")})
	if want := "service tcp://192.0.2.1:80-90: ipvsadm has no prefixes and no ranges of ports"; !errors.Is(err, director.ErrUnsupported) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("a range of ports: %v, want %s", err, want)
	}
}

func TestDirectorTimeouts(t *testing.T) {
	base := conntrack.Timeouts{TCP: 1, TCPFin: 2, UDP: 3}
	got := ipvsadm.Timeouts{TCPFin: 90}.Director(base)
	if want := (conntrack.Timeouts{TCP: 1, TCPFin: 90 * time.Second, UDP: 3}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestDirectorDaemon(t *testing.T) {
	command, err := ipvsadm.Parser{}.Parse(strings.Fields("--start-daemon backup --syncid 3 --mcast-port 9"))
	if err != nil {
		t.Fatal(err)
	}
	want := director.SyncDaemon{Role: director.SyncBackup, Interface: "eth0", ID: 3, Group: director.DefaultSyncGroup, Port: 9, TTL: 1}
	if got := command.Daemon.Director(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
