package ipvsadm

import (
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/api"
	language "github.com/shunt-lb/shunt/director/config/ipvsadm"
)

// The columns are print_conn's of ipvsadm.c.
func TestConnectionLine(t *testing.T) {
	tcp := api.Connection{Protocol: "tcp", Client: "198.51.100.7:40001", Virtual: "192.0.2.1:80", Server: "10.0.0.1:8080", State: "ESTABLISHED", Expires: api.Duration(899*time.Second + 999*time.Millisecond)}
	sip := api.Connection{
		Protocol: "udp", Client: "198.51.100.7:0", Virtual: "192.0.2.1:5060", Server: "10.0.0.1:5060", State: "NONE", Template: true,
		Engine: "sip", EngineData: "abc@example.org and more", Expires: api.Duration(time.Second),
	}
	for _, test := range []struct {
		name    string
		c       api.Connection
		engines bool
		want    string
	}{
		{"tcp", tcp, false, "TCP 14:59  ESTABLISHED 198.51.100.7:40001 192.0.2.1:80       10.0.0.1:8080\n"},
		{"no_engine", tcp, true, "TCP 14:59  ESTABLISHED 198.51.100.7:40001 192.0.2.1:80       10.0.0.1:8080\n"},
		{
			"minutes_are_not_capped",
			api.Connection{Protocol: "sctp", Client: "[2001:db8::1]:1", Virtual: "[2001:db8::2]:2", Server: "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:3", State: "S-ACK-SENT", Expires: api.Duration(31 * 24 * time.Hour)},
			false, "SCTP 44640:00 S-ACK-SENT  [2001:db8::1]:1    [2001:db8::2]:2    [2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:3\n",
		},
		{"expired", api.Connection{Protocol: "udp", Client: "1.2.3.4:5", Virtual: "1.2.3.5:6", Server: "1.2.3.6:7", State: "UDP", Expires: api.Duration(-time.Minute)}, false, "UDP 00:00  UDP         1.2.3.4:5          1.2.3.5:6          1.2.3.6:7\n"},
		{"engine", sip, true, "UDP 00:01  NONE        198.51.100.7:0     192.0.2.1:5060     10.0.0.1:5060    sip                abc@example.org\n"},
		{"engine_unasked", sip, false, "UDP 00:01  NONE        198.51.100.7:0     192.0.2.1:5060     10.0.0.1:5060\n"},
		{
			"assured_template",
			api.Connection{Protocol: "tcp", Client: "198.51.100.0:0", Virtual: "192.0.2.1:80", Server: "10.0.0.1:80", State: "NONE", Template: true, Proven: true, Expires: api.Duration(time.Minute)},
			false, "TCP 01:00  ASSURED     198.51.100.0:0     192.0.2.1:80       10.0.0.1:80\n",
		},
		{
			"mark",
			api.Connection{Protocol: "proto-0", Client: "198.51.100.0:0", Virtual: "0.0.0.0:0", Server: "10.0.0.1:0", State: "NONE", Template: true, Mark: 0x01020304, Expires: api.Duration(time.Minute)},
			false, "IP  01:00  NONE        198.51.100.0:0     1.2.3.4:0          10.0.0.1:0\n",
		},
		{
			"server_without_a_port",
			api.Connection{Protocol: "tcp", Client: "198.51.100.7:5", Virtual: "192.0.2.1:81", Server: "10.0.0.1:0", State: "FIN_WAIT", Expires: api.Duration(time.Minute)},
			false, "TCP 01:00  FIN_WAIT    198.51.100.7:5     192.0.2.1:81       10.0.0.1:81\n",
		},
		{
			"template_of_all_ports",
			api.Connection{Protocol: "tcp", Client: "198.51.100.7:0", Virtual: "192.0.2.1:0", Server: "10.0.0.1:8080", State: "NONE", Template: true, Expires: api.Duration(time.Minute)},
			false, "TCP 01:00  NONE        198.51.100.7:0     192.0.2.1:0        10.0.0.1:0\n",
		},
		{
			"mark_of_ipv6",
			api.Connection{Protocol: "proto-0", Client: "[2001:db8::]:0", Virtual: "[::]:0", Server: "[2001:db8::9]:0", State: "NONE", Template: true, Mark: 7, Expires: api.Duration(time.Minute)},
			false, "IP  01:00  NONE        [2001:db8::]:0     [0:7::]:0          [2001:db8::9]:0\n",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := connectionLine(test.c, language.Writer{}, test.engines)
			if err != nil {
				t.Fatal(err)
			}
			if got != test.want {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestConnectionLineOfNonsense(t *testing.T) {
	good := api.Connection{Protocol: "tcp", Client: "1.2.3.4:5", Virtual: "1.2.3.5:6", Server: "1.2.3.6:7"}
	for name, spoil := range map[string]func(*api.Connection){
		"client":   func(c *api.Connection) { c.Client = "x" },
		"virtual":  func(c *api.Connection) { c.Virtual = "" },
		"server":   func(c *api.Connection) { c.Server = "1.2.3.4" },
		"protocol": func(c *api.Connection) { c.Protocol = "carp" },
	} {
		c := good
		if spoil(&c); c == good {
			t.Fatalf("%s: nothing is spoilt", name)
		}
		if line, err := connectionLine(c, language.Writer{}, false); err == nil {
			t.Errorf("%s: no error, but %q", name, line)
		}
	}
}
