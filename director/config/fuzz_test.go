package config_test

import (
	"errors"
	"os"
	"testing"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config"
)

// Parse never panics, gives a valid state or an error of a known kind, never
// both.
func FuzzParse(f *testing.F) {
	data, err := os.ReadFile("testdata/reference.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	for _, seed := range []string{
		"", "services: [*a]", "a: &a [*a]", "? {a: b}\n: c", "services: [{listen: tcp://1.2.3.4:5, method: nat, servers: [{address: 1.2.3.5}]}]",
		"director: {interfaces: [a], connections: {timeouts: {udp: 9223372036854775807ns}}}", "--- !!binary x", "services: !!set {a, b}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := config.Parse("fuzz", data)
		if err != nil {
			if !errors.Is(err, director.ErrInvalid) && !errors.Is(err, director.ErrUnsupported) {
				t.Errorf("error %v of no kind", err)
			}
			return
		}
		if err := (director.State{Services: cfg.State.Services}).Validate(); err != nil {
			t.Errorf("the state of a configuration without errors: %v", err)
		}
	})
}
