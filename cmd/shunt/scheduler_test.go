package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
)

// TestSchedulerList: every scheduler is there, and says what it chooses.
func TestSchedulerList(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"shunt", "scheduler", "list", "-o", "json"}, streams{nil, &stdout, &stderr}); code != exitOK {
		t.Fatalf("code %d: %s", code, stderr.String())
	}
	var got []listedScheduler
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	var names []director.Scheduler
	for _, s := range got {
		names = append(names, s.Name)
		if s.About == "" || s.Default != (s.Name == director.DefaultScheduler) || (len(s.Flags) == 2) != s.Name.HasFlags() {
			t.Errorf("%+v", s)
		}
	}
	if diff := cmp.Diff(director.Schedulers(), names); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestSimulateRefuses: what of the command line cannot be simulated, and where it
// stands.
func TestSimulateRefuses(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"", "--servers or --service is missing"},
		{"--service web --servers 10.0.0.1", "--service and --servers exclude each other"},
		{"--service web --virtual tcp://192.0.2.1:80", "--service and --virtual exclude each other"},
		{"--servers 10.0.0.1 --virtual web", `--virtual: service "web": want protocol://address:port, such as tcp://192.0.2.1:80`},
		{"--servers 10.0.0.1,10.0.0.1:80", "--servers: 10.0.0.1:80 is there twice"},
		{"--servers 10.0.0.1=x", `--servers: "10.0.0.1=x": "x" is not a weight: want 0 to 2147483647`},
		{"--servers 10.0.0.1=2147483648", `--servers: "10.0.0.1=2147483648": "2147483648" is not a weight: want 0 to 2147483647`},
		{"--servers fd00::1", "--servers: fd00::1 is not of the service's address family (192.0.2.1): only tunnels can mix them"},
		{"--servers 10.0.0.1,[fd00::1]:80", "--servers: fd00::1 is not of the service's address family (192.0.2.1): only tunnels can mix them"},
		{"--servers 10.0.0.1 --virtual tcp://[fd00::1]:80", "--servers: 10.0.0.1 is not of the service's address family (fd00::1): only tunnels can mix them"},
		{"--servers 10.0.0.1 --change add:fd00::1", "--change: fd00::1 is not of the service's address family (192.0.2.1): only tunnels can mix them"},
		{"--servers web", `--servers: "web" is not ADDRESS[:PORT][=WEIGHT]: not an ip:port`},
		{"--servers 10.0.0.1 -s sip", `unknown --scheduler "sip": want ` + schedulerNames()},
		{"--servers 10.0.0.1 -s rr -b sh-port", "--flags: scheduler rr has no flags: sh and mh have; flag-1 to flag-3 are kept without effect"},
		{"--servers 10.0.0.1 -s mh -b sh-port", `--flags: unknown flag "sh-port": scheduler mh has mh-fallback and mh-port`},
		{"--servers 10.0.0.1 --count 0", "--count 0: want 1 to 1000000"},
		{"--servers 10.0.0.1 --count 1000001", "--count 1000001: want 1 to 1000000"},
		{"--servers 10.0.0.1 --count 5 --clients list", "--clients and --count exclude each other"},
		{"--servers 10.0.0.1 --hold forever", `unknown --hold "forever": want open or closed`},
		{"--servers 10.0.0.1 --change now", `--change "now": want add:ADDRESS[=WEIGHT], remove:ADDRESS or weight:ADDRESS=WEIGHT`},
		{"--servers 10.0.0.1 --change drain:10.0.0.1", `--change "drain:10.0.0.1": want add:ADDRESS[=WEIGHT], remove:ADDRESS or weight:ADDRESS=WEIGHT`},
		{"--servers 10.0.0.1 --change add:10.0.0.1", `--change "add:10.0.0.1": 10.0.0.1:80 is there already`},
		{"--servers 10.0.0.1 --change remove:10.0.0.2", `--change "remove:10.0.0.2": there is no 10.0.0.2:80`},
		{"--servers 10.0.0.1 --change remove:10.0.0.1 --change weight:10.0.0.1=2", `--change "weight:10.0.0.1=2": there is no 10.0.0.1:80`},
		{"--servers 10.0.0.1 --change remove:10.0.0.1=2", `--change "remove:10.0.0.1=2": a server that goes needs no weight 2`},
		{"--servers 10.0.0.1 --change weight:10.0.0.1", `--change "weight:10.0.0.1": the weight is missing: write weight:10.0.0.1=1`},
		{"--servers 10.0.0.1 --change add:10.0.0.2=-1", `--change: "10.0.0.2=-1": "-1" is not a weight: want 0 to 2147483647`},
	} {
		t.Run(test.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			args := append([]string{"shunt", "scheduler", "simulate"}, strings.Fields(test.args)...)
			code := run(t.Context(), args, streams{nil, &stdout, &stderr})
			if code != exitUsage || stdout.Len() > 0 {
				t.Errorf("code %d, stdout %q: want 2 and nothing", code, stdout.String())
			}
			first, _, _ := strings.Cut(stderr.String(), "\n")
			if diff := cmp.Diff("shunt: scheduler simulate: "+test.want, first); diff != "" {
				t.Errorf("stderr (-want +got)\n%s", diff)
			}
		})
	}
}

// TestSimulateIsInterrupted: a long run ends when it is asked to.
func TestSimulateIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	servers := make([]string, 254)
	for i := range servers {
		servers[i] = fmt.Sprintf("10.0.0.%d", i+1)
	}
	var stdout, stderr bytes.Buffer
	args := []string{"shunt", "scheduler", "simulate", "--servers", strings.Join(servers, ","), "--count", "200000"}
	code := run(ctx, args, streams{nil, &stdout, &stderr})
	if code != exitFailed || stdout.Len() > 0 || stderr.String() != "shunt: scheduler simulate: interrupted\n" {
		t.Errorf("code %d, stdout %q, stderr %q", code, stdout.String(), stderr.String())
	}
}

// TestDrawRequests: clients can be hosts, and virtual addresses are the service's.
func TestDrawRequests(t *testing.T) {
	for _, url := range []string{
		"tcp://192.0.2.1:80", "udp://192.0.2.128/25:8000-8003", "tcp://192.0.2.1:0", "tcp://[2001:db8::/63]:80", "tcp://[2001:db8::1]:80",
	} {
		t.Run(url, func(t *testing.T) {
			key, err := director.ParseServiceKey(url)
			if err != nil {
				t.Fatal(err)
			}
			virtuals, clients := make(map[netip.AddrPort]bool), make(map[netip.AddrPort]bool)
			for _, r := range drawRequests(key, 2000, newRandom(1)) {
				if !key.Contains(r.Virtual) || r.Virtual.Port() == 0 {
					t.Fatalf("%s is not the service's", r.Virtual)
				}
				if !r.Client.Addr().IsGlobalUnicast() && !r.Client.Addr().IsLoopback() && !r.Client.Addr().IsLinkLocalUnicast() {
					t.Fatalf("%s is no host", r.Client)
				}
				if r.Client.Addr().Is4() != r.Virtual.Addr().Is4() || r.Client.Port() < 1024 {
					t.Fatalf("%s connects to %s", r.Client, r.Virtual)
				}
				virtuals[r.Virtual], clients[r.Client] = true, true
			}
			if wide := key.IsWide(); wide != (len(virtuals) > 1) || len(clients) < 1990 {
				t.Errorf("%d virtual addresses and %d clients", len(virtuals), len(clients))
			}
		})
	}
}
