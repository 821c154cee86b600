package config_test

import (
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config"
)

var seeds = []string{
	odd, inDesign,
	"", "services: [*a]", "a: &a [*a]", "? {a: b}\n: c", "services: [{listen: tcp://1.2.3.4:5, method: nat, servers: [{address: 1.2.3.5}]}]",
	"director: {interfaces: [a], connections: {timeouts: {udp: 9223372036854775807ns}}}", "--- !!binary x", "services: !!set {a, b}",
	"%YAML 1.2\n# a\n--- # b\nservices: # c\n# d\n... # e\n# f",
	"services:\n- # a\n  listen: 'udp://[2001:db8::1]:1' # b\n  # c\n  access: {deny: [::/0, 2001:db8::1], # d\n   allow: []} # e\n  servers: [] #f\n   # g\n",
	"director: {state: \"/a\\tb \\\"#\\u2028\", socket: '/it''s #', pin-dir: /a#b\n  c #d\n }", "\ufeffdirector:\r\n  log: {}\u2028  # x\r",
	"director: {dataplane: ipvs, interfaces: [a], sync: [{role: backup, max-length: 1, group: ff02::1}]}\nservices: [{listen: 'fwmark6://07', method: tunnel, tunnel: {type: GRE}, servers: [{address: '::1', tunnel: {}}]}]",
	"director: {connections: {counters: true, sources: 1}}\nservices: [{listen: 'tcp://192.0.2.1:80', limits: {rate: 1Ki, source: {prefix: 1, connections: 4294967295}}, guard: {mode: auto, off: 1}, servers: []}]",
	"director: {removal-limit: 007%, reconcile: .5s, history: 0100, api: {listen: ':1', certificate: /c, key: /k, tokens: /t}}",
}

// Parse never panics, gives a valid state or an error of a known kind, never
// both, and Format writes what Parse reads as the same state.
func FuzzParse(f *testing.F) {
	for _, name := range references {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, seed := range seeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := config.Parse("fuzz", data)
		if err != nil {
			if !errors.Is(err, director.ErrInvalid) && !errors.Is(err, director.ErrUnsupported) {
				t.Errorf("error %v of no kind", err)
			}
			if config.Report(err) == "" {
				t.Errorf("no report of %v", err)
			}
			return
		}
		if err := (director.State{Services: cfg.State.Services, Sync: cfg.State.Sync}).Validate(); err != nil {
			t.Errorf("the state of a configuration without errors: %v", err)
		}
		text, err := config.Format(cfg.State)
		if err != nil {
			t.Fatal(err)
		}
		again, err := config.Parse("again", text)
		if diff := cmp.Diff(cfg.State, again.State, cmpNetip); diff != "" || err != nil {
			t.Errorf("format: %v (-state +of its format):\n%s", err, diff)
		}
	})
}

// Fmt gives a text of the same meaning with the same comments, which is its own
// format, or the errors.
func FuzzFmt(f *testing.F) {
	for _, seed := range seeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if text, err := config.Fmt("fuzz", data); err == nil {
			checkFmt(t, data)
		} else if text != nil {
			t.Errorf("a text with the error %v", err)
		}
	})
}
