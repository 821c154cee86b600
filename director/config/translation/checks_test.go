package translation_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director/config/translation"
	"github.com/shunt-lb/shunt/realserver"
)

// TestNamed says what of a command stands for the server, and what only looks like it.
func TestNamed(t *testing.T) {
	for _, test := range []struct {
		server, argument, want string
	}{
		{"10.0.0.1:80", "10.0.0.1", "%h"},
		{"10.0.0.1:80", "10.0.0.1:80", "%h:%p"},
		{"10.0.0.1:80", "http://10.0.0.1:80/a80?x=80", "http://%h:%p/a80?x=%p"},
		{"10.0.0.1:80", "80", "%p"},
		{"10.0.0.1:80", "--warn=80", "--warn=80"},
		{"10.0.0.1:80", "10.0.0.10 110.0.0.1 10.0.0.1.", "10.0.0.10 110.0.0.1 10.0.0.1."},
		{"10.0.0.1:0", "10.0.0.1:0", "%h:0"},
		{"10.0.0.1:80", "%%h", "%%h"},
		{"[2001:db8::1]:80", "[2001:db8::1]:80", "[%h]:%p"},
		{"[2001:db8::1]:80", "2001:db8::1:2 2:2001:db8::1", "2001:db8::1:2 2:2001:db8::1"},
	} {
		got := translation.Named([]string{"/10.0.0.1", test.argument}, netip.MustParseAddrPort(test.server))
		if want := []string{"/10.0.0.1", test.want}; !slices.Equal(got, want) {
			t.Errorf("%s of %s: %q, want %q", test.argument, test.server, got, want)
		}
	}
	if got := translation.Named(nil, netip.AddrPort{}); len(got) != 0 {
		t.Errorf("no command became %q", got)
	}
}

// built makes a service of servers that are asked the checks.
func built(t *testing.T, checks ...realserver.Check) translation.Result {
	t.Helper()
	s := service(1, "tcp://192.0.2.1:80", "web")
	for i, check := range checks {
		source := translation.Source{At: at(i + 2), What: "check"}
		s.AddServer(realserver.Server{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 80), Weight: 1},
			translation.Source{At: at(i + 2), What: "server", Asked: []translation.Asked{{Source: source, Check: check}}})
	}
	var b translation.Builder
	b.File("f")
	if err := b.Add(s); err != nil {
		t.Fatal(err)
	}
	result, err := b.Result()
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// TestCommonCheck says what is asked where servers differ in what they are to answer.
func TestCommonCheck(t *testing.T) {
	http := func(digest, match string, status uint16) realserver.Check {
		return realserver.Check{Kind: realserver.CheckHTTP, HTTP: &realserver.HTTPCheck{
			Path: "/a", Digest: digest, Match: match, Status: []realserver.StatusRange{{First: status, Last: status}},
		}}
	}
	tcp := func(expect string, interval int) realserver.Check {
		c := realserver.Check{Kind: realserver.CheckTCP, Exchange: &realserver.ExchangeCheck{Send: []byte("x"), Expect: expect}}
		c.Interval = realserver.MinCheckInterval * 100
		c.Fall = uint16(interval)
		return c
	}
	script := func(host, user string) realserver.Check {
		return realserver.Check{Kind: realserver.CheckScript, Script: &realserver.ScriptCheck{Command: []string{"/ask", host}, User: user}}
	}
	md5 := strings.Repeat("0a", 16)
	for name, test := range map[string]struct {
		checks []realserver.Check
		want   string
		kinds  []translation.Kind
	}{
		"same":      {[]realserver.Check{http(md5, "", 200), http(md5, "", 200)}, "http path /a status [200] digest " + md5, nil},
		"body":      {[]realserver.Check{http(md5, "a", 200), http("", "b", 200)}, "http path /a status [200]", []translation.Kind{translation.Differs}},
		"status":    {[]realserver.Check{http("", "", 200), http("", "", 204), http("", "", 204)}, "http path /a status [200 204]", []translation.Kind{translation.Differs}},
		"expect":    {[]realserver.Check{tcp("a", 1), tcp("b", 1)}, `tcp send "x" every 10s fall 1`, []translation.Kind{translation.Differs}},
		"pace":      {[]realserver.Check{tcp("a", 1), tcp("a", 2)}, `tcp send "x" expect "a" every 10s fall 1`, []translation.Kind{translation.Differs}},
		"script":    {[]realserver.Check{script("10.0.0.1", "a"), script("10.0.0.2", "a")}, `script command ["/ask" "%h"] user a`, []translation.Kind{translation.Assumed}},
		"user":      {[]realserver.Check{script("10.0.0.1", "a"), script("10.0.0.2", "b")}, `script command ["/ask" "%h"] user a`, []translation.Kind{translation.Assumed, translation.Differs}},
		"literally": {[]realserver.Check{script("10.0.0.1", ""), script("10.0.0.1", "")}, `script command ["/ask" "10.0.0.1"]`, nil},
		"otherwise": {[]realserver.Check{script("a", ""), script("b", "")}, "", []translation.Kind{translation.NotCarried, translation.NotCarried}},
		"kinds":     {[]realserver.Check{tcp("a", 1), http("", "", 200)}, "", []translation.Kind{translation.NotCarried, translation.NotCarried}},
		"not_valid": {[]realserver.Check{{Kind: "ftp"}}, "", []translation.Kind{translation.NotCarried}},
		"no_text":   {[]realserver.Check{script("\xff", "")}, "", []translation.Kind{translation.NotCarried}},
	} {
		t.Run(name, func(t *testing.T) {
			result := built(t, test.checks...)
			var got string
			for _, line := range strings.Split(result.String(), "\n") {
				if text, ok := strings.CutPrefix(line, "  check "); ok {
					got += text
				}
			}
			var kinds []translation.Kind
			for _, n := range result.Notes {
				kinds = append(kinds, n.Kind)
			}
			if got != test.want || !slices.Equal(kinds, test.kinds) {
				t.Errorf("check %s, want %s; notes:\n%s", got, test.want, result)
			}
		})
	}
}
