package config_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config"
	"github.com/shunt-lb/shunt/realserver"
)

var cmpNetip = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

func defaults() config.Settings {
	return config.Settings{
		Dataplane: "xdp", Mode: "native", MaxConnections: 1 << 20, MaxConnections6: 1 << 18,
		Midstream: "drop", ICMPRate: 1000,
		Limits:       config.Limits{Services: 4096, Servers: 16384, SchedulerWords: 4 << 20},
		RemovalLimit: 50, Reconcile: 2 * time.Second, StateDir: config.DefaultStateDir, History: 10000,
		Socket: config.DefaultSocket, PinDir: config.DefaultPinDir, LogLevel: "info", LogFormat: "text",
	}
}

func server(addr string, method realserver.Method, weight uint32) realserver.Server {
	return realserver.Server{Address: netip.MustParseAddrPort(addr), Method: method, Weight: weight}
}

func reference() config.Config {
	settings := defaults()
	settings.Interfaces = []string{"eth0", "eth1"}
	return config.Config{
		Director: settings,
		State: director.State{
			Timeouts: conntrack.DefaultTimeouts(),
			Services: []director.Service{
				{
					Key:  director.ServiceKey{Protocol: conntrack.TCP, Address: netip.MustParseAddrPort("192.0.2.10:80")},
					Name: "web", Scheduler: director.WeightedRoundRobin, VIP: director.VIPManaged,
					Servers: []realserver.Server{
						server("10.0.0.11:8080", realserver.NAT, 3), server("10.0.0.12:80", realserver.DR, 2),
					},
				},
				{
					Key:  director.ServiceKey{Protocol: conntrack.UDP, Address: netip.MustParseAddrPort("[2001:db8::53]:53")},
					Name: "dns", Scheduler: director.Maglev, VIP: director.VIPExternal,
					Flags: director.SchedulerFlags{Port: true, Fallback: true},
					Servers: []realserver.Server{
						server("[2001:db8:1::1]:53", realserver.DR, 1), server("[2001:db8:1::2]:53", realserver.DR, 1),
					},
				},
			},
		},
	}
}

func TestReference(t *testing.T) {
	got, err := config.Load("testdata/reference.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(reference(), got, cmpNetip); diff != "" {
		t.Errorf("reference (-want +got):\n%s", diff)
	}
}

// Every "default" of the reference is true: without those lines it means the
// same, timeouts aside, which stay not given.
func TestReferenceDefaults(t *testing.T) {
	data, err := os.ReadFile("testdata/reference.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for line := range strings.Lines(string(data)) {
		_, comment, _ := strings.Cut(line, "#")
		key, _, _ := strings.Cut(strings.TrimSpace(line), ":")
		if strings.HasPrefix(comment, " default") || key == "connections" || key == "timeouts" || key == "limits" {
			continue
		}
		kept = append(kept, line)
	}
	got, err := config.Parse("short", []byte(strings.Replace(strings.Join(kept, ""), "address: 10.0.0.11:8080", "address: 10.0.0.11:8080\n        weight: 3", 1)))
	if err != nil {
		t.Fatal(err)
	}
	want := reference()
	want.State.Timeouts = conntrack.Timeouts{}
	if diff := cmp.Diff(want, got, cmpNetip); diff != "" {
		t.Errorf("without the defaults (-want +got):\n%s", diff)
	}
}

func TestParseEmpty(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n", "{}\n", "director: {}\nservices: []\n"} {
		got, err := config.Parse("empty", []byte(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if diff := cmp.Diff(config.Config{Director: defaults()}, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}

func TestParseSettings(t *testing.T) {
	const text = `
director:
  mode: generic
  midstream: reset
  icmp-rate: 0
  connections: {max: 64Ki, timeouts: {tcp-fin: 90s}}
  limits: {services: 16, servers: 1Ki, scheduler-words: 1Gi}
  socket: /tmp/x/../s
  interfaces: []
`
	_, err := config.Parse("f", []byte(text))
	wantErrors(t, err, `f:7:57: director.limits.scheduler-words: 1Gi is out of range: want 8Ki to 256Mi`)

	got, err := config.Parse("f", []byte(strings.Replace(text, "1Gi", "1Mi", 1)))
	if err != nil {
		t.Fatal(err)
	}
	settings := defaults()
	settings.Mode, settings.MaxConnections, settings.MaxConnections6 = "generic", 65536, 16384
	settings.Midstream, settings.ICMPRate, settings.Socket = "reset", 0, "/tmp/s"
	settings.Limits = config.Limits{Services: 16, Servers: 1024, SchedulerWords: 1 << 20}
	want := config.Config{Director: settings, State: director.State{Timeouts: conntrack.Timeouts{TCPFin: 90 * time.Second}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
}

func TestLoadFails(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.yaml")
	_, err := config.Load(missing)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "read configuration: open "+missing) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := config.Load(t.TempDir()); err == nil || !strings.Contains(err.Error(), "read configuration: ") {
		t.Errorf("directory: %v", err)
	}
	large := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(large, []byte(strings.Repeat("#", config.MaxBytes+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = config.Load(large)
	wantErrors(t, err, large+": the configuration is larger than 4 MiB: divide it and include the parts")
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]uint64{
		"0": 0, "4096": 4096, "64Ki": 65536, "1Mi": 1 << 20, "2Gi": 2 << 30, "18446744073709551615": 1<<64 - 1,
	} {
		got, err := config.ParseSize(text)
		if err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
		if again, err := config.ParseSize(config.FormatSize(got)); err != nil || again != got {
			t.Errorf("%q: written as %q, read as %d, %v", text, config.FormatSize(got), again, err)
		}
	}
	for text, want := range map[string]string{
		"": "is not a number", "Ki": "is not a number", "1k": "is not a number", "1KiB": "is not a number",
		"-1": "is not a number", "1.5Mi": "is not a number", "1 Mi": "is not a number", "0x10": "is not a number",
		"18446744073709551616": "is too large", "18014398509481984Ki": "is too large",
	} {
		if got, err := config.ParseSize(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %d, %v, want an error with %q", text, got, err, want)
		}
	}
}

// wantErrors compares the joined errors' texts and checks their type.
func wantErrors(t *testing.T, err error, want ...string) {
	t.Helper()
	var got []string
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			if located := (*config.Error)(nil); !errors.As(e, &located) {
				t.Errorf("%T is no *config.Error", e)
			}
			text := e.Error()
			if errors.Is(e, director.ErrUnsupported) {
				text += " (not supported)"
			} else if !errors.Is(e, director.ErrInvalid) {
				t.Errorf("%v is of no kind", e)
			}
			got = append(got, text)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("errors of %v (-want +got):\n%s", err, diff)
	}
}
