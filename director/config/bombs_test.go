package config_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director/config"
)

// No text takes much memory or goes through without a word: the limits are on
// bytes, and on what a byte can become.
func TestBombs(t *testing.T) {
	const mega = 1 << 20
	var aliases strings.Builder
	aliases.WriteString("a0: &a0 [x]\n")
	for i := 1; i < 10; i++ {
		fmt.Fprintf(&aliases, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10), ","))
	}
	aliases.WriteString("services: *a9\n")
	tests := []struct{ name, text, want string }{
		{"aliases", aliases.String(), "f:11:11: services: aliases are not supported"},
		{"itself", "services: &a [*a]\n", "f:1:11: services: anchors are not supported"},
		{"large", "services: [" + strings.Repeat("x, ", 10*mega/3) + "]", "f: the configuration is larger than 4 MiB: divide it"},
		{"values", "services: [" + strings.Repeat("x,", mega) + "]", "f: the configuration has more than 262144 lines and values"},
		{"empty_values", "services: [" + strings.Repeat("{},", mega) + "]", "f: the configuration has more than 262144 lines and values"},
		{"lines", strings.Repeat("#\n", mega), "f: the configuration has more than 262144 lines and values"},
		{"carriage_returns", strings.Repeat("\r", mega), "f: the configuration has more than 262144 lines and values"},
		{"text", "director: {mode: " + strings.Repeat("x", 3*mega) + "}", "f:1:18: director.mode: the value has 3145728 bytes: want 4096 at most"},
		{"quoted", "director: {state: \"" + strings.Repeat("\\n", mega) + "\"}", "f:1:19: director.state: the value has 1048576 bytes"},
		{"key", "director: {\"" + strings.Repeat("é", mega) + "\": 1}", `f:1:12: director: unknown key "` + strings.Repeat("é", 32) + `…": want`},
		{"keys", strings.Repeat("x: y\n", 200_000), "f:1:1: the configuration: unknown key \"x\""},
		{"services", "services: [" + strings.Repeat("{},", 80_000) + "]", "f:1:12: services[0].listen: the key is missing"},
		{"same_services", "services: [" + strings.Repeat("{listen: 'tcp://192.0.2.1:80', servers: []},", 30_000) + "]", "is services[0] already"},
		{"deep", "services: " + strings.Repeat("[", 200_000), "exceeded max depth of 10000"},
		{"deep_block", "services:\n" + strings.Repeat("- ", 200_000), "exceeded max depth of 10000"},
		{"deep_keys", strings.Repeat("? ", 200_000), "exceeded max depth of 10000"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for name, read := range map[string]func() error{
				"Parse": func() error { _, err := config.Parse("f", []byte(tt.text)); return err },
				"Fmt":   func() error { _, err := config.Fmt("f", []byte(tt.text)); return err },
			} {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				err := read()
				runtime.ReadMemStats(&after)
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%s: %.300v, want %s", name, err, tt.want)
				}
				if used := (after.TotalAlloc - before.TotalAlloc) / mega; used > 600 { // with the race detector too
					t.Errorf("%s took %d MiB in all", name, used)
				}
				if n := len(config.Report(err)); n > mega/4 {
					t.Errorf("%s: a report of %d bytes", name, n)
				}
			}
		})
	}
}
