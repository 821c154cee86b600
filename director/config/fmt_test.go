package config_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shunt-lb/shunt/director/config"
)

func TestFmtReference(t *testing.T) {
	for _, name := range []string{"testdata/reference.yaml", "testdata/reference-ipvs.yaml", "testdata/conf.d/mail.yaml"} {
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := config.Fmt(name, want)
		if diff := cmp.Diff(string(want), string(got)); diff != "" || err != nil {
			t.Errorf("%s is not its own format: %v (-want +got):\n%s", name, err, diff)
		}
	}
}

func TestFmt(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"empty", "", ""},
		{"comments_only", "\n\n  # a\n\n\n# b  \n", "# a\n\n# b\n"},
		{"nothing", "--- # a\n{} # b\n...\n", "# a\n# b\n"},
		{
			"order", "services: [] # none\ninclude: ['x.yaml']\n\n# the daemon\ndirector: {log: {format: json, level: info}, mode: \"native\"}\n",
			`# the daemon
director:
  mode: native
  log: {level: info, format: json}

include: [x.yaml]

services: []  # none
`,
		},
		{
			"header_and_trailer", "# header\n\n# of services\nservices: []\n\ndirector: {}\n\n# trailer\n",
			"# header\n\ndirector: {}\n\n# of services\nservices: []\n\n# trailer\n",
		},
		{
			"services", `services:
# first
- servers: [ {weight: 2,address: 10.0.0.1:80}, {address: "10.0.0.2"} ] # two
  method:   'nat'
  # where

  listen:   "tcp://192.0.2.1:80"
  name: "123"   # a number
  # later:
  # vip: external
-   {listen: "udp://[2001:db8::1]:53", servers: [], access: {deny: ["::/0", "2001:db8::"]}} # dns
#- listen: none
`, `services:
  # first
  - name: "123"  # a number
    # later:
    # vip: external
    # where

    listen: tcp://192.0.2.1:80
    method: nat
    servers:  # two
      - {address: 10.0.0.1:80, weight: 2}
      - {address: 10.0.0.2}

  # dns
  - listen: udp://[2001:db8::1]:53
    access: {deny: ["::/0", "2001:db8::"]}
    servers: []
  #- listen: none
`,
		},
		{
			"flow_with_comments", "director: {interfaces: [ # two\n  eth0, # up\n  # down\n  'eth1' ], # end\n  connections: {max: 1Mi, # many\n    timeouts: {udp: 5m}}}\n",
			`director:
  interfaces:  # two # end
    - eth0     # up
    # down
    - eth1
  connections:
    max: 1Mi  # many
    timeouts: {udp: 5m}
`,
		},
		{
			"too_long", "services: [{listen: 'tcp://192.0.2.1:80', servers: [], access: {allow: [" + strings.Repeat("10.0.0.0/8, ", 1) + "198.51.100.0/24, 203.0.113.0/24, 192.0.2.0/24, 192.168.100.0/24, 172.16.100.0/24]}}]",
			`services:
  - listen: tcp://192.0.2.1:80
    access:
      allow:
        - 10.0.0.0/8
        - 198.51.100.0/24
        - 203.0.113.0/24
        - 192.0.2.0/24
        - 192.168.100.0/24
        - 172.16.100.0/24
    servers: []
`,
		},
		{
			"hash_in_text", "director: {socket: \"/a #b\\\"'#c\", state: '/it''s #', pin-dir: /a#b, log: {level: info}} #c\n",
			"director:  #c\n  state: \"/it's #\"\n  socket: \"/a #b\\\"'#c\"\n  pin-dir: \"/a#b\"\n  log: {level: info}\n",
		},
		{"long_text", "director:\n  state: /a\n    b # c\n  socket: \"/x\\\n    y\" # d\n  pin-dir: /\u00e9\\\n", "director:\n  state: \"/a b\"  # c\n  socket: /xy    # d\n  pin-dir: \"/é\\\\\"\n"},
		{"crlf", "director:\r\n  mode: native # a\r\n\r\n  # b\r\n  log: {}\r\n", "director:\n  mode: native  # a\n\n  # b\n  log: {}\n"},
		{"byte_order_mark", "\ufeffdirector: {} # a\n", "director: {}  # a\n"},
		{"explicit_keys", "? services # a\n: # b\n- ? listen\n  : tcp://192.0.2.1:80 # c\n  ? servers\n  : []\n", "services:                       # a # b\n  - listen: tcp://192.0.2.1:80  # c\n    servers: []\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := config.Fmt("f", []byte(tt.text))
			if diff := cmp.Diff(tt.want, string(got)); diff != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
			checkFmt(t, []byte(tt.text))
		})
	}
}

func TestFmtRefuses(t *testing.T) {
	got, err := config.Fmt("f", []byte("director: {mode: x}\n"))
	wantErrors(t, err, `f:1:18: director.mode: unknown word "x": want native or generic`)
	if got != nil || !strings.Contains(config.Report(err), "  1 | director: {mode: x}\n") {
		t.Errorf("%q, %s", got, config.Report(err))
	}
}

// checkFmt holds Fmt to its promises about a text without errors.
func checkFmt(t interface {
	Helper()
	Errorf(format string, args ...any)
}, text []byte,
) {
	t.Helper()
	once, err := config.Fmt("f", text)
	if err != nil {
		t.Errorf("%v of\n%s", err, text)
		return
	}
	twice, err := config.Fmt("f", once)
	if diff := cmp.Diff(string(once), string(twice)); diff != "" || err != nil {
		t.Errorf("formatted again: %v (-once +twice):\n%s\nof\n%q", err, diff, text)
	}
	if before, after := config.Meaning(text), config.Meaning(once); !cmp.Equal(before, after, cmpNetip) {
		t.Errorf("another meaning (-before +after):\n%s\nof\n%q", cmp.Diff(before, after, cmpNetip), text)
	}
	// Two comments may share a line afterwards, so the words are compared.
	words := func(text []byte) []string {
		all := strings.Fields(strings.Join(config.Comments(text), " "))
		slices.Sort(all)
		return all
	}
	if diff := cmp.Diff(words(text), words(once)); diff != "" {
		t.Errorf("comments (-before +after):\n%s\nof\n%q", diff, text)
	}
}

// odd is a configuration in no order, with every form of collection.
const odd = `services:
- servers:
  - weight: 1
    address: 10.0.0.1
  - {address: 10.0.0.2,
     weight: 7}
  listen: tcp://192.0.2.1:80
  method: nat
  access:
    deny: [10.0.0.0/8,
      192.0.2.0/24
    ]
    allow:
    - 198.51.100.1
- {listen: "udp://[2001:db8::1]:53",
   servers: [], name: dns}
-
  servers: []
  listen:
    tcp://192.0.2.1:81
director:
  log:
    level: info
  interfaces:
    - eth0
    - eth1
  connections: {timeouts: {tcp: 5m},
    max: 64Ki}
include: [
  a,
  b
]
`

// Wherever comments and empty lines are, formatting keeps and settles them.
func TestFmtKeepsComments(t *testing.T) {
	reference, err := os.ReadFile("testdata/reference.yaml")
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SampledFrom([]string{odd, odd, string(reference)}).Draw(t, "text")
		var b strings.Builder
		n := 0
		comment := func() string { n++; return fmt.Sprintf("# c%d", n) }
		insert := func() {
			for range rapid.OneOf(rapid.Just(0), rapid.Just(0), rapid.IntRange(0, 3)).Draw(t, "lines") {
				if rapid.Bool().Draw(t, "blank") {
					b.WriteString("\n")
				} else {
					b.WriteString(strings.Repeat(" ", rapid.IntRange(0, 9).Draw(t, "indent")) + comment() + "\n")
				}
			}
		}
		for line := range strings.Lines(text) {
			insert()
			if rapid.IntRange(0, 3).Draw(t, "behind") == 0 && !strings.Contains(line, "#") {
				line = strings.TrimSuffix(line, "\n") + " " + comment() + "\n"
			}
			b.WriteString(line)
		}
		insert()
		checkFmt(t, []byte(b.String()))
	})
}

// The comments that Comments finds are those that are there.
func TestComments(t *testing.T) {
	for text, want := range map[string][]string{
		"a: b#c #d\n#e":              {"#d", "#e"},
		"a: 'x''#' #b":               {"#b"},
		`a: "\"#" #b`:                {"#b"},
		"a: [b,#c\n d]#e":            {"#c", "#e"},
		"a: {b: c #d\n}\n":           {"#d"},
		"a: b\n  c #d\n":             {"#d"},
		"a: b,#c\n":                  nil,
		"'a #b': \"c\n\n  #d\" # e ": {"# e"},
		"# é\ta\t\r\n--- #b":         {"# é\ta", "#b"},
	} {
		if diff := cmp.Diff(want, config.Comments([]byte(text))); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}
