package director_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
)

func mustKey(s string) director.ServiceKey {
	key, err := director.ParseServiceKey(s)
	if err != nil {
		panic(err)
	}
	return key
}

func TestParseServiceKey(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"tcp://192.0.2.1:80", "tcp://192.0.2.1:80"},
		{"UDP://[2001:DB8:0::1]:53", "udp://[2001:db8::1]:53"},
		{"tcp://192.0.2.1:65535", "tcp://192.0.2.1:65535"},
		{"tcp://192.0.2.1:0", "tcp://192.0.2.1:0"},
		{"tcp://192.0.2.0/24:80", "tcp://192.0.2.0/24:80"},
		{"tcp://192.0.2.1/32:80", "tcp://192.0.2.1:80"},
		{"tcp://192.0.2.1:80-80", "tcp://192.0.2.1:80"},
		{"udp://[2001:DB8::/64]:443", "udp://[2001:db8::/64]:443"},
		{"tcp://10.0.0.0/8:8000-8999", "tcp://10.0.0.0/8:8000-8999"},
		{"tcp://[2001:db8::1]:1-65535", "tcp://[2001:db8::1]:1-65535"},
		{"tcp://[2001:db8::/32]:0", "tcp://[2001:db8::/32]:0"},
		{"SCTP://192.0.2.1:3868", "sctp://192.0.2.1:3868"},
		{"tcp://127.0.0.1:80", "tcp://127.0.0.1:80"},
		{"udp://[::1]:53", "udp://[::1]:53"},
		{"fwmark://7", "fwmark://7"},
		{"FWMark://007", "fwmark://7"},
		{"fwmark6://4294967295", "fwmark6://4294967295"},
	} {
		key, err := director.ParseServiceKey(tt.in)
		if err != nil || key.String() != tt.want {
			t.Errorf("%q: %v, %v, want %s", tt.in, key, err, tt.want)
		}
		if again := mustKey(key.String()); again != key {
			t.Errorf("%q: %v after a round trip", tt.in, again)
		}
	}
}

// What the kernel can hold of others, and no service of Shunt's can have, is read as
// it is written; what is no key at all is refused all the same.
func TestParseFoundKey(t *testing.T) {
	for _, url := range []string{
		"tcp://0.0.0.0:80", "tcp://0.0.0.0:0", "udp://224.0.0.5:80", "tcp://255.255.255.255:80", "tcp://0.1.2.3:80",
		"tcp://[::]:80", "tcp://[ff02::5]:80", "sctp://[::ffff:1.2.3.4]:80", "tcp://192.0.2.1:80", "fwmark6://7",
	} {
		key, err := director.ParseFoundKey(url)
		if err != nil || key.String() != url {
			t.Errorf("%s: %v, %v", url, key, err)
		}
	}
	for _, text := range []string{"", "tcp://192.0.2.1", "tcp://web:80", "icmp://192.0.2.1:80", "fwmark://0"} {
		_, err := director.ParseFoundKey(text)
		_, strict := director.ParseServiceKey(text)
		if !errors.Is(err, director.ErrInvalid) || err.Error() != strict.Error() {
			t.Errorf("%q: %v, want %v", text, err, strict)
		}
	}
}

func TestParseServiceKeyRefuses(t *testing.T) {
	const mark = "is not a firewall mark: want 1 to 4294967295"
	tests := []struct{ in, want string }{
		{"", "want protocol://address:port, such as tcp://192.0.2.1:80"},
		{"192.0.2.1:80", "want protocol://address:port, such as tcp://192.0.2.1:80"},
		{"icmp://192.0.2.1:80", `unknown protocol "icmp": want tcp, udp or sctp`},
		{"fwmark://0", `"0" ` + mark},
		{"fwmark://4294967296", `"4294967296" ` + mark},
		{"fwmark6://-1", `"-1" ` + mark},
		{"fwmark://0x7", `"0x7" ` + mark},
		{"fwmark://", `"" ` + mark},
		{"fwmark://192.0.2.1:80", `"192.0.2.1:80" ` + mark},
		{"fwmark4://7", `unknown protocol "fwmark4": want tcp, udp or sctp`},
		{"tcp://192.0.2.1", "the port is missing: write 192.0.2.1:80"},
		{"tcp://[2001:db8::1]", "the port is missing: write [2001:db8::1]:80"},
		{"tcp://2001:db8::1", "the port is missing: write [2001:db8::1]:80"},
		{"tcp://1:2:3:4:5:6:7:8:80", "an IPv6 address is written in brackets: [1:2:3:4:5:6:7:8]:80"},
		{"tcp://192.0.2.1:http", `"http" is not a port: want 1 to 65535`},
		{"tcp://192.0.2.1:65536", `"65536" is not a port: want 1 to 65535`},
		{"tcp://[2001:db8::1]:-1", `"-1" is not a port: want 1 to 65535`},
		{"tcp://example.org:80", `"example.org" is not an IP address (names are not looked up)`},
		{"tcp://", `"" is not an IP address and a port (names are not looked up)`},
		{"tcp://:80", `"" is not an IP address (names are not looked up)`},
		{"tcp://192.0.2.256:80", `"192.0.2.256" is not an IP address (names are not looked up)`},
		{"tcp://192.0.2.1/24:80", "virtual address 192.0.2.1/24 has bits beyond its prefix: write 192.0.2.0/24"},
		{"tcp://192.0.2.0/33:80", `"33" is not the length of a prefix: want 8 to 32`},
		{"tcp://192.0.2.0/x:80", `"x" is not the length of a prefix: want 8 to 32`},
		{"tcp://0.0.0.0/0:80", "/0 is every address: want a prefix of at least 8 bits"},
		{"tcp://10.0.0.0/7:80", "prefix length 7: want at least 8"},
		{"tcp://[2001::/15]:80", "prefix length 15: want at least 16"},
		{"tcp://192.0.2.0/24", "the port is missing: write 192.0.2.0/24:80"},
		{"tcp://[2001:db8::/64]", "the port is missing: write [2001:db8::/64]:80"},
		{"tcp://192.0.2.0/24:", "the port is missing: write 192.0.2.0/24:80"},
		{"tcp://2001:db8::/64", "the port is missing: write [2001:db8::/64]:80"},
		{"tcp://[2001:db8::]/64", "the port is missing: write [2001:db8::/64]:80"},
		{"tcp://[2001:db8::]/64:80", "the brackets are wrong: write [2001:db8::/64]:80"},
		{"tcp://[2001:db8::]/64:80-90", "the brackets are wrong: write [2001:db8::/64]:80-90"},
		{"tcp://[2001:db8::/64:80", "the brackets are wrong: write [2001:db8::/64]:80"},
		{"tcp://2001:db8::/64:80", "the brackets are wrong: write [2001:db8::/64]:80"},
		{"tcp://[10.0.0.0/8]:80", "the brackets are wrong: write 10.0.0.0/8:80"},
		{"tcp://[2001:db8::]/x:80", `"x" is not the length of a prefix: want 16 to 128`},
		{"tcp://[2001:db8::]/064:80", `"064" is not the length of a prefix: want 16 to 128`},
		{"tcp://192.0.2.1:90-80", `"90-80" is not a range of ports: want FIRST-LAST within 1 to 65535`},
		{"tcp://192.0.2.1:0-80", `"0-80" is not a range of ports: want FIRST-LAST within 1 to 65535`},
		{"tcp://192.0.2.1:80-65536", `"80-65536" is not a range of ports: want FIRST-LAST within 1 to 65535`},
		{"tcp://192.0.2.1:80-", `"80-" is not a range of ports: want FIRST-LAST within 1 to 65535`},
		{"tcp://example.org/24:80", `"example.org" is not an IP address (names are not looked up)`},
		{"tcp://[2001:db8::1%eth0]:80", "virtual address 2001:db8::1%eth0 has a zone: a service is not bound to an interface"},
		{"tcp://[::ffff:192.0.2.1]:80", "virtual address ::ffff:192.0.2.1 is an IPv4 address in IPv6 form: write 192.0.2.1"},
		{"tcp://224.0.0.1:80", "virtual address 224.0.0.1 is multicast: want a unicast address"},
		{"udp://[ff02::1]:80", "virtual address ff02::1 is multicast: want a unicast address"},
		{"tcp://0.0.0.0:80", "virtual address 0.0.0.0 is unspecified: want a unicast address"},
		{"tcp://[::]:80", "virtual address :: is unspecified: want a unicast address"},
		{"tcp://0.1.2.3:80", "virtual address 0.1.2.3 is in 0.0.0.0/8: want a unicast address"},
		{"tcp://255.255.255.255:80", "virtual address 255.255.255.255 is the broadcast address: want a unicast address"},
	}
	for _, tt := range tests {
		t.Run(strings.ReplaceAll(tt.in, "/", "_"), func(t *testing.T) {
			key, err := director.ParseServiceKey(tt.in)
			if !errors.Is(err, director.ErrInvalid) {
				t.Fatalf("%v, error %v, want one that is %q", key, err, director.ErrInvalid)
			}
			if want := `service "` + tt.in + `": ` + tt.want; err.Error() != want {
				t.Errorf("error\n %v, want\n %s", err, want)
			}
		})
	}
}

func FuzzParseServiceKey(f *testing.F) {
	for _, seed := range []string{"tcp://192.0.2.1:80", "udp://[2001:db8::1]:53", "tcp://[::1%a]:1", "fwmark://7", "fwmark6://1", "sctp://192.0.2.1:0", "tcp://[:80"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		key, err := director.ParseServiceKey(s)
		if err != nil {
			if !errors.Is(err, director.ErrInvalid) {
				t.Errorf("%q: error %v, want one that is %q", s, err, director.ErrInvalid)
			}
			return
		}
		if again, err := director.ParseServiceKey(key.String()); err != nil || again != key {
			t.Errorf("%q: %v, then %v, %v", s, key, again, err)
		}
	})
}

func TestServiceKeyCompare(t *testing.T) {
	want := []string{
		"tcp://9.0.0.1:80", "tcp://10.0.0.1:80", "tcp://10.0.0.1:443", "udp://9.0.0.1:53",
		"sctp://9.0.0.1:80", "tcp://[2001:db8::1]:80", "udp://[2001:db8::1]:53", "fwmark://7", "fwmark6://7", "fwmark://10",
	}
	var keys []director.ServiceKey
	for _, s := range []int{9, 5, 2, 8, 0, 7, 4, 1, 6, 3} {
		keys = append(keys, mustKey(want[s]))
	}
	slices.SortFunc(keys, director.ServiceKey.Compare)
	var got []string
	for _, key := range keys {
		got = append(got, key.String())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestParseServerAddress(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.1": "10.0.0.1:0", "10.0.0.1:8080": "10.0.0.1:8080", "2001:db8::1": "[2001:db8::1]:0",
		"[2001:db8::1]": "[2001:db8::1]:0", "[2001:DB8::1]:80": "[2001:db8::1]:80",
	} {
		if got, err := director.ParseServerAddress(in); err != nil || got.String() != want {
			t.Errorf("%q: %v, %v, want %s", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"":               `"" is not an IP address and a port (names are not looked up)`,
		"10.0.0.1:0":     "port 0 is reserved: leave it out for the service's port",
		"10.0.0.1:65536": `"65536" is not a port: want 1 to 65535`,
		"web1":           `"web1" is not an IP address and a port (names are not looked up)`,
		"web1:80":        `"web1" is not an IP address (names are not looked up)`,
		"[10.0.0.1]:80":  `an IPv4 address is written without brackets: 10.0.0.1:80`,
	} {
		_, err := director.ParseServerAddress(in)
		if want := `server "` + in + `": ` + want; !errors.Is(err, director.ErrInvalid) || err.Error() != want {
			t.Errorf("%q: error %v, want %s", in, err, want)
		}
	}
}

func TestServiceKeyContains(t *testing.T) {
	for _, tt := range []struct {
		key, to string
		want    bool
	}{
		{"tcp://192.0.2.1:80", "192.0.2.1:80", true},
		{"tcp://192.0.2.1:80", "192.0.2.1:81", false},
		{"tcp://192.0.2.1:80", "192.0.2.2:80", false},
		{"tcp://192.0.2.0/24:80-90", "192.0.2.255:90", true},
		{"tcp://192.0.2.0/24:80-90", "192.0.2.255:91", false},
		{"tcp://192.0.2.0/24:80-90", "192.0.3.0:80", false},
		{"tcp://192.0.2.1:0", "192.0.2.1:65535", true},
		{"tcp://[2001:db8::/64]:443", "[2001:db8::ffff]:443", true},
		{"tcp://[2001:db8::/64]:443", "192.0.2.1:443", false},
		{"fwmark://7", "192.0.2.1:443", false}, // the address does not tell
		{"fwmark://7", "0.0.0.0:0", false},
	} {
		if got := mustKey(tt.key).Contains(netip.MustParseAddrPort(tt.to)); got != tt.want {
			t.Errorf("%s contains %s: %t", tt.key, tt.to, got)
		}
	}
}
