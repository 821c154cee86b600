package ldirectord_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config/ldirectord"
	"github.com/shunt-lb/shunt/director/config/translation"
	"github.com/shunt-lb/shunt/director/directortest/importtest"
)

// names are those of a small world.
type names struct{}

func (names) Address(host string) (netip.Addr, bool) {
	addr, found := map[string]string{"www.example.com": "192.0.2.80", "web2.example.com": "10.0.0.2"}[host]
	if !found {
		return netip.Addr{}, false
	}
	return netip.MustParseAddr(addr), true
}

func (names) Port(service string, protocol conntrack.Protocol) (uint16, bool) {
	port, found := map[string]uint16{"http/tcp": 80, "domain/udp": 53}[service+"/"+protocol.String()]
	return port, found
}

// fixtures are the configurations that are written for these tests, and how they
// are read.
var fixtures = map[string]ldirectord.Options{
	"checks.cf":  {},
	"kernel.cf":  {},
	"lenient.cf": {},
	"odd.cf":     {Names: names{}},
}

// imported translates a fixture.
func imported(t testing.TB, name string) translation.Result {
	t.Helper()
	path := filepath.Join("testdata", "fixtures", name)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	result, err := ldirectord.Import(path, data, fixtures[name])
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// TestFixtures pins what is carried of them; TestGuestLdirectord says that it is
// right.
func TestFixtures(t *testing.T) {
	for name := range fixtures {
		t.Run(name, func(t *testing.T) {
			golden(t, filepath.Join("testdata", "fixtures", name+".txt"), imported(t, name).String())
			importtest.Taken(t, imported(t, name))
		})
	}
}

// TestSecrets says that no password comes into a note.
func TestSecrets(t *testing.T) {
	for _, n := range imported(t, "odd.cf").Notes {
		if strings.HasPrefix(n.What, "passwd") && strings.Contains(n.String(), "s3cr3t") {
			t.Errorf("a note tells the password: %s", n)
		}
	}
}

// TestUnreadable says what is no configuration at all.
func TestUnreadable(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"virtual=1\n\x00", "l.cf: the file has a NUL byte at offset 10: is it a text file?"},
		{strings.Repeat("#", translation.MaxBytes+1), "l.cf: the file is larger than 4 MiB"},
		{strings.Repeat("virtual=192.0.2.1:80\n\treal=10.0.0.1->10.9.0.0:80 gate\n", 200), "l.cf:255: there are more than 131072 servers up to virtual=192.0.2.1:80"},
		{strings.Repeat("virtual=192.0.2.1:80\n", 4097), "l.cf:4097: there are more than 4096 services up to virtual=192.0.2.1:80"},
	} {
		_, err := ldirectord.Import("l.cf", []byte(test.text), ldirectord.Options{})
		if err == nil || err.Error() != test.want || !errors.Is(err, director.ErrInvalid) {
			t.Errorf("error %v, want %s", err, test.want)
		}
	}
}

// TestBlocks says where a virtual service ends.
func TestBlocks(t *testing.T) {
	const service = "virtual=192.0.2.1:80\n\tchecktype=on\n"
	for name, test := range map[string]struct {
		text    string
		servers int
	}{
		"tab":           {service + "\treal=10.0.0.1:80 gate\n", 1},
		"four_blanks":   {service + "    real=10.0.0.1:80 gate\n", 1},
		"three_blanks":  {service + "   real=10.0.0.1:80 gate\n", 0},
		"empty_line":    {service + "\n\treal=10.0.0.1:80 gate\n", 0},
		"comment":       {service + "# no\n\t#real=10.0.0.2:80 gate\n\treal=10.0.0.1:80 gate\n", 1},
		"blank_comment": {service + "    # \n        \n\treal=10.0.0.1:80 gate\n", 1},
		"crlf":          {strings.ReplaceAll(service, "\n", "\r\n") + "\treal=10.0.0.1:80 gate\r\n", 1},
		"no_newline":    {service + "\treal=10.0.0.1:80 gate", 1},
		"next_service":  {service + "virtual=192.0.2.2:80\n\treal=10.0.0.1:80 gate\n", 0},
	} {
		t.Run(name, func(t *testing.T) {
			result, err := ldirectord.Import("l.cf", []byte(test.text), ldirectord.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if got := len(result.State.Services[0].Servers); got != test.servers {
				t.Errorf("%d servers, want %d\n%s", got, test.servers, result)
			}
			if (test.servers == 0) != (len(result.Notes) > 0) && name != "next_service" {
				t.Errorf("notes %v", result.Notes)
			}
		})
	}
}
