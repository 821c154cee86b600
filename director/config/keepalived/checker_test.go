package keepalived_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config/keepalived"
	"github.com/shunt-lb/shunt/director/config/translation"
	"github.com/shunt-lb/shunt/director/directortest/importtest"
	"github.com/shunt-lb/shunt/realserver"
)

// health imports a virtual server with the lines, and returns what its services do
// about their servers, and the notes on it.
func health(t *testing.T, lines ...string) (director.Health, []translation.Note) {
	t.Helper()
	text := "virtual_server 192.0.2.1 80 {\nprotocol TCP\nlvs_sched rr\nlvs_method NAT\n" + strings.Join(lines, "\n") + "\n}\n"
	result, err := keepalived.Import("k.conf", []byte(text), keepalived.Options{})
	if err != nil {
		t.Fatal(err)
	}
	importtest.Taken(t, result)
	return result.State.Services[0].Health, result.Notes
}

// TestEscapes says how words of commands are taken apart.
func TestEscapes(t *testing.T) {
	for text, want := range map[string][]string{
		`"/bin/a b  c"`:               {"/bin/a", "b", "c"},
		`"/bin/a 'b c' d"`:            {"/bin/a", "b c", "d"},
		`"/bin/a b''c ''"`:            {"/bin/a", "bc", ""},
		`"/bin/a \\x41\\101\\t\\cA"`:  {"/bin/a", `\x41\101\t\cA`},
		`"/bin/a \x41\101\tz\cA\x\q"`: {"/bin/a", "AA\tz\x01xq"},
		`/bin/a b`:                    {"/bin/a"},
		`'/bin/a b' d`:                {"/bin/a", "b"},
		`"/bin/a 50%"`:                {"/bin/a", "50%%"},
	} {
		h, _ := health(t, "real_server 10.0.0.1 80 {\nMISC_CHECK {\nmisc_path "+text+"\n}\n}")
		if len(h.Checks) != 1 || !slices.Equal(h.Checks[0].Script.Command, want) {
			t.Errorf("%s: %+v, want %q", text, h.Checks, want)
		}
	}
}

// TestMixedServers says what becomes of checks that only some servers have.
func TestMixedServers(t *testing.T) {
	h, notes := health(t,
		"real_server 10.0.0.1 80 {\nTCP_CHECK { }\nTCP_CHECK { }\nPING_CHECK { }\n}",
		"real_server 10.0.0.2 80 {\nPING_CHECK { }\nTCP_CHECK { }\n}")
	pace := realserver.Check{Interval: 60e9, Timeout: 5e9, Retry: 1e9, Rise: 1, Fall: 2}
	tcp, ping := pace, pace
	tcp.Kind, ping.Kind = realserver.CheckTCP, realserver.CheckICMP
	if diff := cmp.Diff([]realserver.Check{tcp, ping}, h.Checks); diff != "" {
		t.Errorf("checks (-want +got):\n%s", diff)
	}
	if h.Initial != director.InitialUp || h.Down != director.DownRemove {
		t.Errorf("%+v", h)
	}
	if len(notes) != 1 || notes[0].Line != 7 || !strings.HasPrefix(notes[0].Why, "only 1 of the service's 2 servers have this check") {
		t.Errorf("notes %v", notes)
	}
}

// TestManyChecks says that a service is not refused because of too many.
func TestManyChecks(t *testing.T) {
	h, notes := health(t, "real_server 10.0.0.1 80 {\n"+strings.Repeat("TCP_CHECK { }\n", director.MaxChecks+1)+"}")
	if len(h.Checks) != director.MaxChecks || len(notes) != 1 || notes[0].Line != 6+director.MaxChecks {
		t.Errorf("%d checks, notes %v", len(h.Checks), notes)
	}
}

// TestNotifySome: a command of one server is not told of others.
func TestNotifySome(t *testing.T) {
	h, notes := health(t,
		"real_server 10.0.0.1 80 {\nnotify_up /bin/a\nnotify_down /bin/b\n}",
		"real_server 10.0.0.2 80 {\nnotify_down \"/bin/b c\"\n}")
	if h.Notify.Up != nil || h.Notify.Down != nil || len(notes) != 3 {
		t.Errorf("%+v, notes %v", h.Notify, notes)
	}
}

// TestCheckPorts: what is asked is one port of all servers, or of each its own.
func TestCheckPorts(t *testing.T) {
	for want, checkers := range map[uint16][2]string{
		0:    {"TCP_CHECK { }", "TCP_CHECK { }"},
		80:   {"TCP_CHECK { connect_port 80 }", "TCP_CHECK { connect_port 80 }"},
		8081: {"TCP_CHECK { connect_port 8081 }", "TCP_CHECK { }"},
	} {
		h, notes := health(t, "real_server 10.0.0.1 8080 {\n"+checkers[0]+"\n}", "real_server 10.0.0.2 8081 {\n"+checkers[1]+"\n}")
		if len(h.Checks) != 1 || h.Checks[0].Port != want || len(notes) != 0 {
			t.Errorf("%q: %+v, want port %d; notes %v", checkers, h.Checks, want, notes)
		}
	}
}
