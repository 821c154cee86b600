package translation_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config/translation"
	"github.com/shunt-lb/shunt/realserver"
)

func at(line int) translation.Position { return translation.Position{File: "f", Line: line} }

// service is one with servers, each on a line behind its own.
func service(line int, url, name string, servers ...string) translation.Service {
	key, err := director.ParseServiceKey(url)
	if err != nil {
		panic(err)
	}
	s := translation.Service{At: at(line), What: url}
	s.Service = director.Service{Key: key, Name: name, VIP: director.VIPExternal}
	for i, address := range servers {
		s.AddServer(
			realserver.Server{Address: netip.MustParseAddrPort(address), Weight: 1},
			translation.Source{At: at(line + 1 + i), What: "server " + address},
		)
	}
	return s
}

// TestBuilder says what is left out, and with which notes.
func TestBuilder(t *testing.T) {
	var b translation.Builder
	b.File("f")
	b.Note(translation.Note{Position: at(40), Kind: translation.NotCarried, What: "last", Why: "why"})
	first := service(1, "tcp://192.0.2.1:80", "web", "10.0.0.1:80", "[2001:db8::1]:80", "10.0.0.1:80")
	first.Notes = []translation.Note{{Position: at(2), Kind: translation.NotCarried, What: "check", Why: "none"}}
	second := service(10, "tcp://192.0.2.2:80", "web", "10.0.0.1:80")
	second.Notes = first.Notes
	same := service(20, "tcp://192.0.2.1:80", "other")
	same.Notes = []translation.Note{{Position: at(21), Kind: translation.NotCarried, What: "check", Why: "none"}}
	bad := service(30, "tcp://192.0.2.3:80", "a b")
	for _, s := range []translation.Service{second, first, same, bad} {
		if err := b.Add(s); err != nil {
			t.Fatal(err)
		}
	}
	master := director.SyncDaemon{Role: director.SyncMaster, Interface: "eth0"}
	if !b.Sync(translation.Source{At: at(39), What: "sync"}, master.Normalize()) {
		t.Error("the first sync daemon is refused")
	}
	if b.Sync(translation.Source{At: at(39), What: "sync"}, master) {
		t.Error("the second sync daemon is taken")
	}
	result, err := b.Result()
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		"sync master on eth0, id 0, 224.0.0.81:8848, ttl 1",
		"service tcp://192.0.2.1:80 wlc vip external",
		"  server 10.0.0.1:80 nat weight 1",
		"service tcp://192.0.2.2:80 wlc name web vip external",
		"  server 10.0.0.1:80 nat weight 1",
		"f:1: not carried: name web: the service of f:10 has the name already [tcp://192.0.2.1:80]",
		"f:2: not carried: check: none [tcp://192.0.2.2:80 tcp://192.0.2.1:80]",
		"f:3: left out: server [2001:db8::1]:80: 2001:db8::1 is not of the service's address family (192.0.2.1): only tunnels can mix them [tcp://192.0.2.1:80] -> [2001:db8::1]:80",
		"f:4: left out: server 10.0.0.1:80: 10.0.0.1:80 is servers[0] already [tcp://192.0.2.1:80] -> 10.0.0.1:80",
		"f:20: left out: tcp://192.0.2.1:80: tcp://192.0.2.1:80 is the service of f:1 already, and one address has one service",
		"f:21: not carried: check: none",
		`f:30: left out: tcp://192.0.2.3:80: name "a b": want 1 to 63 letters, digits, '.', '_' or '-', a letter or digit first`,
		"f:40: not carried: last: why", "",
	}, "\n")
	if diff := cmp.Diff(want, result.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestShared says what becomes of notes that services have in common: one of each,
// of the services that are there.
func TestShared(t *testing.T) {
	var b translation.Builder
	b.File("f")
	shared := &translation.Shared{Notes: []translation.Note{{Position: at(2), Kind: translation.NotCarried, What: "check", Why: "none"}}}
	lost := &translation.Shared{Notes: []translation.Note{{Position: at(3), Kind: translation.NotCarried, What: "lost", Why: "none"}}}
	for i := range 20 {
		s := service(1, fmt.Sprintf("tcp://192.0.2.%d:80", i+1), "")
		s.Shared = []*translation.Shared{shared}
		if i == 5 {
			s.Name, s.Shared = "a b", []*translation.Shared{shared, lost} // left out
		}
		if err := b.Add(s); err != nil {
			t.Fatal(err)
		}
	}
	result, err := b.Result()
	if err != nil {
		t.Fatal(err)
	}
	_, notes, _ := strings.Cut(result.String(), "f:1: ")
	_, notes, _ = strings.Cut(notes, "\n")
	const want = "f:2: not carried: check: none [tcp://192.0.2.1:80 tcp://192.0.2.2:80 tcp://192.0.2.3:80] and 16 more\nf:3: not carried: lost: none\n"
	if diff := cmp.Diff(want, notes); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestSyncIsLeftOut says that daemons go where servers of both families are, and
// not the servers.
func TestSyncIsLeftOut(t *testing.T) {
	var b translation.Builder
	b.File("f")
	s := service(1, "tcp://192.0.2.1:80", "", "[2001:db8::1]:80")
	s.Servers[0].Method = realserver.Tunnel
	if err := b.Add(s); err != nil {
		t.Fatal(err)
	}
	b.Sync(translation.Source{At: at(9), What: "sync"}, director.SyncDaemon{Role: director.SyncBackup, Interface: "eth0"}.Normalize())
	result, err := b.Result()
	if err != nil {
		t.Fatal(err)
	}
	if len(result.State.Sync) != 0 || len(result.State.Services[0].Servers) != 1 || len(result.Notes) != 1 || result.Notes[0].Line != 9 {
		t.Errorf("got %s", result)
	}
}

func TestLimits(t *testing.T) {
	var b translation.Builder
	var err error
	for i := 0; i <= translation.MaxServices && err == nil; i++ {
		err = b.Add(service(i+1, "tcp://192.0.2.1:80", ""))
	}
	if want := "f:4097: there are more than 4096 services up to tcp://192.0.2.1:80"; err == nil || err.Error() != want || !errors.Is(err, director.ErrInvalid) {
		t.Errorf("error %v, want %s", err, want)
	}
	b = translation.Builder{}
	s := service(1, "tcp://192.0.2.1:80", "")
	s.Servers = make([]realserver.Server, translation.MaxServers+1)
	if err, want := b.Add(s), "f:1: there are more than 131072 servers up to tcp://192.0.2.1:80"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestName(t *testing.T) {
	for text, want := range map[string]string{
		"web": "web", "Web Site!": "Web-Site", "": "", "---": "", "._a": "a", "ä1": "1", "a/b.c_d": "a-b.c_d",
		strings.Repeat("x", 70): strings.Repeat("x", 63),
	} {
		got := translation.Name(text)
		if got != want {
			t.Errorf("Name(%q) = %q, want %q", text, got, want)
		}
		s := service(1, "tcp://192.0.2.1:80", got)
		if err := s.Normalize().Validate(); err != nil {
			t.Errorf("Name(%q): %v", text, err)
		}
	}
}

func TestMaskBits(t *testing.T) {
	for mask, want := range map[string]int{
		"255.255.255.255": 32, "255.255.255.0": 24, "128.0.0.0": 1, "0.0.0.0": 0, "255.0.255.0": -1, "0.0.0.1": -1, "::": -1,
	} {
		bits, ok := translation.MaskBits(netip.MustParseAddr(mask))
		if ok != (want >= 0) || ok && int(bits) != want {
			t.Errorf("MaskBits(%s) = %d, %v; want %d", mask, bits, ok, want)
		}
	}
}

func TestLocal(t *testing.T) {
	key := director.ServiceKey{Protocol: conntrack.TCP, Address: netip.MustParseAddrPort("192.0.2.1:80")}
	for address, want := range map[string]string{
		"127.0.0.5:81": "127.0.0.5:0", "192.0.2.1:80": "192.0.2.1:0", "192.0.2.2:80": "",
	} {
		server := realserver.Server{
			Address: netip.MustParseAddrPort(address), Method: realserver.Tunnel, Tunnel: realserver.TunnelOptions{Type: realserver.TunnelGRE},
		}
		got, local := translation.Local(key, server)
		if wanted := (realserver.Server{Method: realserver.Local}); want != "" {
			wanted.Address = netip.MustParseAddrPort(want)
			if !local || got != wanted {
				t.Errorf("Local(%s) = %v, %v", address, got, local)
			}
		} else if local || got != server {
			t.Errorf("Local(%s) = %v, %v", address, got, local)
		}
	}
}

// TestWhat says that a note's line is one, whatever is in the text.
func TestWhat(t *testing.T) {
	if got := translation.What("a\u009b31mb\x9b\u2028c"); got != "a 31mb\ufffd c" {
		t.Errorf("got %q", got)
	}
	note := translation.Note{Position: translation.Position{File: "a\nb\u0085", Line: 1}, Kind: translation.Assumed, What: "x", Why: "y\u009bz"}
	if got, want := note.String(), "a b :1: assumed: x: y z"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := translation.Errorf(note.Position, "no %s", "\x1b[2J").Error(), "a b :1: no  [2J"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := translation.What("a\n\x1b[2Jb", strings.Repeat("ü", 200)); len([]rune(got)) != 101 || strings.ContainsAny(got, "\n\x1b") {
		t.Errorf("got %q", got)
	}
	for n, want := range map[translation.Position]string{{File: "f"}: "f", {File: "f", Line: 3}: "f:3"} {
		if got := n.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestHost(t *testing.T) {
	dir := t.TempDir()
	small, large := filepath.Join(dir, "small"), filepath.Join(dir, "large")
	for name, size := range map[string]int{small: translation.MaxBytes, large: translation.MaxBytes + 1} {
		if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	host := translation.Host{}
	if data, err := host.ReadFile(small); err != nil || len(data) != translation.MaxBytes {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if _, err := host.ReadFile(large); err == nil || err.Error() != "read "+large+": it is larger than 4 MiB" {
		t.Errorf("error %v", err)
	}
	if _, err := host.ReadFile(dir); err == nil || err.Error() != "read "+dir+": it is not a regular file" || !errors.Is(err, translation.ErrNotRegular) {
		t.Errorf("error %v", err)
	}
	if _, err := host.ReadFile(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	if names, err := host.Glob(filepath.Join(dir, "*")); err != nil || !cmp.Equal(names, []string{large, small}) {
		t.Errorf("names %v, %v", names, err)
	}
}
